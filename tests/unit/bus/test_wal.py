"""The log over a model of a disk: what it promises when syncs fail, writes stall and processes die at any point."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from framegate.bus.books import Books
from framegate.bus.bus import Bus
from framegate.bus.fault import FULL, IO, STALLED
from framegate.bus.mark import NO_MARK, HighWaterMark
from framegate.bus.options import StoreOptions
from framegate.bus.record import key_of, position_of
from framegate.bus.recovery import check_tail, recover
from framegate.bus.wal import REPAIR_RETRY_S, Ground, Wal, WalState
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, Gap, Placed, Position, uniform_quality, uniform_time
from framegate.contract.letter import DeadLetter
from framegate.contract.ports import Change, Family
from framegate.observe.metrics import Metrics

T = TypeVar("T")
OPTIONS = StoreOptions(commit_interval_s=0.0, reserve_bytes=100)
TAGS = np.arange(1, 201, dtype=np.int32)


class ModelDisk:
    """An ordered store with a durable part and groups that are written and not yet synced.

    fault        raised by the next write or sync, once
    is_poisoned  a failed sync: nothing works until reopen()
    """

    def __init__(self) -> None:
        self.synced: dict[tuple[Family, bytes], bytes] = {}
        self.groups: list[list[Change]] = []
        self.write_fault: StoreFailed | None = None
        self.sync_fault: StoreFailed | None = None
        self.is_poisoned = False
        self.free = 1 << 30
        self._view: dict[tuple[Family, bytes], bytes] = {}

    def write(self, changes: Sequence[Change]) -> None:
        fault, self.write_fault = self.write_fault, None
        if fault or self.is_poisoned:
            raise fault or StoreFailed("poisoned", code=IO)
        self.groups.append(list(changes))
        apply(self._view, changes)

    def sync(self) -> None:
        fault, self.sync_fault = self.sync_fault, None
        if fault or self.is_poisoned:
            self.is_poisoned = True
            raise fault or StoreFailed("poisoned", code=IO)
        self.settle(len(self.groups))

    def settle(self, kept: int) -> None:
        """The first `kept` groups become durable."""
        for changes in self.groups[:kept]:
            apply(self.synced, changes)
        del self.groups[:kept]

    def crash(self, kept: int) -> None:
        """A power cut that lets the first `kept` unsynced groups through."""
        self.settle(kept)
        self.groups.clear()
        self._view = dict(self.synced)
        self.reopen()

    def reopen(self) -> None:
        self.is_poisoned = False
        self.write_fault = self.sync_fault = None

    def get(self, family: Family, key: bytes) -> bytes | None:
        return self._view.get((family, key))

    def scan(self, family: Family, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        keys = sorted(key for name, key in self._view if name == family and key >= start)
        for key in keys:
            if stop is None or key < stop:
                yield key, self._view[family, key]

    def drop_range(self, family: Family, start: bytes, stop: bytes) -> None:
        self.write([(family, key, None) for key, _ in list(self.scan(family, start, stop))])

    def bytes_used(self) -> int:
        return sum(map(len, self._view.values()))

    def bytes_free(self) -> int:
        return self.free

    def close(self) -> None: ...


def apply(view: dict[tuple[Family, bytes], bytes], changes: Sequence[Change]) -> None:
    for family, key, value in changes:
        if value is None:
            view.pop((family, key), None)
        else:
            view[family, key] = value


class HandWorker:
    """Runs work when the test says so."""

    def __init__(self) -> None:
        self.work: list[tuple[Callable[[], None], Callable[[StoreFailed | None], None]]] = []

    def do(self, work: Callable[[], None], then: Callable[[StoreFailed | None], None]) -> None:
        self.work.append((work, then))

    def run(self) -> None:
        work, then = self.work.pop(0)
        error = None
        try:
            work()
        except StoreFailed as failed:
            error = failed
        then(error)

    def close(self) -> None: ...


class MemoryMark:
    mark = NO_MARK

    def write(self, mark: HighWaterMark, *, force: bool = False) -> None:
        self.mark = mark

    def close(self) -> None: ...


class LoopClock:
    def now_ns(self) -> int:
        return 1

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Silence:
    def debug(self, event: str, **values: object) -> None: ...
    def info(self, event: str, **values: object) -> None: ...
    def warning(self, event: str, **values: object) -> None: ...
    def error(self, event: str, **values: object) -> None: ...


class Rig:
    """A log over a model disk; `crash` makes the next one from what survived."""

    def __init__(self) -> None:
        self.disk = ModelDisk()
        self.mark = MemoryMark()
        self.repairs = 0
        self.open()

    def open(self) -> None:
        self.worker = HandWorker()
        self.log = Silence()
        self.books = Books(self.disk, OPTIONS)
        self.books.load(self.mark.mark)
        self.head = recover(self.disk, self.books, self.mark.mark.position, LoopClock(), self.log).head
        ground = Ground(self.disk, self.worker, self.mark, self.repair)
        metrics = Metrics()
        self.wal = Wal(ground, self.books, self.head, OPTIONS, LoopClock(), self.log, metrics)
        self.bus = Bus(self.wal, lambda batch: (batch,), LoopClock(), self.log, metrics, ring_rows=400)
        self.wal.touch()

    def repair(self) -> None:
        self.repairs += 1
        self.disk.reopen()
        assert check_tail(self.disk, self.books, self.wal.durable) == []

    def publish(self, rows: int, value: float) -> Position:
        batch = Batch(TAGS[:rows], np.full(rows, value), uniform_quality(0), uniform_time(0), 0)
        self.bus.publish([batch])
        return self.wal.head

    def stored_marks(self) -> list[Position]:
        return [position_of(key[1:]) for key, _ in self.disk.scan("meta", b"s", b"t")]

    async def turn(self, times: int = 3) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """Everything that waits is written and synced."""
        for _ in range(10):
            await self.turn()
            while self.worker.work:
                self.worker.run()

    async def handed_in(self) -> None:
        """Until the log has work for its thread again."""
        async with asyncio.timeout(5):
            while not self.worker.work:  # noqa: ASYNC110 - the log under test sets no event
                await asyncio.sleep(0.001)


@pytest.fixture
async def rig() -> Rig:
    rig = Rig()
    await rig.settle()
    return rig


async def test_row_is_durable_only_after_its_sync(rig: Rig) -> None:
    rig.publish(10, 1.0)
    await rig.turn()
    assert (rig.wal.durable, rig.bus.read(Position(0), 100)) == (0, [])
    rig.worker.run()
    assert rig.wal.durable == 10
    assert rig.mark.mark.position == 10


async def test_rows_during_a_sync_gather_for_the_next_commit(rig: Rig) -> None:
    rig.publish(10, 1.0)
    await rig.turn()
    for number in range(5):
        rig.publish(10, number)
        await rig.turn()
    assert (len(rig.worker.work), len(rig.disk.groups)) == (1, 1)
    rig.worker.run()
    await rig.turn()
    assert rig.wal.durable == 10
    rig.worker.run()
    assert rig.wal.durable == 60


async def test_wake_comes_once_per_durable_move(rig: Rig) -> None:
    seen: list[int] = []
    stop = rig.bus.subscribe(lambda: seen.append(rig.bus.durable))
    for number in range(3):
        rig.publish(10, number)
        rig.publish(10, number)
        await rig.settle()
    stop()
    rig.publish(10, 9.0)
    await rig.settle()
    assert seen == [20, 40, 60]


async def test_failed_sync_acknowledges_nothing_until_repaired_and_written_again(rig: Rig) -> None:
    rig.publish(10, 1.0)
    await rig.settle()
    rig.disk.sync_fault = StoreFailed("fsync: EIO", code=IO)
    rig.publish(10, 2.0)
    await rig.turn()
    rig.publish(10, 3.0)
    rig.worker.run()
    assert (rig.wal.state, rig.wal.durable) == (WalState.FAILED, 10)
    assert "EIO" in rig.wal.error
    rig.disk.crash(0)  # the failed sync had lost what it was to keep
    await rig.settle()
    assert (rig.wal.state, rig.wal.durable, rig.wal.error, rig.repairs) == (WalState.RUNNING, 30, "", 1)
    values = [item.batch.value[0] for item in rig.wal.replay.read(0, 100, 30)]
    assert values == [1.0, 2.0, 3.0]


async def test_failed_repair_is_tried_again_and_never_believed(rig: Rig) -> None:
    rig.publish(10, 1.0)
    rig.disk.sync_fault = StoreFailed("fsync: EIO", code=IO)
    await rig.turn()
    rig.worker.run()
    await rig.turn()
    _, then = rig.worker.work.pop()
    then(StoreFailed("cannot reopen", code=IO))
    await rig.turn()
    assert (rig.wal.state, rig.wal.durable, rig.worker.work) == (WalState.FAILED, 0, [])
    await rig.handed_in()
    await rig.settle()
    assert rig.wal.durable == 10


async def test_stalled_write_is_kept_and_tried_again(rig: Rig) -> None:
    rig.disk.write_fault = StoreFailed("Write stall", code=STALLED)
    rig.publish(10, 1.0)
    await rig.turn()
    assert rig.worker.work == []
    await rig.handed_in()
    rig.worker.run()
    assert (rig.wal.state, rig.wal.durable, rig.repairs) == (WalState.RUNNING, 10, 0)


async def test_full_disk_keeps_cursors_and_lets_rows_wait(rig: Rig) -> None:
    rig.publish(10, 1.0)
    await rig.settle()
    rig.wal.watch(OPTIONS.reserve_bytes - 1)
    rig.publish(10, 2.0)
    rig.books.cursors.commit("c", Position(10))
    await rig.settle()
    assert (rig.wal.state, rig.wal.durable, rig.bus.is_paused) == (WalState.FULL, 10, True)
    assert ("cursors", b"c") in rig.disk.synced
    rig.wal.watch(2 * OPTIONS.reserve_bytes)
    await rig.settle()
    assert (rig.wal.state, rig.wal.durable, rig.bus.is_paused) == (WalState.RUNNING, 20, False)


async def test_full_disk_that_refuses_a_write_is_repaired_and_waits_for_room(rig: Rig) -> None:
    rig.disk.write_fault = StoreFailed("No space left", code=FULL)
    rig.publish(10, 1.0)
    await rig.settle()
    assert (rig.wal.state, rig.wal.durable, rig.repairs) == (WalState.FULL, 0, 1)
    rig.wal.watch(2 * OPTIONS.reserve_bytes)
    await rig.settle()
    assert (rig.wal.state, rig.wal.durable) == (WalState.RUNNING, 10)


async def test_room_that_is_seen_during_a_sync_lets_waiting_rows_go_on(rig: Rig) -> None:
    """Devices are paused by then: no new row would ask for the commit."""
    rig.wal.watch(OPTIONS.reserve_bytes - 1)
    rig.publish(10, 1.0)
    rig.books.cursors.commit("c", Position(0))
    await rig.handed_in()
    rig.wal.watch(2 * OPTIONS.reserve_bytes)
    await rig.settle()
    assert (rig.wal.state, rig.wal.durable) == (WalState.RUNNING, 10)


async def test_mark_is_not_written_before_its_record(rig: Rig) -> None:
    rig.wal.watch(OPTIONS.reserve_bytes - 1)
    rig.publish(10, 1.0)
    rig.books.cursors.commit("c", Position(0))
    await rig.settle()
    assert ("cursors", b"c") in rig.disk.synced
    assert rig.stored_marks() == [], "the record is in no group yet"
    rig.wal.watch(2 * OPTIONS.reserve_bytes)
    await rig.settle()
    assert (rig.wal.durable, rig.stored_marks()) == (10, [1])


async def test_mark_beyond_the_head_is_forgotten_when_the_store_is_opened(rig: Rig) -> None:
    rig.publish(10, 1.0)
    await rig.settle()
    rig.disk.write([("meta", b"s" + key_of(15), bytes(16))])  # of a record that was lost before it was durable
    rig.open()
    rig.publish(10, 2.0)
    await rig.settle()
    assert [mark.first for mark in rig.books.marks.all()] == [1, 11]
    assert rig.stored_marks() == [1, 11]


async def test_foreign_object_in_a_column_takes_no_position(rig: Rig) -> None:
    column = np.empty(1, dtype=np.object_)
    column[0] = {1, 2}
    with pytest.raises(TypeError):
        rig.bus.publish([Batch(TAGS[:1], column, uniform_quality(0), uniform_time(0), 0)])
    assert rig.wal.head == 0


async def test_flush_on_a_hanging_disk_ends_at_its_deadline(rig: Rig) -> None:
    rig.publish(10, 1.0)
    with pytest.raises(StoreFailed, match="not durable within"):
        await rig.wal.flush(deadline_s=0.05)


class HandLoop(asyncio.SelectorEventLoop):
    """A loop whose time moves by hand, so that a run depends on its seed alone."""

    now = 0.0

    def time(self) -> float:
        return self.now


class LogMachine(RuleBasedStateMachine):
    """Random appends, drops, cursors, faults and power cuts; the model knows what each position holds."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = HandLoop()

    @initialize()
    def begin(self) -> None:
        self.rig = self.call(self._make())
        self.value: dict[int, float | None] = {}  # None: dropped
        self.acknowledged = 0
        self.letters: dict[int, DeadLetter] = {}
        self.number = 0.0

    async def _make(self) -> Rig:
        return Rig()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @rule(rows=st.integers(1, 60))
    def publish(self, rows: int) -> None:
        async def work() -> None:
            self.rig.publish(rows, self.number - 1)

        first = self.rig.wal.head + 1
        self.number += 1
        value: float | None = self.number - 1
        try:
            self.call(work())
        except StoreFailed:  # the ring is full: a gap took the rows' place
            value = None
        self.value.update(dict.fromkeys(range(first, self.rig.wal.head + 1), value))

    @rule(rows=st.integers(1, 30))
    def drop(self, rows: int) -> None:
        first = self.rig.wal.head + 1
        self.rig.wal.drop(rows, "disk_full", "")
        self.value.update(dict.fromkeys(range(first, self.rig.wal.head + 1)))

    @rule(part=st.floats(0, 1))
    def acknowledge(self, part: float) -> None:
        position = int(self.rig.wal.durable * part)
        self.rig.books.cursors.commit("c", Position(position))
        self.acknowledged = max(self.acknowledged, position)

    @rule(rows=st.integers(1, 30))
    def refuse(self, rows: int) -> None:
        """The remote refuses a message for good: a letter, and in the same turn the cursor that passes it."""
        position = (self.rig.books.cursors.load("c") or 0) + 1
        if position + rows - 1 > self.rig.wal.durable:
            return
        letter = DeadLetter("c", Position(position), rows, b"topic", b"payload", "text/plain", "no", 1, 1, 6)
        self.rig.books.letters.keep(letter)
        self.letters[position] = letter
        self.rig.books.cursors.commit("c", Position(position + rows - 1))
        self.acknowledged = max(self.acknowledged, position + rows - 1)

    @rule()
    def turn(self) -> None:
        self.loop.now += 2 * REPAIR_RETRY_S[1]  # every timer is due
        self.call(self.rig.turn())

    @precondition(lambda self: self.rig.worker.work)
    @rule()
    def work(self) -> None:
        async def run() -> None:
            self.rig.worker.run()

        self.call(run())

    @rule()
    def fail_sync(self) -> None:
        self.rig.disk.sync_fault = StoreFailed("EIO", code=IO)

    @rule()
    def stall(self) -> None:
        self.rig.disk.write_fault = StoreFailed("Write stall", code=STALLED)

    @rule(part=st.floats(0, 1))
    def cut_power(self, part: float) -> None:
        async def reopen() -> None:
            self.rig.open()

        durable = self.rig.wal.durable
        self.loop.close()  # nothing of the old process happens any more
        self.loop = HandLoop()
        self.rig.disk.crash(round(part * len(self.rig.disk.groups)))
        self.call(reopen())
        head = self.rig.head
        assert head >= durable, "a durable position was forgotten"
        cursor = self.rig.books.cursors.load("c") or 0
        assert cursor <= self.acknowledged
        self.acknowledged = cursor
        letters = self.rig.books.letters
        for position, letter in list(self.letters.items()):
            row = letters.row("c", position)
            assert row is not None or cursor < position, "the cursor passed a letter that is gone"
            if row is None:
                del self.letters[position]
            else:
                assert letters.letter(row) == letter
        for position in [position for position in self.value if position > head]:
            del self.value[position]
        for position in range(1, head + 1):
            assert position in self.value

    @invariant()
    def durable_rows_read_back_in_order(self) -> None:
        if not hasattr(self, "rig") or self.rig.wal.state is not WalState.RUNNING:
            return
        self.call(self._read())

    async def _read(self) -> None:
        position = 0
        while items := self.rig.bus.read(Position(position), 50):
            for item in items:
                assert item.first <= position + 1 <= item.last, "a hole without a gap"
                for place in range(position + 1, item.last + 1):
                    assert self._at(item, place) == self.value[place]
                position = item.last
        assert position == self.rig.wal.durable

    def _at(self, item: Placed | Gap, place: int) -> float | None:
        return None if isinstance(item, Gap) else float(item.batch.value[place - item.first])

    def teardown(self) -> None:
        self.loop.close()


LogMachine.TestCase.settings = settings(print_blob=True, max_examples=60, stateful_step_count=40, deadline=None)
test_log_keeps_every_promise_under_random_faults = LogMachine.TestCase
