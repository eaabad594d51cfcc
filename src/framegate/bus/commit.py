"""Workers: the threads in which the store may block, behind a port that a simulation can replace.

The loop thread hands in work and is told of its end on the loop. Work of one worker runs in order, one piece at a
time.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Protocol, TypeAlias

from framegate.bus.fault import IO
from framegate.contract.errors import StoreFailed

WORK_MAX = 16  # pieces that wait; the log hands in one at a time
Then: TypeAlias = Callable[[StoreFailed | None], None]


class Worker(Protocol):
    """Runs what may block."""

    def do(self, work: Callable[[], None], then: Then) -> None:
        """Run `work` elsewhere, then call `then` on the loop with its StoreFailed, or None."""

    def close(self) -> None:
        """Take no more work; what runs is not waited for."""


class ThreadWorker:
    """A named daemon thread: a disk that hangs never holds up the end of the process."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # The bound is checked in do(): of the standard queues only the unbounded one wakes its reader cheaply.
        self._work: queue.SimpleQueue[tuple[Callable[[], None], Then] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def do(self, work: Callable[[], None], then: Then) -> None:
        assert self._work.qsize() < WORK_MAX, "the log hands in one piece of work at a time"
        self._work.put((work, then))

    def close(self) -> None:
        self._work.put(None)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            work, then = item
            error: StoreFailed | None = None
            try:
                work()
            except StoreFailed as failed:
                error = failed
            except Exception as bug:  # noqa: BLE001 - the edge of a thread: silence here would stop the log unseen
                error = StoreFailed(f"durable log: {type(bug).__name__}: {bug}; please report this", code=IO)
            try:
                self._loop.call_soon_threadsafe(then, error)
            except RuntimeError:  # the loop is gone, and with it everyone who could care
                return
