"""Waiting: a wake-up that costs one future, and steps that a stop may cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Signal:
    """Level-triggered and for one waiter: a call of `wake` is never missed, several become one."""

    __slots__ = ("_is_set", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        if not self._is_set:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._is_set = False


class Patience:
    """Runs one step at a time; `end` cuts the present step short, and every later one at its first wait."""

    __slots__ = ("_scope", "is_over")

    def __init__(self) -> None:
        self.is_over = False
        self._scope: asyncio.Timeout | None = None

    def end(self) -> None:
        self.is_over = True
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(0.0)

    async def hold(self, step: Coroutine[None, None, None]) -> bool:
        """Await a step; False when it was cut short."""
        scope = asyncio.timeout(0 if self.is_over else None)
        try:
            async with scope:
                self._scope = scope
                await step
        except TimeoutError:
            if not scope.expired():
                raise
            return False
        finally:
            self._scope = None
        return True
