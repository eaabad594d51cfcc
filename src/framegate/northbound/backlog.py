"""Backlog: what one connector owes, and when live rows overtake it.

Pure bookkeeping, without clock or I/O. In order there is only the live position. With live first, stored rows become
ranges that are owed: rows below the live position that the back-fill lane delivers, oldest first. A range begins at
the last acknowledged row, so nothing falls between the lanes, and two that touch are one. There are at most
OWED_RANGES_MAX; from then on live rows wait for stored ones, as in order, and nothing is lost or sent again.
"""

from __future__ import annotations

from collections import deque

from framegate.contract.frame import Position
from framegate.contract.owed import OWED_RANGES_MAX, Owed, OwedRange

BEHIND_S = 1.0  # a connected live lane may lag this long before its rows become back-fill


class Backlog:
    """Live position and owed ranges, ascending.

    live  every row up to here was acknowledged, but for the ranges
    """

    __slots__ = ("_behind_since", "_ranges", "live")

    def __init__(self, owed: Owed) -> None:
        self.live = owed.live
        self._ranges: deque[OwedRange] = deque(owed.ranges)
        self._behind_since: float | None = None

    @property
    def is_owed(self) -> bool:
        return bool(self._ranges)

    @property
    def owed(self) -> Owed:
        return Owed(self.live, tuple(self._ranges))

    @property
    def cursor(self) -> Position:
        """Every row up to here was acknowledged, without exception (O2)."""
        return self._ranges[0].after if self._ranges else self.live

    @property
    def rows(self) -> int:
        return self.owed.rows

    def range_after(self, position: Position) -> OwedRange | None:
        """What is owed next beyond a position."""
        for entry in self._ranges:
            if entry.last > position:
                return OwedRange(max(entry.after, position), entry.last)
        return None

    # -- the lanes move -------------------------------------------------------------------------------------------

    def live_landed(self, position: Position) -> None:
        self.live = position

    def backfill_landed(self, position: Position) -> None:
        """Every owed row up to position was acknowledged."""
        while self._ranges and self._ranges[0].last <= position:
            self._ranges.popleft()
        if self._ranges and self._ranges[0].after < position:
            self._ranges[0] = self._ranges[0]._replace(after=position)

    # -- live rows overtake ---------------------------------------------------------------------------------------

    def reconnected(self) -> None:
        """After an outage there is no wait: what is stored then is a backlog."""
        self._behind_since = float("-inf")

    def is_behind(self, lag_rows: int, rows_max: int, now: float) -> bool:
        """Whether live rows should overtake: more than rows_max wait, as they did for BEHIND_S or since the outage."""
        if lag_rows <= rows_max:
            self._behind_since = None
            return False
        if self._behind_since is None:
            self._behind_since = now
        return now - self._behind_since >= BEHIND_S and self._has_room

    @property
    def _has_room(self) -> bool:
        return len(self._ranges) < OWED_RANGES_MAX or self._ranges[-1].last == self.live

    def overtake(self, last: Position) -> OwedRange:
        """Everything between the live position and `last` is owed; live goes on behind it."""
        assert self._has_room
        assert last > self.live
        fresh = OwedRange(self.live, last)
        if self._ranges and self._ranges[-1].last == self.live:
            self._ranges[-1] = self._ranges[-1]._replace(last=last)
        else:
            self._ranges.append(fresh)
        self.live, self._behind_since = last, None
        return fresh
