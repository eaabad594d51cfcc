"""Damaged files: never a silent shortening, never wrong bytes, never a hang; what is lost is named exactly."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.bus.bus import Bus
from framegate.bus.fault import IO
from framegate.bus.opening import QUARANTINES_MAX, open_disk
from framegate.bus.options import StoreOptions
from framegate.bus.probe import PROBE_DEADLINE_S, run_child
from framegate.bus.record import key_of
from framegate.bus.rocks import RocksDisk
from framegate.bus.store import Store
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, Gap, Placed, Position, ValueType, uniform_quality, uniform_time
from framegate.testing.fakes import CollectingLog, FakeClock

ROWS = 60
BATCHES = 600
OPEN_S_MAX = 10.0
CURSOR = 1_000
OpenAt = Callable[..., Awaitable[Store]]
BusOn = Callable[..., Bus]


WRITER = f"""
import asyncio, os, sys
from pathlib import Path
import numpy as np
from framegate.bus.bus import Bus
from framegate.bus.store import StoreOptions, open_store
from framegate.contract.frame import Batch, Position, ValueType, uniform_quality, uniform_time
from framegate.endpoint.clock import SystemClock
from framegate.observe.log import make_log
from framegate.observe.metrics import Metrics

async def main():
    small = dict(ballast_bytes=0, write_buffer_bytes=64 << 10, keep_acked_bytes=1 << 20)
    options = StoreOptions(commit_interval_s=0.001, **small)
    clock, metrics, log = SystemClock(), Metrics(), make_log(level="error")
    store = await open_store(Path(sys.argv[1]), options, clock, log, metrics)
    bus = Bus(store.wal, lambda batch: (batch,), clock, log, metrics)
    tag = np.array([store.catalogue.intern(f"t{{n}}", "d", ValueType.INT64, "", "R") for n in range({ROWS})], np.int32)
    for number in range({BATCHES}):
        value = np.arange({ROWS}, dtype=np.int64) + store.wal.head + 1
        bus.publish([Batch(tag, value, uniform_quality(0), uniform_time(0), 1)])
        if number % 20 == 0:
            await bus.flush()
    store.cursors.commit("c", Position({CURSOR}))
    await bus.flush()
    await asyncio.sleep(0.2)  # RocksDB's own work comes to rest
    os._exit(0)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a gateway that died leaves: rows in tables and in RocksDB's log; each row's value is its position."""
    folder = tmp_path_factory.mktemp("died") / "data"
    subprocess.run([sys.executable, "-c", WRITER, str(folder)], check=True, timeout=30)
    logs = [path for path in (folder / "store").glob("*.log") if path.stat().st_size]
    assert logs
    assert list((folder / "store").glob("*.sst"))
    return folder


@pytest.fixture
def filled(tmp_path: Path, image: Path) -> Path:
    """A copy of the image to be damaged."""
    shutil.copytree(image, tmp_path / "data")
    return tmp_path / "data"


async def settled(store: Store) -> None:
    """Until RocksDB has stopped to change its files."""
    folder = tables_of(store)
    async with asyncio.timeout(5):
        while True:
            await asyncio.sleep(0.005)
            if (now := tables_of(store)) == folder:
                return
            folder = now


def tables_of(store: Store) -> list[str]:
    assert isinstance(store.disk, RocksDisk)
    return sorted(path.name for path in store.disk.path.iterdir())


async def read_all(store: Store, bus_on: BusOn, after: int) -> tuple[int, int]:
    """Rows and lost rows after a position; every position is one or the other, in order, with its own value."""
    bus = bus_on(store)
    rows, lost, position = 0, 0, Position(after)
    while position < bus.durable:
        items = bus.read(position, 5_000)
        assert items, f"nothing at {position} although {bus.durable} is durable"
        for item in items:
            assert item.first <= position + 1 <= item.last, "a hole that no gap explains"
            if isinstance(item, Gap):
                assert item.reason == "damage"
                lost += item.last - position
            else:
                assert np.array_equal(item.batch.value, np.arange(item.first, item.last + 1))
                rows += item.last - position
            position = item.last
    return rows, lost


async def check(folder: Path, open_at: OpenAt, bus_on: BusOn) -> tuple[int, int]:
    """Open after damage, read on from the cursor, and write on under positions that are new."""
    began = time.monotonic()
    store = await open_at(folder, write_buffer_bytes=64 << 10)
    assert time.monotonic() - began < OPEN_S_MAX
    total = ROWS * BATCHES
    assert store.wal.head >= total, "positions would be used twice"
    cursor = store.cursors.load("c")
    assert cursor == CURSOR
    rows, lost = await read_all(store, bus_on, cursor)
    assert rows + lost == store.wal.head - cursor
    assert store.wal.head == total, "more is called lost than there was"
    bus = bus_on(store)
    tag = np.full(1, store.catalogue.intern("t0", "d", ValueType.INT64, "", "R"), np.int32)
    bus.publish([Batch(tag, np.array([total + 1]), uniform_quality(0), uniform_time(0), 1)])
    await bus.flush()
    [new] = bus.read(Position(total), 10)
    assert isinstance(new, Placed)
    await store.close()
    again = await open_at(folder, write_buffer_bytes=64 << 10)
    assert await read_all(again, bus_on, cursor) == (rows + 1, lost)
    return rows, lost


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", [".log", ".sst"])
@pytest.mark.parametrize("seed", range(10))
async def test_flipped_bit_is_never_a_silent_loss(
    filled: Path, open_at: OpenAt, bus_on: BusOn, seed: int, suffix: str
) -> None:
    print(f"seed {seed}")  # noqa: T201 - pytest shows it
    dice = random.Random(seed)
    files = sorted(path for path in (filled / "store").glob(f"*{suffix}") if path.stat().st_size)
    flip(dice.choice(files), dice)
    rows, _ = await check(filled, open_at, bus_on)
    assert rows > 0


@pytest.mark.parametrize("name", ["MANIFEST-*", "CURRENT", "OPTIONS-*", "rocksdict-config.json"])
@pytest.mark.parametrize("how", ["deleted", "emptied"])
async def test_lost_list_of_files_loses_no_row(
    filled: Path, open_at: OpenAt, bus_on: BusOn, name: str, how: str
) -> None:
    for path in (filled / "store").glob(name):
        path.write_bytes(b"") if how == "emptied" else path.unlink()
    assert await check(filled, open_at, bus_on) == (ROWS * BATCHES - CURSOR, 0)


@pytest.mark.parametrize("how", ["deleted", "cut"])
async def test_lost_table_loses_its_rows_and_names_them(filled: Path, open_at: OpenAt, bus_on: BusOn, how: str) -> None:
    tables = sorted((filled / "store").glob("*.sst"), key=lambda path: path.stat().st_size)
    if how == "cut":
        tables[-1].write_bytes(tables[-1].read_bytes()[:-1000])
    else:
        tables[-1].unlink()
    rows, lost = await check(filled, open_at, bus_on)
    assert rows > 0
    assert lost > 0


async def test_lost_store_is_one_gap_and_cursors_stay(filled: Path, open_at: OpenAt, bus_on: BusOn) -> None:
    shutil.rmtree(filled / "store")
    assert await check(filled, open_at, bus_on) == (0, ROWS * BATCHES - CURSOR)


@pytest.mark.parametrize("cut", [1, 7, 100, 3_000])
async def test_torn_end_of_the_log_is_named_when_it_was_durable(
    filled: Path, open_at: OpenAt, bus_on: BusOn, cut: int
) -> None:
    newest = max((filled / "store").glob("*.log"), key=lambda path: path.stat().st_size)
    content = newest.read_bytes()
    newest.write_bytes(content[:-cut])
    rows, lost = await check(filled, open_at, bus_on)
    assert rows + lost == ROWS * BATCHES - CURSOR


@pytest.mark.parametrize("tail", [bytes(4096), bytes(range(1, 8)), b"\1\2\3\4\0\0\5", b"\0\0\0\0\0\0\6" * 600])
async def test_garbage_behind_the_log_loses_nothing(filled: Path, open_at: OpenAt, bus_on: BusOn, tail: bytes) -> None:
    newest = max((filled / "store").glob("*.log"), key=lambda path: path.stat().st_size)
    newest.write_bytes(newest.read_bytes() + tail)
    assert await check(filled, open_at, bus_on) == (ROWS * BATCHES - CURSOR, 0)


async def test_lost_high_water_mark_loses_nothing(filled: Path, open_at: OpenAt, bus_on: BusOn) -> None:
    (filled / "hwm").unlink()
    assert await check(filled, open_at, bus_on) == (ROWS * BATCHES - CURSOR, 0)


async def test_store_that_hangs_in_open_is_set_aside_after_the_deadline(
    filled: Path, open_at: OpenAt, bus_on: BusOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = ["Corruption: opening does not end"]
    monkeypatch.setattr("framegate.bus.opening.probe", lambda _: hung.pop() if hung else "")
    rows, lost = await check(filled, open_at, bus_on)
    assert rows > 0, "rows in tables are kept"
    assert lost > 0, "rows in the log that cannot be opened are lost, and named"


@pytest.mark.parametrize("is_carried", [False, True], ids=["while it was read", "before it was moved"])
async def test_death_while_a_store_is_set_aside_costs_no_row_more(
    filled: Path, open_at: OpenAt, bus_on: BusOn, monkeypatch: pytest.MonkeyPatch, is_carried: bool
) -> None:
    (filled / "store" / "CURRENT").unlink()  # loses no row, once its list of files is rebuilt

    def die(*arguments: str, deadline_s: float) -> None:
        if is_carried:
            run_child(*arguments, deadline_s=deadline_s)
            (filled / "store").rename(filled / "store.damaged-1")
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr("framegate.bus.opening.run_child", die)
    with pytest.raises(KeyboardInterrupt):
        open_disk(filled, StoreOptions(ballast_bytes=0), FakeClock(), CollectingLog())
    assert await check(filled, open_at, bus_on) == (ROWS * BATCHES - CURSOR, 0)
    assert names(filled) == ["hwm", "store", "store.damaged-1"]


@pytest.mark.parametrize("kind", [5, 8, 11])
async def test_log_record_that_rocksdb_reads_for_ever_costs_no_other_record(
    filled: Path, open_at: OpenAt, bus_on: BusOn, kind: int
) -> None:
    newest = max((filled / "store").glob("*.log"), key=lambda path: path.stat().st_size)
    content = bytearray(newest.read_bytes())
    second = 7 + int.from_bytes(content[4:6], "little")  # behind check sum, length and type of the first
    content[second + 6] = kind
    newest.write_bytes(content)
    began = time.monotonic()
    rows, lost = await check(filled, open_at, bus_on)
    assert time.monotonic() - began < PROBE_DEADLINE_S, "it was looked for, not waited for"
    assert rows > 0
    assert lost < ROWS * BATCHES // 4


@pytest.mark.campaign
async def test_salvage_that_is_slow_to_start_keeps_what_can_be_read(
    filled: Path, open_at: OpenAt, bus_on: BusOn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a small box, or on one that is busy while it starts."""
    slow = "import sys, time\nif 'framegate.bus.salvage' in sys.orig_argv: time.sleep(5.2)\n"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(slow)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    flip(max((filled / "store").glob("*.log"), key=lambda path: path.stat().st_size), random.Random(1))
    store = await open_at(filled, write_buffer_bytes=64 << 10)
    rows, lost = await read_all(store, bus_on, CURSOR)
    assert rows > lost > 0


async def test_quarantines_are_bounded(filled: Path, open_at: OpenAt, log: Any) -> None:
    for _ in range(QUARANTINES_MAX + 2):
        (filled / "store" / "CURRENT").write_bytes(b"x")
        await (await open_at(filled)).close()
    kept = [f"store.damaged-{number}" for number in range(3, 6)]
    assert names(filled) == ["hwm", "store", *kept]
    assert log.events().count("wal_quarantined") == QUARANTINES_MAX + 2


async def test_damage_met_while_running_becomes_a_gap_and_the_rest_is_read(
    filled: Path, open_at: OpenAt, bus_on: BusOn, log: Any
) -> None:
    store = await open_at(filled, write_buffer_bytes=64 << 10)
    await settled(store)
    for table in (filled / "store").glob("*.sst"):
        content = bytearray(table.read_bytes())
        content[len(content) // 3] ^= 0x10
        table.write_bytes(content)
    rows, lost = await read_all(store, bus_on, 0)
    assert (rows + lost, lost > 0) == (ROWS * BATCHES, True)
    assert "wal_damage" in log.events()


async def test_rows_found_missing_by_a_repair_become_a_gap_and_the_log_goes_on(
    tmp_path: Path,
    open_at: OpenAt,
    bus_on: BusOn,
    batch: Callable[..., Batch],
    log: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = await open_at(tmp_path / "data")
    bus = bus_on(store)
    for number in range(3):
        bus.publish([batch(10, number)])
        await bus.flush()
    disk = store.disk
    assert isinstance(disk, RocksDisk)
    disk.write([("frames", key_of(11), None)])  # as a disk that forgets what it had promised
    disk.sync()

    def fail_once() -> None:
        monkeypatch.undo()
        raise StoreFailed("fsync: EIO", code=IO)

    monkeypatch.setattr(disk, "sync", fail_once)
    bus.publish([batch(10, 3)])
    await store.wal.flush(deadline_s=OPEN_S_MAX)
    items = bus_on(store).read(Position(0), 100)
    while items[-1].last < bus.durable:
        items = [*items, *bus_on(store).read(items[-1].last, 100)]
    assert [(item.first, item.last, isinstance(item, Gap)) for item in items] == [
        (1, 10, False),
        (11, 20, True),
        (21, 30, False),
        (31, 40, False),
    ]
    assert ("wal_failed" in log.events(), "wal_damage" in log.events()) == (True, True)


def test_scan_over_a_damaged_block_raises_instead_of_ending_early(filled: Path) -> None:
    table = max((filled / "store").glob("*.sst"), key=lambda path: path.stat().st_size)
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    disk = RocksDisk(filled / "store")
    with pytest.raises(StoreFailed, match="E3003"):
        list(disk.scan("frames", b""))
    disk.close()
