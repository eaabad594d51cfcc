"""The durable log: rows get their position, gather into groups, and become durable one group at a time.

A group is written in one piece on the loop thread, without a sync, and synced in the log's own thread; meanwhile
the next one gathers. Only then does the durable head move (I1). After a failed sync nothing more is believed of
that handle: it is closed, verified and reopened, and the rows since the durable head are written again under the
same positions (I5). Storage, clock and thread come through ports. What is kept for how long is in retention.py,
reading in replay.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from functools import partial

from framegate.bus.books import Books
from framegate.bus.commit import Worker
from framegate.bus.fault import CLOSED, FULL, STALLED
from framegate.bus.gaps import Reason
from framegate.bus.group import Group
from framegate.bus.mark import HighWater, HighWaterMark
from framegate.bus.meters import WalMeters
from framegate.bus.options import StoreOptions
from framegate.bus.record import KEY_BYTES, encode
from framegate.bus.replay import Replay
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, Placed, Position
from framegate.contract.ports import Change, Clock, Disk, Log
from framegate.observe.metrics import Metrics

COMMIT_BYTES = 256 << 10  # a group this large does not wait for the interval
CURSOR_LINGER_S = 0.5  # cursors alone wait this long for rows to travel with; bounds repeats after a crash
STALL_RETRY_S = (0.005, 0.5)  # first and longest wait before a stalled write is tried again
REPAIR_RETRY_S = (0.5, 30.0)  # first and longest wait between attempts to reopen a failed store
STALL_NOTICE_S = 1.0  # a write or sync that takes longer is told
FULL_LEFT_AT = 1.25  # of the reserve: a disk that hovers at its limit is full once, not once a second
CLOSE_DEADLINE_S = 1.5
FLUSH_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class Ground:
    """What the log stands on; a simulation brings its own.

    repair  closes, verifies and reopens the disk; runs in the worker; raises StoreFailed
    """

    disk: Disk
    worker: Worker
    high_water: HighWater
    repair: Callable[[], None]


@unique
class WalState(Enum):
    """What the log is doing; FULL and FAILED take rows only as far as the ring reaches."""

    RUNNING = "running"
    STALLED = "stalled"
    FULL = "full"
    FAILED = "failed"
    CLOSED = "closed"


class Wal:
    """One gateway's durable log. Used from the loop thread; made by `open_store`.

    head, durable  last position given out; last position that survives a power cut
    error          why the log does not take rows; "" while it does
    """

    def __init__(
        self,
        ground: Ground,
        books: Books,
        head: Position,
        options: StoreOptions,
        clock: Clock,
        log: Log,
        metrics: Metrics,
    ) -> None:
        self.head = self.durable = head
        self.state = WalState.RUNNING
        self.error = ""
        self.pending_bytes = 0
        self.options = options
        self.books = books
        self.replay = Replay(ground.disk, books.layouts.column, self._missing, books.is_named)
        self._disk, self._worker, self._high_water = ground.disk, ground.worker, ground.high_water
        self._repair = ground.repair
        self._clock, self._log = clock, log
        self._layout_number, self._mark = books.layouts.number, books.marks.note
        self._meters = WalMeters(metrics, self)
        self._loop = asyncio.get_running_loop()
        self._open = Group()
        self._syncing: Group | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_eager = False  # the armed timer is for rows, not for cursors alone
        self._is_due = False  # a commit waits for the sync or repair that is under way
        self._is_repairing = False
        self._began = 0.0
        self._wait_s = 0.0
        self._moved: list[Callable[[], None]] = []
        books.cursors.on_commit = self.touch

    # -- taking rows --------------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> Placed:
        """Give a batch its place and put it on the way to the disk. At most RECORD_ROWS_MAX rows."""
        first = Position(self.head + 1)
        key = first.to_bytes(KEY_BYTES, "big")
        data = encode(key, batch, self._layout_number(batch.tag))
        size = KEY_BYTES + len(data)
        group = self._open
        group.frames.append(("frames", key, data))
        if (mark := self._mark(first, size, batch.gateway_time)) is not None:
            group.frames.append(mark)
        group.size += size
        self.pending_bytes += size
        self.head = Position(self.head + len(batch.tag))
        if not self._is_eager:
            self._arm(self.options.commit_interval_s)
        if group.size >= COMMIT_BYTES:
            self.hurry()
        return Placed(first, batch)

    def hurry(self) -> None:
        """Commit at the end of this turn of the loop, or after the sync that is under way."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._commit)

    def bind(self, changes: Sequence[Change], kept: Callable[[], None]) -> None:
        """Changes that become durable in one piece with the rows appended in this turn of the loop, never before them.

        kept  called on the loop once they are
        """
        group = self._open
        size = sum(len(key) + len(value or b"") for _, key, value in changes)
        group.frames += changes
        group.kept.append(kept)
        group.size += size
        self.pending_bytes += size
        if not self._is_eager:
            self._arm(self.options.commit_interval_s)

    def drop(self, rows: int, reason: Reason, detail: str) -> None:
        """Give rows that are not taken their positions, and a gap in their place."""
        first = self.head + 1
        self.head = Position(self.head + rows)
        self.note_gap(first, self.head, reason, detail)

    def note_gap(self, first: int, last: int, reason: Reason, detail: str, connector: str = "") -> None:
        """A gap over what no older gap holds; durable with the next group commit."""
        rows = self.books.gaps.add(first, last, reason, detail, self._clock.now_ns(), connector)
        self._meters.gap_rows(reason, rows)
        if not self._is_eager:
            self._arm(self.options.commit_interval_s)

    def touch(self, then: Callable[[], None] | None = None) -> None:
        """The books have something to write; it may wait for rows to travel with, unless `then` waits for it."""
        if then is not None:
            self._open.then.append(then)
            if not self._is_eager:
                self._arm(self.options.commit_interval_s)
        elif self._timer is None:
            self._arm(CURSOR_LINGER_S, eager=False)

    def on_durable(self, moved: Callable[[], None]) -> None:
        """Call `moved` on the loop after each group."""
        self._moved.append(moved)

    async def flush(self, deadline_s: float = CLOSE_DEADLINE_S) -> None:
        """Commit now, and return when all that was taken before is durable; raises StoreFailed after the deadline."""
        target = self.head
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    done = self._loop.create_future()
                    self._open.then.append(partial(_finish, done))
                    self._commit()
                    await done
                    if self.durable >= target:
                        return
                    await self._clock.sleep(FLUSH_RETRY_S)  # a full disk takes the books and not the rows
        except TimeoutError:
            why = self.error or "the disk is slow"
            raise StoreFailed(f"durable log: not durable within {deadline_s} s: {why}", code=STALLED) from None

    async def close(self) -> None:
        """A last commit; then nothing is taken any more. Logs what could not be made durable."""
        try:
            await self.flush()
        except StoreFailed as error:
            self._log.error("wal_unclean", reason=error.text, rows=self.head - self.durable)
        self._disarm()
        self.state, self.error = WalState.CLOSED, "the durable log is closed"

    # -- committing ---------------------------------------------------------------------------------------------

    def _arm(self, delay_s: float, *, eager: bool = True) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._tick)
        self._is_eager = eager

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._is_eager = None, False

    def _tick(self) -> None:
        self._timer, self._is_eager = None, False
        self._commit()

    def _commit(self) -> None:
        """Write the open group and have it synced: now, or once the sync or repair that is under way has ended."""
        self._is_due = True
        if self._syncing is not None or self._is_repairing or self.state is WalState.CLOSED:
            return
        self._disarm()
        self._is_due = False
        group = self._open
        group.other += self.books.take_changes()
        group.last = self.head
        if self.state is WalState.FULL:
            group, rest = group.without_frames(self.durable)
        else:
            rest = Group()
        if group.is_empty and group.last == self.durable:
            return  # a head that only gaps have moved becomes durable too: they are in the books already
        began = self._clock.monotonic()
        try:
            if group.frames or group.other:
                self._disk.write(group.changes())
            if self.options.durability == "os":
                self._high_water.write(self.books.mark(group.last))
        except StoreFailed as error:
            self._open = group.joined(rest)
            self._not_written(error)
            return
        self._open, self._syncing, self._began = rest, group, began
        if self.state is WalState.STALLED:
            self._recovered()
        if self.options.durability == "os":
            self._loop.call_soon(self._synced, None)
        else:
            self._worker.do(self._sync_work(self.books.mark(group.last)), self._synced)

    def _sync_work(self, mark: HighWaterMark) -> Callable[[], None]:
        def work() -> None:
            self._disk.sync()
            self._high_water.write(mark)

        return work

    def _synced(self, error: StoreFailed | None) -> None:
        group, self._syncing = self._syncing, None
        assert group is not None
        if error is not None:
            self._open = group.joined(self._open)
            self._failed(error)
            return
        self.durable = group.last
        self.pending_bytes -= group.size
        self._wait_s = 0.0
        self._meters.committed(group.size, self._clock.monotonic() - self._began)
        if self.state is WalState.STALLED:
            self._recovered()
        for then in (*group.then, *group.kept):
            then()
        for moved in self._moved:
            moved()
        if self._is_due:
            self._commit()

    # -- when the disk does not do as it is told ----------------------------------------------------------------

    def watch(self, bytes_free: int) -> None:
        """Once a second: see whether there is room, and whether a sync hangs."""
        if self._syncing is not None and self._clock.monotonic() - self._began > STALL_NOTICE_S:
            self._stalled(f"a sync has taken more than {STALL_NOTICE_S} s")
        reserve = self.options.reserve_bytes
        if bytes_free < reserve and self.state in {WalState.RUNNING, WalState.STALLED}:
            self._full(f"{bytes_free} bytes are free, {reserve} are kept in reserve")
        elif self.state is WalState.FULL and bytes_free > reserve * FULL_LEFT_AT and not self._is_repairing:
            self._recovered()
            self._commit()

    def _not_written(self, error: StoreFailed) -> None:
        if error.stable_code != STALLED:
            self._failed(error)
            return
        first, longest = STALL_RETRY_S
        self._wait_s = min(longest, 2 * self._wait_s or first)
        if self._wait_s >= longest:
            self._stalled(error.text)
        self._arm(self._wait_s)

    def _stalled(self, why: str) -> None:
        if self.state is WalState.RUNNING:
            self.state, self.error = WalState.STALLED, why
            self._meters.failed("stalled")
            self._log.warning("wal_stalled", reason=why, rows=self.head - self.durable)

    def _full(self, why: str) -> None:
        if self.state is not WalState.FULL:
            self.state, self.error = WalState.FULL, why
            self._meters.failed("full")
            self._log.error("wal_full", reason=why, policy=self.options.disk_full)
            for moved in self._moved:
                moved()

    def _failed(self, error: StoreFailed) -> None:
        """The handle is not believed any more: repair, now or after a wait, then write again what is not durable."""
        if error.stable_code == FULL:
            self._full(error.text)
        elif self.state is not WalState.FAILED:
            self.state, self.error = WalState.FAILED, str(error)
            self._meters.failed("failed")
            self._log.error("wal_failed", reason=str(error), durable=self.durable, rows=self.head - self.durable)
        self._disarm()
        self._is_repairing = True
        self._loop.call_later(self._wait_s, self._begin_repair)
        first, longest = REPAIR_RETRY_S
        self._wait_s = min(longest, 2 * self._wait_s or first)

    def _begin_repair(self) -> None:
        if self.state is WalState.CLOSED:
            return
        self._worker.do(self._repair, self._repaired)

    def _repaired(self, error: StoreFailed | None) -> None:
        if self.state is WalState.CLOSED:
            return
        if error is not None:
            self._failed(error)
            return
        self._is_repairing = False
        if self.state is not WalState.FULL:  # a full disk is left when `watch` sees room
            self._recovered()
        self._commit()

    def _recovered(self) -> None:
        self._log.info("wal_recovered", state=self.state.value, durable=self.durable, rows=self.head - self.durable)
        self.state, self.error = WalState.RUNNING, ""
        for moved in self._moved:
            moved()

    def _missing(self, first: int, last: int, why: str) -> None:
        """Rows that should be in the store are not: a gap takes their place."""
        if self.state is WalState.FAILED or self._is_repairing:
            raise StoreFailed("durable log: it is being reopened; the reader tries again", code=CLOSED)
        self._log.error("wal_damage", first_pos=first, last_pos=last, reason=why)
        self.note_gap(first, last, "damage", why)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
