"""What the store and the control socket hold or carry: records, values, gaps, letters, names, marks, messages.

Damage is caught by check sums; what is sealed here has a right one, as a bug or a hostile disk may make it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from random import Random
from typing import cast

import google_crc32c
import numpy as np
import orjson

from framegate.bus.catalogue import TAGS_MAX, DurableCatalogue
from framegate.bus.gaps import decode_gap, encode_gap
from framegate.bus.highwater import read_mark_at
from framegate.bus.layout import Layouts
from framegate.bus.letters import decode_letter, encode_letter, key_of_letter
from framegate.bus.marks import Marks
from framegate.bus.objects import pack_objects, unpack_objects
from framegate.bus.record import KEY_BYTES, decode, encode, key_of
from framegate.contract.errors import FrameBroken, StoreFailed
from framegate.contract.frame import Batch, Gap, Int32Column, Position, ValueColumn, ValueType, uniform_quality
from framegate.contract.letter import DeadLetter
from framegate.contract.ports import Disk
from framegate.ops import message
from tools.fuzz.target import Target

_TAGS = np.arange(1, 9, dtype=np.int32)
_LETTER = DeadLetter("c", Position(5), 4, b"t/a", b"payload", "application/json", "E5107 no", 1, 2, 6)


def _checked(key_bytes: int) -> Callable[[bytes, Random], bytes]:
    """Seal of an entry: its key, then its value with CRC32C of both behind it."""

    def seal(case: bytes, dice: Random) -> bytes:
        body = case[:-4] if dice.random() < 0.7 else case
        check: int = google_crc32c.value(body)
        return body + check.to_bytes(4, "little") if len(case) >= key_bytes + 4 else case

    return seal


# -- records -----------------------------------------------------------------------------------------------------


def _layout(number: int) -> Int32Column:
    if number != 1:
        raise FrameBroken(f"layout {number} is not in the catalogue", code="E3010")
    return _TAGS


def _record(case: bytes) -> Hashable:
    """key, record; every value of the columns is touched."""
    placed = decode(case[:KEY_BYTES], case[KEY_BYTES:], _layout)
    batch = placed.batch
    columns = (batch.tag, batch.value, batch.quality, batch.source_time)
    return batch.kind, batch.rows, tuple(len(column.tolist()) for column in columns)


def _record_seeds() -> list[bytes]:
    objects = np.empty(8, np.object_)
    objects[:] = ["text", b"bytes", 1 << 70, None, True, 1.5, [1, ["a", b"b"]], "é"]
    values: Sequence[ValueColumn] = (
        np.linspace(0, 1, 8), np.arange(8), np.arange(8, dtype=np.uint64), np.arange(8) % 2 == 0, objects
    )  # fmt: skip
    quality = np.array([0, 0, 0, 0, 0, 0, 0, 0x800A0000], dtype=np.uint32)
    time = np.arange(8, dtype=np.int64)
    found = []
    for value in values:
        for layout, statuses, times in (
            (0, uniform_quality(0), time[:1]),
            (1, quality, time),
            (0, quality[::-1], time),
        ):
            batch = Batch(_TAGS, value, np.ascontiguousarray(statuses), times, 99)
            found.append(key_of(7) + encode(key_of(7), batch, layout))
    return found


def _objects(case: bytes) -> Hashable:
    """First byte: how many values; they come back as the same bytes."""
    values = unpack_objects(case[1:], case[0] if case else 0)
    unpack_objects(pack_objects(values), len(values))
    return tuple(type(value).__name__ for value in values[:4])


def _objects_seeds() -> list[bytes]:
    values = ["text", b"bytes", 1 << 70, None, True, False, 1.5, [1, ["a", b"b", []]], float("nan"), -1]
    return [bytes((1,)) + pack_objects([value]) for value in values] + [bytes((len(values),)) + pack_objects(values)]


# -- books -------------------------------------------------------------------------------------------------------


class _OneEntry:
    """A disk that holds one entry, in whichever family it is looked for."""

    def __init__(self, key: bytes, data: bytes) -> None:
        self._entry = key, data

    def scan(self, family: str, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        if start <= self._entry[0] and (stop is None or self._entry[0] < stop):
            yield self._entry


def _gap(case: bytes) -> Hashable:
    gap = decode_gap(case[:KEY_BYTES], case[KEY_BYTES:])
    encode_gap(gap)
    return gap.reason, bool(gap.detail), bool(gap.connector)


def _gap_seeds() -> list[bytes]:
    gaps = [
        Gap(Position(9), Position(20), "damage", "why", "c", 5),
        Gap(Position(1), Position(1), "retention", "", "", 0),
    ]
    return [key_of(gap.first) + encode_gap(gap) for gap in gaps]


def _letter(case: bytes) -> Hashable:
    """First byte: length of the key."""
    size = case[0] if case else 0
    letter = decode_letter(case[1 : 1 + size], case[1 + size :])
    encode_letter(key_of_letter(letter.connector, letter.position), letter)
    return letter.connector[:3], letter.rows > 0, min(len(letter.payload), 3)


def _letter_seeds() -> list[bytes]:
    key = key_of_letter(_LETTER.connector, _LETTER.position)
    return [bytes((len(key),)) + key + encode_letter(key, _LETTER)]


def _letter_sealed(case: bytes, dice: Random) -> bytes:
    """The length of the key is not part of what is checked."""
    return case[:1] + _checked(0)(case[1:], dice)


def _names(case: bytes) -> Hashable:
    """First byte: length of the key."""
    size = case[0] if case else 0
    book = DurableCatalogue(cast(Disk, _OneEntry(case[1 : 1 + size], case[1 + size :])))
    book.load()
    return min(len(book), 9), tuple(book.tag(tag_id).type for tag_id, _ in list(book.names())[:4])


def _names_seeds() -> list[bytes]:
    book = DurableCatalogue(cast(Disk, _OneEntry(b"", b"")))
    for number in range(5):
        book.intern(f"t{number}", f"d{number % 2}", ValueType.INT16, "bar", "RW")
    return [bytes((len(key),)) + key + (data or b"") for _, key, data in book.take_changes()]


def _layouts(case: bytes) -> Hashable:
    size = case[0] if case else 0
    book = Layouts(cast(Disk, _OneEntry(case[1 : 1 + size], case[1 + size :])))
    book.load()
    return len(case) % 4


def _layouts_seeds() -> list[bytes]:
    book = Layouts(cast(Disk, _OneEntry(b"", b"")))
    book.number(_TAGS)
    book.number(_TAGS.copy())
    return [bytes((len(key),)) + key + (data or b"") for _, key, data in book.take_changes()]


def _marks(case: bytes) -> Hashable:
    size = case[0] if case else 0
    book = Marks(cast(Disk, _OneEntry(case[1 : 1 + size], case[1 + size :])), 1 << 20)
    book.load()
    return len(book.all())


def _marks_seeds() -> list[bytes]:
    book = Marks(cast(Disk, _OneEntry(b"", b"")), 1 << 20)
    change = book.note(Position(1), 100, 5)
    assert change is not None
    _, key, data = change
    return [bytes((len(key),)) + key + (data or b"")]


# -- high-water mark ---------------------------------------------------------------------------------------------

_MARK_FILE = os.memfd_create("fuzz-mark")


def _mark(case: bytes) -> Hashable:
    """The case stands where the first slot is."""
    os.ftruncate(_MARK_FILE, 0)
    os.pwrite(_MARK_FILE, case, 0)
    mark = read_mark_at(_MARK_FILE)
    return mark.position > 0, len(mark.cursors)


def _mark_seeds() -> list[bytes]:
    body = orjson.dumps({"cloud": 5, "other": 7})
    header = b"FGMARK1\n" + b"".join(n.to_bytes(8, "little") for n in (3, 9, 4, 2)) + len(body).to_bytes(4, "little")
    check: int = google_crc32c.value(header + body)
    return [header + body + check.to_bytes(4, "little")]


# -- control socket ----------------------------------------------------------------------------------------------


def _control(case: bytes) -> Hashable:
    """A line as either end reads it."""
    found = message.decode(case)
    shapes: list[str] = []
    for reader in (message.health_from, message.tag_from, message.letter_row_from, message.letter_from):
        try:
            shapes.append(type(reader(found)).__name__)
        except FrameBroken as error:
            shapes.append(error.text[:60])
    return tuple(shapes)


def _control_seeds() -> list[bytes]:
    tag = {"id": 1, "name": "t", "device": "d", "type": "int16", "unit": "", "access": "R", "value": 1}
    bus = {"rows": 1, "ring_rows": 1, "ring_rows_max": 2, "is_paused": False}
    health = {"name": "g", "devices": [], "connectors": [], "bus": bus, "wal": {"state": "running"}}
    requests = ({"op": "tags", "pattern": "*", "after": 0, "limit": 9}, {"op": "letter", "id": "c/5"})
    return [
        *map(orjson.dumps, requests),
        orjson.dumps({**tag, "quality": 0, "source_time": 1, "gateway_time": 1}),
        orjson.dumps(health),
        message.encode(_LETTER),
    ]


_UNREADABLE = (StoreFailed, FrameBroken)
_PREFIXED = _letter_sealed
TARGETS: Sequence[Target] = (
    Target("store-record", _record, (FrameBroken,), _record_seeds, _checked(KEY_BYTES)),
    Target("store-objects", _objects, (FrameBroken,), _objects_seeds),
    Target("store-gap", _gap, _UNREADABLE, _gap_seeds, _checked(KEY_BYTES)),
    Target("store-letter", _letter, _UNREADABLE, _letter_seeds, _PREFIXED),
    # An id makes room for all below it: lost entries never free theirs.
    Target("store-names", _names, _UNREADABLE, _names_seeds, _PREFIXED, floor=24 * TAGS_MAX),
    Target("store-layout", _layouts, _UNREADABLE, _layouts_seeds, _PREFIXED),
    Target("store-stretch", _marks, _UNREADABLE, _marks_seeds),
    Target("store-mark", _mark, _UNREADABLE, _mark_seeds, _checked(0)),
    Target("control-message", _control, (FrameBroken,), _control_seeds),
)
