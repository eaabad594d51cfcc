"""Layouts: tag columns that come again and again, stored once and referred to by number.

A tag column becomes a layout when it is seen for the second time, so that columns that never repeat (subscriptions)
do not fill the catalogue; until then a record carries its own tags. Look-up is by identity of the array first, as
drivers hand out the same object on every scan, then by content. Numbers are never given twice; 0 means "no layout".
"""

from __future__ import annotations

from collections.abc import Sequence

import google_crc32c
import numpy as np

from framegate.bus.fault import RECORD, damaged
from framegate.contract.errors import FrameBroken
from framegate.contract.frame import Int32Column
from framegate.contract.ports import Change, Disk

LAYOUTS_MAX = 65_536  # stored tag columns; beyond it records carry their own tags
SMALL_ROWS = 4  # a column this short is no longer than a reference that is worth its place
IDENTITIES_MAX = 8_192  # arrays remembered by identity
SEEN_MAX = 8_192  # contents seen once
PREFIX = b"l"


class Layouts:
    """Numbers of tag columns, both ways."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._columns: dict[int, Int32Column] = {}
        self._numbers: dict[bytes, int] = {}
        self._by_identity: dict[int, tuple[Int32Column, int]] = {}
        self._seen: dict[int, None] = {}
        self._changes: list[Change] = []
        self._last = 0

    def load(self) -> None:
        """Read every layout of the store; raises StoreFailed E3003."""
        for key, data in self._disk.scan("catalogue", PREFIX, b"m"):
            number = int.from_bytes(key[1:], "big")
            content = data[:-4]
            if google_crc32c.value(key + content) != int.from_bytes(data[-4:], "little"):
                raise damaged(f"layout {number}", "its check sum is wrong")
            if len(content) % 4:
                raise damaged(f"layout {number}", f"{len(content)} bytes long")
            self._last = max(self._last, number)
            self._remember(number, content)

    def number(self, tag: Int32Column) -> int:
        """Number of a tag column, or 0 if the record has to carry it."""
        known = self._by_identity.get(id(tag))
        if known is not None:
            return known[1]
        if len(tag) <= SMALL_ROWS:
            return 0
        content = tag.tobytes()
        number = self._numbers.get(content) or self._new(content)
        if number:
            tag.flags.writeable = False  # known by identity from now on, so it must stay what it is
            if len(self._by_identity) >= IDENTITIES_MAX:
                del self._by_identity[next(iter(self._by_identity))]
            self._by_identity[id(tag)] = (tag, number)
        return number

    def column(self, number: int) -> Int32Column:
        """The tag column of a number, the same array on every call; raises FrameBroken E3010."""
        try:
            return self._columns[number]
        except KeyError:
            raise FrameBroken(f"layout {number} is not in the catalogue", code=RECORD) from None

    def take_changes(self) -> Sequence[Change]:
        """What is not yet on its way to the store; the caller now owns it."""
        changes, self._changes = self._changes, []
        return changes

    def _new(self, content: bytes) -> int:
        digest = hash(content)
        if digest not in self._seen:
            if len(self._seen) >= SEEN_MAX:
                del self._seen[next(iter(self._seen))]
            self._seen[digest] = None
            return 0
        if len(self._columns) >= LAYOUTS_MAX:
            return 0
        self._seen.pop(digest)
        self._last += 1
        key = PREFIX + self._last.to_bytes(4, "big")
        check: int = google_crc32c.value(key + content)
        self._changes.append(("catalogue", key, content + check.to_bytes(4, "little")))
        self._remember(self._last, content)
        return self._last

    def _remember(self, number: int, content: bytes) -> None:
        self._columns[number] = np.frombuffer(content, "<i4")
        self._numbers[content] = number
