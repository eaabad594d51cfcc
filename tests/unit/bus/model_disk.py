"""A log over a model of a disk, and over a thread and a loop that are moved by hand, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from framegate.bus.books import Books
from framegate.bus.bus import Bus
from framegate.bus.fault import IO
from framegate.bus.mark import NO_MARK, HighWaterMark
from framegate.bus.options import StoreOptions
from framegate.bus.record import position_of
from framegate.bus.recovery import check_tail, recover
from framegate.bus.wal import Ground, Wal
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, Position, uniform_quality, uniform_time
from framegate.contract.ports import Change, Family
from framegate.observe.metrics import Metrics

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
