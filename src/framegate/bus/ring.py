"""The ring: the newest rows in memory, so that connectors that keep up never touch the store.

Bounded in rows and in batches; only durable rows leave it, and their memory with them. A list with a moving start
instead of a deque, because readers bisect in it.
"""

from __future__ import annotations

from bisect import bisect_right

from framegate.contract.frame import Placed, Position

RING_BATCHES_MAX = 16_384  # single-row batches would else cost far more memory than their rows
_COMPACT_FROM = 1_024  # places of evicted entries kept in the lists before they are cut off


class Ring:
    """Batches in order of position, possibly with holes where rows were dropped."""

    __slots__ = ("_first", "_placed", "_rows_max", "_start", "rows")

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._first: list[int] = []
        self._placed: list[Placed | None] = []  # None before the start
        self._start = 0
        self.rows = 0

    def append(self, placed: Placed) -> None:
        self._first.append(placed[0])
        self._placed.append(placed)
        self.rows += len(placed[1].tag)

    def evict(self, durable: Position) -> None:
        """Let the oldest durable rows go while there are more than fit."""
        start, placed = self._start, self._placed
        while start < len(placed) and (self.rows > self._rows_max or len(placed) - start > RING_BATCHES_MAX):
            oldest = placed[start]
            assert oldest is not None
            rows = len(oldest[1].tag)
            if oldest[0] + rows - 1 > durable:
                break
            self.rows -= rows
            placed[start] = None
            start += 1
        self._start = start
        if start > _COMPACT_FROM and start > len(placed) // 2:
            del self._first[:start], placed[:start]
            self._start = 0

    def read(self, after: Position, rows_max: int, last: Position) -> list[Placed] | None:
        """Batches from the one that holds `after` + 1 on, none beginning beyond `last`; None if that row is not here.

        Ends after about rows_max rows, and before a hole.
        """
        index = bisect_right(self._first, after + 1, self._start) - 1
        if index < self._start:
            return None
        placed = self._placed[index]
        if placed is None or placed.last <= after:
            return None
        found: list[Placed] = []
        rows, expected = 0, self._first[index]
        while index < len(self._placed) and rows < rows_max:
            placed = self._placed[index]
            assert placed is not None
            count = len(placed[1].tag)
            if placed[0] != expected or placed[0] + count - 1 > last:
                break
            found.append(placed)
            rows += count
            expected = placed[0] + count
            index += 1
        return found
