"""Blocking work beside the loop: opening a port, reading certificate files; and work that is done in turn.

Every thread here is a daemon: what never ends holds up neither the loop nor the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Work = tuple[Future[Any], Callable[[], Any]]


async def in_thread(name: str, work: Callable[[], T], discard: Callable[[T], None] | None = None) -> T:
    """The result of `work`, done in a daemon thread of its own: a stuck device never holds up the shutdown.

    discard  takes a result that comes too late, because the caller was cancelled or its loop is gone
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(finish: Callable[[], None], give_back: Callable[[], None]) -> None:
        if future.done():
            give_back()
        else:
            finish()

    def run() -> None:
        give_back: Callable[[], None] = _nothing
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - the edge of a thread: the waiter raises it
            finish = _setter(future.set_exception, error)
        else:
            finish = _setter(future.set_result, result)
            if discard is not None:
                give_back = _setter(discard, result)
        try:
            loop.call_soon_threadsafe(deliver, finish, give_back)
        except RuntimeError:  # the loop was closed meanwhile
            with contextlib.suppress(OSError):
                give_back()

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        return await future
    except asyncio.CancelledError:
        if discard is not None and not future.cancelled() and future.exception() is None:  # both came in one turn
            discard(future.result())
        raise


class Overrun(Exception):
    """Work in turn did not end in time. where: the line that its thread stands in, "" if it waited behind other work"""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


class Worker:
    """Blocking work, one after the other in one thread. Used on the loop.

    Python cannot end a thread: one whose work overruns is left behind, and a fresh one does what comes next.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._left: list[threading.Thread] = []
        self._begin()

    @property
    def left_behind(self) -> int:
        """Threads whose work overran, and has not ended since."""
        self._left = [thread for thread in self._left if thread.is_alive()]
        return len(self._left)

    async def do(
        self, work: Callable[[], T], limit_s: float | None = None, discard: Callable[[T], object] | None = None
    ) -> T:
        """The result of `work`, which is done after all that came before.

        limit_s  its deadline, for work without effects: what is left behind may still be done. None: none
        discard  takes, in the thread, a result that comes too late, or that nobody waits for any more
        raises   Overrun - the deadline has passed
        """
        done: Future[T] = Future()
        waiting = self._waiting
        waiting.put((done, work))
        deadline = asyncio.timeout(limit_s)
        try:
            async with deadline:
                return await asyncio.wrap_future(done)
        except (asyncio.CancelledError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and not deadline.expired():
                raise  # the work's own
            if discard is not None:
                done.add_done_callback(lambda late: _discard(late, discard))
            if not deadline.expired():
                raise
        raise Overrun(self._leave() if self._waiting is waiting else "")

    def close(self) -> None:
        """End the thread once it has done what waits."""
        self._waiting.put(None)

    def _begin(self) -> None:
        self._waiting: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread = threading.Thread(target=_work_off, args=(self._waiting,), name=self._name, daemon=True)
        self._thread.start()

    def _leave(self) -> str:
        """Leave the thread behind, with what it does now; where it stands."""
        stuck, waiting = self._thread, self._waiting
        self._left.append(stuck)
        self._begin()
        with contextlib.suppress(Empty):
            while True:
                self._waiting.put(waiting.get_nowait())
        waiting.put(None)
        frame = sys._current_frames().get(stuck.ident or 0)  # noqa: SLF001 - documented; there is no other name
        return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _work_off(waiting: SimpleQueue[_Work | None]) -> None:
    while (taken := waiting.get()) is not None:
        done, work = taken
        if done.set_running_or_notify_cancel():
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - the edge of a thread: the waiter raises it
                done.set_exception(error)
            else:
                done.set_result(result)
                del result
        del taken, done, work  # hold nothing while there is nothing to do


def _discard(late: Future[T], discard: Callable[[T], object]) -> None:
    if not late.cancelled() and late.exception() is None:
        discard(late.result())


def _setter(function: Callable[[T], object], value: T) -> Callable[[], None]:
    def call() -> None:
        function(value)

    return call


def _nothing() -> None:
    """Nothing to give back."""
