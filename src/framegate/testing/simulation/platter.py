"""The medium under a simulated store: what a power cut leaves of it, and how it rots.

    view      what a process reads, whether synced or not: it survives the process
    synced    what survives a power cut
    journal   writes between the two, oldest first, each whole or not at all

A power cut keeps some of the journal, oldest first. A sync that failed leaves its writes doomed: nobody knows whether
they are there until the store is opened again, and no later sync makes them durable. Damage changes what was
synced long ago. Faults of the calls themselves are in disk.py.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import get_args

from framegate.bus.fault import damaged
from framegate.bus.gaps import decode_gap
from framegate.bus.record import KEY_BYTES
from framegate.contract.ports import Change, Family

FAMILIES: tuple[Family, ...] = get_args(Family)


class Table:
    """One family: entries in order of their keys."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: dict[bytes, bytes] = {}
        self.size = 0

    def put(self, key: bytes, value: bytes | None) -> None:
        old = self.values.pop(key, None)
        if old is not None:
            self.size -= len(key) + len(old)
            if value is None:
                del self.keys[bisect_left(self.keys, key)]
        elif value is not None:
            if not self.keys or key > self.keys[-1]:
                self.keys.append(key)
            else:
                insort(self.keys, key)
        if value is not None:
            self.values[key] = value
            self.size += len(key) + len(value)

    def copy(self) -> Table:
        twin = Table()
        twin.keys, twin.values, twin.size = list(self.keys), dict(self.values), self.size
        return twin


@dataclass(slots=True)
class Written:
    """One write that no sync has covered."""

    changes: Sequence[Change]
    is_doomed: bool = False


class Platter:
    """What lies on one medium.

    rotten   keys of frames whose content was changed behind everybody's back, or is gone
    flipped  entries of other families that were changed and not kept anew since
    spoiled  keys at which reading fails
    rotted   first and last position of every frame and gap that was ever made rotten
    on_written, on_kept, on_drop
             told of every write, of every one that will survive a power cut from now on, and of what will be deleted
    """

    def __init__(self) -> None:
        self.view = {family: Table() for family in FAMILIES}
        self.synced = {family: Table() for family in FAMILIES}
        self.journal: list[Written] = []
        self.rotten: dict[int, int] = {}
        self.flipped: dict[tuple[Family, bytes], None] = {}
        self.spoiled: dict[bytes, None] = {}
        self.rotted: list[tuple[int, int]] = []
        self.on_written: Callable[[Sequence[Change]], None] = _nobody
        self.on_kept: Callable[[Sequence[Change]], None] = _nobody
        self.on_drop: Callable[[Family, bytes], None] = _nobody

    @property
    def size(self) -> int:
        return sum(table.size for table in self.view.values())

    def write(self, changes: Sequence[Change], *, is_doomed: bool = False) -> None:
        """is_doomed: the call failed, and the bytes may be there all the same"""
        self.journal.append(Written(changes, is_doomed))
        self.on_written(changes)
        _apply(self.view, changes)
        for family, key, _ in changes:
            if family == "frames":
                self.spoiled.pop(key, None)

    def sync(self) -> None:
        assert not any(entry.is_doomed for entry in self.journal), "a handle whose sync failed must not sync again"
        self._keep(len(self.journal))

    def doom(self) -> None:
        """A sync failed: the writes it was to cover are indeterminate from now on."""
        for entry in self.journal:
            entry.is_doomed = True

    def settle(self, dice: Random) -> None:
        """The store is opened again: of the doomed writes some are found, oldest first, the others never were."""
        sure = sum(not entry.is_doomed for entry in self.journal)
        if sure < len(self.journal):
            self._lose_from(dice.randint(sure, len(self.journal)))

    def cut_power(self, dice: Random) -> int:
        """Only what was synced is sure; returns the writes that were lost."""
        return self._lose_from(dice.randint(0, len(self.journal)))

    def drop(self, family: Family, start: bytes, stop: bytes) -> None:
        """Files go at once, and for good: no sync is waited for."""
        self.on_drop(family, stop)
        for tables in (self.view, self.synced):
            table = tables[family]
            for key in table.keys[bisect_left(table.keys, start) : bisect_left(table.keys, stop)]:
                table.put(key, None)

    def scan(self, family: Family, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        table = self.view[family]
        index = bisect_left(table.keys, start)
        while index < len(table.keys):
            key = table.keys[index]
            if stop is not None and key >= stop:
                return
            if key in self.spoiled and family == "frames":
                raise damaged(f"key {key.hex()}", "the block cannot be read")
            yield key, table.values[key]
            index = bisect_right(table.keys, key)

    # -- damage ---------------------------------------------------------------------------------------------------

    def settled_keys(self, family: Family) -> Sequence[bytes]:
        """Keys that are synced, and lie as they were synced."""
        view = self.view[family].values
        return [
            key
            for key, value in self.synced[family].values.items()
            if view.get(key) is value and (family, key) not in self.flipped
        ]

    def flip(self, family: Family, key: bytes, dice: Random) -> None:
        """One bit of a value is another."""
        value = bytearray(self.synced[family].values[key])
        value[dice.randrange(len(value))] ^= 1 << dice.randrange(8)
        self._rot(family, key, bytes(value))

    def lose(self, family: Family, key: bytes) -> None:
        """The entry is gone, and nothing says so."""
        self._rot(family, key, None)

    def spoil(self, key: bytes) -> None:
        """Reading the frames fails at this key."""
        self._note_rot(key)
        self.spoiled[key] = None

    def _rot(self, family: Family, key: bytes, value: bytes | None) -> None:
        if family == "frames":
            self._note_rot(key)
        elif family == "gaps":
            gap = decode_gap(key, self.synced["gaps"].values[key])
            self.rotted.append((gap.first, gap.last))
        if family != "frames":
            self.flipped[family, key] = None
        self.synced[family].put(key, value)
        self.view[family].put(key, value)

    def _note_rot(self, key: bytes) -> None:
        first = first_of(key)
        if first not in self.rotten:
            self.rotten[first] = first + rows_of(self.view["frames"].values[key]) - 1
            self.rotted.append((first, self.rotten[first]))

    def _lose_from(self, kept: int) -> int:
        self._keep(kept)
        lost = len(self.journal)
        self.journal.clear()
        self.view = {family: table.copy() for family, table in self.synced.items()}
        return lost

    def _keep(self, count: int) -> None:
        for entry in self.journal[:count]:
            _apply(self.synced, entry.changes)
            for family, key, _ in entry.changes:
                self.flipped.pop((family, key), None)
                if family == "frames":
                    self.rotten.pop(first_of(key), None)
            self.on_kept(entry.changes)
        del self.journal[:count]


def rows_of(record: bytes) -> int:
    """Rows of a record, as its header has them (bus/record.py)."""
    return int.from_bytes(record[4:8], "little")


def first_of(key: bytes) -> int:
    assert len(key) == KEY_BYTES
    return int.from_bytes(key, "big")


def _apply(tables: dict[Family, Table], changes: Sequence[Change]) -> None:
    for family, key, value in changes:
        tables[family].put(key, value)


def _nobody(*what: object) -> None:
    return
