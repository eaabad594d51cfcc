"""Columns of a guest as batches of the gateway, and commands as columns for a guest.

A scan brings the same columns of tags time and again: each is decoded once, and its array is the same object on every
scan, since caches further on are keyed by it (contract/frame.py). Whatever a guest says of a tag that its plan does
not have is a violation. A value of another kind than its tag's is a Bad row (one that is Bad anyway may be of any
kind), and so is a text that is no UTF-8: that is the device's fault more often than the driver's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from framegate.carrier.mismatch import Mismatches
from framegate.carrier.wasm.world import Column, Rows, Violation
from framegate.contract.command import Write
from framegate.contract.driver import BoundTag
from framegate.contract.frame import (
    Batch,
    Int32Column,
    Int64Column,
    Kind,
    UInt32Column,
    ValueColumn,
    ValueType,
    uniform_quality,
    uniform_time,
)
from framegate.contract.quality import Quality

LAYOUTS_MAX = 256
"""Columns of tags that are remembered for one plan; with more, the oldest goes first."""
_KIND = {
    Column.REALS: Kind.FLOAT,
    Column.INTS: Kind.INT,
    Column.UINTS: Kind.UINT,
    Column.BOOLS: Kind.BOOL,
    Column.TEXTS: Kind.OBJECT,
    Column.BLOBS: Kind.OBJECT,
}
_DTYPE = {Column.REALS: np.dtype("<f8"), Column.INTS: np.dtype("<i8"), Column.UINTS: np.dtype("<u8")}
_OF_TYPE = {
    ValueType.BOOL: Column.BOOLS,
    ValueType.UINT64: Column.UINTS,
    ValueType.FLOAT32: Column.REALS,
    ValueType.FLOAT64: Column.REALS,
    ValueType.STRING: Column.TEXTS,
    ValueType.JSON: Column.TEXTS,
    ValueType.BYTES: Column.BLOBS,
}
_ZERO = {Kind.FLOAT: 0.0, Kind.INT: 0, Kind.UINT: 0, Kind.BOOL: False, Kind.OBJECT: None}
_BAD_TEXT = object()


def column_of(type_: ValueType) -> Column:
    """The column that carries values of a tag of this type; every integer below uint64 is an `ints`."""
    return _OF_TYPE.get(type_, Column.INTS)


class _Strangers(NamedTuple):
    """Rows of a column whose tags are of another kind than it."""

    fits: npt.NDArray[np.intp]
    fitting: Int32Column
    bad: Sequence[tuple[npt.NDArray[np.intp], Int32Column, Kind]]


class _Layout(NamedTuple):
    tag: Int32Column
    strangers: _Strangers | None


class TagRows:
    """Decodes the rows of one plan. mismatches: rows of another column than their tags'."""

    def __init__(self, tags: Sequence[BoundTag]) -> None:
        ids = [tag.id for tag in tags]
        self.tag: Int32Column = np.array(ids, np.int32)
        self.tag.flags.writeable = False
        self.mismatches = Mismatches(lambda type_: column_of(type_).name.lower())
        self._tags = {int(tag.id): tag for tag in tags}
        self._columns = {int(tag.id): column_of(tag.type) for tag in tags}
        self._layouts: dict[tuple[Column, bytes], _Layout] = {}

    def batches(self, rows: Rows, now_ns: int) -> Sequence[Batch]:
        """One batch; more where rows do not fit their tags. Raises Violation."""
        count = len(rows.tag) // 4
        if not count:
            return ()
        layout = self._layouts.get((rows.column, rows.tag)) or self._learn(rows.column, rows.tag)
        value = _values(rows, count)
        quality = _qualities(rows.quality, count)
        if isinstance(value, _Undecodable):
            quality, value = value.marked(quality, count), value.value
        times = _times(rows.ts_ns, count, now_ns)
        if layout.strangers is None:
            return (Batch(layout.tag, value, quality, times, now_ns),)
        self._note(layout.strangers, rows.column, np.broadcast_to(quality, count))
        return _apart(layout.strangers, Batch(layout.tag, value, quality, times, now_ns))

    def _note(self, strangers: _Strangers, column: Column, quality: UInt32Column) -> None:
        """Rows that become Bad only since they are of this column."""
        lost = [tag for places, tags, _ in strangers.bad for tag in tags[quality[places] >> 31 == 0].tolist()]
        if lost:
            self.mismatches.note([self._tags[tag] for tag in lost], column.name.lower())

    def _learn(self, column: Column, raw: bytes) -> _Layout:
        ids = np.frombuffer(raw, "<u4")
        for tag in ids.tolist():
            if tag not in self._columns:
                raise Violation(f"emitted a row of tag {tag}, which its group does not have")
        tags: Int32Column = ids.astype(np.int32)
        tags.flags.writeable = False
        while len(self._layouts) >= LAYOUTS_MAX:
            del self._layouts[next(iter(self._layouts))]
        layout = self._layouts[column, raw] = _Layout(tags, self._strangers(column, tags))
        return layout

    def _strangers(self, column: Column, tags: Int32Column) -> _Strangers | None:
        wanted = [self._columns[tag] for tag in tags.tolist()]
        fits = np.array([each is column for each in wanted])
        if fits.all():
            return None
        bad = []
        for kind in Kind:
            places = np.flatnonzero([each is not column and _KIND[each] is kind for each in wanted])
            if len(places):
                some = tags[places]
                some.flags.writeable = False
                bad.append((places, some, kind))
        fitting = tags[fits]
        fitting.flags.writeable = False
        return _Strangers(np.flatnonzero(fits), fitting, bad)


class _Undecodable(NamedTuple):
    """A column of texts of which some are no UTF-8."""

    value: ValueColumn
    rows: Sequence[int]

    def marked(self, quality: UInt32Column, count: int) -> UInt32Column:
        column = np.broadcast_to(quality, count).copy()
        column[list(self.rows)] = Quality.BAD_DECODING_ERROR
        column.flags.writeable = False
        return column


def _values(rows: Rows, count: int) -> ValueColumn | _Undecodable:
    data = rows.value
    if isinstance(data, bytes):
        if rows.column is Column.BOOLS:
            _same(count, len(data))
            flags: ValueColumn = np.frombuffer(data, np.uint8) != 0
            flags.flags.writeable = False
            return flags
        _same(count, len(data) // 8)
        return cast(ValueColumn, np.frombuffer(data, _DTYPE[rows.column]))
    _same(count, len(data))
    if rows.column is Column.BLOBS:
        return _objects(data)
    cells = [_text(cell) for cell in data]
    broken = [row for row, cell in enumerate(cells) if cell is _BAD_TEXT]
    if not broken:
        return _objects(cells)
    return _Undecodable(_objects([None if cell is _BAD_TEXT else cell for cell in cells]), broken)


def _text(cell: bytes) -> object:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return _BAD_TEXT


def _objects(cells: Sequence[object]) -> ValueColumn:
    column = np.empty(len(cells), np.object_)
    column[:] = cells
    column.flags.writeable = False
    return column


def _qualities(raw: bytes, count: int) -> UInt32Column:
    if len(raw) == 4:
        return uniform_quality(int.from_bytes(raw, "little"))
    _same(count, len(raw) // 4)
    return np.frombuffer(raw, "<u4")


def _times(raw: bytes, count: int, now_ns: int) -> Int64Column:
    """0 is now; a time of one entry stands for every row."""
    if len(raw) == 8:
        return uniform_time(int.from_bytes(raw, "little", signed=True) or now_ns)
    _same(count, len(raw) // 8)
    times: Int64Column = np.frombuffer(raw, "<i8")
    if times.all():
        return times
    times = np.where(times == 0, now_ns, times)
    times.flags.writeable = False
    return times


def _same(rows: int, entries: int) -> None:
    if rows != entries:
        raise Violation(f"emitted a batch of {rows} tags with a column of {entries} entries")


def _apart(strangers: _Strangers, batch: Batch) -> Sequence[Batch]:
    """The rows that fit, and Bad ones for the others."""
    found = []
    if len(strangers.fits):
        count = len(batch.tag)
        columns = [
            column if len(column) == 1 and count > 1 else _frozen(column[strangers.fits])
            for column in (batch.quality, batch.source_time)
        ]
        quality, times = cast(UInt32Column, columns[0]), cast(Int64Column, columns[1])
        value = _frozen(batch.value[strangers.fits])
        found.append(Batch(strangers.fitting, value, quality, times, batch.gateway_time))
    for places, tags, kind in strangers.bad:
        value = _frozen(np.full(len(tags), _ZERO[kind], dtype=kind.value))
        told = np.broadcast_to(batch.quality, len(batch.tag))[places]
        bad = _frozen(np.where(told >> 31 == 1, told, np.uint32(Quality.BAD_TYPE_MISMATCH)))
        found.append(Batch(tags, value, bad, uniform_time(batch.gateway_time), batch.gateway_time))
    return found


def _frozen(column: Any) -> Any:
    column.flags.writeable = False
    return column


def rows_of(commands: Sequence[Write], column: Column) -> Rows:
    """Commands of one column as a batch for a guest.

    raises  ValueError, TypeError, OverflowError - a value that the column cannot carry
    """
    tag = np.array([write.tag for write in commands], "<u4").tobytes()
    values = [write.value for write in commands]
    return Rows(tag, bytes(8), bytes(4), column, _cells(values, column))


def _cells(values: Sequence[object], column: Column) -> bytes | Sequence[bytes]:
    if column is Column.TEXTS:
        return [str(value).encode() for value in values]
    if column is Column.BLOBS:
        return [value if isinstance(value, bytes) else str(value).encode() for value in values]
    if column is Column.BOOLS:
        return bytes(bool(value) for value in values)
    return np.array(values, _DTYPE[column]).tobytes()


def columns_of(tags: Mapping[int, BoundTag], commands: Sequence[Write]) -> Sequence[tuple[Column, Sequence[Write]]]:
    """Commands in their order, cut where the column changes."""
    runs: list[tuple[Column, list[Write]]] = []
    for write in commands:
        column = column_of(tags[write.tag].type)
        if not runs or runs[-1][0] is not column:
            runs.append((column, []))
        runs[-1][1].append(write)
    return runs
