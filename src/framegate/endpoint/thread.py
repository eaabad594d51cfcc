"""Blocking work beside the loop: opening a port, reading certificate files."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


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
    return await future


def _setter(function: Callable[[T], object], value: T) -> Callable[[], None]:
    def call() -> None:
        function(value)

    return call


def _nothing() -> None:
    """Nothing to give back."""
