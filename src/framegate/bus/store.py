"""The store of one gateway: the log, its books and the disk below, opened and closed as one.

    store = await open_store(home.data, StoreOptions(), clock, log, metrics)
    bus = Bus(store.wal, mapping, clock, log, metrics, options.ring_rows)
    ...
    await store.close()

The thread `edge-wal` syncs, repairs and deletes. Everything else happens on the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from framegate.bus.books import Books
from framegate.bus.catalogue import DurableCatalogue
from framegate.bus.commit import ThreadWorker, Worker
from framegate.bus.cursor import DurableCursors
from framegate.bus.opening import open_disk
from framegate.bus.options import StoreOptions
from framegate.bus.recovery import Opened, check_tail
from framegate.bus.retention import Retention
from framegate.bus.wal import Ground, Wal
from framegate.contract.errors import StoreFailed
from framegate.contract.ports import Clock, Disk, Log
from framegate.observe.metrics import Metrics

__all__ = ["Store", "StoreOptions", "open_store"]

WATCH_INTERVAL_S = 1.0
MEASURE_EVERY = 5  # bytes on disk are counted at every fifth look
CLOSE_DEADLINE_S = 1.5


class Store:
    """Everything durable of one gateway.

    bytes_used, bytes_free  of the log and of its file system, as last looked at
    """

    def __init__(
        self, opened: Opened, worker: Worker, options: StoreOptions, clock: Clock, log: Log, metrics: Metrics
    ) -> None:
        self.disk: Disk = opened.disk
        self.options = options
        self._opened, self._worker, self._log = opened, worker, log
        self._loop = asyncio.get_running_loop()
        ground = Ground(opened.disk, worker, opened.high_water, self._repair)
        self.wal = Wal(ground, opened.books, opened.recovered.head, options, clock, log, metrics)
        self._retention = Retention(opened.disk, self.wal, worker, options, clock, log, metrics)
        self.bytes_used = opened.disk.bytes_used()
        self.bytes_free = opened.disk.bytes_free()
        metrics.gauge("edge_wal_used_bytes").read = lambda: float(self.bytes_used)
        metrics.gauge("edge_wal_free_bytes").read = lambda: float(self.bytes_free)
        self._looks = 0
        self._timer = self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        opened.ballast.take(self.bytes_free, options.reserve_bytes)
        self.wal.touch()  # what recovery noted becomes durable

    @property
    def books(self) -> Books:
        return self._opened.books

    @property
    def catalogue(self) -> DurableCatalogue:
        return self._opened.books.catalogue

    @property
    def cursors(self) -> DurableCursors:
        return self._opened.books.cursors

    async def close(self) -> None:
        """A last commit, then give everything back; within 3 s, whatever the disk does."""
        self._timer.cancel()
        await self.wal.close()
        try:
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await done_by(self._worker, self._leave)
        except (StoreFailed, TimeoutError) as error:
            self._log.error("wal_unclean", reason=str(error), rows=self.wal.head - self.wal.durable)
        self._worker.close()

    def _leave(self) -> None:
        opened = self._opened
        try:
            opened.disk.sync()
            opened.high_water.write(opened.books.mark(self.wal.durable), force=True)
        finally:
            opened.disk.close()
            opened.high_water.close()

    def _repair(self) -> None:
        opened = self._opened
        opened.reopen()
        for first, last, why in check_tail(opened.disk, opened.books, self.wal.durable):
            # The loop comes to this before it hears of the repair; the gap is in the first group of the new handle.
            self._loop.call_soon_threadsafe(self._note_lost, first, last, why)

    def _note_lost(self, first: int, last: int, why: str) -> None:
        self._log.error("wal_damage", first_pos=first, last_pos=last, reason=why)
        self.wal.note_gap(first, last, "damage", why)

    def _watch(self) -> None:
        """Once a second: room on the disk, a sync that hangs, rows that may go."""
        self._timer = self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        try:
            self.bytes_free = self.disk.bytes_free()
            if self._looks % MEASURE_EVERY == 0:
                self.bytes_used = self.disk.bytes_used()
        except StoreFailed as error:
            self._log.warning("wal_stalled", reason=error.text, rows=self.wal.head - self.wal.durable)
            return
        self._looks += 1
        self.wal.watch(self.bytes_free)
        self._opened.ballast.take(self.bytes_free, self.options.reserve_bytes)
        self._retention.tick(self.bytes_used)


async def open_store(folder: Path, options: StoreOptions, clock: Clock, log: Log, metrics: Metrics) -> Store:
    """Open the data folder of a gateway, or begin one; damage becomes gaps, never silence.

    raises  StoreFailed - E3002 full, E3005 too new, E3006 not writable, E3007 in use by another process, E3004 disk
    """
    worker = ThreadWorker("edge-wal", asyncio.get_running_loop())
    began = clock.monotonic()
    opened: list[Opened] = []
    try:
        await done_by(worker, lambda: opened.append(open_disk(folder, options, clock, log)))
    except BaseException:
        worker.close()
        raise
    store = Store(opened[0], worker, options, clock, log, metrics)
    took_ms = round((clock.monotonic() - began) * 1e3, 1)
    log.info(
        "wal_opened", position=store.wal.head, oldest_pos=store.books.trim, bytes=store.bytes_used, took_ms=took_ms
    )
    return store


async def done_by(worker: Worker, work: Callable[[], None]) -> None:
    """Wait for a piece of work; raises its StoreFailed."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def then(error: StoreFailed | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    worker.do(work, then)
    await done
