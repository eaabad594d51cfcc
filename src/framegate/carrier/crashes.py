"""A limit on crashes: a driver that keeps dying is parked until somebody changes what it is made of.

    crashes = CrashLoop(clock)
    crashes.crashed("killed by SIGSEGV")     each time
    crashes.check()                          first thing of every `open`

Between crashes the runtime's back-off brings the driver back; only too many in a row end that.
"""

from __future__ import annotations

from collections import deque

from framegate.contract.errors import Misconfigured
from framegate.contract.ports import Clock

CRASHES_MAX = 5
CRASHES_WITHIN_S = 60.0


class CrashLoop:
    """Counts the crashes of one driver."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moments: deque[float] = deque(maxlen=CRASHES_MAX)
        self._last = ""

    def crashed(self, reason: str) -> bool:
        """Note a crash; true for the one that makes it a loop."""
        was_loop = self.is_loop
        self._moments.append(self._clock.monotonic())
        self._last = reason
        return self.is_loop and not was_loop

    @property
    def is_loop(self) -> bool:
        """CRASHES_MAX crashes lay within CRASHES_WITHIN_S; that stays so, since nothing runs that could crash less."""
        moments = self._moments
        return len(moments) == CRASHES_MAX and moments[-1] - moments[0] <= CRASHES_WITHIN_S

    def check(self) -> None:
        """raises Misconfigured E4500 - it is a loop; nothing is to be started."""
        if self.is_loop:
            text = (
                f"the driver crashed {CRASHES_MAX} times within {CRASHES_WITHIN_S:g} s, the last time: {self._last}; "
                "it stays down until its row or its plugin changes"
            )
            raise Misconfigured(text, code="E4500")
