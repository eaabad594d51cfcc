"""A loop on which one seed decides everything that asyncio leaves open, and processes that can be killed on it.

Kept, because the code under test may rely on it: `call_soon` runs in order, a timer never fires early, an earlier timer
fires before a later one. Drawn from the seed: the order of timers due at one moment, how late the loop wakes, and when
anything from outside arrives (`arrive`: a thread's answer, a network's delivery). Time is virtual.

A Process is one life of a program: its tasks, and timers that never fire once it is dead. What a dead process still
does while its tasks end must be stopped at its ports; they ask `is_alive`.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from functools import partial
from hashlib import blake2b
from random import Random
from typing import Any, TypeVar

from framegate.testing.loop import VirtualLoop

T = TypeVar("T")
TIE_S = 1e-9  # timers closer than this are due at the same moment
_FORGET_FROM = 64  # finished tasks of a process that are remembered


class Process:
    """One life of a program.

    tasks  in the order they were made
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.tasks: dict[SimTask, None] = {}
        self._forget_at = _FORGET_FROM

    def adopt(self, task: SimTask) -> None:
        self.tasks[task] = None
        if len(self.tasks) > self._forget_at:
            self.tasks = {known: None for known in self.tasks if not known.done()}
            self._forget_at = 2 * len(self.tasks) + _FORGET_FROM

    def kill(self) -> None:
        """From now on nothing of it reaches the world; its tasks unwind on their own."""
        self.is_alive = False
        for task in self.tasks:
            task.cancel()


LIFE: contextvars.ContextVar[Process | None] = contextvars.ContextVar("life", default=None)


class SimTask(asyncio.Task[Any]):
    """A task whose place in a set follows from its number: by its address two runs would differ."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], *, loop: SimLoop, context: Any) -> None:
        self._number = number
        super().__init__(coro, loop=loop, context=context)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class Trace:
    """A hash over everything that happened, in order: equal for equal runs."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self.events = 0

    def note(self, time_s: float, event: str) -> None:
        self.events += 1
        self._hash.update(f"{time_s!r} {event}\n".encode())

    def digest(self) -> str:
        return self._hash.hexdigest()


class SimLoop(VirtualLoop):
    """Virtual time and seeded scheduling.

    late_chance, late_s_max  how often, and by how much at most, the loop wakes late, as behind a long computation
    bugs                     exceptions that reached the loop from a living process or from the world
    """

    def __init__(self, seed: int | str) -> None:
        self.dice = Random(f"{seed} loop")  # noqa: S311 - a simulation must be repeatable
        self.trace = Trace()
        self.late_chance = self.late_s_max = 0.0
        self.bugs: list[str] = []
        self._world = contextvars.Context()
        self._tasks_made = 0
        super().__init__()
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._on_exception)

    def arrive(self, delay_s: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Something from outside any process happens after a delay."""
        return self.call_later(delay_s, callback, *args, context=self._world)

    def spawn(self, process: Process, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a coroutine, and whatever it starts, as part of a process."""
        context = contextvars.copy_context()
        context.run(LIFE.set, process)
        return self.create_task(work, name=name, context=context)

    def note(self, event: str) -> None:
        """Put an event into the trace."""
        self.trace.note(self.time(), event)

    # -- what asyncio asks ----------------------------------------------------------------------------------------

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        life = LIFE.get() if context is None else context.get(LIFE)
        when += self.dice.random() * TIE_S
        if life is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, _fire, life, callback, args, context=context)

    def leap(self, seconds: float) -> None:
        if self.late_chance and self.dice.random() < self.late_chance:
            seconds += self.dice.random() * self.late_s_max
        super().leap(seconds)

    def _make_task(self, loop: Any, coro: Any, context: Any = None) -> SimTask:
        self._tasks_made += 1
        task = SimTask(self._tasks_made, coro, loop=self, context=context)
        life = LIFE.get() if context is None else context.get(LIFE)
        if life is not None:
            life.adopt(task)
            if not life.is_alive:
                task.cancel()
        return task

    def _on_exception(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.bugs.append(f"{context['message']}: {type(error).__name__}: {error}")


def _fire(life: Process, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
    if life.is_alive:
        callback(*args)


def run_simulated(seed: int | str, main: Callable[[SimLoop], Coroutine[Any, Any, T]]) -> T:
    """Run `main(loop)` to its end on a loop of its own."""

    async def run() -> T:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        return await main(loop)

    with asyncio.Runner(loop_factory=partial(SimLoop, seed)) as runner:
        return runner.run(run())
