"""Owed: which rows below its newest acknowledged one a connector has not delivered yet.

With `backlog: live_first` live rows may overtake stored ones, and a single cursor no longer says all. What it says
stays true: everything up to the first owed row was acknowledged. Who keeps it: bus/cursor.py; who decides: northbound.
"""

from __future__ import annotations

from typing import NamedTuple

from framegate.contract.frame import Position

OWED_RANGES_MAX = 16  # beyond it live rows wait for stored ones again


class OwedRange(NamedTuple):
    """Rows beyond `after`, up to `last`."""

    after: Position
    last: Position


class Owed(NamedTuple):
    """Every row up to `live` was acknowledged, but for those in `ranges`.

    ranges  ascending, apart from each other, none empty, none beyond live; at most OWED_RANGES_MAX
    """

    live: Position
    ranges: tuple[OwedRange, ...] = ()

    @property
    def cursor(self) -> Position:
        """Every row up to here was acknowledged, without exception (O2)."""
        return self.ranges[0].after if self.ranges else self.live

    @property
    def rows(self) -> int:
        """Rows in the ranges."""
        return sum([entry.last - entry.after for entry in self.ranges])

    def beyond(self, cursor: Position) -> Owed:
        """The same with everything up to `cursor` acknowledged as well."""
        left = [OwedRange(max(entry.after, cursor), entry.last) for entry in self.ranges if entry.last > cursor]
        return Owed(max(self.live, cursor), tuple(left))
