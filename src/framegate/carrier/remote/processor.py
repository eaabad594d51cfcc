"""How much of the processor a driver's process uses: one that never rests between its calls is told of, once.

A process is confined and at a low priority, so it takes little from the gateway; but it warms the box, and takes from
other drivers. Nothing is ended for it: a driver may have much to do. All its threads count.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from framegate.contract.ports import Log

LOOK_S = 60.0
SHARE_MAX = 0.5
"""Of one core, between two looks."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_UTIME = 11
"""Field of /proc/PID/stat behind the name of the program, which may hold anything; stime follows. proc(5)"""


class ProcessorWatch:
    """Of one process. Used on the loop.

    seconds  of the processor that it has used so far; raises OSError once it is gone
    """

    def __init__(self, device: str, log: Log, seconds: Callable[[], float]) -> None:
        self._device, self._log, self._seconds = device, log, seconds
        self._loop = asyncio.get_running_loop()
        self._time, self._used = self._loop.time(), 0.0
        self._timer = self._loop.call_later(LOOK_S, self._look)

    def end(self) -> None:
        """Look no more. Idempotent."""
        self._timer.cancel()

    def _look(self) -> None:
        try:
            used = self._seconds()
        except OSError:
            return
        now = self._loop.time()
        share = (used - self._used) / (now - self._time)
        self._time, self._used = now, used
        if share > SHARE_MAX:
            self._log.warning("driver_busy", driver_id=self._device, share=round(share, 2), window_s=LOOK_S)
        else:
            self._timer = self._loop.call_later(LOOK_S, self._look)


def processor_seconds(pid: int) -> float:
    """Seconds of the processor that a process has used, in all its threads; raises OSError where there is none."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[_UTIME]) + int(fields[_UTIME + 1])) / _TICKS_PER_S
