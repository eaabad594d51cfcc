"""States of rules in the store: what each rule knew, and up to which position it had taken rows.

    key    "R", then the name of the rule; "R" alone is the place that every rule has reached
    value  position as big-endian u64, then the state
    check  CRC32C over key and all of the above

An entry may lie ahead of the common place, never behind what it says itself: a rule that derived rows is saved with
them. Entries travel like rows, not like the other books: they are durable in the group of the rows that were derived
from them, also while the disk is full and the books go first. "rule:" as a key would lie among the rewinds' keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import google_crc32c

from framegate.contract.frame import Position
from framegate.contract.ports import Change, Disk, RuleState

PREFIX, PREFIX_END = b"R", b"S"
PLACE = ""
"""Name of the entry without a state: the common place."""
RULES_CURSOR = "rules"
"""The cursor that keeps retention from rows which rules still need; it trails the entries."""
_PLACE_BYTES, _CHECK_BYTES = 8, 4


class RuleBook:
    """The entries of a store; written by `entries_of` and the log."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.broken: list[str] = []
        """Names of rules whose entry cannot be read; they begin anew."""

    def read(self) -> Mapping[str, RuleState]:
        """What the store holds now, also of rules that are gone; raises StoreFailed E3003."""
        states: dict[str, RuleState] = {}
        self.broken.clear()
        for key, data in self._disk.scan("meta", PREFIX, PREFIX_END):
            name = key[len(PREFIX) :].decode("utf-8", "replace")
            body = data[:-_CHECK_BYTES]
            check: int = google_crc32c.value(key + body)
            if len(body) < _PLACE_BYTES or check != int.from_bytes(data[-_CHECK_BYTES:], "little"):
                self.broken.append(name)
                continue
            place = Position(int.from_bytes(body[:_PLACE_BYTES], "big"))
            states[name] = RuleState(name, place, body[_PLACE_BYTES:])
        return states


def entries_of(states: Sequence[RuleState]) -> list[Change]:
    """Changes that keep these states; a state of None drops its entry."""
    return [_entry(state) for state in states]


def _entry(state: RuleState) -> Change:
    key = PREFIX + state.name.encode()
    if state.data is None:
        return "meta", key, None
    body = state.position.to_bytes(_PLACE_BYTES, "big") + state.data
    check: int = google_crc32c.value(key + body)
    return "meta", key, body + check.to_bytes(_CHECK_BYTES, "little")
