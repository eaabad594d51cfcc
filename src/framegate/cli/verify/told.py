"""What a gateway tells outside itself while it lives: a few numbers in a shared file that outlive it, however it dies.

The page belongs to the kernel: a number is outside the process with one store into memory, and neither a SIGKILL nor
the loss of the gateway's own file system takes it back. The file must lie on a file system that is not cut off.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

LAGS_MAX = 4096
_DURABLE, _RECOVERED, _READY, _HIT, _LAGS = range(5)
_FIRST_LAG = 8
_NUMBERS = _FIRST_LAG + LAGS_MAX


class Told:
    """The numbers, for both sides.

    durable       last position called durable by any gateway of this file
    recovered     head of the log when the newest one had opened it
    ready_ns      CLOCK_MONOTONIC at which the newest one had started
    hit           1 once the newest one died at its named place
    """

    def __init__(self, path: Path) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, 8 * _NUMBERS)
            self._numbers = memoryview(mmap.mmap(file, 8 * _NUMBERS)).cast("Q")
        finally:
            os.close(file)
        self.path = path

    @property
    def durable(self) -> int:
        return self._numbers[_DURABLE]

    @durable.setter
    def durable(self, position: int) -> None:
        self._numbers[_DURABLE] = position

    @property
    def recovered(self) -> int:
        return self._numbers[_RECOVERED]

    @recovered.setter
    def recovered(self, position: int) -> None:
        self._numbers[_RECOVERED] = position

    @property
    def ready_ns(self) -> int:
        return self._numbers[_READY]

    @ready_ns.setter
    def ready_ns(self, time_ns: int) -> None:
        self._numbers[_READY] = time_ns

    @property
    def is_hit(self) -> bool:
        return bool(self._numbers[_HIT])

    def hit(self) -> None:
        self._numbers[_HIT] = 1

    def begin(self) -> None:
        """Forget what concerned the gateway before; what was durable stays."""
        for number in (_RECOVERED, _READY, _HIT, _LAGS):
            self._numbers[number] = 0

    def lag(self, microseconds: int) -> None:
        """The event loop woke so much later than asked."""
        count = self._numbers[_LAGS]
        self._numbers[_FIRST_LAG + count % LAGS_MAX] = microseconds
        self._numbers[_LAGS] = count + 1

    def forget_lags(self) -> None:
        self._numbers[_LAGS] = 0

    def lags(self) -> list[int]:
        """The newest ones, in microseconds, sorted."""
        count = min(self._numbers[_LAGS], LAGS_MAX)
        return sorted(self._numbers[_FIRST_LAG : _FIRST_LAG + count])
