"""How late a machine that does other things as well lets its threads run: what tests with deadlines allow for.

A thread that only sleeps is late when the machine stalls or its cores are taken. It is not late when an event loop of
the same process stands still, so that this is told apart from that.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, Self

DOZE_S: Final = 0.005


class Stalls:
    """Notes, from `with` on, how late a sleeping thread woke up, seconds."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._is_over = threading.Event()
        self._dozer = threading.Thread(target=self._doze, daemon=True, name="stalls")

    def __enter__(self) -> Self:
        self._dozer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._dozer.join()

    def worst(self) -> float:
        """The longest since the last time that all were forgotten."""
        return max(self._late, default=0.0)

    def forget(self) -> None:
        """Begin anew."""
        self._late.clear()

    def periods_missed(self, period_s: float) -> int:
        """Periods in which what is due once in each may have failed for want of the processor."""
        return sum(1 + int(late / period_s) for late in list(self._late) if late > period_s / 4)

    def _doze(self) -> None:
        while not self._is_over.is_set():
            began = time.monotonic()
            time.sleep(DOZE_S)
            self._late.append(time.monotonic() - began - DOZE_S)
