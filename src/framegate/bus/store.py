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
from framegate.bus.letters import LetterBook
from framegate.bus.opening import open_disk
from framegate.bus.options import StoreOptions
from framegate.bus.recovery import Opened, check_tail
from framegate.bus.retention import Retention
from framegate.bus.rewinds import Rewind
from framegate.bus.rules import RULES_CURSOR
from framegate.bus.wal import Ground, Wal
from framegate.contract.errors import Misconfigured, StoreFailed
from framegate.contract.frame import Position
from framegate.contract.ports import Clock, Disk, Log
from framegate.observe.face import LetterRow
from framegate.observe.metrics import Metrics

__all__ = ["Store", "StoreOptions", "open_store"]

WATCH_INTERVAL_S = 1.0
MEASURE_EVERY = 5  # bytes on disk are counted at every fifth look
CLOSE_DEADLINE_S = 1.5
_NO_REWIND = "E4030"


class Store:
    """Everything durable of one gateway.

    bytes_used, bytes_free  of the log and of its file system, as last looked at
    """

    def __init__(
        self, opened: Opened, worker: Worker, options: StoreOptions, clock: Clock, log: Log, metrics: Metrics
    ) -> None:
        self.disk: Disk = opened.disk
        self.options = options
        self._opened, self._worker, self._clock, self._log = opened, worker, clock, log
        self._loop = asyncio.get_running_loop()
        ground = Ground(opened.disk, worker, opened.high_water, self._repair)
        self.wal = Wal(ground, opened.books, opened.recovered.head, options, clock, log, metrics)
        for reason, rows in opened.books.gaps.rows.items():  # found missing at the start
            metrics.counter("edge_wal_gap_rows_total", reason=reason).value += rows
        self._retention = Retention(opened.disk, self.wal, worker, options, clock, log, metrics)
        self.bytes_used = opened.disk.bytes_used()
        self.bytes_free = opened.disk.bytes_free()
        metrics.gauge("edge_wal_used_bytes").read = lambda: float(self.bytes_used)
        metrics.gauge("edge_wal_free_bytes").read = lambda: float(self.bytes_free)
        self._keep_letters(opened.books.letters, metrics)
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

    @property
    def letters(self) -> LetterBook:
        return self._opened.books.letters

    def plan_rewind(self, connector: str, first: Position | None, since_ns: int, by: str) -> Rewind:
        """What a rewind would do; nothing is changed.

        first     position from which rows are to be delivered again; None: those of `since_ns` and later, wall time
                  ns UTC, and up to one stretch between marks before them. What retention has deleted stays away
        raises    Misconfigured E4030 - no such cursor, or nothing lies between there and the cursor
        """
        books = self.books
        before = None if connector == RULES_CURSOR else books.cursors.positions().get(connector)
        if before is None:
            text = f"connector {connector}: it has no cursor in this log; `edge wal stat` lists those that have"
            raise Misconfigured(text, code=_NO_REWIND)
        wanted = books.marks.before_time(since_ns) if first is None else first
        after = Position(max(wanted, books.trim) - 1)
        if after >= before:
            text = f"connector {connector}: position {after + 1} is not before its cursor, {before}; nothing to rewind"
            raise Misconfigured(text, code=_NO_REWIND)
        return Rewind(connector, before, after, by, self._clock.now_ns())

    async def rewind(self, rewind: Rewind) -> None:
        """Set a cursor back, and keep who asked for it; durable on return. Its connector must stand still.

        raises  StoreFailed - the disk does not take it; whether it holds is open
        """
        books = self.books
        books.cursors.rewind(rewind.connector, rewind.after)
        books.rewinds.add(rewind)
        await self.wal.flush()
        if self.options.durability == "fsync":
            # Outside the store an older mark with the old cursor would win after a power cut: see DurableCursors.
            mark = books.mark(self.wal.durable)
            await done_by(self._worker, lambda: self._opened.high_water.write(mark, force=True))
        self._log.info(
            "cursor_rewound",
            connector=rewind.connector,
            before=rewind.before,
            after=rewind.after,
            rows=rewind.rows,
            by=rewind.by,
        )

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
            # As of the last group: a cursor that is in no group yet may have passed a dead letter that is in none.
            opened.high_water.write(opened.high_water.mark, force=True)
        finally:
            opened.disk.close()
            opened.high_water.close()

    def _keep_letters(self, letters: LetterBook, metrics: Metrics) -> None:
        """Have dead letters written, counted and, where one has to go, told."""

        def lost(row: LetterRow, why: str) -> None:
            metrics.counter("edge_dead_letters_lost_total", reason=why).value += 1
            self._log.error("dead_letter_lost", connector=row.connector, pos=row.position, rows=row.rows, reason=why)

        letters.on_change, letters.on_loss = self.wal.touch, lost
        metrics.counter("edge_dead_letters_lost_total", reason="damaged").value += len(letters.broken)
        metrics.gauge("edge_dead_letters").read = lambda: float(len(letters))
        metrics.gauge("edge_dead_letters_bytes").read = lambda: float(letters.size)

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
        self._retention.tick(max(0, self.bytes_used - self.letters.size))  # its limits are those of rows


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
