"""Reading over damage: what lies between two damaged records is found, and nothing else is called lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest

from framegate.bus.fault import DAMAGED
from framegate.bus.record import encode, key_of
from framegate.bus.replay import Replay
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, uniform_quality, uniform_time
from framegate.contract.ports import Disk


class RottenDisk:
    """Records in order; a scan ends at a rotten one with an error, as RocksDB's does at a damaged block."""

    def __init__(self, rows: list[int], rotten: set[int]) -> None:
        self.records: list[tuple[bytes, bytes]] = []
        self.rotten = {key_of(first) for first in rotten}
        self.scans = 0
        first = 1
        for count in rows:
            tag, value = np.arange(1, count + 1, dtype=np.int32), np.arange(first, first + count, dtype=np.int64)
            key = key_of(first)
            batch = Batch(tag, value, uniform_quality(0), uniform_time(0), 1)
            self.records.append((key, encode(key, batch, 0)))
            first += count

    def scan(self, family: str, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        assert family == "frames"
        self.scans += 1
        for key, data in self.records:
            if start <= key and (stop is None or key < stop):
                if key in self.rotten:
                    raise StoreFailed(f"key {key.hex()}", code=DAMAGED)
                yield key, data


@pytest.mark.parametrize(
    ("rows", "rotten", "lost"),
    [
        ([2, 2, 1, 1, 1, 1], {5, 7}, [(5, 5), (7, 7)]),  # one readable record between two damaged ones
        ([500, 1, 1, 1, 1], {501, 503}, [(501, 501), (503, 503)]),  # behind a long record
        ([1, 1, 1, 300, 1], {4}, [(4, 303)]),
        ([1, 1, 1], {3}, [(3, 3)]),
        ([3], {1}, [(1, 3)]),
    ],
)
def test_damage_costs_its_own_rows_only(rows: list[int], rotten: set[int], lost: list[tuple[int, int]]) -> None:
    disk = RottenDisk(rows, rotten)
    missing: list[tuple[int, int]] = []
    replay = Replay(
        cast(Disk, disk), lambda _: np.empty(0, np.int32), lambda first, last, _: missing.append((first, last))
    )
    found = [(placed.first, placed.last) for placed in replay.verified(1, sum(rows))]
    assert missing == lost
    assert sum(last - first + 1 for first, last in found + missing) == sum(rows)
    assert disk.scans < 200, "the search behind a damage is bounded"
