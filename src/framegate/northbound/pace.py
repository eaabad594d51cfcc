"""Pace: how large a back-fill window may be, so that a live window never waits long behind one.

A link has one queue: what was handed over before a live window leaves before it. The time that back-fill spends in
that queue is what its answers take beyond the quickest answer of this connection; windows halve when it is too long
and double while it is not. The quickest answer stands for the way there and back, so that a far remote (satellite)
is not taken for a thin link.
"""

from __future__ import annotations

ROWS_MIN = 32  # and the first: the quickest answer must not contain a queue of our own making
QUEUE_S = 0.2  # two windows of back-fill and their answers then keep a live one waiting for less than half a second


class Pace:
    """Rows per back-fill window of one outbox, at most rows_max."""

    __slots__ = ("_quickest_s", "_rows_max", "rows")

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self.begin()

    def begin(self) -> None:
        """A new connection: nothing is known of it."""
        self.rows = min(ROWS_MIN, self._rows_max)
        self._quickest_s = float("inf")

    def answered(self, rows: int, took_s: float) -> None:
        """A window of so many rows was acknowledged that long after it was handed over."""
        self._quickest_s = min(self._quickest_s, took_s)
        if took_s - self._quickest_s > QUEUE_S:
            self.rows = max(min(ROWS_MIN, self._rows_max), self.rows // 2)
        elif 2 * rows >= self.rows:  # a window that was cut short by its bytes proves nothing
            self.rows = min(self._rows_max, 2 * self.rows)
