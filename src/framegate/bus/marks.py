"""Marks: milestones along the log, every few MiB, with the bytes and the time at each.

Retention drops whole stretches between two marks; recovery checks the stretch after the last one. A mark is written
with the record that begins there, never before: rows that were not durable may be lost, and a mark that outlived them
would cut a later record in two. Bytes are those of the records; what they take on disk is less, by compression, and
is estimated from the store's size as a whole.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from framegate.bus.fault import damaged
from framegate.bus.record import KEY_BYTES, key_of, position_of
from framegate.contract.frame import Position
from framegate.contract.ports import Change, Disk

PREFIX = b"s"
STRETCH_BYTES_MAX = 4 << 20
STRETCH_BYTES_MIN = 64 << 10
STRETCHES_PER_LIMIT = 64  # a retention limit is kept to within 1 / 64
RECORD_OVERHEAD_BYTES = 128  # what a record costs beside its bytes; keeps a stretch of tiny records short to read
_ENTRY = struct.Struct("<Qq")


class Mark(NamedTuple):
    """A stretch of the log begins here.

    before  bytes of all records that were ever appended before it
    time    gateway time of its first batch, ns UTC
    """

    first: Position
    before: int
    time: int


class Marks:
    """The milestones from the oldest row kept to the newest."""

    def __init__(self, disk: Disk, limit_bytes: int) -> None:
        self._disk = disk
        self._stretch = max(STRETCH_BYTES_MIN, min(STRETCH_BYTES_MAX, limit_bytes // STRETCHES_PER_LIMIT))
        self._marks: list[Mark] = []
        self._next_at = 0  # bytes at which the next mark is due
        self._changes: list[Change] = []
        self.bytes = 0

    def load(self) -> None:
        """Read the store; raises StoreFailed E3003."""
        for key, data in self._disk.scan("meta", PREFIX, b"t"):
            if len(data) != _ENTRY.size or len(key) != 1 + KEY_BYTES:
                raise damaged(f"mark {key.hex()}", f"{len(data)} bytes long")
            before, time = _ENTRY.unpack(data)
            self._marks.append(Mark(position_of(key[1:]), before, time))
        self._go_on()

    def note(self, first: Position, size: int, time: int) -> Change | None:
        """A record of `size` bytes begins at `first`; returns the mark to be written with it, where one is due."""
        change: Change | None = None
        if self.bytes >= self._next_at:
            self._next_at = self.bytes + self._stretch
            self._marks.append(Mark(first, self.bytes, time))
            change = "meta", PREFIX + key_of(first), _ENTRY.pack(self.bytes, time)
        self.bytes += size + RECORD_OVERHEAD_BYTES
        return change

    @property
    def kept_bytes(self) -> int:
        """Bytes of the records from the first mark on."""
        return self.bytes - self._marks[0].before if self._marks else 0

    def all(self) -> Sequence[Mark]:
        return self._marks

    def last_at(self, position: Position) -> Position:
        """The mark at or before a position; 1 if there is none."""
        index = bisect_right(self._marks, position, key=_first) - 1
        return self._marks[index].first if index >= 0 else Position(1)

    def before_time(self, time: int) -> Position:
        """The newest mark that no row of a time, or of a later one, lies before; 1 if there is none."""
        later = [index for index, mark in enumerate(self._marks) if mark.time >= time]
        index = later[0] - 1 if later else len(self._marks) - 1
        return self._marks[index].first if index >= 0 else Position(1)

    def drop(self, before: Position) -> None:
        """Forget the marks of stretches that end before a position."""
        index = max(0, bisect_right(self._marks, before, key=_first) - 1)
        self._changes += [("meta", PREFIX + key_of(mark.first), None) for mark in self._marks[:index]]
        del self._marks[:index]

    def cut(self, head: Position) -> None:
        """Forget the marks beyond the end of the log: rows that follow have other records."""
        index = bisect_right(self._marks, head, key=_first)
        self._changes += [("meta", PREFIX + key_of(mark.first), None) for mark in self._marks[index:]]
        del self._marks[index:]
        self._go_on()

    def _go_on(self) -> None:
        """How much the last stretch holds is not stored; it counts as full, and the next record begins another."""
        self.bytes = self._marks[-1].before + self._stretch if self._marks else 0
        self._next_at = self.bytes

    def take_changes(self) -> Sequence[Change]:
        """What is not yet on its way to the store; the caller now owns it."""
        changes, self._changes = self._changes, []
        return changes


def _first(mark: Mark) -> Position:
    return mark.first
