"""Rows as a native driver's process packs them, made batches. Every byte of them is a stranger's.

What a scan costs the gateway is decided here, so columns are compared as bytes and looked at one by one only where
something is unusual: all Good, all of now, all of the kind that their tags want is the common case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from framegate.carrier.child.abi import Cell
from framegate.carrier.mismatch import Mismatches
from framegate.contract.driver import BoundTag
from framegate.contract.frame import (
    Batch,
    Int64Column,
    Kind,
    Value,
    ValueType,
    uniform_quality,
    uniform_time,
)
from framegate.contract.quality import Quality

Column: TypeAlias = npt.NDArray[Any]
_GOOD = uniform_quality(Quality.GOOD)
_CELL = {Kind.FLOAT: Cell.F64, Kind.INT: Cell.I64, Kind.UINT: Cell.U64, Kind.BOOL: Cell.BOOL}
_WHOLE = bytes.maketrans(bytes((Cell.U64,)), bytes((Cell.I64,)))
"""Whole numbers of either sign are taken for both, within the tag's range."""
_TYPE = {Kind.FLOAT: np.float64, Kind.INT: np.int64, Kind.UINT: np.uint64, Kind.BOOL: np.int64, Kind.OBJECT: np.uint64}
_EMPTY: dict[ValueType, Value] = {ValueType.STRING: "", ValueType.BYTES: b"", ValueType.JSON: None}
_DECODE: dict[ValueType, Callable[[bytes], Value]] = {
    ValueType.STRING: bytes.decode, ValueType.BYTES: bytes, ValueType.JSON: orjson.loads,
}  # fmt: skip
"""Each raises ValueError for what is none."""
_INT64 = np.dtype(np.int64)
_SIGNED = {ValueType.INT8: 8, ValueType.INT16: 16, ValueType.INT32: 32}
_UNSIGNED = {ValueType.UINT8: 8, ValueType.UINT16: 16, ValueType.UINT32: 32}
_LOWEST = {type_: -(1 << bits - 1) for type_, bits in _SIGNED.items()} | dict.fromkeys(_UNSIGNED, 0)
_WIDTH = {type_: (1 << bits) - 1 for type_, bits in (_SIGNED | _UNSIGNED).items()}
"""Of numbers narrower than their cell: the lowest, and how far above it the highest is."""


class Layout:
    """Rows of these tags in this order. mismatches: where those are noted that are of another kind than their tags."""

    def __init__(self, tags: Sequence[BoundTag], mismatches: Mismatches) -> None:
        rows = len(tags)
        kinds = [tag.type.kind for tag in tags]
        self._rows = rows
        ids = np.array([tag.id for tag in tags], np.uint32).tobytes()
        self._usual = bytes(8 * rows) + ids + bytes(4 * rows) + bytes(_cell_of(tag.type) for tag in tags)
        self._no_time, self._no_fault = bytes(8 * rows), bytes(4 * rows)
        self._groups = [_Group(tags, kind, kinds, mismatches) for kind in Kind if kind in kinds]
        self._range = _Range([tag.type for tag in tags])

    def usual_batches(self, rows: int, body: bytes, now_ns: int) -> list[Batch] | None:
        """As `batches`, if these are these tags in this order, all of now, without a fault, and of the kind and range
        that their tags want.
        """
        if rows != self._rows or not body.startswith(self._usual, 8 * rows):
            return None
        cells = np.frombuffer(body, _INT64, rows)
        if not self._range.holds_all(cells):
            return None
        times, heap = uniform_time(now_ns), body[25 * rows :]
        return [group.usual_batch(cells, heap, times, now_ns) for group in self._groups]

    def batches(self, body: bytes, now_ns: int) -> list[Batch]:
        """Batches of one kind each, from the columns of carrier.child.wire."""
        rows = self._rows
        time, fault = body[8 * rows : 16 * rows], body[20 * rows : 24 * rows]
        kind, heap = body[24 * rows : 25 * rows], body[25 * rows :]
        times = uniform_time(now_ns) if time == self._no_time else _times(time, now_ns)
        quality = None if fault == self._no_fault else np.frombuffer(fault, np.uint32)
        return [group.batch(body, kind, heap, quality, times, now_ns) for group in self._groups]


class _Range:
    """The ranges of narrow numbers. Every scan is held against them, so it is done in memory of its own.

    Moved up by its lowest value, a number is in range if it is no higher than its type is wide.
    """

    def __init__(self, types: Sequence[ValueType]) -> None:
        self._is_any = any(type_ in _LOWEST for type_ in types)
        self._offset = np.array([-_LOWEST.get(type_, 0) for type_ in types], np.int64)
        self._span = np.array([_WIDTH.get(type_, (1 << 64) - 1) for type_ in types], np.uint64)
        self._moved = np.empty(len(types), np.int64)
        self._moved_unsigned = self._moved.view(np.uint64)
        self._flags = bytearray(len(types))
        self._is_beyond = np.frombuffer(self._flags, np.bool_)

    def holds_all(self, cells: Column) -> bool:
        """int64[rows]."""
        if not self._is_any:
            return True
        np.add(cells, self._offset, self._moved)
        np.greater(self._moved_unsigned, self._span, self._is_beyond)
        return 1 not in self._flags

    def beyond(self, cells: Column) -> Column | None:
        """bool[rows] of those that are out of range; None if none is."""
        return None if self.holds_all(cells) else self._is_beyond.copy()


class _Group:
    """Those rows among them that are of one kind."""

    def __init__(self, tags: Sequence[BoundTag], kind: Kind, kinds: Sequence[Kind], mismatches: Mismatches) -> None:
        places = [place for place, each in enumerate(kinds) if each is kind]
        mine = [tags[place] for place in places]
        self._is_object, self._is_bool = kind is Kind.OBJECT, kind is Kind.BOOL
        self._is_int, self._is_whole = kind is Kind.INT, kind in {Kind.INT, Kind.UINT}
        self._is_plain = not (self._is_object or self._is_bool)
        self._dtype = np.dtype(_TYPE[kind])
        self._rows = len(tags)
        self._tags, self._mismatches = mine, mismatches
        self._types = [tag.type for tag in mine]
        self._places = None if len(mine) == len(tags) else np.array(places)
        self._tag = np.array([tag.id for tag in mine], np.int32)
        self._tag.flags.writeable = False
        self._cells = bytes(map(_cell_of, self._types))
        self._range = _Range(self._types if kind is Kind.INT else [])

    def usual_batch(self, cells: Column, heap: bytes, time: Int64Column, now_ns: int) -> Batch:
        """All Good, of one time, and of the kind and range that their tags want."""
        value: Column = cells if self._is_int else cells.view(self._dtype)
        if self._places is not None:
            value = _frozen(value[self._places])
        if not self._is_plain:
            return self._batch(value, self._cells, heap, None, time, now_ns)
        return Batch(self._tag, value, _GOOD, time, now_ns)

    def batch(
        self, body: bytes, kind: bytes, heap: bytes, quality: Column | None, time: Int64Column, now_ns: int
    ) -> Batch:
        value: Column = np.frombuffer(body, self._dtype, self._rows)
        if self._places is not None:
            value = value[self._places]
            kind = np.frombuffer(kind, np.uint8)[self._places].tobytes()
            quality = None if quality is None else quality[self._places]
            time = time if len(time) == 1 else time[self._places]
        if kind != self._cells:
            quality = self._unusual(kind, value, quality)
        return self._batch(value, kind, heap, quality, time, now_ns)

    def _batch(
        self, value: Column, kind: bytes, heap: bytes, quality: Column | None, time: Int64Column, now_ns: int
    ) -> Batch:
        if self._is_object:
            value, quality = self._objects(heap, value, kind, quality)
        elif self._is_bool:
            value = value != 0
        else:
            is_beyond = self._range.beyond(value)
            if is_beyond is not None:
                quality = _worse(quality, is_beyond, Quality.BAD_OUT_OF_RANGE)
        return Batch(self._tag, _frozen(value), _GOOD if quality is None else _frozen(quality), _frozen(time), now_ns)

    def _unusual(self, kind: bytes, value: Column, quality: Column | None) -> Column | None:
        """Bad where a cell is empty or of another kind than its tag, or has a sign that the other kind turned."""
        cells, wanted = np.frombuffer(kind, np.uint8), np.frombuffer(self._cells, np.uint8)
        if kind.translate(_WHOLE) != self._cells.translate(_WHOLE):
            whole = np.frombuffer(kind.translate(_WHOLE), np.uint8)
            is_other = whole != np.frombuffer(self._cells.translate(_WHOLE), np.uint8)
            quality = _worse(quality, cells == Cell.NULL, Quality.BAD_NO_DATA)
            self._note(cells, is_other & (quality < Quality.BAD))
            quality = _worse(quality, is_other, Quality.BAD_TYPE_MISMATCH)
        if self._is_whole:
            is_turned = (cells != wanted) & (value.view(np.int64) < 0)
            if is_turned.any():
                quality = _worse(quality, is_turned, Quality.BAD_OUT_OF_RANGE)
        return quality

    def _note(self, cells: Column, is_lost: Column) -> None:
        """Rows that become Bad only since they are of their kind."""
        for cell in np.unique(cells[is_lost]).tolist():
            places = np.flatnonzero(is_lost & (cells == cell)).tolist()
            self._mismatches.note([self._tags[place] for place in places], _name_of(cell))

    def _objects(
        self, heap: bytes, slices: Column, kind: bytes, quality: Column | None
    ) -> tuple[Column, Column | None]:
        """Texts and bytes from their slices of the heap; what lies outside of it, or is no UTF-8, is Bad."""
        value = np.empty(len(slices), np.object_)
        is_broken = np.zeros(len(slices), np.bool_)
        for index, (cell, found, type_) in enumerate(zip(slices.tolist(), kind, self._types, strict=True)):
            at, size = cell & 0xFFFF_FFFF, cell >> 32
            value[index] = _EMPTY[type_]
            if found != self._cells[index]:
                continue
            try:
                value[index] = _DECODE[type_](heap[at : at + size])
            except ValueError:
                is_broken[index] = True
            is_broken[index] |= at + size > len(heap)
        if is_broken.any():
            quality = _worse(quality, is_broken, Quality.BAD_DECODING_ERROR)
        return value, quality


def _cell_of(type_: ValueType) -> Cell:
    if type_.kind is Kind.OBJECT:
        return Cell.BYTES if type_ is ValueType.BYTES else Cell.STR
    return _CELL[type_.kind]


def wanted_of(type_: ValueType) -> str:
    """What a tag of that type takes, as contract/driver.h has it."""
    return _name_of(_cell_of(type_))


def _name_of(cell: int) -> str:
    return f"EDGE_{Cell(cell).name}" if cell in Cell.__members__.values() else "a kind that there is not"


def _worse(quality: Column | None, is_wrong: Column, status: int) -> Column:
    """Bad for this reason where something is wrong; what is Bad already keeps its own."""
    worse = np.zeros(len(is_wrong), np.uint32) if quality is None else quality.copy()
    worse[is_wrong & (worse < Quality.BAD)] = status
    return worse


def _times(time: bytes, now_ns: int) -> Int64Column:
    """int64[rows]; 0 stands for now."""
    times = np.frombuffer(time, np.int64)
    return times if times.all() else np.where(times == 0, now_ns, times)


def _frozen(column: Column) -> Column:
    if column.flags.writeable:
        column.flags.writeable = False
    return column
