"""The same promises over the real store: RocksDB in a folder, driven by random steps, killed and opened again.

A copy of the folder at any moment is what a killed process leaves behind, so no process is needed. What a power cut
takes cannot be had this way: that is the simulation's, and the fault campaigns', business.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from framegate.bus.ballast import Ballast
from framegate.bus.bus import Bus
from framegate.bus.highwater import HighWaterFile
from framegate.bus.options import StoreOptions
from framegate.bus.record import position_of
from framegate.bus.recovery import Opened, load
from framegate.bus.rocks import RocksDisk
from framegate.bus.store import Store
from framegate.contract.frame import Batch, Gap, Position, ValueType, uniform_quality, uniform_time
from framegate.contract.ports import Family
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import CollectingLog
from framegate.testing.loop import LoopClock
from framegate.testing.simulation import invariants_log as law
from framegate.testing.simulation import invariants_remote as far
from framegate.testing.simulation.disk import DiskWeather
from framegate.testing.simulation.ledger import Ledger
from framegate.testing.simulation.loop import Process, SimLoop
from framegate.testing.simulation.witness import read_back
from framegate.testing.simulation.worker import SimWorker

T = TypeVar("T")
KIB = 1 << 10
OPTIONS = StoreOptions(
    retention_bytes=256 * KIB, keep_acked_bytes=64 * KIB, reserve_bytes=0, ballast_bytes=0, ring_rows=400
)
BUFFER_BYTES = 64 * KIB  # small, so that tables are written all the time
BUCKET_BYTES = 64 * KIB
TAGS = np.arange(1, 41, dtype=np.int32)
COPIES_MAX = 20
FAT = "x" * 4 * KIB


def hold(promise: Callable[..., str], *what: object) -> None:
    text = promise(*what)
    assert not text, f"{promise.__name__}: {text}"


def copy_of_living(folder: Path, kept: Path) -> None:
    """What a kill would leave: RocksDB works on in the background, so what refers to a file is copied before it."""
    ranks = (".log", "MANIFEST", "CURRENT", "")
    for _ in range(COPIES_MAX):
        shutil.rmtree(kept, ignore_errors=True)
        (kept / "store").mkdir(parents=True)
        files = [*folder.glob("hwm"), *(folder / "store").iterdir()]
        files.sort(key=lambda file: next(rank for rank, mark in enumerate(ranks) if mark in file.name))
        with suppress(FileNotFoundError):  # it was written into another one meanwhile
            for file in files:
                shutil.copyfile(file, kept / file.relative_to(folder))
            return
    raise AssertionError("the store never came to rest")


class WatchedDisk(RocksDisk):
    """Tells of what will be deleted."""

    on_drop: Callable[[int], None]

    def drop_range(self, family: Family, start: bytes, stop: bytes) -> None:
        self.on_drop(position_of(stop))
        super().drop_range(family, start, stop)


class StoreMachine(RuleBasedStateMachine):
    """Appends, drops, reads, acknowledgements, deletions, restarts and kills in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory(prefix="edge-store-")
        self.loop = SimLoop(0)
        self.ledger = Ledger()
        self.number = self.lives = self.durable = self.sent = self.committed = 0
        self.dropped: set[int] = set()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(self.loop.spawn(self.process, work, "rule"))

    # -- lives ------------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.folder = Path(self.scratch.name, "0")
        self.folder.mkdir()
        self.open()

    def open(self) -> None:
        self.process = Process(f"life {self.lives}")
        self.lives += 1
        self.run(self._open())

    async def _open(self) -> None:
        path = self.folder / "store"
        self.disk = WatchedDisk(path, BUFFER_BYTES, BUCKET_BYTES, create=not path.exists())
        self.disk.on_drop = self.check_drop
        self.mark = HighWaterFile(self.folder / "hwm")
        clock, log, metrics = LoopClock(), CollectingLog(), Metrics()
        books, recovered = load(self.disk, OPTIONS, self.mark.mark, clock, log)
        ballast = Ballast(self.folder / "ballast", 0)
        opened = Opened(self.disk, books, self.mark, ballast, recovered, lambda: None)
        worker = SimWorker(self.loop, DiskWeather(), Random(0))
        self.store = Store(opened, worker, OPTIONS, clock, log, metrics)
        self.bus = Bus(self.store.wal, lambda batch: (batch,), clock, log, metrics, OPTIONS.ring_rows)
        self.bus.subscribe(self.moved)
        for tag in TAGS.tolist():
            self.store.catalogue.intern(f"t{tag}", "d", ValueType.FLOAT64, "", "R")
        self.cursor = self.store.cursors.load("c") or Position(0)
        self.compare()

    def compare(self) -> None:
        head, books = self.store.wal.head, self.store.books
        hold(law.i2_nothing_durable_is_forgotten, head, self.durable)
        hold(law.i4_what_has_left_is_never_reused, head, self.sent)
        hold(far.o1_cursor_never_moves_back, self.committed, self.cursor)
        self.ledger.forget_after(head)
        placed, missing = read_back(self.disk, books, head)
        hold(law.i1_rows_read_back_identical, self.ledger, [item for item in placed if item.last <= self.durable])
        hold(law.i3_tail_is_whole, self.ledger, placed, self.durable)
        hold(law.i2_log_has_no_hole, missing, books.gaps.all(), [])
        hold(law.i6_gap_names_what_is_lost, books.gaps.all(), [])
        for item in placed:
            hold(law.i9_record_has_its_names, item.batch.tag.tolist(), len(self.store.catalogue))
        self.committed = self.cursor
        self.durable = self.bus.durable  # opening has written out, and so synced, what it found in the disk's log

    def moved(self) -> None:
        self.durable = max(self.durable, self.bus.durable)

    def check_drop(self, stop: int) -> None:
        gaps = self.store.books.gaps.all()
        hold(law.i7_gap_before_deletion, stop, {"c": self.store.cursors.load("c") or 0}, gaps)

    @rule()
    def kill(self) -> None:
        self.process.kill()
        kept = Path(self.scratch.name, str(self.lives))
        copy_of_living(self.folder, kept)
        self.disk.close()
        self.mark.close()
        self.folder = kept
        self.open()

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        assert self.durable == self.store.wal.head
        self.process.kill()
        self.open()

    # -- work -------------------------------------------------------------------------------------------------------

    @rule(rows=st.integers(1, 40), is_fat=st.booleans())
    def publish(self, rows: int, is_fat: bool) -> None:
        self.number += 1
        value: Any = np.full(rows, float(self.number))
        if is_fat:
            value = np.empty(rows, dtype=np.object_)
            value[:] = f"{self.number}{FAT}"
        batch = Batch(TAGS[:rows], value, uniform_quality(0), uniform_time(self.number), self.number)
        self.run(self._publish(batch))

    async def _publish(self, batch: Batch) -> None:
        first = self.store.wal.head + 1
        if self.bus.pending_rows + len(batch.tag) > OPTIONS.ring_rows:
            return
        self.bus.publish([batch])
        hold(law.b2_every_row_has_a_place, len(batch.tag), first - 1, self.store.wal.head)
        self.ledger.take(first, batch)

    @rule(rows=st.integers(1, 30))
    def drop(self, rows: int) -> None:
        self.run(self._drop(rows))

    async def _drop(self, rows: int) -> None:
        first = self.store.wal.head + 1
        self.store.wal.drop(rows, "disk_full", "no room")
        self.ledger.lose(first, self.store.wal.head)

    @rule(seconds=st.sampled_from((0.001, 0.05, 1.1, 4.0)))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(rows=st.integers(1, 200))
    def deliver(self, rows: int) -> None:
        """A connector reads on from its cursor, and the remote acknowledges some of it."""
        self.run(self._deliver(rows))

    async def _deliver(self, rows: int) -> None:
        position = Position(max(self.cursor, 0))
        for item in self.bus.read(position, rows):
            hold(law.i4_nothing_leaves_before_it_is_durable, item.last, self.durable)
            assert item.first <= position + 1 <= item.last, "a hole without a gap"
            if not isinstance(item, Gap):
                hold(law.i1_rows_read_back_identical, self.ledger, [item])
            position = item.last
        self.sent = max(self.sent, position)
        if position > self.cursor:
            self.store.cursors.commit("c", position)
            self.cursor = position

    @invariant()
    def head_is_where_the_ledger_ends(self) -> None:
        if hasattr(self, "store"):
            assert self.ledger.head == self.store.wal.head

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.process.kill()
            self.disk.close()
            self.mark.close()
        self.loop.close()
        self.scratch.cleanup()


class CampaignMachine(StoreMachine):
    """The same, for longer."""


StoreMachine.TestCase.settings = settings(
    print_blob=True, max_examples=6, stateful_step_count=20, deadline=None, derandomize=True, database=None
)
CampaignMachine.TestCase.settings = settings(
    print_blob=True, max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None
)


def test_rows_killed_between_write_and_sync_may_leave_once_reopened() -> None:
    machine = StoreMachine()
    try:
        machine.begin()
        for rows in (37, 29):  # together they are a group that does not wait
            machine.publish(rows=rows, is_fat=True)
        machine.publish(rows=34, is_fat=False)
        assert machine.durable == 0, "the group is written and its sync under way"
        machine.kill()
        machine.deliver(rows=150)
        assert (machine.durable, machine.cursor) == (66, 66)
    finally:
        machine.teardown()


test_real_store_keeps_every_promise = StoreMachine.TestCase
test_real_store_keeps_every_promise_campaign = pytest.mark.timeout(900)(pytest.mark.campaign(CampaignMachine.TestCase))
