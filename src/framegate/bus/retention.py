"""Retention: what is deleted, and when.

Rows that every enabled connector has delivered stay for a while and go first; rows that one still needs go only
beyond the limits, and then a durable gap stands for them before the first byte is deleted (I7). Deletion is in
whole stretches between marks, in the log's thread, and what the disk got back is measured. A jump of the wall
clock exempts what was recorded before it from the limits by age; the limits by bytes hold always.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from framegate.bus.books import Books
from framegate.bus.commit import Worker
from framegate.bus.gaps import Reason
from framegate.bus.marks import Mark
from framegate.bus.options import StoreOptions
from framegate.bus.record import key_of
from framegate.bus.wal import Wal, WalState
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Position
from framegate.contract.ports import Clock, Disk, Log
from framegate.observe.metrics import Metrics

SLACK = 1 / 8  # deletion begins this far beyond a limit for delivered rows, so that it pays
SLACK_NEEDED = 1 / 16  # and goes this far below the limit for rows that a connector still needs
FULL_STEP = 1 / 8  # drop_oldest gives this part of the log up at a time
CLOCK_STEP_S = 5.0  # wall and monotonic time differing by more between two looks is a jump
TELL_INTERVAL_S = 60.0  # a clock that jumps at every look is told once a minute
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Deletion:
    """Rows to be deleted: everything below `stop`; those from `lost` on were needed by a connector."""

    stop: Position
    lost: Position
    reason: Reason
    detail: str


class Retention:
    """Keeps the log of one gateway within its limits. `tick` is called once a second on the loop.

    deleted  rows deleted since start
    """

    def __init__(
        self,
        disk: Disk,
        wal: Wal,
        worker: Worker,
        options: StoreOptions,
        clock: Clock,
        log: Log,
        metrics: Metrics,
    ) -> None:
        self._disk, self._wal, self._worker, self._options = disk, wal, worker, options
        self._books: Books = wal.books
        self._clock, self._log = clock, log
        self._deleted_rows = metrics.counter("edge_wal_deleted_rows_total")
        self._is_busy = False
        self._wall_ns, self._monotonic = clock.now_ns(), clock.monotonic()
        self._age_from = Position(0)
        self._step_told_at = float("-inf")

    def tick(self, bytes_used: int) -> None:
        """Begin a deletion if one is due and none is under way."""
        self._watch_clock()
        if self._is_busy or self._wal.state in {WalState.FAILED, WalState.CLOSED}:
            return
        deletion = self._due(bytes_used)
        if deletion is None:
            return
        self._is_busy = True
        first = self._books.trim
        if deletion.lost < deletion.stop:
            losers = self._books.cursors.behind(deletion.stop - 1)
            connector = losers[0] if len(losers) == 1 else ""
            self._books.gaps.doom(deletion.lost, deletion.stop - 1)
            self._wal.note_gap(deletion.lost, deletion.stop - 1, deletion.reason, deletion.detail, connector)
        self._books.trim_to(deletion.stop)
        self._wal.touch(partial(self._delete, deletion, first))

    def _delete(self, deletion: Deletion, first: Position) -> None:
        """The gap and the new beginning are durable: now the rows may go."""
        self._books.trimmed()
        freed = 0

        def work() -> None:
            nonlocal freed
            before = self._disk.bytes_used()
            self._disk.drop_range("frames", key_of(0), key_of(deletion.stop))
            freed = before - self._disk.bytes_used()

        def done(error: StoreFailed | None) -> None:
            self._is_busy = False
            if error is not None:  # the next deletion begins at 0 again and takes these rows along
                self._log.warning("wal_stalled", reason=error.text, rows=deletion.stop - first)
                return
            self._deleted_rows.value += deletion.stop - first
            last = deletion.stop - 1
            if deletion.lost < deletion.stop:
                self._log.error(
                    "wal_lost", first_pos=deletion.lost, last_pos=last, reason=deletion.detail, freed_bytes=freed
                )
            else:
                self._log.info("wal_deleted", first_pos=first, last_pos=last, freed_bytes=freed)

        self._worker.do(work, done)

    def _due(self, bytes_used: int) -> Deletion | None:
        """What has to go now; whole stretches, never the last one, never rows that are not durable."""
        marks = self._books.marks.all()
        durable = self._wal.durable
        starts = [mark for mark in marks[1:] if mark.first - 1 <= durable]
        if not starts:
            return None
        floor = self._books.cursors.floor(durable)
        on_disk = min(1.0, bytes_used / max(1, self._books.marks.kept_bytes))
        delivered = [mark for mark in starts if mark.first - 1 <= floor]
        stop, reason, detail = self._needed(marks[0], starts, on_disk)
        stop = max(stop, self._delivered(marks[0], delivered, on_disk))
        if stop <= self._books.trim:
            return None
        return Deletion(stop, Position(max(self._books.trim, min(floor + 1, stop))), reason, detail)

    def _delivered(self, oldest: Mark, ends: list[Mark], on_disk: float) -> Position:
        """Where the delivered rows that are kept should begin; 0 = as they do now."""
        if not ends:
            return Position(0)
        if self._wal.state is WalState.FULL:
            return ends[-1].first
        options = self._options
        size = (ends[-1].before - oldest.before) * on_disk
        stop = Position(0)
        if size > options.keep_acked_bytes * (1 + SLACK):
            surplus = (size - options.keep_acked_bytes) / on_disk
            # Rounding may put the surplus a hair above all there is: then everything delivered goes.
            stop = next((mark.first for mark in ends if mark.before - oldest.before >= surplus), ends[-1].first)
        old = self._older(ends, options.keep_acked_s)
        if old and self._older([oldest], options.keep_acked_s * (1 + SLACK)):
            stop = max(stop, old[-1].first)
        return stop

    def _needed(self, oldest: Mark, ends: list[Mark], on_disk: float) -> tuple[Position, Reason, str]:
        """Where the log as a whole has to begin; 0 = as it does now."""
        options = self._options
        if self._wal.state is WalState.FULL and options.disk_full == "drop_oldest":
            part = max(1, int(len(ends) * FULL_STEP))
            return ends[part - 1].first, "disk_full", "the disk was full; the oldest rows made room"
        size = self._books.marks.kept_bytes * on_disk
        if size > options.retention_bytes:
            surplus = (size - options.retention_bytes * (1 - SLACK_NEEDED)) / on_disk
            fitting = [mark for mark in ends if mark.before - oldest.before >= surplus]
            detail = f"more than retention_bytes = {options.retention_bytes}"
            return (fitting or ends[-1:])[0].first, "retention", detail
        old = self._older(ends, options.retention_age_s)
        if old:
            return old[-1].first, "retention", f"older than retention_age = {options.retention_age_s:g} s"
        return Position(0), "retention", ""

    def _older(self, ends: list[Mark], age_s: float) -> list[Mark]:
        """The stretches that ended longer ago; each ends where the next mark stands."""
        limit = self._wall_ns - int(age_s * _NS)
        return [mark for mark in ends if mark.time < limit and mark.first > self._age_from]

    def _watch_clock(self) -> None:
        wall_ns, monotonic = self._clock.now_ns(), self._clock.monotonic()
        step_s = (wall_ns - self._wall_ns) / _NS - (monotonic - self._monotonic)
        if abs(step_s) > CLOCK_STEP_S:
            self._age_from = self._wal.head
            if monotonic - self._step_told_at >= TELL_INTERVAL_S:
                self._step_told_at = monotonic
                self._log.warning("wal_clock_stepped", step_s=round(step_s, 3), exempt_pos=self._wal.head)
        self._wall_ns, self._monotonic = wall_ns, monotonic
