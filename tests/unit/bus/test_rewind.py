"""Rewinds: a cursor set back by an operator stays back, whatever happens, and everybody can see who did it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from framegate.bus import inspect
from framegate.bus.bus import Bus
from framegate.bus.opening import HIGH_WATER
from framegate.bus.rewinds import REWINDS_MAX, Rewind, RewindBook
from framegate.bus.store import Store
from framegate.contract.errors import Misconfigured, StoreFailed
from framegate.contract.frame import Batch, Position

OpenAt = Callable[..., Awaitable[Store]]
SECOND_NS = 1_000_000_000


async def acknowledged(store: Store, bus: Bus, batch: Callable[..., Batch], rows: int = 500) -> None:
    """So many rows, all of them acknowledged by connector "cloud"."""
    for number in range(rows // 10):
        bus.publish([batch(10, number)])
    store.cursors.load("cloud")
    store.cursors.commit("cloud", Position(rows))
    await bus.flush()


async def test_rewind_sets_the_cursor_back_and_says_so(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch], log: Any
) -> None:
    store = await open_at(tmp_path)
    await acknowledged(store, bus_on(store), batch)
    plan = store.plan_rewind("cloud", Position(101), 0, "uid 7")
    assert (plan.before, plan.after, plan.rows) == (500, 100, 400)
    assert store.cursors.load("cloud") == 500, "a plan changes nothing"
    await store.rewind(plan)
    assert store.cursors.load("cloud") == 100
    assert ("info", "cursor_rewound") in [(level, event) for level, event, _ in log.lines]
    store.cursors.commit("cloud", Position(120))
    assert store.cursors.load("cloud") == 120
    await store.close()

    again = await open_at(tmp_path)
    assert again.cursors.load("cloud") == 120
    assert again.books.rewinds.all() == (plan,)
    await again.close()
    assert inspect.stat(tmp_path).rewinds == (plan,)


async def test_rewind_is_in_the_mark_outside_the_store_at_once(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch]
) -> None:
    """The mark outside the store is read as the higher of both: it must have been set back too."""
    store = await open_at(tmp_path)
    await acknowledged(store, bus_on(store), batch)
    await store.rewind(store.plan_rewind("cloud", Position(1), 0, "uid 7"))
    mark = (tmp_path / HIGH_WATER).read_bytes()
    await store.close()
    (tmp_path / HIGH_WATER).write_bytes(mark)
    again = await open_at(tmp_path)
    assert again.cursors.load("cloud") == 0


async def test_rewind_since_a_time_takes_everything_from_then_on(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch], clock: Any
) -> None:
    store = await open_at(tmp_path, retention_bytes=1 << 20, keep_acked_bytes=1 << 20)  # a mark every 64 KiB
    bus, start_ns = bus_on(store), clock.wall_ns
    for number in range(100):
        bus.publish([batch(1_000, number, time_ns=start_ns + number * SECOND_NS)])
    store.cursors.load("cloud")
    store.cursors.commit("cloud", store.wal.head)
    await bus.flush()
    assert len(store.books.marks.all()) > 5
    wanted = 50 * 1_000 + 1
    plan = store.plan_rewind("cloud", None, start_ns + 50 * SECOND_NS, "uid 7")
    assert plan.after < wanted, "no row of that time is left out"
    assert plan.after > wanted - 20_000, "at most a stretch too many"
    assert store.plan_rewind("cloud", None, 1, "uid 7").after == 0
    last = store.plan_rewind("cloud", None, start_ns + 10_000 * SECOND_NS, "uid 7")
    assert last.after + 1 == store.books.marks.all()[-1].first


async def test_rewind_below_what_is_kept_begins_at_the_oldest_row(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch]
) -> None:
    store = await open_at(tmp_path)
    await acknowledged(store, bus_on(store), batch)
    store.books.trim_to(Position(301))
    assert store.plan_rewind("cloud", Position(5), 0, "uid 7").after == 300


@pytest.mark.parametrize(("connector", "first"), [("nobody", 1), ("cloud", 501), ("cloud", 10_000)])
async def test_rewind_that_is_none_is_refused(
    tmp_path: Path,
    open_at: OpenAt,
    bus_on: Callable[..., Bus],
    batch: Callable[..., Batch],
    connector: str,
    first: int,
) -> None:
    store = await open_at(tmp_path)
    await acknowledged(store, bus_on(store), batch)
    with pytest.raises(Misconfigured, match="E4030 connector"):
        store.plan_rewind(connector, Position(first), 0, "uid 7")


async def test_book_of_rewinds_keeps_the_newest_and_sees_damage(tmp_path: Path, open_at: OpenAt) -> None:
    store = await open_at(tmp_path)
    for number in range(1, REWINDS_MAX + 4):
        store.books.rewinds.add(Rewind("cloud", Position(number), Position(0), "uid 7", number))
    await store.wal.flush()
    book = RewindBook(store.disk)
    book.load()
    assert [rewind.time for rewind in book.all()] == list(range(4, REWINDS_MAX + 4))
    key, data = next(store.disk.scan("meta", b"r", b"s"))
    store.disk.write([("meta", key, data[:-1] + bytes((data[-1] ^ 1,)))])
    with pytest.raises(StoreFailed, match="E3003"):
        RewindBook(store.disk).load()
