"""One stretch of a driver's service: opened once, scanned and written until trouble ends it.

The only code that awaits a driver's open, read and write; it runs in a task of its own, so that a driver that hangs
or ignores cancellation can be left behind (`retire`). It has no timer: the scheduler wakes it through `due` and its
deadline is swept. A driver that Begins scans is asked from `due` itself while the task sleeps, and rows leave when they
land; its task wakes for writes and for what is not as usual. What ends a shift is raised; what follows is the slot's
business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from math import inf

from framegate.contract.driver import Begins, Driver, DriverContext, Plan, Subscribes
from framegate.contract.errors import GatewayError
from framegate.contract.frame import Batch
from framegate.contract.ports import Clock
from framegate.endpoint.backoff import BACKOFF_MAX_S, Backoff
from framegate.runtime.account import Account
from framegate.runtime.begun import BegunScan
from framegate.runtime.failure import Failure, failure_of
from framegate.runtime.lane import ReadOrder, WriteLane
from framegate.runtime.lifecycle import Event, State
from framegate.runtime.orders import Orders
from framegate.runtime.outlet import Outlet
from framegate.runtime.scan import Scan
from framegate.runtime.schedule import Alarm, Scheduler
from framegate.runtime.standstill import Standstill

SILENT_SCANS_MAX = 3  # in a row, then quarantine
OPEN_DEADLINE_S = 30.0  # backstop behind an endpoint's own connect_timeout
WRITE_DEADLINE_S = 30.0  # backstop behind a driver's own time-outs
OUT_OF_TURN_DEADLINE_S = 30.0  # the same for reading single tags
WRITES_IN_A_ROW_MAX = 16  # then one waiting scan goes first: writes overtake reads, they do not starve them


class Shift:
    """A driver in service; satisfies contract.driver.Passage.

    move   tells the slot what happened (OPENED, REPLIED, SILENT)
    """

    __slots__ = (
        "_account", "_alarm", "_backoff", "_begun", "_clock", "_driver", "_due", "_early", "_idle", "_is_asleep",
        "_is_subscribing", "_lane", "_move", "_orders", "_outlet", "_reading", "_scans", "_scheduler", "_silent",
        "_standstill", "_state", "_writes_in_a_row", "call", "deadline", "is_asking", "is_retired",
    )  # fmt: skip

    def __init__(
        self,
        driver: Driver,
        scans: Sequence[Scan],
        lane: WriteLane,
        outlet: Outlet,
        account: Account,
        backoff: Backoff,
        scheduler: Scheduler,
        clock: Clock,
        *,
        move: Callable[[Event], State],
    ) -> None:
        self._driver = driver
        self._is_subscribing = isinstance(driver, Subscribes)
        self._begun = BegunScan(driver if isinstance(driver, Begins) else None, self._landed)
        self._scans = scans
        self._lane = lane
        self._outlet = outlet
        self._account = account
        self._backoff = backoff
        self._scheduler = scheduler
        self._clock = clock
        self._move = move
        self._state = State.INIT
        self._due = 0  # bits of the scans that wait
        self._early = 0  # those among them that the driver asked for
        self._reading = 0  # bit of the scan under way
        self._silent = 0  # scans without a usable reply in a row
        self._alarm: Alarm | None = None
        self._idle: asyncio.Future[None] | None = None
        self._standstill = Standstill(self.wake)
        self._orders = Orders(driver)
        self.is_retired = False  # it takes nothing more; its task may still be on the way out
        self.is_asking = False  # scans are taken; false: they are skipped and counted
        self._is_asleep = False  # the task waits for something to do
        self._writes_in_a_row = 0
        self.call = ""  # the driver's verb under way
        self.deadline = inf  # of what the task awaits

    def is_overdue(self, now: float) -> bool:
        """Whether the driver has taken too long."""
        return now >= self.deadline or now >= self._begun.deadline

    async def serve(self, context: DriverContext) -> None:
        """Open, then scan and write for ever; ends by raising, or quietly once retired."""
        try:
            self._follow()
            self._begin("open", OPEN_DEADLINE_S)
            await self._driver.open(replace(context, ready=self.ready, passage=self))
            self.deadline = inf
            if self.is_retired:  # it came too late, and nobody else will close what it opened
                await self._driver.close()
                return
            self._state = self._move(Event.OPENED)
            self.is_asking = True
            self._due = (1 << len(self._scans)) - 1  # the first values now, not at the end of a long period
            await self._loop()
        finally:
            self.retire()

    def due(self, classes: int) -> None:
        """These scans are due; one that still waits or runs is skipped, never queued twice."""
        busy = (self._due | self._reading) & classes
        if busy:
            late = busy & ~self._early
            if late:
                self._account.skipped(late.bit_count(), "late")
            classes ^= busy
        self._due |= classes
        begun = self._begun
        if not self._is_asleep or self._standstill.is_wanted or begun.is_under_way or not begun.is_possible:
            self.wake()
        else:
            self._begin_scan()

    def ready(self, plan: Plan) -> None:
        """The driver has something for a plan; it is read at once, but for a pause that the bus has asked for."""
        if not self.is_asking or self._outlet.is_paused:
            return
        for scan in self._scans:
            if scan.plan is plan:
                self._early |= scan.bit
                self._due |= scan.bit
                self.wake()

    async def end_of(self, done: asyncio.Future[None]) -> None:
        """See contract.driver.Passage. Only scans let writes in: what is read back is to be what was written last."""
        passed = 0
        while self._reading and passed < WRITES_IN_A_ROW_MAX and not done.done():
            if not self._lane.is_write_next:
                await self._either(done)
                continue
            passed += 1
            call, left_s = self.call, self.deadline - self._clock.monotonic()
            await self._take_order()
            self.call, self.deadline = call, self._clock.monotonic() + left_s
        await done

    async def _either(self, done: asyncio.Future[None]) -> None:
        """Until `done` is, or somebody wakes the shift."""
        idle = self._idle = asyncio.get_running_loop().create_future()
        done.add_done_callback(self._wake_done)
        try:
            await idle
        finally:
            done.remove_done_callback(self._wake_done)
            self._idle = None

    def _wake_done(self, done: asyncio.Future[None]) -> None:
        self.wake()

    def wake(self) -> None:
        """There is something to do: a due scan, or an order in the write lane."""
        idle = self._idle
        if idle is not None and not idle.done():
            self._is_asleep = False
            idle.set_result(None)

    def exchanged(self) -> None:
        """The list of scans holds others from now on; all of them are due, or the probe where one was under way."""
        self._reading = self._early = 0
        self._orders.forget()
        self._follow()
        self._due = (1 << len(self._scans)) - 1 if self.is_asking else 0
        if not self.is_asking and self._alarm is None:
            self._due = self._probe
        self.wake()

    async def hold(self) -> bool:
        """Let the call under way end, and begin none until release(), writes included; False: the shift ended first."""
        return not self.is_retired and await self._standstill.begin()

    def release(self) -> None:
        """Go on after hold(). Idempotent."""
        self._standstill.release()

    def replace(self, driver: Driver) -> None:
        """While it is held: another driver, opened already, serves from now on, with the scans that the list holds."""
        assert self._standstill.is_wanted, "between two calls only"
        self._driver = driver
        self._orders = Orders(driver)
        self._is_subscribing = isinstance(driver, Subscribes)
        self._begun = BegunScan(driver if isinstance(driver, Begins) else None, self._landed)
        self._early = 0
        self._follow()
        if self._is_subscribing and self.is_asking:  # what it told of before is not known here
            self._due = (1 << len(self._scans)) - 1

    def retire(self) -> None:
        """Take no more scans and writes, and never again touch anything outside. Idempotent."""
        if self.is_retired:
            return
        self.is_retired = True
        self.is_asking = self._is_asleep = False
        self._due = 0
        self.deadline = inf
        self._begun.withdraw()
        if self._alarm is not None:
            self._alarm.cancel()
        self._lane.refuse_all("E4105 the device is not connected; nothing was sent")
        self._standstill.give_up()

    async def _loop(self) -> None:
        while not self.is_retired:
            if self._begun.trouble is not None:
                await self._end_begun()
            elif self._standstill.is_wanted and not self._begun.is_under_way:
                await self._standstill.stand()
            elif self._may_take_order:
                self._writes_in_a_row += 1
                await self._take_order()
            elif self._due and not self._begun.is_under_way:
                self._writes_in_a_row = 0
                scan = self._take_due()
                await self._scan(scan, self._driver.read(scan.plan), self._clock.monotonic())
            else:
                self._idle = asyncio.get_running_loop().create_future()
                self._is_asleep = True
                await self._idle

    @property
    def _may_take_order(self) -> bool:
        """Writes go before scans and into one that was begun, but not for ever; what is read back waits for its end."""
        is_reading = self._begun.is_under_way
        if not self._lane or self._standstill.is_wanted or (is_reading and not self._lane.is_write_next):
            return False
        return self._writes_in_a_row < WRITES_IN_A_ROW_MAX or not (self._due or is_reading)

    def _take_due(self) -> Scan:
        """The most important of the scans that wait; it is under way from now on."""
        bit = self._due & -self._due
        self._due ^= bit
        self._early &= ~bit
        self._reading = bit
        return self._scans[bit.bit_length() - 1]

    async def _scan(self, scan: Scan, result: Awaitable[Sequence[Batch]], started: float) -> None:
        self.call = "read"
        self.deadline = started + scan.patience_s
        try:
            batches = await result
        except GatewayError as error:
            self.deadline = inf
            failure = failure_of(error)
            if failure.event is not None:
                self._account.count_failed_scan(failure.quality)
                if error.partial and self._counts(scan):
                    self._outlet.publish(error.partial)  # the slot tells every tag that the line is gone
                raise
            if self._counts(scan):
                self._failed(scan, failure, error.partial)
        else:
            self.deadline = inf
            self._scanned(scan, batches, started)
        self._reading = 0

    def _scanned(self, scan: Scan, batches: Sequence[Batch], started: float) -> None:
        """A scan was answered. On the hot path."""
        if not self._counts(scan):
            return
        rows = 0
        for batch in batches:
            rows += len(batch.tag)
        if rows < scan.rows and not self._is_subscribing:
            batches = self._outlet.completed(scan, batches)
        self._outlet.publish(batches)
        self._account.scanned(started, rows, batches[-1].gateway_time if batches else self._clock.now_ns())
        if self._account.is_troubled or self._state is not State.ACTIVE:
            self._answered()
            self._account.recovered()

    def _begin_scan(self) -> None:
        """Begin the next scan that is due; where the driver cannot, the task reads it. On the hot path."""
        due, early = self._due, self._early
        scan = self._take_due()
        if self._begun.begin(scan, self._clock.monotonic()):
            self.call = "read"
        else:
            self._due, self._early, self._reading = due, early, 0
            self.wake()

    def _landed(self) -> None:
        """A begun scan has landed. On the hot path."""
        begun = self._begun
        if not begun.is_under_way:
            return
        batches = begun.land()
        if batches is not None:
            try:
                self._scanned(begun.scan, batches, begun.started)
            except Exception as error:  # noqa: BLE001 - rows that nobody can take end this shift, not the line
                begun.trouble = error
        if begun.trouble is None:
            self._reading = self._writes_in_a_row = 0
            if self._due and self._is_asleep and not self._standstill.is_wanted and not self._lane:
                self._begin_scan()
                return
        if begun.trouble is not None or self._standstill.is_wanted or self._due or self._lane:
            self.wake()

    async def _end_begun(self) -> None:
        """See to a begun scan that did not land as usual. Raises what ends the shift."""
        begun = self._begun
        trouble, begun.trouble = begun.trouble, None
        if isinstance(trouble, Exception):
            raise trouble
        assert trouble is not None
        await self._scan(begun.scan, trouble.end(), begun.started)

    def _counts(self, scan: Scan) -> bool:
        """Whether what a scan brought is to be published: not after the end, nor when its plan was exchanged."""
        return not self.is_retired and scan in self._scans

    async def _take_order(self) -> None:
        order, begun = self._lane.take(), self._begun
        try:
            if isinstance(order, ReadOrder):
                self._begin("read", OUT_OF_TURN_DEADLINE_S)
                await self._orders.read_back(order)
            elif order is not None:
                begun.hold(self._clock.monotonic())
                self._begin("write", WRITE_DEADLINE_S)
                await self._orders.write(order)
        finally:
            self.deadline = inf
        if begun.is_under_way:
            begun.go_on(self._clock.monotonic())
            self.call = "read"

    def _follow(self) -> None:
        """Name the scans to a driver that subscribes to them."""
        if isinstance(self._driver, Subscribes):
            self._driver.follow([(scan.plan, scan.period_s) for scan in self._scans])

    def _begin(self, call: str, limit_s: float) -> None:
        self.call = call
        self.deadline = self._clock.monotonic() + limit_s

    def _failed(self, scan: Scan, failure: Failure, partial: Sequence[Batch]) -> None:
        """Publish what was read and Bad for the rest; then see whether the device is to be left in peace."""
        self._outlet.publish_failed(scan, failure.quality, partial)
        self._account.scan_failed(failure, scan.name)
        if not failure.is_silence:
            self._answered()
            if failure.wait_s > 0:
                self._ask_again_in(min(failure.wait_s, BACKOFF_MAX_S), is_probe=False)
            return
        self._silent += 1
        if self._silent < SILENT_SCANS_MAX and self._state is not State.QUARANTINE:
            return
        wait_s = self._backoff.next_wait_s()
        if self._state is not State.QUARANTINE:
            self._state = self._move(Event.SILENT)
            self._account.quarantined(failure)
            self._outlet.publish_down(failure.quality, told=scan)
        self._account.health.wait_s = wait_s
        self._ask_again_in(wait_s, is_probe=True)

    def _answered(self) -> None:
        """The device gave a sign of life."""
        self._silent = 0
        self._backoff.reset()
        self._outlet.is_up()
        self._account.health.wait_s = 0.0
        self.is_asking = True
        if self._state is not State.ACTIVE:
            self._state = self._move(Event.REPLIED)

    def _ask_again_in(self, wait_s: float, *, is_probe: bool) -> None:
        """Take no scans for a while; then read the smallest scan to see whether it answers, or take all again."""
        self.is_asking = False
        if self._due:
            self._account.skipped(self._due.bit_count(), "down")
            self._due = 0
        self._alarm = self._scheduler.call_at(self._clock.monotonic() + wait_s, lambda: self._ask_again(is_probe))

    def _ask_again(self, is_probe: bool) -> None:
        self._alarm = None
        self.is_asking = not is_probe or not self._scans
        if is_probe:
            self._due |= self._probe
        self.wake()

    @property
    def _probe(self) -> int:
        """Bit of the smallest scan; 0 where there is none."""
        return min(self._scans, key=lambda each: each.rows).bit if self._scans else 0
