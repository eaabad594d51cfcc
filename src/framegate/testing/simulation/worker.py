"""The log's thread, simulated: each piece of work happens at one moment between hand-in and answer.

Both waits are drawn, so that the loop runs on before the work, between the work and its answer, and after it, as it
does beside a real thread. Answers come in the order of the work. Satisfies bus.commit.Worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random

from framegate.bus.commit import WORK_MAX, Then
from framegate.contract.errors import StoreFailed
from framegate.testing.simulation.disk import DiskWeather
from framegate.testing.simulation.loop import SimLoop

QUICK = 0.05  # most work takes at most this part of the longest time
SLOW_CHANCE = 0.05


class SimWorker:
    """A thread of one process: its timers die with that."""

    def __init__(self, loop: SimLoop, weather: DiskWeather, dice: Random) -> None:
        self._loop, self._weather, self._dice = loop, weather, dice
        self._work: deque[tuple[Callable[[], None], Then]] = deque()
        self._answers: deque[Callable[[], None]] = deque()
        self._is_busy = self._is_closed = False

    def do(self, work: Callable[[], None], then: Then) -> None:
        assert len(self._work) < WORK_MAX, "the log hands in one piece of work at a time"
        if self._is_closed:
            return
        self._work.append((work, then))
        if not self._is_busy:
            self._begin()

    def close(self) -> None:
        self._is_closed = True

    def _begin(self) -> None:
        self._is_busy = bool(self._work)
        if self._is_busy:
            self._loop.call_later(self._draw_s(), self._run, *self._work.popleft())

    def _run(self, work: Callable[[], None], then: Then) -> None:
        error: StoreFailed | None = None
        try:
            work()
        except StoreFailed as failed:
            error = failed
        self._answers.append(partial(then, error))
        self._loop.call_later(self._draw_s(), self._answer)
        self._begin()

    def _answer(self) -> None:
        self._answers.popleft()()

    def _draw_s(self) -> float:
        longest = self._weather.slow_s
        if self._dice.random() >= SLOW_CHANCE:
            longest *= QUICK
        return longest * self._dice.random()
