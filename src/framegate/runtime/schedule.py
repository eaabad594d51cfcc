"""One timer for the whole gateway: scan classes on a grid, alarms, and the watch over calls that hang.

A wake-up of the process costs more than reading a hundred tags, so every slot that is due at one tick is woken in
one pass, and periods and alarms are rounded up to the grid. A period that cannot be served is skipped and counted,
never queued. Time is the event loop's (contract.ports.Clock.monotonic); slots do the work, this module only wakes.

Source: the measured cost of wake-ups at equal load falls by two thirds between a 2.5 ms and a 25 ms grid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from math import ceil, floor
from typing import Literal, Protocol, TypeAlias

from framegate.contract.ports import Clock
from framegate.observe.metrics import Metrics

GRID_S = 0.025
EARLY_S = 0.002  # uvloop's timers are millisecond-grained and may fire this much before their time
SWEEP_S = 0.5  # how often calls in flight are compared with their deadlines
SCAN_CLASSES_MAX = 62  # per slot; one bit each
ALARMS_MAX = 100_000

SkipReason: TypeAlias = Literal["late", "paused", "down"]


class Scanned(Protocol):
    """What the scheduler wakes. Calls must be short: they hold up every other slot of the tick."""

    def due(self, classes: int) -> None:
        """These scan classes (bit i = period i handed to join) are due now."""

    def skip(self, classes: int, periods: int, reason: SkipReason) -> None:
        """So many periods of these scan classes were not served."""

    def sweep(self, now: float) -> None:
        """Compare the call in flight with its deadline."""


class Alarm:
    """A call at a later tick; `cancel` is cheap and may come at any time."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class _Bucket:
    """Everything that has one period."""

    __slots__ = ("members", "tick", "ticks")

    def __init__(self, ticks: int, tick: int) -> None:
        self.ticks = ticks
        self.tick = tick  # when it is due next
        self.members: dict[Scanned, int] = {}

    def __lt__(self, other: _Bucket) -> bool:
        return self.tick < other.tick


class Scheduler:
    """Wakes slots at their periods; made and used on the loop.

    is_paused   asked once per tick; while true whole periods are skipped and counted
    """

    def __init__(
        self,
        clock: Clock,
        metrics: Metrics,
        *,
        is_paused: Callable[[], bool] = lambda: False,
        grid_s: float = GRID_S,
    ) -> None:
        assert grid_s > 0
        self.grid_s = grid_s
        self._clock = clock
        self._is_paused = is_paused
        self._lag_ms = metrics.histogram("edge_tick_lag_ms")
        self._buckets: list[_Bucket] = []  # a heap, soonest first; one per period
        self._members: dict[Scanned, None] = {}
        self._alarms: list[tuple[int, int, Alarm]] = []  # a heap of (tick, order, alarm)
        self._alarm_order = 0
        self._sweep_tick = 0
        self._sweep_ticks = max(1, ceil(SWEEP_S / grid_s))
        self._timer: asyncio.TimerHandle | None = None
        self._timer_tick = 0

    def ticks(self, period_s: float) -> int:
        """A period in ticks, rounded up to the grid."""
        return max(1, ceil(period_s / self.grid_s - 1e-9))

    def join(self, member: Scanned, periods_s: Sequence[float]) -> None:
        """Wake this member at each period from the next common tick on."""
        assert member not in self._members
        assert len(periods_s) <= SCAN_CLASSES_MAX
        now_tick = self._tick_at(self._clock.monotonic())
        if not self._members:
            self._sweep_tick = now_tick + self._sweep_ticks
        self._members[member] = None
        by_ticks = {bucket.ticks: bucket for bucket in self._buckets}
        for index, period_s in enumerate(periods_s):
            ticks = self.ticks(period_s)
            bucket = by_ticks.get(ticks)
            if bucket is None:
                bucket = by_ticks[ticks] = _Bucket(ticks, (now_tick // ticks + 1) * ticks)
                heappush(self._buckets, bucket)
            bucket.members[member] = bucket.members.get(member, 0) | 1 << index
        self._arm()

    def leave(self, member: Scanned) -> None:
        """Never wake this member again. Idempotent."""
        self._members.pop(member, None)
        for bucket in self._buckets:
            bucket.members.pop(member, None)
        if not all(bucket.members for bucket in self._buckets):
            self._buckets = [bucket for bucket in self._buckets if bucket.members]
            heapify(self._buckets)

    def call_at(self, when: float, callback: Callable[[], None]) -> Alarm:
        """Call back at the first tick at or after `when` (monotonic seconds)."""
        assert len(self._alarms) < ALARMS_MAX
        alarm = Alarm(callback)
        self._alarm_order += 1
        heappush(self._alarms, (ceil(when / self.grid_s - 1e-9), self._alarm_order, alarm))
        self._arm()
        return alarm

    def stop(self) -> None:
        """Cancel the timer and forget everything. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()
        self._alarms.clear()
        self._members.clear()

    def _tick_at(self, now: float) -> int:
        return floor((now + EARLY_S) / self.grid_s)

    def _tick(self) -> None:
        self._timer = None
        try:
            now = self._clock.monotonic()
            tick = self._tick_at(now)
            self._lag_ms.observe(max(0.0, (now - self._timer_tick * self.grid_s) * 1000.0))
            alarms = self._alarms
            while alarms and alarms[0][0] <= tick:
                callback = heappop(alarms)[2].callback
                if callback is not None:
                    callback()
            self._wake(tick)
            if tick >= self._sweep_tick:
                self._sweep_tick = (tick // self._sweep_ticks + 1) * self._sweep_ticks
                for member in self._members:
                    member.sweep(now)
        finally:
            self._arm()  # whatever a member did wrong, the others are woken again

    def _wake(self, tick: int) -> None:
        buckets = self._buckets
        if not buckets or buckets[0].tick > tick:
            return
        is_paused = self._is_paused()
        while buckets[0].tick <= tick:
            bucket = buckets[0]
            missed = (tick - bucket.tick) // bucket.ticks
            bucket.tick += (missed + 1) * bucket.ticks
            heapreplace(buckets, bucket)
            if is_paused:
                for member, classes in bucket.members.items():
                    member.skip(classes, missed + 1, "paused")
                continue
            for member, classes in bucket.members.items():
                if missed:
                    member.skip(classes, missed, "late")
                member.due(classes)

    def _arm(self) -> None:
        """Set the timer to the soonest tick at which anything is to be done."""
        soonest = self._sweep_tick if self._members else None
        if self._buckets and (soonest is None or self._buckets[0].tick < soonest):
            soonest = self._buckets[0].tick
        if self._alarms and (soonest is None or self._alarms[0][0] < soonest):
            soonest = self._alarms[0][0]
        if soonest is None:
            return
        if self._timer is not None:
            if self._timer_tick <= soonest:
                return
            self._timer.cancel()
        self._timer_tick = soonest
        self._timer = asyncio.get_running_loop().call_at(soonest * self.grid_s, self._tick)
