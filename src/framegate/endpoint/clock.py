"""The real clock: the only place in the gateway that reads wall time or the loop's time."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Wall time and monotonic time of this machine; satisfies contract.ports.Clock."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds on the time base of every event loop here, finer than `loop.time()` of uvloop, which is the time at
        which its turn began. Not asked of the running loop: that costs a system call.
        """
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
