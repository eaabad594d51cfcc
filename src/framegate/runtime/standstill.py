"""A pause between two calls of a driver, asked for by whoever changes the driver, and kept by the shift's task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Standstill:
    """One at a time; where there is none, it costs a look.

    wake  called when it begins and when it is over
    """

    __slots__ = ("_held", "_standing", "_wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._held: asyncio.Future[None] | None = None  # until release()
        self._standing: asyncio.Future[bool] | None = None  # whether the task stands still, once that is known

    @property
    def is_wanted(self) -> bool:
        """Nothing is to begin."""
        return self._held is not None

    async def begin(self) -> bool:
        """Wait until the task stands still; False where it ended first."""
        assert self._held is None, "one at a time"
        loop = asyncio.get_running_loop()
        self._held, self._standing = loop.create_future(), loop.create_future()
        self._wake()
        try:
            return await self._standing
        except asyncio.CancelledError:
            self.release()
            raise

    async def stand(self) -> None:
        """By the task: until release()."""
        assert self._held is not None
        assert self._standing is not None
        if not self._standing.done():
            self._standing.set_result(True)
        await self._held

    def release(self) -> None:
        """Go on. Idempotent."""
        held, self._held = self._held, None
        if held is None:
            return
        if not held.done():
            held.set_result(None)
        self._wake()

    def give_up(self) -> None:
        """The task ends; nobody will stand still any more."""
        if self._standing is not None and not self._standing.done():
            self._standing.set_result(False)
        self.release()
