"""The real clock: the only place in the gateway that reads wall time or the loop's time."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Wall time and loop time of this machine; satisfies contract.ports.Clock."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        """The running loop's time; outside a loop the same kernel clock, read directly."""
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
