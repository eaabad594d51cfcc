"""Watches the wall clock for steps: rows are stamped with it, so whoever reads them must be able to learn of one.

Nothing in the gateway is timed by the wall clock; order and deadlines hold through any step (T1). What a step means
for the age of stored rows is decided in bus/retention.py.
"""

from __future__ import annotations

from framegate.contract.ports import Clock, Log
from framegate.observe.metrics import Metrics

LOOK_INTERVAL_S = 1.0
STEP_S = 1.0
"""Wall and monotonic time that differ by more between two looks: the clock was set. Slewing stays far below."""
TELL_INTERVAL_S = 60.0
"""A clock that steps at look after look, as one with a wild rate does, is told so often; the metric counts all."""
_NS = 1_000_000_000


class ClockWatch:
    """Looks once a second while `run()` runs."""

    def __init__(self, clock: Clock, log: Log, metrics: Metrics) -> None:
        self._clock, self._log = clock, log
        self._steps = metrics.counter("edge_clock_steps_total")
        self._wall_ns, self._monotonic = clock.now_ns(), clock.monotonic()
        self._told_at = float("-inf")
        self._is_wild = False  # the last look found a step as well
        self._untold = 0
        self._untold_s = 0.0

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._clock.sleep(LOOK_INTERVAL_S)
            self.look()

    def look(self) -> None:
        """Compare both clocks; tell of a step, and count it."""
        wall_ns, monotonic = self._clock.now_ns(), self._clock.monotonic()
        step_s = (wall_ns - self._wall_ns) / _NS - (monotonic - self._monotonic)
        self._wall_ns, self._monotonic = wall_ns, monotonic
        is_step = abs(step_s) > STEP_S
        if is_step:
            self._steps.value += 1
            self._untold += 1
            self._untold_s += step_s
        is_wild, self._is_wild = self._is_wild, is_step
        if self._untold and (not is_wild or monotonic - self._told_at >= TELL_INTERVAL_S):
            self._log.warning("clock_stepped", step_s=round(self._untold_s, 3), steps=self._untold)
            self._told_at, self._untold, self._untold_s = monotonic, 0, 0.0
