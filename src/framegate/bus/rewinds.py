"""Rewinds: who has set which cursor back, when, and how far. The one exception to invariant O1, and so it is kept.

A remote may acknowledge rows and lose them afterwards; only an operator can know that. What a rewind does to delivery
is the outbox's business; here is only the note of it, durable with the cursor itself. A store that had to be salvaged
begins a new book.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import google_crc32c
import orjson

from framegate.bus.fault import damaged
from framegate.bus.record import key_of, position_of
from framegate.contract.frame import Position
from framegate.contract.ports import Change, Disk

REWINDS_MAX = 256  # kept; the oldest goes first
REWIND_PREFIX = b"r"
_PREFIX_STOP = b"s"
_CHECK_BYTES = 4


class Rewind(NamedTuple):
    """One cursor set back from `before` to `after`; the rows between them are delivered again.

    by    who asked, in words
    time  ns UTC
    """

    connector: str
    before: Position
    after: Position
    by: str
    time: int

    @property
    def rows(self) -> int:
        return self.before - self.after


class RewindBook:
    """The newest REWINDS_MAX rewinds of one store."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._rewinds: dict[int, Rewind] = {}
        self._changes: list[Change] = []

    def load(self) -> None:
        """Read the store; raises StoreFailed E3003."""
        for key, data in self._disk.scan("meta", REWIND_PREFIX, _PREFIX_STOP):
            if google_crc32c.value(key + data[:-_CHECK_BYTES]) != int.from_bytes(data[-_CHECK_BYTES:], "little"):
                raise damaged(f"rewind {key.hex()}", "its check sum is wrong")
            connector, before, after, by, time = orjson.loads(data[:-_CHECK_BYTES])
            number = position_of(key[len(REWIND_PREFIX) :])
            self._rewinds[number] = Rewind(connector, Position(before), Position(after), by, time)

    def add(self, rewind: Rewind) -> None:
        """Note a rewind; the caller commits what take_changes hands out."""
        number = max(self._rewinds, default=0) + 1
        self._rewinds[number] = rewind
        key, body = REWIND_PREFIX + key_of(number), orjson.dumps(list(rewind))
        check: int = google_crc32c.value(key + body)
        self._changes.append(("meta", key, body + check.to_bytes(_CHECK_BYTES, "little")))
        for old in sorted(self._rewinds)[:-REWINDS_MAX]:
            del self._rewinds[old]
            self._changes.append(("meta", REWIND_PREFIX + key_of(old), None))

    def all(self) -> Sequence[Rewind]:
        """Oldest first."""
        return tuple(self._rewinds[number] for number in sorted(self._rewinds))

    def take_changes(self) -> Sequence[Change]:
        """What is not yet on its way to the store; the caller now owns it."""
        changes, self._changes = self._changes, []
        return changes
