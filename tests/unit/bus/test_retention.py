"""Rows that go: delivered ones first, needed ones only behind a durable gap, and the disk gets its space back."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.bus.bus import Bus
from framegate.bus.fault import STALLED
from framegate.bus.inspect import ls, stat, verify
from framegate.bus.marks import Mark
from framegate.bus.record import key_of
from framegate.bus.store import Store
from framegate.bus.wal import WalState
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, Gap, Placed, Position, uniform_quality, uniform_time
from framegate.contract.ports import Change

MEBIBYTE = 1 << 20
HOUR_NS = 3_600_000_000_000
START_NS = 1_700_000_000_000_000_000
OpenAt = Callable[..., Awaitable[Store]]
BusOn = Callable[..., Bus]
SMALL = {"write_buffer_bytes": 256 << 10}


@pytest.fixture
def noise() -> Callable[[int], Batch]:
    """Batches that no compression makes smaller."""
    dice = np.random.default_rng(7)
    tag = np.arange(1, 501, dtype=np.int32)

    def make(time_ns: int = START_NS) -> Batch:
        return Batch(tag, dice.random(500), uniform_quality(0), uniform_time(time_ns), time_ns)

    return make


async def fill(bus: Bus, make: Callable[[int], Batch], batches: int, time_ns: int = START_NS) -> None:
    for number in range(batches):
        bus.publish([make(time_ns)])
        if number % 40 == 39:
            await bus.flush()
    await bus.flush()


async def until(condition: Callable[[], bool], store: Store, deadline_s: float = 20.0) -> None:
    """Let the store look after itself until a condition holds; its own look comes once a second only."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            store.wal.watch(store.disk.bytes_free())
            store._retention.tick(store.disk.bytes_used())
            await asyncio.sleep(0.02)


def refuse(changes: Sequence[Change]) -> None:
    raise StoreFailed("Write stall", code=STALLED)


def drain(bus: Bus, after: int = 0) -> tuple[list[Placed], list[Gap]]:
    """Everything a connector at a position would get; nothing is left out between."""
    rows: list[Placed] = []
    gaps: list[Gap] = []
    position = Position(after)
    while items := bus.read(position, 10_000):
        for item in items:
            assert item.first <= position + 1
            position = item.last
            if isinstance(item, Gap):
                gaps.append(item)
            else:
                rows.append(item)
    assert position == bus.durable
    return rows, gaps


async def test_surplus_that_rounds_above_all_there_is_takes_everything_delivered(
    tmp_path: Path, open_at: OpenAt, bus_on: BusOn, noise: Callable[[int], Batch]
) -> None:
    store = await open_at(tmp_path, keep_acked_bytes=0)
    await fill(bus_on(store), noise, 2)
    store.cursors.commit("c", store.wal.durable)
    marks = store.books.marks
    marks._marks[:] = [Mark(Position(1), 0, START_NS), Mark(Position(501), 120_638, START_NS)]
    marks.bytes = 184_583
    deletion = store._retention._due(bytes_used=13_302)
    assert deletion is not None
    assert (deletion.stop, deletion.lost) == (501, 501)


async def test_delivered_rows_beyond_the_limit_go_and_free_their_space(
    tmp_path: Path, open_at: OpenAt, bus_on: BusOn, noise: Callable[[int], Batch], log: Any
) -> None:
    store = await open_at(tmp_path, keep_acked_bytes=MEBIBYTE, **SMALL)
    bus = bus_on(store, ring_rows=25_000)
    assert store.cursors.load("c") is None
    await fill(bus, noise, 2_500)
    used = store.disk.bytes_used()
    assert used > 9 * MEBIBYTE
    store.cursors.commit("c", store.wal.durable)
    await until(lambda: "wal_deleted" in log.events(), store)
    assert store.disk.bytes_used() < 0.4 * used
    rows, gaps = drain(bus, store.books.trim - 1)
    assert gaps == []
    assert rows[0].first == store.books.trim
    assert key_of(1) < next(store.disk.scan("frames", b""))[0] <= key_of(store.books.trim)
    assert sum(store.books.gaps.rows.values()) == 0


async def test_rows_that_a_connector_needs_stay_within_the_limit(
    tmp_path: Path, open_at: OpenAt, bus_on: BusOn, noise: Callable[[int], Batch]
) -> None:
    store = await open_at(tmp_path, keep_acked_bytes=MEBIBYTE, **SMALL)
    bus = bus_on(store)
    store.cursors.commit("fast", Position(0))
    assert store.cursors.load("slow") is None
    await fill(bus, noise, 500)
    store.cursors.commit("fast", store.wal.durable)
    for _ in range(5):
        store._retention.tick(store.disk.bytes_used())
        await bus.flush()
    assert store.books.trim == 1
    store.cursors.release("slow")
    await until(lambda: store.books.oldest > 1, store)


async def test_needed_rows_beyond_the_limit_become_a_durable_gap_before_they_go(
    tmp_path: Path, open_at: OpenAt, bus_on: BusOn, noise: Callable[[int], Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_at(tmp_path, retention_bytes=3 * MEBIBYTE, keep_acked_bytes=MEBIBYTE, **SMALL)
    bus = bus_on(store, ring_rows=25_000)
    seen: list[list[tuple[bytes, bytes]]] = []
    drop_range = store.disk.drop_range

    def watched(*arguments: Any) -> None:
        seen.append(list(store.disk.scan("gaps", b"")))
        drop_range(*arguments)

    monkeypatch.setattr(store.disk, "drop_range", watched)
    store.cursors.commit("slow", Position(700))
    await fill(bus, noise, 1_500)
    await until(lambda: bool(seen) and store.disk.bytes_used() < 5 * MEBIBYTE, store)
    assert len(seen[0]) == 1, "the gap was in the store before the rows went"
    rows, gaps = drain(bus, 700)
    assert [(gap.first, gap.reason) for gap in gaps] == [(701, "retention")]
    assert gaps[0].last == rows[0].first - 1
    assert sum(gap.last - gap.first + 1 for gap in gaps) == sum(store.books.gaps.rows.values())
    await store.close()
    again = await open_at(tmp_path, **SMALL)
    assert drain(bus_on(again), 700)[1] == gaps


async def test_needed_rows_are_read_until_their_gap_is_durable(
    tmp_path: Path, open_at: OpenAt, bus_on: BusOn, noise: Callable[[int], Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_at(tmp_path, retention_bytes=MEBIBYTE, keep_acked_bytes=MEBIBYTE, **SMALL)
    bus = bus_on(store, ring_rows=25_000)
    store._timer.cancel()  # its own look would come in between
    store.cursors.commit("slow", Position(700))
    await fill(bus, noise, 600)
    with monkeypatch.context() as stalled:
        stalled.setattr(store.disk, "write", refuse)
        await until(lambda: store.books.trim > 701, store)
        rows, gaps = drain(bus, 700)
        assert gaps == [], "a crash would lose the gap, and bring the rows after newer ones"
        assert rows[0].first <= 701
    await until(lambda: store.books.oldest == store.books.trim, store)
    _, gaps = drain(bus, 700)
    assert (gaps[0].first, gaps[0].last) == (701, store.books.trim - 1)


async def test_needed_rows_older_than_the_limit_go_with_a_gap(
    tmp_path: Path, open_at: OpenAt, bus_on: BusOn, noise: Callable[[int], Batch], clock: Any
) -> None:
    store = await open_at(tmp_path, retention_age_s=3_600.0, keep_acked_bytes=MEBIBYTE, **SMALL)
    bus = bus_on(store)
    assert store.cursors.load("slow") is None
    await fill(bus, noise, 200, clock.wall_ns - 2 * HOUR_NS)
    await fill(bus, noise, 200, clock.wall_ns)
    await until(lambda: store.books.oldest > 1, store)
    rows, gaps = drain(bus)
    assert [gap.reason for gap in gaps] == ["retention"]
    assert rows[-1].last == store.wal.head
    assert gaps[0].last < 200 * 500


async def test_clock_that_jumps_ages_no_row(
    tmp_path: Path, open_at: OpenAt, bus_on: BusOn, noise: Callable[[int], Batch], clock: Any, log: Any
) -> None:
    store = await open_at(tmp_path, retention_age_s=3_600.0, keep_acked_s=60.0, keep_acked_bytes=MEBIBYTE, **SMALL)
    bus = bus_on(store)
    await fill(bus, noise, 200, clock.wall_ns)
    clock.wall_ns += 240 * HOUR_NS
    for _ in range(5):
        store._retention.tick(store.disk.bytes_used())
        await bus.flush()
    assert store.books.trim == 1
    assert "wal_clock_stepped" in log.events()


async def test_clock_that_jumps_at_every_look_does_not_fill_the_log(
    tmp_path: Path, open_at: OpenAt, clock: Any, log: Any
) -> None:
    store = await open_at(tmp_path, **SMALL)
    for _ in range(10):
        clock.wall_ns += HOUR_NS
        store._retention.tick(store.disk.bytes_used())
    assert log.events().count("wal_clock_stepped") == 1


async def test_connector_that_comes_late_is_told_what_went_before(
    tmp_path: Path, open_at: OpenAt, bus_on: BusOn, noise: Callable[[int], Batch]
) -> None:
    store = await open_at(tmp_path, keep_acked_bytes=MEBIBYTE, **SMALL)
    bus = bus_on(store, ring_rows=25_000)
    await fill(bus, noise, 1_000)
    await until(lambda: store.books.oldest > 1, store)
    rows, gaps = drain(bus, 10)
    assert [(gap.first, gap.last, gap.reason) for gap in gaps] == [(11, rows[0].first - 1, "retention")]


async def test_inspect_tells_the_facts_beside_the_running_store(
    tmp_path: Path, open_at: OpenAt, bus_on: BusOn, batch: Callable[..., Batch], clock: Any
) -> None:
    store = await open_at(tmp_path)
    bus = bus_on(store)
    for number in range(100):
        bus.publish([batch(10, number)])
    store.wal.drop(5, "disk_full", "why")
    bus.publish([batch(10)])
    store.cursors.commit("c", Position(400))
    await bus.flush()
    facts = stat(tmp_path)
    assert (facts.head, facts.durable, facts.trim, facts.rows, facts.gaps, facts.rows_lost) == (
        1015,
        1015,
        1,
        1010,
        1,
        5,
    )
    assert [(cursor.connector, cursor.position, cursor.lag_rows) for cursor in facts.cursors] == [("c", 400, 615)]
    assert facts.oldest_ns == facts.newest_ns == clock.wall_ns
    entries = ls(tmp_path, after=985, limit=4)
    assert [(entry.first, entry.last, entry.reason) for entry in entries] == [
        (991, 1000, ""),
        (1001, 1005, "disk_full"),
        (1006, 1015, ""),
    ]
    verdict = verify(tmp_path)
    assert (verdict.exit_status, verdict.records, verdict.rows, verdict.last, verdict.high_water) == (
        0,
        101,
        1010,
        1015,
        1015,
    )
    with pytest.raises(StoreFailed, match="E3009"):
        stat(tmp_path / "elsewhere")


async def test_verify_names_rows_that_are_neither_there_nor_in_a_gap(
    tmp_path: Path, open_at: OpenAt, bus_on: BusOn, batch: Callable[..., Batch]
) -> None:
    store = await open_at(tmp_path)
    bus = bus_on(store)
    for number in range(100):
        bus.publish([batch(10, number)])
    await bus.flush()
    store.disk.write([("frames", key_of(501), None), ("frames", key_of(701), b"no record")])
    await store.close()
    verdict = verify(tmp_path)
    assert [(hole.first, hole.last) for hole in verdict.holes] == [(501, 510), (701, 710)]
    assert (verdict.exit_status, verdict.rows) == (1, 980)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


FULL_DISK = {"reserve_bytes": 4 * MEBIBYTE, "ballast_bytes": MEBIBYTE, "keep_acked_bytes": MEBIBYTE, **SMALL}


async def room_in_ring(bus: Bus, store: Store) -> None:
    """Let the log's thread work, unless the disk is full and it cannot."""
    async with asyncio.timeout(5):
        while bus.pending_rows > 10_000 and store.wal.state is not WalState.FULL:  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0.001)


async def publish_until_full(bus: Bus, store: Store, make: Callable[[int], Batch]) -> int:
    """Rows that were refused until the log called the disk full, and a little longer."""
    for _ in range(5_000):
        await room_in_ring(bus, store)
        try:
            bus.publish([make(START_NS)])
        except StoreFailed:
            break
        store.wal.watch(store.disk.bytes_free())
        if store.wal.state is WalState.FULL and store.options.disk_full != "block":
            return 0
    assert store.wal.state is WalState.FULL
    return 500


async def test_full_disk_that_blocks_keeps_cursors_and_resumes_when_there_is_room(
    small_disk: Path, open_at: OpenAt, bus_on: BusOn, noise: Callable[[int], Batch]
) -> None:
    store = await open_at(small_disk, disk_full="block", **FULL_DISK)
    bus = bus_on(store, ring_rows=20_000)
    assert store.cursors.load("c") is None
    (small_disk / "other").write_bytes(bytes(10 * MEBIBYTE))
    refused = await publish_until_full(bus, store, noise)
    assert (refused, bus.is_paused) == (500, True)
    store.cursors.commit("c", Position(10))
    (small_disk / "other").unlink()
    await until(lambda: store.wal.state is WalState.RUNNING, store)
    await bus.flush()
    assert bus.is_paused is False
    rows, gaps = drain(bus)
    assert sum(gap.last - gap.first + 1 for gap in gaps) == refused
    assert sum(item.batch.rows for item in rows) + refused == store.wal.head
    await store.close()
    again = await open_at(small_disk, **FULL_DISK)
    assert (again.cursors.load("c"), again.wal.head) == (10, store.wal.head)


async def test_full_disk_that_drops_new_rows_counts_each_in_a_gap(
    small_disk: Path, open_at: OpenAt, bus_on: BusOn, noise: Callable[[int], Batch]
) -> None:
    store = await open_at(small_disk, disk_full="drop_new", **FULL_DISK)
    bus = bus_on(store)
    assert store.cursors.load("c") is None
    (small_disk / "other").write_bytes(bytes(10 * MEBIBYTE))
    await publish_until_full(bus, store, noise)
    early = store.books.gaps.rows["disk_full"]  # the log may have called the disk full before it was looked at
    for _ in range(20):
        bus.publish([noise(START_NS)])
    assert bus.is_paused is False
    (small_disk / "other").unlink()
    await until(lambda: store.wal.state is WalState.RUNNING, store)
    await until(lambda: store.wal.durable == store.wal.head, store)  # also where only gaps have moved the head
    bus.publish([noise(START_NS)])
    await bus.flush()
    rows, gaps = drain(bus)
    dropped = sum(gap.last - gap.first + 1 for gap in gaps)
    assert (dropped - early, len(gaps)) == (20 * 500, 1)
    assert sum(item.batch.rows for item in rows) + dropped == store.wal.head
    assert dropped == sum(store.books.gaps.rows.values())


async def test_full_disk_that_drops_the_oldest_makes_room_by_itself(
    small_disk: Path, open_at: OpenAt, bus_on: BusOn, noise: Callable[[int], Batch]
) -> None:
    store = await open_at(small_disk, disk_full="drop_oldest", **FULL_DISK)
    bus = bus_on(store, ring_rows=20_000)
    assert store.cursors.load("c") is None
    for number in range(8_000):  # more than the file system holds
        await room_in_ring(bus, store)
        bus.publish([noise(START_NS)])
        store.wal.watch(store.disk.bytes_free())
        if number % 100 == 0 or store.wal.state is WalState.FULL:
            await until(lambda: store.wal.state is WalState.RUNNING, store)
    await bus.flush()
    rows, gaps = drain(bus)
    assert {gap.reason for gap in gaps} == {"disk_full"}
    dropped = sum(gap.last - gap.first + 1 for gap in gaps)
    assert sum(item.batch.rows for item in rows) + dropped == store.wal.head
    assert dropped == sum(store.books.gaps.rows.values())


async def test_disk_filled_by_others_to_the_last_byte_is_survived(
    small_disk: Path, open_at: OpenAt, bus_on: BusOn, noise: Callable[[int], Batch]
) -> None:
    store = await open_at(small_disk, **{**FULL_DISK, "reserve_bytes": 0})
    store._opened.ballast.take(store.disk.bytes_free(), 0)
    assert store._opened.ballast.is_held
    bus = bus_on(store, ring_rows=20_000)
    assert store.cursors.load("c") is None
    await fill(bus, noise, 100)
    glut(small_disk / "other")
    for _ in range(30):
        bus.publish([noise(START_NS)])
        await asyncio.sleep(0.01)
        if store.wal.state is not WalState.RUNNING:
            break
    assert store.wal.state is WalState.FULL
    assert store._opened.ballast.is_held is False or store.wal._is_repairing
    (small_disk / "other").unlink()
    await until(lambda: store.wal.state is WalState.RUNNING, store)
    await bus.flush()
    rows, gaps = drain(bus)
    assert gaps == []
    assert sum(item.batch.rows for item in rows) == store.wal.head


def glut(path: Path) -> None:
    """Fill the file system to its last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (MEBIBYTE, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
