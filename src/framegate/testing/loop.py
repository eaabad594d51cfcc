"""An event loop whose time leaps to the next timer instead of passing: hours of back-off in milliseconds.

    run_virtual(scenario())      runs a coroutine on such a loop

What asyncio leaves open stays as CPython happens to do it; a loop that draws it from a seed is in simulation/loop.py.
Only what waits for the loop's own timers may run on it: threads, subprocesses and sockets with a peer elsewhere
do not hold virtual time back. When nothing is left to wait for, the loop says so instead of hanging.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from framegate.testing.fakes import FakeClock

T = TypeVar("T")
START_S = 1000.0  # loop time at the start; not 0, so that nobody takes 0 for "never"
TURNS_MAX = 100_000  # of the loop without time passing: something spins


class VirtualLoop(asyncio.SelectorEventLoop):
    """Virtual time; satisfies everything asyncio asks of a loop.

    turns  times the loop went round since it was made
    """

    def __init__(self) -> None:
        self.turns = 0
        self._virtual_s = START_S
        self._leapt_at = 0
        super().__init__(_LeapingSelector(self))

    def time(self) -> float:
        return self._virtual_s

    def leap(self, seconds: float) -> None:
        self._virtual_s += seconds
        self._leapt_at = self.turns

    def turn(self) -> None:
        """Called once a turn; a timer storm or a task that never waits ends here instead of hanging."""
        self.turns += 1
        assert self.turns - self._leapt_at < TURNS_MAX, f"virtual loop: {TURNS_MAX} turns and no time has passed"


class LoopClock(FakeClock):
    """A clock whose time is the running loop's; wall time starts where FakeClock's does and can be stepped."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now_ns(self) -> int:
        return self.start_ns + self.step_ns + round((self.monotonic() - START_S) * 1e9)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time, on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class _LeapingSelector(selectors.BaseSelector):
    """Polls the real selector, and leaps over every wait in which nothing was ready."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.turn()
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        assert timeout is not None, "virtual loop: no timer is set and nothing is ready; this would wait for ever"
        self._loop.leap(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()
