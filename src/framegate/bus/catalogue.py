"""The catalogue: tag name <-> id <-> device, type, unit and access, kept in the store.

Ids count from 1 and are never given to another name, over reloads, restarts and damage. New tags are stored in
blocks, with the group commit that carries their first rows; a changed attribute is a small entry of its own. Memory
per tag is its name, one dict entry and four bytes: Tag objects are made when asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, cast

import google_crc32c
import numpy as np
import orjson

from framegate.bus.fault import damaged
from framegate.contract.frame import Access, Int32Column, Tag, TagId, ValueType
from framegate.contract.ports import Change, Disk

TAGS_MAX = 2_000_000
BLOCK_TAGS_MAX = 4_096
_BLOCK = b"t"
_CHANGED = b"u"
_HOLE = 0  # attribute index of an id whose entry was lost
_Attributes = tuple[str, ValueType, str, str]


class DurableCatalogue:
    """Satisfies contract.ports.Catalogue; the log writes what `take_changes` hands out."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._ids: dict[str, int] = {}
        self._names: list[str] = [""]
        self._attributes = array("I", [_HOLE])
        self._table: list[_Attributes] = [("", ValueType.FLOAT64, "", "R")]
        self._indexes: dict[_Attributes, int] = {}
        self._stored = 0  # ids up to here are on their way to the store
        self._changed: set[int] = set()
        self.has_holes = False  # some ids have lost their entries for good

    def load(self, at_least: int = 0) -> None:
        """Read the catalogue of the store.

        at_least  highest id that was ever given, if known from elsewhere: lost entries never free their ids
        raises    StoreFailed E3003
        """
        for key, data in self._disk.scan("catalogue", _BLOCK, b"v"):
            number = int.from_bytes(key[1:], "big")
            body = data[:-4]
            if google_crc32c.value(key + body) != int.from_bytes(data[-4:], "little"):
                raise damaged(f"catalogue entry {number}", "its check sum is wrong")
            try:
                self._take(number, orjson.loads(body))
            except (ValueError, TypeError, LookupError) as error:
                raise damaged(f"catalogue entry {number}", str(error)) from error
        self._reserve(at_least)
        self._stored = len(self)
        self.has_holes = _HOLE in self._attributes[1:]

    def __len__(self) -> int:
        """Highest id; every id from 1 to here was given once."""
        return len(self._names) - 1

    def intern(self, name: str, device: str, type_: ValueType, unit: str, access: str) -> TagId:
        """Id of a name, old or new; the attributes become what is said here."""
        index = self._index((device, type_, unit, access))
        tag_id = self._ids.get(name)
        if tag_id is None:
            tag_id = len(self._names)
            assert tag_id <= TAGS_MAX, f"more than {TAGS_MAX} tags were ever named"
            self._ids[name] = tag_id
            self._names.append(name)
            self._attributes.append(index)
        elif self._attributes[tag_id] != index:
            self._attributes[tag_id] = index
            if tag_id <= self._stored:
                self._changed.add(tag_id)
        return TagId(tag_id)

    def tag(self, tag_id: int) -> Tag:
        """What is known of an id; raises KeyError for one that was never given or whose entry was lost."""
        if not 0 < tag_id < len(self._names) or self._attributes[tag_id] == _HOLE:
            raise KeyError(tag_id)
        device, type_, unit, access = self._table[self._attributes[tag_id]]
        return Tag(TagId(tag_id), self._names[tag_id], device, type_, unit, cast(Access, access))

    def find(self, name: str) -> Tag | None:
        tag_id = self._ids.get(name)
        return None if tag_id is None else self.tag(tag_id)

    def holds(self, tag: Int32Column) -> bool:
        """Whether the name of every id in a column is known."""
        if not len(tag):
            return True
        if int(tag.min()) <= 0 or int(tag.max()) > len(self):
            return False
        return bool((np.frombuffer(self._attributes, np.uint32)[tag] != _HOLE).all())

    def known(self, name: str, device: str, type_: ValueType, unit: str, access: str) -> TagId | None:
        """Id of a name whose attributes are exactly these, else None; makes no object, and may be asked in a thread."""
        tag_id = self._ids.get(name)
        if tag_id is None or self._table[self._attributes[tag_id]] != (device, type_, unit, access):
            return None
        return TagId(tag_id)

    def names(self, after: int = 0) -> Iterator[tuple[TagId, str]]:
        """Ids above `after` with their names, ascending; lost entries are left out."""
        for tag_id in range(after + 1, len(self._names)):
            if self._attributes[tag_id] != _HOLE:
                yield TagId(tag_id), self._names[tag_id]

    def take_changes(self) -> Sequence[Change]:
        """What is not yet on its way to the store; the caller now owns it."""
        if self._stored == len(self) and not self._changed:
            return ()
        changes = [self._entry(_CHANGED, tag_id, tag_id + 1) for tag_id in sorted(self._changed)]
        changes += [
            self._entry(_BLOCK, first, min(first + BLOCK_TAGS_MAX, len(self) + 1))
            for first in range(self._stored + 1, len(self) + 1, BLOCK_TAGS_MAX)
        ]
        self._changed.clear()
        self._stored = len(self)
        return changes

    def _take(self, number: int, entry: dict[str, Any]) -> None:
        """What one entry holds, from an id on."""
        names = entry["names"]
        if not 0 < number <= TAGS_MAX - len(names) + 1:
            raise ValueError(f"{len(names)} names from id {number} on")
        table = [self._index((row[0], ValueType(row[1]), row[2], row[3])) for row in entry["attributes"]]
        self._reserve(number + len(names) - 1)
        for tag_id, (name, index) in enumerate(zip(names, entry["index"], strict=True), number):
            self._ids[name] = tag_id
            self._names[tag_id] = name
            self._attributes[tag_id] = table[index]

    def _entry(self, prefix: bytes, first: int, stop: int) -> Change:
        used = sorted(set(self._attributes[first:stop]))
        place = {index: number for number, index in enumerate(used)}
        body = orjson.dumps(
            {
                "names": self._names[first:stop],
                "index": [place[index] for index in self._attributes[first:stop]],
                "attributes": [(row[0], row[1].value, row[2], row[3]) for row in map(self._table.__getitem__, used)],
            }
        )
        key = prefix + first.to_bytes(4, "big")
        check: int = google_crc32c.value(key + body)
        return "catalogue", key, body + check.to_bytes(4, "little")

    def _index(self, attributes: _Attributes) -> int:
        index = self._indexes.get(attributes)
        if index is None:
            index = len(self._table)
            self._indexes[attributes] = index
            self._table.append(attributes)
        return index

    def _reserve(self, last: int) -> None:
        missing = last - len(self)
        if missing > 0:
            self._names += [""] * missing
            self._attributes.extend([_HOLE] * missing)
