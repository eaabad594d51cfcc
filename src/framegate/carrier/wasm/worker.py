"""The thread of one sandbox: calls of its guest, one after the other."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
STACK_BYTES = 2 << 20
"""A guest's stack (engine.WASM_STACK_BYTES_MAX) and that of the host's functions that it calls lie here."""
_STARTING = threading.Lock()


class Hung(Exception):
    """A call did not come back; the thread is left behind."""


class Worker:
    """Runs work in a daemon thread of its own, from the first call to `end`."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        thread = threading.Thread(target=self._run, name=f"edge-wasm-{name}", daemon=True)
        with _STARTING:  # the size is a setting of the process
            before = threading.stack_size(STACK_BYTES)
            try:
                thread.start()
            finally:
                threading.stack_size(before)

    async def call(self, work: Callable[[], T], limit_s: float) -> T:
        """The result of `work`; raises what it raises, and Hung after so long."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                finish: Callable[[], None] = _setter(future, work())
            except BaseException as error:  # noqa: BLE001 - the edge of a thread: the waiter raises it
                finish = _raiser(future, error)
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish)

        alarm = loop.call_later(limit_s, _raiser(future, Hung()))
        self._work.put(run)
        try:
            return await future
        finally:
            alarm.cancel()

    def call_now(self, work: Callable[[], T], limit_s: float) -> T:
        """The same for a caller that cannot await: it waits."""
        done = threading.Event()
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append((work(), None))
            except BaseException as error:  # noqa: BLE001 - as above
                outcome.append((None, error))
            done.set()

        self._work.put(run)
        if not done.wait(limit_s):
            raise Hung
        result, error = outcome[0]
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def later(self, work: Callable[[], None]) -> None:
        """Do this too, before the end; nobody waits for it."""
        self._work.put(work)

    def end(self) -> None:
        """End the thread once it has done what it was given."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # what it refers to is not kept alive until the next one


def _setter(future: asyncio.Future[T], value: T) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(value)


def _raiser(future: asyncio.Future[T], error: BaseException) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_exception(error)
