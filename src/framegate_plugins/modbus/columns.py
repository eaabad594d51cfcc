"""Register bytes of a whole scan -> typed columns. Pure; built once per plan.

All answers of a scan are laid end to end. Numbers that lie there at equal distances in a plain byte order, as most
do, are read in place by a typed view. For the others one gather picks every byte of every value in native order: byte
and word order cost nothing at scan time. Views are then widened into fresh columns, which may be published. The
scratch buffer never leaves this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import Context
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import (
    Batch,
    Int32Column,
    Kind,
    ObjectColumn,
    UInt32Column,
    ValueColumn,
    ValueType,
    uniform_quality,
    uniform_time,
)
from framegate.contract.quality import Quality
from framegate_plugins.modbus.planner import Block
from framegate_plugins.modbus.tags import Point
from framegate_plugins.modbus.values import text_from

Index: TypeAlias = npt.NDArray[np.intp]
Bytes: TypeAlias = npt.NDArray[np.uint8]

# Widest first, so that every typed view on the scratch buffer is aligned. BOOL comes twice: whole registers ("?w")
# and single bits ("?"), which gather the one byte that holds the bit.
_GROUPS: tuple[tuple[str, Kind, int], ...] = (
    ("f8", Kind.FLOAT, 8), ("i8", Kind.INT, 8), ("u8", Kind.UINT, 8),
    ("f4", Kind.FLOAT, 4), ("i4", Kind.INT, 4), ("u4", Kind.INT, 4),
    ("i2", Kind.INT, 2), ("u2", Kind.INT, 2), ("?w", Kind.BOOL, 2),
    ("i1", Kind.INT, 1), ("u1", Kind.INT, 1), ("?", Kind.BOOL, 1),
)  # fmt: skip
_CODE = {
    ValueType.FLOAT64: "f8", ValueType.FLOAT32: "f4",
    ValueType.INT64: "i8", ValueType.INT32: "i4", ValueType.INT16: "i2", ValueType.INT8: "i1",
    ValueType.UINT64: "u8", ValueType.UINT32: "u4", ValueType.UINT16: "u2", ValueType.UINT8: "u1",
}  # fmt: skip
_DTYPE = {Kind.FLOAT: "f8", Kind.INT: "i8", Kind.UINT: "u8"}
_GOOD: Final = uniform_quality(Quality.GOOD)
RUNS_MAX = 4
"""Stretches of equal distance that one type of numbers is read in; one gather is cheaper than more of them."""


class Columns:
    """The decode plan of one read plan.

    tag   int32[rows], kind by kind: the order of every batch
    """

    def __init__(self, points: Sequence[Point], blocks: Sequence[Block]) -> None:
        groups: dict[str, list[int]] = {code: [] for code, _, _ in _GROUPS}
        texts: list[int] = []
        for index, point in enumerate(points):
            code = _code(point)
            (texts if code is None else groups[code]).append(index)
        self._groups = [
            (code, kind, width, np.array(groups[code], np.intp)) for code, kind, width in _GROUPS if groups[code]
        ]
        self._scratch = np.zeros(sum(width * len(members) for _, _, width, members in self._groups), np.uint8)
        self._numbers = self._number_columns(points)
        self._bools = self._bool_column(points)
        self._texts = _Texts(points, np.array(texts, np.intp)) if texts else None
        columns: list[_Numbers | _Bools | _Texts] = [*self._numbers]
        columns += [column for column in (self._bools, self._texts) if column is not None]
        self.tag = _frozen(np.concatenate([column.tag for column in columns] or [np.empty(0, np.int32)]))
        self._columns = columns
        self.relocate(points, blocks)

    def relocate(self, points: Sequence[Point], blocks: Sequence[Block]) -> None:
        """Take the bytes of the same points from other blocks from now on; order of tags and columns stays."""
        place, block_of = _places(points, blocks)
        sources = {code: _sources(points, members, code, width, place) for code, _, width, members in self._groups}
        runs = {code: _runs(code, source) for code, source in sources.items()}
        for column in self._numbers:
            column.set_runs(runs)
        self._gathers = [
            (sources[code].ravel(), view.view(np.uint8)) for code, _, view, _ in self._views() if not runs[code]
        ]
        self._block_of = [(column, block_of[column.members]) for column in self._columns]
        if self._bools is not None:
            self._bools.set_masks(points, blocks, block_of)
        if self._texts is not None:
            self._texts.set_places(place)

    def batches(self, raw: bytes, now: int, status: Sequence[int] | None = None) -> list[Batch]:
        """One batch per kind.

        raw     data of every block's answer, end to end; zeros where a block was not answered
        status  StatusCode per block; None: all Good
        """
        for index, out in self._gathers:
            np.frombuffer(raw, np.uint8).take(index, out=out, mode="clip")
        time = uniform_time(now)
        codes = None if status is None else np.array(status, np.uint32)
        batches = []
        for column, block_of in self._block_of:
            quality = _GOOD if codes is None else codes.take(block_of)
            value, quality = column.decode(raw, quality)
            value.setflags(write=False)
            if quality is not _GOOD:
                quality.setflags(write=False)
            batches.append(Batch(column.tag, value, quality, time, now))
        return batches

    def batches_of(self, raw: bytes, now: int, status: Sequence[int | None]) -> list[Batch]:
        """The rows of those blocks whose status is known, for a scan that ended early."""
        known = np.array([code is not None for code in status], np.bool_)
        batches = self.batches(raw, now, [code or 0 for code in status])
        kept = []
        for batch, (_, block_of) in zip(batches, self._block_of, strict=True):
            rows = known.take(block_of)
            if rows.any():
                tag, value, quality = _frozen(batch.tag[rows]), batch.value[rows], batch.quality[rows]
                value.flags.writeable = False
                quality.flags.writeable = False
                kept.append(Batch(tag, value, quality, batch.source_time, now))
        return kept

    def _number_columns(self, points: Sequence[Point]) -> list[_Numbers]:
        columns = []
        for kind in _DTYPE:
            found = [(code, view, indexes) for code, kind_of, view, indexes in self._views() if kind_of is kind]
            if found:
                members = np.concatenate([indexes for _, _, indexes in found])
                views = [(code, view.view(np.dtype(f"={code}"))) for code, view, _ in found]
                columns.append(_Numbers(kind, views, members, _tags(points, members)))
        return columns

    def _bool_column(self, points: Sequence[Point]) -> _Bools | None:
        bits, words = np.empty(0, np.uint8), np.empty(0, np.uint16)
        bit_members = word_members = np.empty(0, np.intp)
        for code, _, view, indexes in self._views():
            if code == "?":
                bits, bit_members = view, indexes
            elif code == "?w":
                words, word_members = view.view(np.uint16), indexes
        members = np.concatenate((bit_members, word_members))
        return _Bools(bits, words, members, _tags(points, members)) if len(members) else None

    def _views(self) -> list[tuple[str, Kind, Bytes, Index]]:
        """Each group with its part of the scratch buffer."""
        views, at = [], 0
        for code, kind, width, members in self._groups:
            views.append((code, kind, self._scratch[at : at + width * len(members)], members))
            at += width * len(members)
        return views


class _Run(NamedTuple):
    """Numbers of one type at equal distances in the stacked answers."""

    dtype: np.dtype[Any]
    offset: int
    rows: int
    step: int

    def view(self, raw: bytes) -> npt.NDArray[Any]:
        if self.step == self.dtype.itemsize:
            return np.frombuffer(raw, self.dtype, self.rows, self.offset)
        return np.ndarray((self.rows,), self.dtype, raw, self.offset, (self.step,))


Part: TypeAlias = npt.NDArray[Any] | _Run
"""Where some rows of a column come from: a typed view on the scratch buffer, or a run of the answers themselves."""


class _Numbers:
    """A column of numbers, widened from one or more narrower views."""

    def __init__(self, kind: Kind, views: list[tuple[str, npt.NDArray[Any]]], members: Index, tag: Int32Column) -> None:
        self.members, self.tag = members, tag
        self._dtype: np.dtype[Any] = np.dtype(_DTYPE[kind])
        self._views = views
        self._parts: list[tuple[slice, Part]] = []
        self._rows = len(members)
        # A signalling NaN in a register is a value like any other. Entering a context that was made silent once costs
        # a tenth of np.errstate, which makes one each time.
        self._silence: Context | None = None
        if any(code == "f4" for code, _ in views):
            self._silence = Context()
            self._silence.run(lambda: np.seterr(invalid="ignore"))

    def set_runs(self, runs: Mapping[str, Sequence[_Run]]) -> None:
        """Read these types in place; those without runs come from the scratch buffer."""
        self._parts, at = [], 0
        for code, view in self._views:
            parts: Sequence[Part] = runs[code] or (view,)
            for part in parts:
                rows = part.rows if isinstance(part, _Run) else len(part)
                self._parts.append((slice(at, at + rows), part))
                at += rows

    def decode(self, raw: bytes, quality: UInt32Column) -> tuple[ValueColumn, UInt32Column]:
        silence = self._silence
        return (self._widen(raw) if silence is None else silence.run(self._widen, raw)), quality

    def _widen(self, raw: bytes) -> ValueColumn:
        if len(self._parts) == 1:
            only = self._parts[0][1]
            return (only.view(raw) if isinstance(only, _Run) else only).astype(self._dtype)
        value = np.empty(self._rows, self._dtype)
        for rows, part in self._parts:
            value[rows] = part.view(raw) if isinstance(part, _Run) else part
        return value


class _Bools:
    """A column of booleans: bits first, whole registers behind them."""

    def __init__(self, bits: Bytes, words: npt.NDArray[np.uint16], members: Index, tag: Int32Column) -> None:
        self.members, self.tag = members, tag
        self._bits, self._words = bits, words
        self._masks = np.zeros(len(bits), np.uint8)

    def set_masks(self, points: Sequence[Point], blocks: Sequence[Block], block_of: Index) -> None:
        for row in range(len(self._bits)):
            point = points[self.members[row]]
            bit = point.offset - blocks[block_of[self.members[row]]].start if point.area.is_bits else point.bit or 0
            self._masks[row] = 1 << (bit & 7)

    def decode(self, raw: bytes, quality: UInt32Column) -> tuple[ValueColumn, UInt32Column]:
        bits = (self._bits & self._masks) != 0
        return np.concatenate((bits, self._words != 0)) if len(self._words) else bits, quality


class _Texts:
    """A column of texts and byte strings; rare, so row by row."""

    def __init__(self, points: Sequence[Point], members: Index) -> None:
        self.members, self.tag = members, _tags(points, members)
        self._points = [points[index] for index in members]
        self._places: list[int] = []

    def set_places(self, place: Index) -> None:
        self._places = [int(place[index]) for index in self.members]

    def decode(self, raw: bytes, quality: UInt32Column) -> tuple[ValueColumn, UInt32Column]:
        value: ObjectColumn = np.empty(len(self._points), np.object_)
        wrong = []
        for row, (point, place) in enumerate(zip(self._points, self._places, strict=True)):
            data = bytes(raw[place + offset] for offset in point.source)
            if point.type is ValueType.BYTES:
                value[row] = data
                continue
            try:
                value[row] = text_from(data, point.encoding)
            except UnicodeDecodeError:
                wrong.append(row)
        if wrong:
            quality = np.broadcast_to(quality, len(value)).copy()
            quality[wrong] = np.maximum(quality[wrong], np.uint32(Quality.BAD_DECODING_ERROR))
        return value, quality


def _code(point: Point) -> str | None:
    if point.type is ValueType.BOOL:
        return "?w" if point.bit is None and not point.area.is_bits else "?"
    return _CODE.get(point.type)


def _places(points: Sequence[Point], blocks: Sequence[Block]) -> tuple[Index, Index]:
    """For each point: where its first byte lies among the stacked answers, and the number of its block."""
    place, block_of = np.zeros(len(points), np.intp), np.zeros(len(points), np.intp)
    base = 0
    for number, block in enumerate(blocks):
        for index in block.points:
            offset = points[index].offset - block.start
            place[index] = base + (offset >> 3 if block.area.is_bits else 2 * offset)
            block_of[index] = number
        base += block.request.answer_bytes
    return place, block_of


def _sources(points: Sequence[Point], members: Index, code: str, width: int, place: Index) -> Index:
    """intp[members, width]: stacked byte for each native byte of each value; least significant first."""
    if code == "?":
        # The byte that holds the bit: in the bit areas the place itself, else the high or low byte of the register.
        source = [[0] if points[i].area.is_bits else [points[i].source[0 if (points[i].bit or 0) > 7 else 1]]
                  for i in members]  # fmt: skip
    else:
        source = [list(reversed(points[i].source)) for i in members]
    return place[members][:, None] + np.array(source, np.intp).reshape(len(members), width)


def _runs(code: str, sources: Index) -> list[_Run]:
    """The stretches that hold these numbers, in order; [] where they are too many, or the byte order is not plain."""
    if code.startswith("?"):
        return []
    width = sources.shape[1]
    low, high = sources[:, 0], sources[:, -1]
    is_little = bool((sources == low[:, None] + np.arange(width)).all())
    if not is_little and not (sources == high[:, None] + np.arange(width)[::-1]).all():
        return []
    first = low if is_little else high
    dtype = np.dtype(("<" if is_little else ">") + code)
    runs: list[_Run] = []
    start = 0
    while start < len(first):
        if len(runs) == RUNS_MAX:
            return []
        steps = np.diff(first[start:])
        step = int(steps[0]) if len(steps) else width
        uneven = np.flatnonzero(steps != step)
        count = int(uneven[0]) + 1 if len(uneven) else len(first) - start
        runs.append(_Run(dtype, int(first[start]), count, step))
        start += count
    return runs


def _tags(points: Sequence[Point], members: Index) -> Int32Column:
    return _frozen(np.array([points[index].id for index in members], np.int32))


def _frozen(column: Int32Column) -> Int32Column:
    column.flags.writeable = False
    return column
