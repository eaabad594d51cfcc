"""One supervised driver: opened, served, closed, and brought back for ever.

The slot owns lifecycle, back-off, closing and the two deadlines behind every call of its driver; the service itself
is a Shift (shift.py) in a task of its own. Which failure means what is in failure.py, what is counted and logged in
account.py, what is published in outlet.py.

A failed scan publishes Bad rows for exactly the tags that were not read (reliability rule B1); entering back-off or
quarantine publishes Bad once for all the others, and scans skipped from then on are counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag, Driver, DriverContext
from framegate.contract.errors import NoReply, NotConnected
from framegate.contract.frame import Batch
from framegate.contract.ports import Clock, Dice, FrameSink, Log
from framegate.contract.quality import Quality
from framegate.endpoint.backoff import BACKOFF_MAX_S, Backoff
from framegate.observe.metrics import Metrics
from framegate.runtime.account import Account
from framegate.runtime.failure import failure_of
from framegate.runtime.health import SlotHealth
from framegate.runtime.lane import WriteLane, results_of
from framegate.runtime.lifecycle import Event, State, next_state
from framegate.runtime.outlet import Outlet
from framegate.runtime.scan import Scan, ScanPlan, scans_of
from framegate.runtime.schedule import Scheduler, SkipReason
from framegate.runtime.shift import Shift

__all__ = ["ScanPlan", "Slot", "SlotHealth"]

STUCK_GRACE_S = 1.0  # how long a cancelled call may take to end before its task is left behind
CLOSE_DEADLINE_S = 1.0  # contract of Driver.close
STOP_GRACE_S = 0.2  # the same two while the gateway stops: together under 1 s
STOP_CLOSE_S = 0.6
RECONNECT_MAX_S = 6.0  # a device that is back is read again within 10 s, however long it was away
LEFT_BEHIND_MAX = 4  # hanging tasks of one slot; with more it waits for one to end


class Service(NamedTuple):
    """What a slot serves a device with.

    factory  makes drivers that may read these scans; None: the one that there is is opened again and again
    scans    made by scans_of
    """

    factory: Callable[[], Driver] | None
    scans: Sequence[Scan]
    context: DriverContext


class Slot:
    """A driver with its scans, ready to be run by a Runtime.

    plans    one ScanPlan per scan class, in the order of their importance when several are due
    factory  makes a fresh driver with the same options after a bug; without it the same instance is opened again
    """

    def __init__(  # noqa: PLR0917 - ports are handed in, each by name in the wiring
        self,
        name: str,
        driver: Driver,
        plans: Sequence[ScanPlan],
        context: DriverContext,
        sink: FrameSink,
        clock: Clock,
        dice: Dice,
        log: Log,
        metrics: Metrics,
        *,
        factory: Callable[[], Driver] | None = None,
    ) -> None:
        self.name = name
        self._driver = driver
        self._factory = factory
        self._context = context
        self._clock = clock
        self._scans = scans_of(plans)  # one list for the slot, its outlet and its shifts
        self._account = Account(name, clock, log, metrics)
        self._account.health.tags = sum(scan.rows for scan in self._scans)
        self._outlet = Outlet(sink, self._scans, clock, self._account)
        self._backoff = Backoff(dice)
        self._lane = WriteLane()
        self._state = State.LOADING
        self._shift: Shift | None = None
        self._scheduler: Scheduler | None = None  # while it runs
        self._worker: asyncio.Task[None] | None = None
        self._stuck: asyncio.Future[None] | None = None
        self._wait: asyncio.Future[None] | None = None  # the supervisor waits here between shifts
        self._left_behind: set[asyncio.Task[None]] = set()
        self._needs_close = False
        self._needs_fresh = False
        self._is_overdue = False  # the worker was cancelled by the sweep
        self._is_restart_asked = False

    @property
    def health(self) -> SlotHealth:
        return self._account.health

    @property
    def scans(self) -> list[Scan]:
        """What is scanned now."""
        return self._scans[:]

    @property
    def is_starting(self) -> bool:
        """It was never open since it started, or is being opened again: what it can do is not known yet."""
        return self._state in {State.LOADING, State.INIT}

    async def write(
        self, commands: Sequence[Write], deadline: float, tags: Sequence[BoundTag] = ()
    ) -> Sequence[WriteResult]:
        """One honest result per command by the deadline (monotonic seconds); overtakes waiting reads.

        tags  those that are written, where the driver may not have scanned them yet
        """
        shift = self._shift
        if shift is None or shift.is_retired or not self._state.is_open:
            reason = f"E4105 device {self.name} is not connected ({self._state.value}); nothing was sent"
            return results_of(commands, Outcome.NOT_SENT, reason)
        self._account.health.writes_total += len(commands)
        return await self._lane.place(commands, deadline, self._clock.monotonic(), shift.wake, tags)

    async def read_back(self, tags: Sequence[BoundTag], deadline: float) -> Sequence[Batch]:
        """Read tags once, out of turn: raw rows, which are not published.

        raises NotConnected, NoReply - the device cannot be asked, or did not answer by then; Busy - too much waits
        """
        shift = self._shift
        if shift is None or shift.is_retired or not self._state.is_open:
            raise NotConnected(f"device {self.name} is not connected ({self._state.value})", code="E4105")
        return await self._lane.place_read(tags, deadline, shift.wake)

    def restart(self) -> None:
        """Close the driver and open a fresh one now, whatever it is doing or waiting for."""
        self._is_restart_asked = self._needs_fresh = True
        if self._wait is not None and not self._wait.done():
            self._wait.set_result(None)
        elif self._worker is not None:
            self._cancel_worker()

    def exchange(self, scans: Sequence[Scan]) -> list[Scan]:
        """Scan something else from now on; the driver stays open. Returns the scans until now.

        A scan under way is not published but made again with its new plan: what it brings was asked for by tables
        that no longer hold. scans: made by scans_of, from plans of a driver with the same options
        """
        old = self._scans[:]
        self._scans[:] = scans
        self._account.health.tags = sum(scan.rows for scan in scans)
        if self._scheduler is not None:
            self._scheduler.leave(self)
            self._scheduler.join(self, [scan.period_s for scan in scans])
        self._outlet.exchanged(old)
        if self._shift is not None:
            self._shift.exchanged()
        elif self._state is State.MISCONFIGURED:
            self.restart()  # the new tables that it waits for
        return old

    # -- another driver, between two scans: see swap.py --------------------------------------------------------

    @property
    def driver(self) -> Driver:
        return self._driver

    @property
    def service(self) -> Service:
        return Service(self._factory, self.scans, self._context)

    @property
    def shift(self) -> Shift | None:
        """The driver in service; None while there is none."""
        return self._shift if self._shift is not None and not self._shift.is_retired else None

    def replace(self, driver: Driver, service: Service) -> None:
        """While the shift is held: this driver, opened already, serves from now on; the one before is not closed."""
        assert self._shift is not None
        self._use(service)
        self._driver = driver
        self._needs_close, self._needs_fresh = True, False
        self._shift.replace(driver)

    def succeed(self, service: Service) -> None:
        """The driver in service, if any, is closed, and a fresh one is opened in its place."""
        self.restart()
        if self._shift is not None:
            self._shift.retire()
        self._use(service)

    def _use(self, service: Service) -> None:
        assert [scan.period_s for scan in service.scans] == [scan.period_s for scan in self._scans], "the same classes"
        self._factory, self._scans[:], self._context = service

    async def set_down(self) -> None:
        """While the shift is held: close the driver; it is opened again or replaced before the shift is released."""
        await self._close(CLOSE_DEADLINE_S)

    async def dismiss(self, driver: Driver, limit_s: float = CLOSE_DEADLINE_S) -> None:
        """Close a driver; one that hangs is left behind."""
        task = asyncio.create_task(driver.close(), name=f"close {self.name}")
        try:
            await asyncio.wait((task,), timeout=limit_s)
        except asyncio.CancelledError:  # the gateway stops: the close has the time that every close has then
            await asyncio.wait((task,), timeout=min(limit_s, STOP_CLOSE_S))
            raise
        finally:
            if not task.done():
                self._leave_behind(task, "close")
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            self._account.close_failed(failure_of(error), error)

    # -- called by the scheduler ------------------------------------------------------------------------------

    def due(self, classes: int) -> None:
        shift = self._shift
        if shift is not None and shift.is_asking:
            shift.due(classes)
        else:
            self._account.skipped(classes.bit_count(), "down")

    def skip(self, classes: int, periods: int, reason: SkipReason) -> None:
        self._account.skipped(classes.bit_count() * periods, reason)

    def sweep(self, now: float) -> None:
        shift = self._shift
        if shift is None or self._worker is None or not shift.is_overdue(now):
            return
        if not self._worker.cancelling():
            self._is_overdue = True
            self._cancel_worker()
        elif self._stuck is not None and not self._stuck.done():
            self._stuck.set_result(None)

    # -- the supervisor ---------------------------------------------------------------------------------------

    async def run(self, scheduler: Scheduler) -> None:
        """Serve until cancelled; then end the worker and close the driver within STOP_GRACE_S + STOP_CLOSE_S."""
        self._move(Event.START)
        self._scheduler = scheduler
        scheduler.join(self, [scan.period_s for scan in self._scans])
        try:
            while True:
                error = await self._serve(scheduler)
                wait_s = self._fall(error)
                await self._close(CLOSE_DEADLINE_S)
                await self._recover(wait_s, scheduler)
        finally:
            self._scheduler = None
            scheduler.leave(self)
            await self._stop()

    async def _serve(self, scheduler: Scheduler) -> BaseException | None:
        """One shift; the error that ended it, or None when a restart was asked."""
        self._is_overdue = False
        self._stuck = asyncio.get_running_loop().create_future()
        worker = self._worker = asyncio.create_task(self._work(scheduler), name=f"driver {self.name}")
        await asyncio.wait((worker, self._stuck), return_when=asyncio.FIRST_COMPLETED)
        shift, self._shift = self._shift, None
        call = "" if shift is None else shift.call
        if shift is not None:
            shift.retire()
        self._worker = None
        if not worker.done():
            self._needs_fresh = True
            self._leave_behind(worker, call)
            return NoReply(
                f"driver {self.name}: `{call}` ended neither by its deadline nor when it was cancelled; it is left "
                "behind and a fresh instance is started",
                code="E4102",
            )
        if self._is_restart_asked:
            return None
        if self._is_overdue:
            return NoReply(
                f"driver {self.name}: `{call}` was not done by its deadline and was cancelled; device or plugin "
                "hang, the driver is opened again",
                code="E4101",
            )
        if worker.cancelled():
            return RuntimeError("the driver cancelled itself: a CancelledError escaped that nobody asked for")
        return worker.exception()

    async def _work(self, scheduler: Scheduler) -> None:
        """The worker's task."""
        if self._needs_fresh and self._factory is not None:
            self._driver = self._factory()
            self._account.restarted()
        self._needs_fresh = False
        self._needs_close = True
        shift = self._shift = Shift(
            self._driver,
            self._scans,
            self._lane,
            self._outlet,
            self._account,
            self._backoff,
            scheduler,
            self._clock,
            move=self._move,
        )
        await shift.serve(self._context)

    def _fall(self, error: BaseException | None) -> float | None:
        """Move to the state that the failure asks for, tell every tag, and say how long to stay there.

        returns  seconds; 0 when a restart was asked; None: until new tables come
        """
        if error is None:
            self._move(Event.RESTART)
            self._outlet.publish_down(Quality.BAD_NOT_CONNECTED)
            return 0.0
        failure = failure_of(error)
        event = failure.event or Event.LOST  # e.g. silence while opening
        wait_s = None
        if event is not Event.REFUSED:
            bound_s = RECONNECT_MAX_S if event is Event.LOST else BACKOFF_MAX_S
            wait_s = min(BACKOFF_MAX_S, max(failure.wait_s, self._backoff.next_wait_s(bound_s)))
        self._needs_fresh |= event is Event.BROKEN
        self._move(event)
        self._account.went_down(failure, event, wait_s or 0.0, error)
        self._outlet.publish_down(failure.quality)
        return wait_s

    async def _recover(self, wait_s: float | None, scheduler: Scheduler) -> None:
        """Wait for what ends the present state, and make ready for the next shift."""
        if self._state is not State.INIT:
            await self._pause(wait_s, scheduler)
            while not self._is_restart_asked and len(self._left_behind) > (LEFT_BEHIND_MAX if self._factory else 0):
                await self._pause(BACKOFF_MAX_S, scheduler)
            self._move(Event.RESTART if self._is_restart_asked else Event.RETRY)
        self._is_restart_asked = False

    async def _pause(self, wait_s: float | None, scheduler: Scheduler) -> None:
        """Wait in the scheduler's care; restart() ends it early. None: until restart()."""
        if self._is_restart_asked:
            return
        wait = self._wait = asyncio.get_running_loop().create_future()
        alarm = None
        if wait_s is not None:
            when = self._clock.monotonic() + wait_s
            alarm = scheduler.call_at(when, lambda: None if wait.done() else wait.set_result(None))
        try:
            await wait
        finally:
            self._wait = None
            if alarm is not None:
                alarm.cancel()

    async def _stop(self) -> None:
        self._lane.refuse_all("E4105 the gateway stops; nothing was sent")
        worker, self._worker = self._worker, None
        shift, self._shift = self._shift, None
        if worker is not None:
            worker.cancel()
            await asyncio.wait((worker,), timeout=STOP_GRACE_S)
            if shift is not None:
                shift.retire()
            if not worker.done():
                self._leave_behind(worker, "" if shift is None else shift.call)
            elif not worker.cancelled():
                worker.exception()  # taken; the slot ends anyway
        await self._close(STOP_CLOSE_S)
        self._move(Event.STOP)

    async def _close(self, limit_s: float) -> None:
        if not self._needs_close:
            return
        self._needs_close = False
        await self.dismiss(self._driver, limit_s)

    def _cancel_worker(self) -> None:
        assert self._worker is not None
        if self._shift is not None:
            self._shift.retire()
            self._shift.deadline = self._clock.monotonic() + STUCK_GRACE_S
        self._worker.cancel()

    def _leave_behind(self, task: asyncio.Task[None], call: str) -> None:
        """Cancel a task that may ignore it, and no longer wait for it."""
        self._left_behind.add(task)
        task.add_done_callback(self._come_home)
        task.cancel()
        self._account.hung(call)

    def _come_home(self, task: asyncio.Task[None]) -> None:
        self._left_behind.discard(task)
        if not task.cancelled():
            task.exception()  # taken, so that the loop does not report it as never retrieved

    def _move(self, event: Event) -> State:
        self._state = next_state(self._state, event)
        self._account.moved(self._state)
        return self._state
