"""A real store: what comes back after closing, who may open it, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.bus.books import FORMAT_VERSION
from framegate.bus.bus import Bus
from framegate.bus.fault import DAMAGED, FULL, IO, STALLED, TAKEN
from framegate.bus.record import key_of
from framegate.bus.rocks import RocksDisk, fault_of
from framegate.bus.store import Store
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, Gap, Placed, Position, ValueType, uniform_quality, uniform_time

STALLS_MAX = 500
OpenAt = Callable[..., Awaitable[Store]]


def only_rows(items: object) -> list[Placed]:
    assert isinstance(items, list)
    assert all(isinstance(item, Placed) for item in items), items
    return items


@contextmanager
def owned_by_another(store: Path) -> Iterator[None]:
    """Another process has the store open."""
    code = "import sys,time; from framegate.bus.rocks import RocksDisk; from pathlib import Path\n"
    code += "d=RocksDisk(Path(sys.argv[1])); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(store)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            yield
        finally:
            other.kill()


FEW_FILES = """
import asyncio, resource, sys
from pathlib import Path
import numpy as np
from framegate.bus.options import StoreOptions
from framegate.bus.store import open_store
from framegate.contract.frame import Batch, uniform_quality, uniform_time
from framegate.endpoint.clock import SystemClock
from framegate.observe.log import make_log
from framegate.observe.metrics import Metrics

async def main():
    limits = {"retention_bytes": 1 << 24, "keep_acked_bytes": 1 << 20, "write_buffer_bytes": 1 << 18}
    options = StoreOptions(durability="os", **limits)
    store = await open_store(Path(sys.argv[1]), options, SystemClock(), make_log(), Metrics())
    tag, dice = np.arange(1, 4097, dtype=np.int32), np.random.default_rng(7)
    for number in range(400):
        rows = dice.integers(0, 1 << 62, 4096)
        store.wal.append(Batch(tag, rows, uniform_quality(0), uniform_time(1), number))
        await store.wal.flush(10.0)
    print(store.wal.durable, len(list(Path(sys.argv[1], "store").glob("*.sst"))))
    await store.close()

resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
asyncio.run(main())
"""


def file_at(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_store_of_many_files_makes_do_with_few_open_ones(tmp_path: Path) -> None:
    """Beyond the process's limit RocksDB could open none of its files, and the log failed over and over."""
    done = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "wal_failed" not in done.stderr
    durable, files = map(int, done.stdout.split())
    assert durable == 400 * 4096
    assert files > 48 - 21, "with the 21 that are no rows, this store has more files than may be open"


async def test_store_reopened_has_rows_cursors_ids_and_layouts(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch]
) -> None:
    store = await open_at(tmp_path)
    bus = bus_on(store)
    ids = [store.catalogue.intern(f"t{i}", "d", ValueType.FLOAT64, "m", "R") for i in range(10)]
    for number in range(50):
        bus.publish([batch(10, number)])
    await bus.flush()
    store.cursors.commit("c", Position(123))
    before = bus.read(Position(0), 10_000)
    await store.close()

    again = await open_at(tmp_path)
    rows = only_rows(bus_on(again).read(Position(0), 10_000))
    assert (again.wal.head, again.wal.durable, again.cursors.load("c")) == (500, 500, 123)
    assert [again.catalogue.intern(f"t{i}", "d", ValueType.FLOAT64, "m", "R") for i in range(10)] == ids
    assert [item.first for item in rows] == [item.first for item in before]
    assert all(np.array_equal(item.batch.value, number + np.arange(10)) for number, item in enumerate(rows))
    assert rows[1].batch.tag is rows[2].batch.tag, "rows of one layout share one tag column"


async def test_read_from_store_equals_read_from_ring_at_every_position(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch]
) -> None:
    store = await open_at(tmp_path)
    bus, small = bus_on(store), bus_on(store, ring_rows=1)
    for number in range(40):
        bus.publish([batch(1 + number % 13, number)])
    await bus.flush()
    for after in range(store.wal.head):
        for rows_max in (1, 20, 1000):
            near, far = only_rows(bus.read(Position(after), rows_max)), only_rows(small.read(Position(after), rows_max))
            assert near[0].first <= after + 1 <= near[0].last
            assert [(item.first, item.batch.value.tolist()) for item in near] == [
                (item.first, item.batch.value.tolist()) for item in far
            ]


async def test_batch_longer_than_a_record_is_split_and_read_back(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus]
) -> None:
    store = await open_at(tmp_path)
    bus, rows = bus_on(store), 10_000
    tag, value = np.arange(rows, dtype=np.int32), np.arange(rows, dtype=np.int64)
    bus.publish([Batch(tag, value, uniform_quality(0), np.arange(rows, dtype=np.int64), 0)])
    await bus.flush()
    for source in (bus, bus_on(store, ring_rows=1)):
        position, seen = Position(0), []
        while position < rows:
            items = only_rows(source.read(position, 3000))
            seen += [item.batch.value for item in items]
            position = items[-1].last
        assert np.array_equal(np.concatenate(seen), value)


async def test_pressure_pauses_at_80_percent_and_resumes_under_60(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch]
) -> None:
    store = await open_at(tmp_path, commit_interval_s=30.0)
    bus = bus_on(store, ring_rows=100)
    told: list[bool] = []
    bus.on_pressure(told.append)
    for _ in range(8):
        bus.publish([batch(10)])
    assert (bus.is_paused, told) == (False, [])
    bus.publish([batch(1)])
    assert (bus.is_paused, told) == (True, [True])
    await bus.flush()
    assert (bus.is_paused, told) == (False, [True, False])


async def test_full_ring_turns_rows_into_a_gap_and_counts_each(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch]
) -> None:
    store = await open_at(tmp_path, commit_interval_s=30.0)
    bus = bus_on(store, ring_rows=100)
    for _ in range(10):
        bus.publish([batch(10)])
    for _ in range(3):
        with pytest.raises(StoreFailed, match="E3011"):
            bus.publish([batch(10)])
    await bus.flush()
    bus.publish([batch(10)])
    await bus.flush()
    items: list[Placed | Gap] = []
    position = Position(0)
    while more := bus.read(position, 1000):
        items += more
        position = more[-1].last
    [gap] = [item for item in items if isinstance(item, Gap)]
    assert (gap.first, gap.last, gap.reason) == (101, 130, "disk_full")
    assert items[-1].last == 140
    assert sum(store.books.gaps.rows.values()) == 30


async def test_latest_is_updated_and_bad_rows_have_no_value(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch]
) -> None:
    bus = bus_on(await open_at(tmp_path))
    bus.publish([batch(10, 5.0, 1, 77)])
    text = np.empty(1, dtype=np.object_)
    text[0] = "on"
    for value in (np.array([2**64 - 1], np.uint64), np.array([-1], np.int64), np.array([True]), text):
        tag = np.array([3], dtype=np.int32)
        bus.publish([Batch(tag, value, uniform_quality(0), uniform_time(1), 2)])
        assert bus.latest.value(3) == (value[0], 0, 1, 2)
    assert bus.latest.value(2) == (6.0, 0, 77, 77)
    bus.publish([Batch(np.array([2], np.int32), np.zeros(1), uniform_quality(0x800A_0000), uniform_time(8), 9)])
    assert bus.latest.value(2) == (None, 0x800A_0000, 8, 9)
    assert [bus.latest.value(tag) for tag in (0, 11, 100_000, -1)] == [None] * 4
    high = np.array([200_000, 200_000], dtype=np.int32)
    bus.publish([Batch(high, np.array([1.0, 2.0]), uniform_quality(0), np.array([1, 2], np.int64), 9)])
    assert bus.latest.value(200_000) == (2.0, 0, 2, 9)
    assert bus.latest.value(3) == ("on", 0, 1, 2)


async def test_swapped_mapping_applies_from_the_next_batch(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch]
) -> None:
    bus = bus_on(await open_at(tmp_path))
    bus.publish([batch(10)])
    bus.swap_mapping(lambda raw: (raw, raw))
    bus.publish([batch(10)])
    bus.swap_mapping(lambda raw: (raw,)[:0])
    bus.publish([batch(10)])
    assert bus.rows == 30


async def test_close_is_quick_and_leaves_nothing_behind(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch]
) -> None:
    store = await open_at(tmp_path, commit_interval_s=30.0)
    bus_on(store).publish([batch(10)] * 1000)
    store.cursors.commit("c", Position(1))
    began = time.monotonic()
    await store.close()
    assert time.monotonic() - began < 10.0, "an interval was waited for"
    again = await open_at(tmp_path)
    assert (again.wal.head, again.cursors.load("c")) == (10_000, 1)


async def test_store_of_another_process_is_refused_by_name(tmp_path: Path, open_at: OpenAt) -> None:
    await (await open_at(tmp_path)).close()
    with owned_by_another(tmp_path / "store"), pytest.raises(StoreFailed, match="E3007"):
        await open_at(tmp_path)
    assert names(tmp_path) == ["hwm", "store"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to become")
def test_folder_of_another_user_is_refused_by_name(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    code = "import os,sys; from pathlib import Path; from framegate.bus.opening import _prepare; os.setuid(65534)\n"
    code += "try: _prepare(Path(sys.argv[1]))\nexcept Exception as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "E3006" in done.stdout


async def test_folder_that_is_a_file_is_refused_by_name(tmp_path: Path, open_at: OpenAt) -> None:
    file_at(tmp_path / "data")
    with pytest.raises(StoreFailed, match="E3006"):
        await open_at(tmp_path / "data")


async def test_store_of_a_newer_release_is_refused_and_kept(tmp_path: Path, open_at: OpenAt) -> None:
    await (await open_at(tmp_path)).close()
    disk = RocksDisk(tmp_path / "store")
    disk.write([("meta", b"format", (FORMAT_VERSION + 1).to_bytes(8, "big"))])
    disk.close()
    with pytest.raises(StoreFailed, match="E3005"):
        await open_at(tmp_path)
    assert names(tmp_path) == ["hwm", "store"]


async def test_creation_cut_short_before_the_first_row_begins_anew(tmp_path: Path, open_at: OpenAt) -> None:
    file_at(tmp_path / "store" / "LOCK")
    store = await open_at(tmp_path)
    assert store.wal.head == 0


async def test_durability_os_needs_no_sync_and_survives_the_process(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch], monkeypatch: Any
) -> None:
    store = await open_at(tmp_path, durability="os")
    syncs: list[None] = []
    monkeypatch.setattr(store.disk, "sync", lambda: syncs.append(None))
    bus = bus_on(store)
    bus.publish([batch(10)])
    await bus.flush()
    assert (store.wal.durable, syncs) == (10, [])


def test_disk_texts_of_rocksdb_become_codes() -> None:
    texts = {
        "Result incomplete: Write stall": STALLED,
        "IO error: No space left on device: While appending to file: /x/000004.log": FULL,
        "IO error: While lock file: /x/LOCK: Resource temporarily unavailable": TAKEN,
        "IO error: lock hold by current process, acquire time 1 acquiring thread 2: /x/LOCK: No locks available": TAKEN,
        "Corruption: block checksum mismatch": DAMAGED,
        "IO error: No such file or directory: While open a file for random read: /x/000009.sst": DAMAGED,
        "IO error: Input/output error: While fsync: /x/000009.log": IO,
    }
    assert {text: fault_of(text, Path("/x")).stable_code for text in texts} == texts


def test_disk_that_opens_writes_its_log_out_to_tables(tmp_path: Path) -> None:
    """A table is synced when it is finished: what a store finds when it opens survives a power cut from then on."""
    disk = RocksDisk(tmp_path / "store", create=True)
    disk.write([("frames", key_of(1), b"row"), ("cursors", b"c", b"1")])  # and no sync
    shutil.copytree(tmp_path / "store", tmp_path / "killed")
    disk.close()
    disk = RocksDisk(tmp_path / "killed")
    shutil.copytree(tmp_path / "killed", tmp_path / "cut")
    disk.close()
    for log in (tmp_path / "cut").glob("*.log"):
        log.write_bytes(b"")
    disk = RocksDisk(tmp_path / "cut")
    assert list(disk.scan("frames", b"")) == [(key_of(1), b"row")]
    assert disk.get("cursors", b"c") == b"1"
    disk.close()


def test_disk_dropped_range_gives_its_space_back(tmp_path: Path) -> None:
    disk = RocksDisk(tmp_path / "store", 256 << 10, 512 << 10, create=True)
    noise = np.random.default_rng(1)
    for start in range(1, 4001, 100):
        changes: list[Any] = [("frames", key_of(n), noise.bytes(4000)) for n in range(start, start + 100)]
        for _ in range(STALLS_MAX):
            with suppress(StoreFailed):  # a stall
                disk.write(changes)
                break
            time.sleep(0.01)
        disk.sync()
    used = disk.bytes_used()
    disk.drop_range("frames", key_of(0), key_of(3800))
    assert disk.bytes_used() < 0.2 * used
    left = [key for key, _ in disk.scan("frames", b"")]
    assert len(left) < 600
    assert left == [key_of(n) for n in range(4001 - len(left), 4001)]
    disk.close()
    with pytest.raises(StoreFailed, match="E3008"):
        disk.get("meta", b"x")
    disk.open()
    assert [key for key, _ in disk.scan("frames", key_of(3900))] == [key_of(n) for n in range(3900, 4001)]
    disk.write([("frames", key_of(3950), b"again"), ("frames", key_of(4001), b"new")])  # as after a repair
    assert [value for _, value in disk.scan("frames", key_of(4000))][1:] == [b"new"]
    assert next(disk.scan("frames", key_of(3950))) == (key_of(3950), b"again")
    disk.close()


async def test_two_stores_in_one_loop_do_not_mix(
    tmp_path: Path, open_at: OpenAt, bus_on: Callable[..., Bus], batch: Callable[..., Batch]
) -> None:
    one, two = await asyncio.gather(open_at(tmp_path / "1"), open_at(tmp_path / "2"))
    bus_on(one).publish([batch(10)])
    await one.wal.flush()
    assert (one.wal.durable, two.wal.durable) == (10, 0)
