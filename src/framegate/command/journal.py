"""The journal: every command and its state in the store, so that an id is carried out once, whatever happens (C1, C2).

    s + place   record; the place is a big-endian u64, gapless, in order of acceptance
    i + id      place of the command with that id
    o + place   empty; there while the command has no outcome
    n           highest place that was given

A change of state is written in one piece with the row that acknowledges it. Ids are kept for KEPT_NS and until KEPT_MIN
later ones have come; when KEPT_MAX are kept all the same, no command is taken. Newest and open ones are held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from framegate.command.entry import Entry
from framegate.command.record import DAMAGED, decode_record, encode_record
from framegate.contract.command import CommandRecord
from framegate.contract.errors import Busy, StoreFailed
from framegate.contract.frame import Batch
from framegate.contract.ports import Change, CommandLog, Disk

KEPT_NS = 86_400_000_000_000
KEPT_MIN = 100_000
KEPT_MAX = 1_000_000
CACHED_MAX = 4_096
"""Ended commands whose records are held in memory."""
FORGOTTEN_PER_COMMAND = 2
"""Old ids that go with each new one: the journal shrinks, and no submission pays for all of them."""
FULL_WAIT_S = 60.0
_RECORD, _ID, _OPEN, _LAST = b"s", b"i", b"o", b"n"
_PLACE_BYTES = 8


class Journal:
    """The commands of one store. Used on the loop."""

    def __init__(self, disk: Disk, log: CommandLog) -> None:
        self._disk, self._log = disk, log
        self._by_id: dict[str, Entry] = {}  # newest last
        self._by_place: dict[int, Entry] = {}
        self._first, self._last = 1, 0
        self.open = 0
        """Commands that have no durable outcome yet."""
        self.damaged = 0
        """Commands without outcome whose record could not be read at the start."""

    def __len__(self) -> int:
        return self._last - self._first + 1

    def load(self) -> list[Entry]:
        """Read the store; returns the commands that have no outcome, in order. Raises StoreFailed."""
        self._last = _place_of(self._disk.get("commands", _LAST))
        self._first = next(
            (_place_of(key[1:]) for key, _ in self._disk.scan("commands", _RECORD, _after(_RECORD))), self._last + 1
        )
        found: list[Entry] = []
        for key, _ in self._disk.scan("commands", _OPEN, _after(_OPEN)):
            place = _place_of(key[1:])
            try:
                record = self._read(place)
            except StoreFailed:
                self.damaged += 1
                continue
            if record is not None:
                entry = Entry(place, record, 0.0, None)
                entry.is_kept = entry.is_written = True
                self._remember(entry)
                self.open += 1
                found.append(entry)
        return found

    def newest_time(self) -> int:
        """Latest wall time that the journal knows of, ns UTC; 0 where there is none."""
        try:
            record = self._read(self._last)
        except StoreFailed:
            record = None
        open_times = [entry.record.received for entry in self._by_id.values()]
        return max([*open_times, 0 if record is None else max(record.received, record.ended)])

    def find(self, id_: str) -> Entry | CommandRecord | None:
        """The entry of a command, or its record where it ended long ago. Raises StoreFailed - not readable now."""
        entry = self._by_id.get(id_)
        if entry is not None:
            return entry
        place = _place_of(self._disk.get("commands", _ID + id_.encode()))
        record = self._read(place) if place else None
        if record is not None and record.command.id != id_:
            raise StoreFailed(
                f"durable log, command {id_}: its place holds another; run `edge wal verify`", code="E3003"
            )
        return record

    def newest(self, before: str) -> Iterator[CommandRecord]:
        """Records, newest first, from the one before the command `before` on; damaged ones are left out.

        raises  StoreFailed - not readable now
        """
        place = self._last
        if before:
            entry = self._by_id.get(before)
            found = entry.sequence if entry else _place_of(self._disk.get("commands", _ID + before.encode()))
            place = found - 1 if found else 0
        for number in range(place, self._first - 1, -1):
            entry = self._by_place.get(number)
            record = entry.record if entry is not None else self._readable(number)
            if record is not None and (entry is None or entry.is_kept):
                yield record

    def add(self, entries: Sequence[Entry]) -> None:
        """Give entries their places, before they are written. Raises Busy E4204."""
        if len(self) + len(entries) > KEPT_MAX:
            text = f"commands: {KEPT_MAX:,} came within a day, and their ids are kept that long; send fewer"
            raise Busy(text, code="E4204", wait_s=FULL_WAIT_S)
        for entry in entries:
            self._last += 1
            entry.sequence = self._last
            self.open += 1
            self._remember(entry)

    def write(
        self,
        changed: Sequence[tuple[Entry, CommandRecord]],
        rows: Sequence[Batch],
        now_ns: int,
        kept: Callable[[], None],
    ) -> None:
        """Write states, and in one piece with them rows of the log; raises StoreFailed - it is closed.

        kept  called once all of it is durable, when the entries show it
        """
        changes: list[Change] = []
        added = 0
        for entry, record in changed:
            place = entry.sequence.to_bytes(_PLACE_BYTES, "big")
            key = _RECORD + place
            changes.append(("commands", key, encode_record(key, record)))
            if not entry.is_written:
                entry.is_written = True
                added += 1
                changes.append(("commands", _ID + record.command.id.encode(), place))
            if record.outcome is None:
                changes.append(("commands", _OPEN + place, b""))
            else:
                changes.append(("commands", _OPEN + place, None))
            entry.last = record
        if added:
            changes.append(("commands", _LAST, self._last.to_bytes(_PLACE_BYTES, "big")))
            changes += self._forgotten(FORGOTTEN_PER_COMMAND * added, now_ns)

        def done() -> None:
            for entry, record in changed:
                self.open -= record.outcome is not None
                entry.kept(record)
            self._trim_memory()
            kept()

        self._log.record(rows, changes, done)

    def _forgotten(self, count_max: int, now_ns: int) -> list[Change]:
        """Deletes of the oldest commands that need not be kept any more."""
        changes: list[Change] = []
        for _ in range(count_max):
            if len(self) <= KEPT_MIN:
                break
            entry = self._by_place.get(self._first)
            try:
                record = entry.record if entry is not None else self._read(self._first)
            except StoreFailed:
                record = None  # nobody can read it again
            if record is not None and (record.outcome is None or now_ns - record.received < KEPT_NS):
                break
            key = self._first.to_bytes(_PLACE_BYTES, "big")
            changes += [("commands", _RECORD + key, None), ("commands", _OPEN + key, None)]
            if record is not None:
                changes.append(("commands", _ID + record.command.id.encode(), None))
                self._by_id.pop(record.command.id, None)
            self._by_place.pop(self._first, None)
            self._first += 1
        return changes

    def _readable(self, place: int) -> CommandRecord | None:
        """The record at a place; None also where it is damaged."""
        try:
            return self._read(place)
        except StoreFailed as error:
            if error.stable_code != DAMAGED:
                raise
            return None

    def _read(self, place: int) -> CommandRecord | None:
        key = _RECORD + place.to_bytes(_PLACE_BYTES, "big")
        data = self._disk.get("commands", key)
        return None if data is None else decode_record(key, data)

    def _remember(self, entry: Entry) -> None:
        self._by_id[entry.command.id] = entry
        self._by_place[entry.sequence] = entry

    def _trim_memory(self) -> None:
        """Let go of the oldest records whose outcome is durable: the store has them."""
        over = len(self._by_id) - CACHED_MAX
        if over <= 0:
            return
        settled = (entry for entry in self._by_id.values() if entry.record.outcome is not None and entry.is_kept)
        for entry in [entry for entry, _ in zip(settled, range(over), strict=False)]:
            del self._by_id[entry.command.id]
            self._by_place.pop(entry.sequence, None)


def _place_of(data: bytes | None) -> int:
    return 0 if data is None else int.from_bytes(data, "big")


def _after(prefix: bytes) -> bytes:
    return bytes((prefix[0] + 1,))
