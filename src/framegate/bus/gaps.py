"""Gaps: ranges of positions that will never be delivered, each with its reason, so that loss is never silent.

Kept in memory in order of position, and in the store under their first position. A gap that continues the newest
one for the same reason extends it: an hour of a full disk is one gap, not a million. Gaps far below the oldest row
kept are forgotten once there are too many; what lies there is answered as one range by whoever reads (see
replay.py).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Literal

import google_crc32c
import orjson

from framegate.bus.fault import damaged
from framegate.bus.record import key_of, position_of
from framegate.contract.frame import Gap, Position
from framegate.contract.ports import Change, Disk

GAPS_MAX = 4_096
Reason = Literal["retention", "disk_full", "damage"]
_REASONS: dict[str, Reason] = {"retention": "retention", "disk_full": "disk_full", "damage": "damage"}


class GapBook:
    """Every gap that is still worth telling.

    rows  rows that gaps of this run stand for, by reason
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._gaps: list[Gap] = []
        self._changed: dict[int, None] = {}
        self._dropped: list[int] = []
        self._doomed: list[tuple[int, int]] = []
        self.rows: dict[Reason, int] = {"retention": 0, "disk_full": 0, "damage": 0}

    def load(self) -> None:
        """Read the store; raises StoreFailed E3003."""
        for key, data in self._disk.scan("gaps", b""):
            self._gaps.append(decode_gap(key, data))

    def __len__(self) -> int:
        return len(self._gaps)

    def add(self, first: int, last: int, reason: Reason, detail: str, time_ns: int, connector: str = "") -> int:
        """Note that a range is lost; what an older gap holds already is left out. Returns the rows that are new.

        The caller commits what take_changes hands out.

        connector  the only one that needed the rows; "" = every connector
        """
        new = 0
        if reason == "damage":  # nobody will read these rows, whatever becomes of the gap
            self._doomed = [part for range_ in self._doomed for part in _outside(*range_, [(first, last)])]
        for start, stop in self.uncovered(first, last):
            new += stop - start + 1
            index = bisect_left(self._gaps, start, key=_first)
            before = self._gaps[index - 1] if index else None
            if before and before.last + 1 == start and before[2:5] == (reason, detail, connector):
                self._gaps[index - 1] = before._replace(last=Position(stop))
                self._changed[before.first] = None
            else:
                self._gaps.insert(index, Gap(Position(start), Position(stop), reason, detail, connector, time_ns))
                self._changed[start] = None
        self.rows[reason] += new
        return new

    def uncovered(self, first: int, last: int) -> list[tuple[int, int]]:
        """The parts of a range that no gap holds, in order."""
        index = bisect_left(self._gaps, first, key=_last)
        return _outside(first, last, (self._gaps[place][:2] for place in range(index, len(self._gaps))))

    def doom(self, first: int, last: int) -> None:
        """The next gap is over rows that are still there: readers get them until `settle`.

        A gap that is told and then lost in a crash would let its rows follow newer ones (O4).
        """
        self._doomed += self.uncovered(first, last)

    def settle(self) -> None:
        """Every gap is durable, and doomed rows may be deleted."""
        self._doomed.clear()

    def after(self, position: int) -> Gap | None:
        """The first gap that ends beyond a position, or the first part of one that is not doomed."""
        for index in range(bisect_right(self._gaps, position, key=_last), len(self._gaps)):
            gap = self._gaps[index]
            if not self._doomed:
                return gap
            for first, last in _outside(max(gap.first, position + 1), gap.last, self._doomed):
                return gap._replace(first=Position(first), last=Position(last))
        return None

    def last_position(self) -> Position:
        return self._gaps[-1].last if self._gaps else Position(0)

    def all(self) -> Sequence[Gap]:
        return tuple(self._gaps)

    def prune(self, below: int) -> None:
        """Forget the oldest gaps beyond GAPS_MAX that end below a position."""
        while len(self._gaps) > GAPS_MAX and self._gaps[0].last < below:
            gap = self._gaps.pop(0)
            self._changed.pop(gap.first, None)
            self._dropped.append(gap.first)

    def take_changes(self) -> Sequence[Change]:
        """What is not yet on its way to the store; the caller now owns it."""
        if not self._changed and not self._dropped:
            return ()
        changes: list[Change] = [("gaps", key_of(first), None) for first in self._dropped]
        for first in self._changed:
            gap = self._gaps[bisect_left(self._gaps, first, key=_first)]
            changes.append(("gaps", key_of(first), encode_gap(gap)))
        self._changed.clear()
        self._dropped.clear()
        return changes


def _outside(first: int, last: int, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of first to last that no range covers; ranges and parts in order."""
    parts = []
    for start, stop in ranges:
        if start > last or first > last:
            break
        if start > first:
            parts.append((first, start - 1))
        first = max(first, stop + 1)
    return [*parts, (first, last)] if first <= last else parts


def encode_gap(gap: Gap) -> bytes:
    """A gap as the store keeps it."""
    body = orjson.dumps([gap.last, gap.reason, gap.detail, gap.connector, gap.time])
    check: int = google_crc32c.value(key_of(gap.first) + body)
    return body + check.to_bytes(4, "little")


def decode_gap(key: bytes, data: bytes) -> Gap:
    """The gap of an entry; raises StoreFailed E3003."""
    if google_crc32c.value(key + data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise damaged(f"gap {key.hex()}", "its check sum is wrong")
    try:
        last, reason, detail, connector, time = orjson.loads(data[:-4])
        return Gap(position_of(key), Position(int(last)), _REASONS[reason], str(detail), str(connector), int(time))
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(f"gap {key.hex()}", str(error)) from error


def _first(gap: Gap) -> int:
    return gap.first


def _last(gap: Gap) -> int:
    return gap.last
