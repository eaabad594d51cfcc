"""A gateway with a wall clock that can be set while it runs, in a process of its own.

    python -m framegate.cli.verify.stepping_gateway CLOCK_FILE --home HOME

CLOCK_FILE holds two numbers: seconds by which wall time is ahead of the machine's, and the rate at which it goes from
then on. Only the gateway's own port is set; what libraries ask the system for stays true. libfaketime, where it is
installed, tells those as well: see clock.py.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from framegate.cli.service import serve
from framegate.endpoint.clock import SystemClock

LOOK_INTERVAL_S = 0.05
_NS = 1_000_000_000


class SteppingClock(SystemClock):
    """Wall time as the file says; monotonic time and sleep are the machine's."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._setting = ""
        self._look_at = 0.0
        self._anchor_ns, self._anchor, self._rate = time.time_ns(), time.monotonic(), 1.0

    def now_ns(self) -> int:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_INTERVAL_S
            self._read(now)
        return self._anchor_ns + round((now - self._anchor) * self._rate * _NS)

    def _read(self, now: float) -> None:
        setting = self._file.read_text(encoding="ascii")
        if setting == self._setting:
            return
        self._setting = setting
        ahead_s, rate = map(float, setting.split())
        self._anchor_ns, self._anchor, self._rate = time.time_ns() + round(ahead_s * _NS), now, rate


def main() -> int:
    """Serve until SIGTERM."""
    clock_file, _, home = sys.argv[1:4]
    return serve(Path(home), SteppingClock(Path(clock_file)))


if __name__ == "__main__":
    sys.exit(main())
