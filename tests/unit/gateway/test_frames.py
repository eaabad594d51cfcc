"""Rows for those who look: out of a real log, over ring and store, and latest values of every kind in columns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.bus.bus import Bus
from framegate.bus.latest import EXACT_MAX
from framegate.bus.store import Store, StoreOptions, open_store
from framegate.contract.errors import DeviceRefused
from framegate.contract.frame import Batch, ValueType, uniform_quality, uniform_time
from framegate.contract.quality import Quality
from framegate.endpoint.clock import SystemClock
from framegate.gateway import frames as module
from framegate.gateway.frames import Frames
from framegate.observe.api_face import FrameRow
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import CollectingLog

NS = 1_795_000_000 * 10**9
ROUNDS = 50


class Log:
    """A bus over a store, with tags a, b and c; RING_ROWS rows of it stay in memory."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self.store, self.bus, self.frames = store, bus, Frames(bus, store)
        catalogue = store.catalogue
        self.ids = [catalogue.intern(name, "d", ValueType.FLOAT64, "", "R") for name in ("a", "b", "c")]
        self.column = np.array(self.ids, np.int32)

    def publish(self, value: Any, quality: int = 0, time_ns: int = NS) -> None:
        column = np.asarray(value)
        tag = self.column if len(column) == 3 else self.column[: len(column)].copy()
        self.bus.publish([Batch(tag, column, uniform_quality(quality), uniform_time(time_ns), time_ns)])


def _unmapped(batch: Batch) -> Sequence[Batch]:
    return (batch,)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    clock, metrics = SystemClock(), Metrics()
    options = StoreOptions(commit_interval_s=0.001, ballast_bytes=0, reserve_bytes=0)
    store = await open_store(tmp_path, options, clock, CollectingLog(), metrics)
    yield Log(store, Bus(store.wal, _unmapped, clock, CollectingLog(), metrics, 32))
    await store.close()


async def filled(log: Log) -> None:
    for number in range(ROUNDS):
        log.publish([number + 0.1, number + 0.2, number + 0.3], time_ns=NS + number)
        await log.bus.flush()


async def test_history_is_newest_first_through_ring_and_store(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_ROWS", 7)
    await filled(log)
    pages: list[FrameRow] = []
    before = 0
    while True:
        page = await log.frames.history("b", before, 9)
        pages += page.rows
        before = page.before
        if not before:
            break
    assert [row.value for row in pages] == [number + 0.2 for number in reversed(range(ROUNDS))]
    assert [row.position for row in pages] == [3 * number + 2 for number in reversed(range(ROUNDS))]
    assert [row.source_time for row in pages] == [NS + number for number in reversed(range(ROUNDS))]


async def test_history_looks_only_so_far_at_once_and_says_where_to_go_on(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HISTORY_ROWS_MAX", 30)
    await filled(log)
    page = await log.frames.history("a", 0, 1_000)
    assert [row.position for row in page.rows] == [148 - 3 * number for number in range(10)]
    assert page.before == 121
    assert (await log.frames.history("a", 121, 1_000)).rows[0].position == 118


async def test_history_of_an_unknown_tag_is_refused(log: Log) -> None:
    with pytest.raises(DeviceRefused, match="E4014 tag nix"):
        await log.frames.history("nix", 0, 1)


async def test_frames_of_a_range_are_all_of_it(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_ROWS", 4)
    await filled(log)
    assert log.frames.bounds() == (1, 3 * ROUNDS)
    rows = await log.frames.read(2, 140, 1_000)
    assert [row.position for row in rows if isinstance(row, FrameRow)] == list(range(2, 141))
    assert len(await log.frames.read(2, 140, 5)) == 5
    assert await log.frames.read(151, 999, 5) == []


async def test_match_goes_by_pattern_prefix_and_permission(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_NAMES", 2)
    everybody = (await log.frames.match("", lambda _: True)).tolist()
    assert everybody == log.ids
    assert (await log.frames.match("[ab]", lambda name: name != "a")).tolist() == [log.ids[1]]


@pytest.mark.parametrize(
    ("value", "numbers", "is_object", "is_wide"),
    [
        ([1.5, -2.0, 0.0], [1.5, -2.0, 0.0], False, False),
        ([-7, 0, 9], [-7.0, 0.0, 9.0], False, False),
        (np.array([2**63 + 5, 2**54, 2**60], np.uint64), [float(2**63 + 5), float(2**54), float(2**60)], False, True),
        ([True, False, True], [1.0, 0.0, 1.0], False, False),
        (np.array(["on", b"x", [1, 2]], object), [np.nan] * 3, True, False),
    ],
    ids=["float", "int", "uint", "bool", "object"],
)
async def test_latest_columns_hold_every_kind(
    log: Log, value: Any, numbers: list[float], is_object: bool, is_wide: bool
) -> None:
    log.publish(value)
    found = log.frames.latest(np.array([*log.ids, 0, 10_000], np.int64))
    np.testing.assert_array_equal(found.value[:3], numbers)
    assert found.is_read.tolist() == [True, True, True, False, False]
    assert found.is_object.tolist() == [is_object] * 3 + [False] * 2
    assert found.is_wide.tolist() == [is_wide] * 3 + [False] * 2
    assert EXACT_MAX == 2**53


async def test_latest_columns_change_with_value_quality_and_text(log: Log) -> None:
    ids = np.array(log.ids, np.int64)
    log.publish([1.0, 2.0, 3.0])
    first = log.frames.latest(ids)
    log.publish([1.0, 2.5, 3.0])
    second = log.frames.latest(ids)
    assert (first.raw != second.raw).tolist() == [False, True, False]
    log.publish([1.0, 2.5, 3.0], quality=Quality.BAD_TIMEOUT)
    third = log.frames.latest(ids)
    assert np.isnan(third.value).all()
    assert (third.quality != second.quality).all()
    log.publish(np.array(["a", "b", "c"], object), time_ns=NS + 1)
    before = log.frames.latest(ids)
    log.publish(np.array(["a", "x", "c"], object), time_ns=NS + 2)
    assert (log.frames.latest(ids).raw != before.raw).all()
