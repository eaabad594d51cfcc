"""Test vectors of a driver: requests, answers, and the rows that must come of them; `tests/vectors.json` of a plugin.

    {"options": {...},                                          options of the device's row
     "tags": [{"name", "address", "type", "access", "options"}],
     "connect": [EXCHANGE],                                     what is said before the first scan, if anything is
     "scans": [{"name", "exchanges": [EXCHANGE], "expected": [{"tag", "value"} or {"tag", "quality"}]}],
     "writes": [{"name", "tag", "value", "exchanges": [EXCHANGE], "expected": "CONFIRMED"}]}

EXCHANGE: {"request": "01 ?? 0000", "response": "01 ?? 00"}, in hexadecimal. `??` in a request is any byte, such as of a
counter; the response's `??` repeat them in order. A response "" is none: the device stays silent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from framegate.contract.command import Write
from framegate.contract.driver import BoundTag
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Access, Kind, TagId, Value, ValueType
from framegate.contract.quality import Quality, describe, is_bad

VECTORS_NAME = "tests/vectors.json"
VECTORS_BYTES_MAX = 4 * 1024 * 1024
RELATIVE_ERROR_MAX = 1e-6
"""Between floats that are equal: a float32 in decimal digits."""
_QUALITY = {describe(status): int(status) for status in Quality}


class Exchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    request: str
    response: str


class VectorTag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    address: str
    type: ValueType
    access: Access = "R"
    options: dict[str, Any] = {}


class ExpectedRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """value: of type bytes as hexadecimal text. quality: an OPC UA name, or 0x80340000."""

    tag: str
    value: Any = None
    quality: str = "Good"

    @property
    def status(self) -> int:
        return _QUALITY[self.quality] if self.quality in _QUALITY else int(self.quality, 16)

    def is_met_by(self, value: Value, type_: ValueType) -> bool:
        wanted = bytes.fromhex(self.value) if type_ is ValueType.BYTES else self.value
        if type_.kind is Kind.FLOAT and isinstance(value, float):
            return math.isclose(value, float(wanted), rel_tol=RELATIVE_ERROR_MAX, abs_tol=1e-30)
        return type(value) is type(wanted) and value == wanted


class ScanVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    exchanges: list[Exchange]
    expected: list[ExpectedRow]


class WriteVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """value: of type bytes as hexadecimal text."""

    name: str
    tag: str
    value: Any
    exchanges: list[Exchange]
    expected: Literal["CONFIRMED", "REJECTED", "NOT_SENT", "UNKNOWN"]


class Vectors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """See above."""

    tags: list[VectorTag]
    scans: list[ScanVector]
    about: str = ""
    options: dict[str, Any] = {}
    connect: list[Exchange] = []
    writes: list[WriteVector] = []

    @cached_property
    def bound(self) -> Sequence[BoundTag]:
        """The tags as a driver is given them; ids count from 1."""
        return [
            BoundTag(TagId(number), tag.name, tag.address, tag.type, tag.access, tag.options)
            for number, tag in enumerate(self.tags, 1)
        ]

    @cached_property
    def readable(self) -> Sequence[BoundTag]:
        return [tag for tag in self.bound if "R" in tag.access]

    def tag(self, name: str) -> BoundTag:
        return next(tag for tag in self.bound if tag.name == name)

    def command(self, write: WriteVector) -> Write:
        """A write as a driver is given it."""
        tag = self.tag(write.tag)
        return Write(tag.id, bytes.fromhex(write.value) if tag.type is ValueType.BYTES else write.value)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A request to be recognized and its answer; None stands for a byte that may be any."""

    request: tuple[int | None, ...]
    response: tuple[int | None, ...]

    def match(self, data: bytes | bytearray) -> bytes | None:
        """The answer, where the data begins with the request."""
        free = []
        for wanted, got in zip(self.request, data, strict=False):
            if wanted is None:
                free.append(got)
            elif wanted != got:
                return None
        if len(data) < len(self.request):
            return None
        return bytes(free.pop(0) if byte is None else byte for byte in self.response)

    def may_become(self, data: bytes | bytearray) -> bool:
        """Whether the data, which is too short for the request, is its beginning."""
        pairs = zip(self.request, data, strict=False)
        return len(data) < len(self.request) and all(wanted in (None, got) for wanted, got in pairs)


def read_vectors(folder: Path) -> Vectors:
    """The vectors of a plugin.

    raises Misconfigured E4685 - there are none, or they break the format
    """
    path = folder / VECTORS_NAME
    try:
        if path.stat().st_size > VECTORS_BYTES_MAX:
            raise Misconfigured(f"{path}: longer than {VECTORS_BYTES_MAX} bytes; shorten it", code="E4685")
        vectors = msgspec.json.decode(path.read_bytes(), type=Vectors)
        _check(vectors)
    except OSError as error:
        reason = error.strerror or str(error)
        text = f"{path}: cannot be read ({reason}); write what the device is asked and answers there"
        raise Misconfigured(text, code="E4685") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise Misconfigured(f"{path}: {error}; correct that place", code="E4685") from error
    return vectors


def patterns(exchanges: Sequence[Exchange]) -> Sequence[Pattern]:
    """Raises ValueError for text that is no hexadecimal, and for more `??` in an answer than in its request."""
    return [_pattern(exchange) for exchange in exchanges]


def _pattern(exchange: Exchange) -> Pattern:
    found = Pattern(_bytes(exchange.request), _bytes(exchange.response))
    if not found.request:
        raise ValueError("a request is empty")
    if found.response.count(None) > found.request.count(None):
        raise ValueError(f'the answer "{exchange.response}" has more ?? than its request "{exchange.request}"')
    return found


def _bytes(text: str) -> tuple[int | None, ...]:
    compact = "".join(text.split())
    pairs = [compact[at : at + 2] for at in range(0, len(compact), 2)]
    try:
        return tuple(None if pair == "??" else bytes.fromhex(pair)[0] for pair in pairs)
    except (ValueError, IndexError):
        raise ValueError(f'"{text}" is not hexadecimal: two digits or ?? for each byte') from None


def _check(vectors: Vectors) -> None:
    """What types cannot say. Raises ValueError."""
    if not vectors.tags or not vectors.scans:
        raise ValueError("tags and scans must have at least one entry each")
    names = [tag.name for tag in vectors.tags]
    if len(set(names)) != len(names):
        raise ValueError("two tags have one name")
    patterns(vectors.connect)
    readable = sorted(tag.name for tag in vectors.readable)
    for scan in vectors.scans:
        patterns(scan.exchanges)
        if sorted(row.tag for row in scan.expected) != readable:
            raise ValueError(f'scan "{scan.name}": expected must have one row for each of {", ".join(readable)}')
        for row in scan.expected:
            _check_row(scan, row, vectors.tag(row.tag).type)
    for write in vectors.writes:
        patterns(write.exchanges)
        if write.tag not in names or "W" not in vectors.tag(write.tag).access:
            raise ValueError(f'write "{write.name}": {write.tag} is no tag with access W or RW')
        if vectors.tag(write.tag).type is ValueType.BYTES:
            _hexadecimal(f'write "{write.name}"', write.tag, write.value)


def _check_row(scan: ScanVector, row: ExpectedRow, type_: ValueType) -> None:
    if is_bad(row.status):
        return
    if type_ is ValueType.BYTES:
        _hexadecimal(f'scan "{scan.name}"', row.tag, row.value)
    if type_.kind is Kind.FLOAT and (not isinstance(row.value, int | float) or isinstance(row.value, bool)):
        raise ValueError(f'scan "{scan.name}": {row.value!r:.40} is no value of {row.tag}, which is {type_.value}')


def _hexadecimal(where: str, tag: str, value: object) -> None:
    try:
        bytes.fromhex(value if isinstance(value, str) else "?")
    except ValueError:
        text = f"{where}: {value!r:.40} is no value of {tag}, which is bytes: two hexadecimal digits for each"
        raise ValueError(text) from None
