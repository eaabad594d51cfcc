"""The ledger: what entered the log at which position, written down beside the bus by somebody who only watches.

It is what every row is compared with later: read back after a crash, or arrived at a remote. Positions that were
never durable may be forgotten by a crash; then they are forgotten here, too.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, NamedTuple

import numpy as np

from framegate.contract.frame import Batch, Placed


class Entry(NamedTuple):
    """A batch in its place, or None for rows that were dropped on the way in."""

    first: int
    last: int
    batch: Batch | None


class Row(NamedTuple):
    """One row as it was taken."""

    tag: int
    value: object
    quality: int


class Ledger:
    """Entries in order of position, without a hole.

    head  last position written down
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    @property
    def head(self) -> int:
        return self._entries[-1].last if self._entries else 0

    def take(self, first: int, batch: Batch) -> None:
        self._add(Entry(first, first + len(batch.tag) - 1, batch))

    def lose(self, first: int, last: int) -> None:
        """Rows that were given a position and nothing else."""
        self._add(Entry(first, last, None))

    def forget_after(self, head: int) -> None:
        """A crash: whatever was never durable, and did not survive by luck, never was."""
        while self._entries and self._entries[-1].first > head:
            self._entries.pop()
        if self._entries and self._entries[-1].last > head:
            first, _, batch = self._entries.pop()
            assert batch is None, "a record survived in part"
            self._entries.append(Entry(first, head, None))
        if self.head < head:  # the gateway says that there was more; it went on behind it
            self.lose(self.head + 1, head)

    def entry(self, position: int) -> Entry | None:
        index = bisect_right(self._entries, position, key=_first) - 1
        return self._entries[index] if index >= 0 and self._entries[index].last >= position else None

    def row(self, position: int) -> Row | None:
        """What was taken at a position; None if nothing was."""
        entry = self.entry(position)
        if entry is None or entry.batch is None:
            return None
        batch, index = entry.batch, position - entry.first
        return Row(int(batch.tag[index]), batch.value[index], int(batch.quality[index % len(batch.quality)]))

    def _add(self, entry: Entry) -> None:
        assert entry.first == self.head + 1, "the bus gives positions without a hole"
        self._entries.append(entry)

    def differs(self, placed: Placed) -> str:
        """How a batch that was read back differs from what was taken; "" if in nothing."""
        entry = self.entry(placed.first)
        if entry is None:
            return f"rows {placed.first} to {placed.last} were never taken"
        taken, found = entry.batch, placed.batch
        if taken is None or (entry.first, entry.last) != (placed.first, placed.last):
            return f"rows {placed.first} to {placed.last} were taken as {entry.first} to {entry.last}"
        if taken.gateway_time != found.gateway_time:
            return f"row {placed.first} has another gateway time"
        for name in ("tag", "value", "quality", "source_time"):
            if not _is_same(getattr(taken, name), getattr(found, name)):
                return f"row {placed.first} has another {name}"
        return ""


def _is_same(taken: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> bool:
    """Bit by bit, as NaN is not equal to itself."""
    if taken.dtype.char == "O":
        return bool(taken.tolist() == found.tolist())
    return taken.dtype == found.dtype and taken.tobytes() == found.tobytes()


def _first(entry: Entry) -> int:
    return entry.first
