"""Batches: the only form in which data flows through the gateway.

A batch is a set of columns, never a list of sample objects. One batch holds values of one kind. Batches are
frozen; columns are marked read-only by whoever publishes them, so that a batch can be shared by the ring,
the log and every connector without a copy.

Source: docs/decisions/0002-columns.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, unique
from functools import cache
from typing import Literal, NamedTuple, NewType, TypeAlias

import numpy as np
import numpy.typing as npt

TagId = NewType("TagId", int)
"""Catalogue id of a tag; stable over reloads and restarts."""

Position = NewType("Position", int)
"""Place of one row in the log: u64, gapless from 1. 0 means "before the first row"."""

Int32Column: TypeAlias = npt.NDArray[np.int32]
Int64Column: TypeAlias = npt.NDArray[np.int64]
UInt32Column: TypeAlias = npt.NDArray[np.uint32]
Float64Column: TypeAlias = npt.NDArray[np.float64]
ObjectColumn: TypeAlias = npt.NDArray[np.object_]
ValueColumn: TypeAlias = Float64Column | Int64Column | npt.NDArray[np.uint64] | npt.NDArray[np.bool_] | ObjectColumn
Value: TypeAlias = float | int | bool | str | bytes | list["Value"] | dict[str, "Value"] | None
"""One value outside a column: text, JSON, latest-value look-ups. Lists and mappings are values of type `json`."""


@unique
class Kind(Enum):
    """What a value column holds; the value is the numpy type character."""

    FLOAT = "d"
    INT = "l"
    UINT = "L"
    BOOL = "?"
    OBJECT = "O"


@unique
class ValueType(Enum):
    """Type of a tag as the tag table declares it."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"
    BYTES = "bytes"
    JSON = "json"

    @property
    def kind(self) -> Kind:
        """Kind of the column that carries this type without loss."""
        return _KIND[self]


_KIND = {
    ValueType.BOOL: Kind.BOOL,
    ValueType.INT8: Kind.INT,
    ValueType.INT16: Kind.INT,
    ValueType.INT32: Kind.INT,
    ValueType.INT64: Kind.INT,
    ValueType.UINT8: Kind.INT,
    ValueType.UINT16: Kind.INT,
    ValueType.UINT32: Kind.INT,
    ValueType.UINT64: Kind.UINT,
    ValueType.FLOAT32: Kind.FLOAT,
    ValueType.FLOAT64: Kind.FLOAT,
    ValueType.STRING: Kind.OBJECT,
    ValueType.BYTES: Kind.OBJECT,
    ValueType.JSON: Kind.OBJECT,
}

Access: TypeAlias = Literal["R", "W", "RW"]


class Batch(NamedTuple):
    """Rows that became known together. A named tuple: frozen, and made in a fifth of a frozen dataclass's time.

    tag           int32[rows], catalogue ids; a tag may occur more than once, oldest first. Drivers hand out
                  the *same array object* on every scan of the same plan: caches are keyed by it
    value         one kind per batch (see Kind), [rows]; meaningless where quality is Bad
    quality       uint32[rows] OPC UA StatusCodes, or uint32[1] that stands for every row
    source_time   int64[rows] ns UTC, or int64[1] that stands for every row
    gateway_time  ns UTC at which the gateway took the rows

    Batches are compared by identity: columns have no one answer to ==.
    """

    tag: Int32Column
    value: ValueColumn
    quality: UInt32Column
    source_time: Int64Column
    gateway_time: int

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    @property
    def rows(self) -> int:
        return len(self.tag)

    @property
    def kind(self) -> Kind:
        return Kind(self.value.dtype.char)


class Placed(NamedTuple):
    """A batch with its place in the log: row i has position `first + i`."""

    first: Position
    batch: Batch

    @property
    def last(self) -> Position:
        return Position(self.first + len(self.batch.tag) - 1)


class Gap(NamedTuple):
    """Positions that will never be delivered, and why (GapFrame in the contract)."""

    first: Position
    last: Position
    reason: Literal["retention", "disk_full", "damage"]
    detail: str
    connector: str  # "" = every connector
    time: int  # ns UTC


@dataclass(frozen=True, slots=True)
class Tag:
    """What the catalogue knows of one tag; `device` is the row of drivers.yml that reads it."""

    id: TagId
    name: str
    device: str
    type: ValueType
    unit: str
    access: Access


_NS, _INT64 = struct.Struct("=q"), np.dtype(np.int64)


def uniform_time(ns: int) -> Int64Column:
    """A source-time column of length 1 that stands for every row."""
    return np.frombuffer(_NS.pack(ns), _INT64)  # of bytes, so it is read-only


@cache
def uniform_quality(status: int) -> UInt32Column:
    """A quality column of length 1 that stands for every row; one shared array per status."""
    column = np.array((status,), dtype=np.uint32)
    column.flags.writeable = False
    return column


def rows_of(batches: Sequence[Batch]) -> int:
    return sum(len(batch.tag) for batch in batches)
