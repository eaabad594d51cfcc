"""Columns of values -> bytes of registers, for all tags of one shown type at once. Pure; the inverse of `columns.py`.

A number that its registers cannot hold is shown as the nearest one that they can, and told as wrong; a NaN has no
whole number that is near. A text that is too long is cut, and told as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import Int32Column, Value, ValueColumn, ValueType
from framegate_plugins.modbus.address import Area
from framegate_plugins.modbus.register_map import Entry
from framegate_plugins.modbus.tags import TEXT_TYPES
from framegate_plugins.modbus.values import ValueWrong, value_bytes

Bytes: TypeAlias = npt.NDArray[np.uint8]
Mask: TypeAlias = npt.NDArray[np.bool_]
_DTYPE = {
    ValueType.FLOAT64: "f8", ValueType.FLOAT32: "f4",
    ValueType.INT64: "i8", ValueType.INT32: "i4", ValueType.INT16: "i2", ValueType.INT8: "i1",
    ValueType.UINT64: "u8", ValueType.UINT32: "u4", ValueType.UINT16: "u2", ValueType.UINT8: "u1",
    ValueType.BOOL: "u2",
}  # fmt: skip
"""A bool that has a register for itself is 1 or 0 there."""


class Rows(NamedTuple):
    """What became of rows. is_wrong: the value does not fit; is_shown: its registers hold it, or the nearest one."""

    is_wrong: Mask
    is_shown: Mask


class RegisterColumn(Protocol):
    """Entries whose values are written in one way."""

    def put(self, slot: Int32Column, value: ValueColumn) -> Rows | None:
        """Write values, of rows of one entry the last one; None: every one fits."""


def columns_from(
    entries: Sequence[Entry], first: Mapping[Area, int], buffers: Mapping[bool, Bytes]
) -> tuple[Sequence[RegisterColumn], npt.NDArray[np.intp]]:
    """Columns for these entries, and for each slot the number of its column.

    first    place of each table's first address in its buffer
    buffers  of bits (True), a byte each, and of registers (False), two bytes each
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(_kind(entry), []).append(entry)
    columns: list[RegisterColumn] = []
    column_of = np.zeros(len(entries), np.intp)
    row_of = np.zeros(len(entries), np.intp)
    for kind, members in groups.items():
        for row, entry in enumerate(members):
            column_of[entry.slot], row_of[entry.slot] = len(columns), row
        place = np.array([_place(entry, first) for entry in members], np.intp)
        if kind == "coil":
            columns.append(_Coils(place, row_of, buffers[True]))
        elif kind == "bit":
            columns.append(_Bits(members, place, row_of, buffers[False]))
        elif kind == "text":
            columns.append(_Texts(members, place, row_of, buffers[False]))
        else:
            columns.append(_Numbers(np.dtype(kind), members, place, row_of, buffers[False]))
    return columns, column_of


def _kind(entry: Entry) -> str:
    point = entry.point
    if point.area.is_bits:
        return "coil"
    if point.bit is not None:
        return "bit"
    return "text" if point.type in TEXT_TYPES or entry.tag.texts else _DTYPE[point.type]


def _place(entry: Entry, first: Mapping[Area, int]) -> int:
    address = first[entry.point.area] + entry.point.offset
    return address if entry.point.area.is_bits else 2 * address


class _Numbers:
    """Numbers of one type. index: intp[rows, width], the byte of each value's byte, most significant first."""

    def __init__(
        self,
        dtype: np.dtype[np.number],
        entries: Sequence[Entry],
        place: npt.NDArray[np.intp],
        row_of: npt.NDArray[np.intp],
        buffer: Bytes,
    ) -> None:
        self._dtype, self._wire = dtype, dtype.newbyteorder(">")
        self._row_of, self._buffer = row_of, buffer
        self._index = place[:, None] + np.array([entry.point.source for entry in entries], np.intp)
        scale = np.array([entry.scale for entry in entries])
        self._scale = scale if (scale != 1.0).any() else None

    def put(self, slot: Int32Column, value: ValueColumn) -> Rows | None:
        if value.dtype.kind == "O":
            return Rows(np.ones(len(slot), np.bool_), np.zeros(len(slot), np.bool_))
        if self._scale is not None:
            value = value / self._scale[self._row_of[slot]]
        fitted, rows = fitted_to(value, self._dtype)
        if rows is not None and not rows.is_shown.all():
            slot, fitted = slot[rows.is_shown], fitted[rows.is_shown]
        data = fitted.astype(self._wire).view(np.uint8).reshape(len(slot), self._dtype.itemsize)
        self._buffer[self._index[self._row_of[slot]]] = data
        return rows


class _Coils:
    """Coils and discrete inputs."""

    def __init__(self, place: npt.NDArray[np.intp], row_of: npt.NDArray[np.intp], buffer: Bytes) -> None:
        self._place, self._row_of, self._buffer = place, row_of, buffer

    def put(self, slot: Int32Column, value: ValueColumn) -> Rows | None:
        self._buffer[self._place[self._row_of[slot]]] = value != 0
        return None


class _Bits:
    """Single bits of registers, which may be neighbours in one byte."""

    def __init__(
        self, entries: Sequence[Entry], place: npt.NDArray[np.intp], row_of: npt.NDArray[np.intp], buffer: Bytes
    ) -> None:
        masks = [entry.mask for entry in entries]
        self._place = place + np.array([0 if mask > 0xFF else 1 for mask in masks], np.intp)
        self._mask = np.array([mask >> 8 or mask for mask in masks], np.uint8)
        self._state = np.zeros(len(entries), np.bool_)
        self._row_of, self._buffer = row_of, buffer

    def put(self, slot: Int32Column, value: ValueColumn) -> Rows | None:
        row = self._row_of[slot]
        self._state[row] = value != 0
        place, mask = self._place[row], self._mask[row]
        np.bitwise_and.at(self._buffer, place, ~mask)
        is_set = self._state[row]
        np.bitwise_or.at(self._buffer, place[is_set], mask[is_set])
        return None


class _Texts:
    """Texts, bytes and texts of enumerations, which are shown as numbers; rare, so row by row."""

    def __init__(
        self, entries: Sequence[Entry], place: npt.NDArray[np.intp], row_of: npt.NDArray[np.intp], buffer: Bytes
    ) -> None:
        self._entries = entries
        self._index = [start + np.array(entry.point.source) for start, entry in zip(place, entries, strict=True)]
        self._numbers = [{text: number for number, text in entry.tag.enumeration.items()} for entry in entries]
        self._row_of, self._buffer = row_of, buffer

    def put(self, slot: Int32Column, value: ValueColumn) -> Rows | None:
        wrong, shown = np.zeros(len(slot), np.bool_), np.ones(len(slot), np.bool_)
        for number, (row, one) in enumerate(zip(self._row_of[slot].tolist(), value.tolist(), strict=True)):
            data, fits = self._bytes(row, one)
            wrong[number], shown[number] = not fits, data is not None
            if data is not None:
                self._buffer[self._index[row]] = np.frombuffer(data, np.uint8)
        return Rows(wrong, shown) if wrong.any() else None

    def _bytes(self, row: int, value: Value) -> tuple[bytes | None, bool]:
        """Bytes of a value, or of what of it fits; whether it fits."""
        point = self._entries[row].point
        if self._numbers[row] and isinstance(value, str):
            value = self._numbers[row].get(value)
        try:
            return value_bytes(point, value), True
        except ValueWrong:
            pass
        if point.type is ValueType.STRING and isinstance(value, str):
            value = value.encode(point.encoding, "replace")[: len(point.source)].decode(point.encoding, "ignore")
            return value_bytes(point, value), False
        if point.type is ValueType.BYTES and isinstance(value, bytes):
            return value[: len(point.source)], False
        return None, False


def fitted_to(value: npt.NDArray[np.generic], dtype: np.dtype[np.number]) -> tuple[npt.NDArray[np.number], Rows | None]:
    """Numbers as the type holds them: whole numbers rounded, and the nearest one where one is out of range."""
    if dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            fitted = value.astype(dtype)
        is_wrong = np.isinf(fitted)
        if is_wrong.any():
            is_wrong &= np.isfinite(value)
        return fitted, Rows(is_wrong, np.ones(len(value), np.bool_)) if is_wrong.any() else None
    if value.dtype.kind == "b":
        return value.astype(dtype), None
    low, high = _range_of(dtype, value.dtype)
    whole = np.rint(value) if value.dtype.kind == "f" else value
    if low <= whole.min() and whole.max() <= high:  # never true where there is a NaN
        return whole.astype(dtype), None
    is_shown = whole == whole  # noqa: PLR0124 - a NaN is not equal to itself
    clipped = np.clip(np.where(is_shown, whole, 0), low, high)
    return clipped.astype(dtype), Rows(clipped != whole, is_shown)


def _range_of(dtype: np.dtype[np.number], source: np.dtype[np.generic]) -> tuple[float, float]:
    """Lowest and highest number of the source type that the type can hold."""
    target = np.iinfo(dtype)  # type: ignore[type-var]  # of whole numbers, both
    if source.kind == "f":
        high = float(target.max)
        return float(target.min), high if high <= target.max else float(np.nextafter(high, 0.0))
    own = np.iinfo(source)  # type: ignore[type-var]
    return max(target.min, own.min), min(target.max, own.max)
