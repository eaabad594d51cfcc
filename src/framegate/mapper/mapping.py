"""Mapping: rename, scale and offset, compiled from the tag table into index plans over whole columns.

Pure and without state that matters: a mapping is replaced whole between two batches, and what is in the log is
what was true then. A batch that nothing applies to passes through as the same object. A scaled integer becomes
float64, so one batch of integers may leave as two: the untouched rows, then the scaled ones; a tag is always in one of
them, so its order is kept. Expressions and change reports do not live here.

Scale and offset are taken as the decimal numbers that the table shows, and become one exact fraction where they can:
raw 3 with scale 0.1 is 3 / 10 = 0.3, not 3 * 0.1 = 0.30000000000000004.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as ReadOnlyMapping
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite, lcm
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, Float64Column, Int32Column, TagId, ValueColumn, ValueType

LAYOUTS_MAX = 4096  # tag arrays whose plan is remembered; the oldest goes first
EXACT_MAX = 1 << 31  # terms of a fraction up to here keep every raw 16-bit value exact in float64
SCALABLE_KINDS = "dlL"  # numpy characters of the kinds that scale applies to
NOT_NUMBERS = frozenset((ValueType.BOOL, ValueType.STRING, ValueType.BYTES))
KEEP = -0.0  # x + KEEP is x, also for x = -0.0


@dataclass(frozen=True, slots=True)
class MappingRow:
    """What the tag table asks for one tag.

    tag_id     id under which the driver hands in its rows
    rename_id  id under which the rows go on; None: the same
    """

    tag_id: TagId
    scale: float = 1.0
    offset: float = 0.0
    type: ValueType = ValueType.FLOAT64
    rename_id: TagId | None = None


class _Linear(NamedTuple):
    """(value * multiply + add) / divide; a column of None does nothing."""

    multiply: Float64Column | None
    add: Float64Column | None
    divide: Float64Column | None

    def apply(self, value: ValueColumn) -> Float64Column:
        result = value.astype(np.float64)
        if self.multiply is not None:
            result *= self.multiply
        if self.add is not None:
            result += self.add
        if self.divide is not None:
            result /= self.divide
        result.flags.writeable = False
        return result


class _Part(NamedTuple):
    """Some rows of a layout that leave as one batch; rows None: all of them."""

    rows: npt.NDArray[np.intp] | None
    tag: Int32Column
    linear: _Linear | None


class _Layout(NamedTuple):
    """Plan for one tag array and one kind; it holds the array, so that its identity cannot be given again."""

    source: Int32Column
    parts: tuple[_Part, ...]  # () = nothing applies


class Mapping:
    """Maps batches. Called on the loop for each batch; plans are remembered by the identity of `batch.tag`."""

    __slots__ = ("_ids", "_is_scaled", "_layouts", "_renamed", "_rows")

    def __init__(self, rows: ReadOnlyMapping[int, MappingRow]) -> None:
        self._rows = rows
        self._ids = np.array(sorted(rows), dtype=np.int32)
        ordered = [rows[tag] for tag in self._ids.tolist()]
        self._is_scaled = np.array([_is_scaled(row) for row in ordered], dtype=np.bool_)
        self._renamed = np.array([row.tag_id if row.rename_id is None else row.rename_id for row in ordered], np.int32)
        self._layouts: dict[tuple[int, str], _Layout] = {}

    def __call__(self, batch: Batch) -> Sequence[Batch]:
        """The batch in engineering values: itself when nothing applies, else one or two new batches."""
        layout = self._layouts.get((id(batch.tag), batch.value.dtype.char))
        if layout is None:
            layout = self._learn(batch)
        if not layout.parts:
            return (batch,)
        # NaN and infinity are legal inputs and outcomes; numpy must not warn about them.
        with np.errstate(all="ignore"):
            return tuple([_apply(part, batch) for part in layout.parts])

    def _learn(self, batch: Batch) -> _Layout:
        layouts = self._layouts
        if len(layouts) >= LAYOUTS_MAX:
            del layouts[next(iter(layouts))]
        kind = batch.value.dtype.char
        layout = layouts[id(batch.tag), kind] = self._plan(batch.tag, kind)
        return layout

    def _plan(self, tag: Int32Column, kind: str) -> _Layout:
        place = np.minimum(np.searchsorted(self._ids, tag), max(len(self._ids) - 1, 0))
        known = self._ids[place] == tag if len(self._ids) else np.zeros(len(tag), np.bool_)
        scaled = np.zeros(len(tag), np.bool_)
        renamed = tag.copy()
        if known.any():
            renamed[known] = self._renamed[place[known]]
            if kind in SCALABLE_KINDS:
                scaled[known] = self._is_scaled[place[known]]
        if np.array_equal(renamed, tag):
            renamed = tag
        if not scaled.any():
            return _Layout(tag, () if renamed is tag else (_Part(None, renamed, None),))
        if kind == "d" or scaled.all():
            return _Layout(tag, (_Part(None, renamed, self._linear(tag, kind)),))
        plain, moved = np.flatnonzero(~scaled), np.flatnonzero(scaled)
        return _Layout(
            tag,
            (_Part(plain, renamed[plain], None), _Part(moved, renamed[moved], self._linear(tag[moved], kind))),
        )

    def _linear(self, tag: Int32Column, kind: str) -> _Linear:
        unscaled = (1.0, KEEP, 1.0)
        rows = [self._rows.get(tag_id) for tag_id in tag.tolist()]
        numbers = [unscaled if row is None else coefficients(row.scale, row.offset, kind) for row in rows]
        multiply, add, divide = (np.array(column, np.float64) for column in zip(*numbers, strict=True))
        return _Linear(
            multiply if (multiply != 1.0).any() else None,
            add if (add != 0.0).any() else None,
            divide if (divide != 1.0).any() else None,
        )


def compile_mapping(rows: Iterable[MappingRow]) -> Mapping:
    """A mapping for the rows of the tag table that ask for something; rows that ask for nothing may be left out.

    raises Misconfigured - a tag twice, scale 0, numbers that are not finite, or scale on something that is no number
    """
    table: dict[int, MappingRow] = {}
    seen: set[int] = set()
    for row in rows:
        if row.tag_id in seen:
            raise Misconfigured(f"tag id {row.tag_id} is mapped twice; keep one row per tag", code="E1190")
        seen.add(row.tag_id)
        _check(row)
        if _is_scaled(row) or row.rename_id is not None:
            table[row.tag_id] = row
    return Mapping(table)


def coefficients(scale: float, offset: float, kind: str) -> tuple[float, float, float]:
    """(multiply, add, divide) such that (raw * multiply + add) / divide is scale * raw + offset.

    Integers use the exact fraction of the decimal texts of scale and offset, so that the one division at the end
    rounds correctly. A float may be too large for that: it is divided when the scale is 1/n, else multiplied.
    """
    slope, shift = Fraction(str(scale)), Fraction(str(offset))
    divide = lcm(slope.denominator, shift.denominator)
    multiply, add = int(slope * divide), int(shift * divide)
    is_small = max(abs(multiply), abs(add), divide) <= EXACT_MAX
    if is_small and (kind != "d" or (slope.numerator == 1 and not shift)):
        return float(multiply), float(add) if add else KEEP, float(divide)
    return scale, offset or KEEP, 1.0


def _apply(part: _Part, batch: Batch) -> Batch:
    rows, value, quality, time = part.rows, batch.value, batch.quality, batch.source_time
    if rows is not None:
        value = value[rows]
        quality = quality if len(quality) == 1 else quality[rows]
        time = time if len(time) == 1 else time[rows]
    if part.linear is not None:
        value = part.linear.apply(value)
    return Batch(part.tag, value, quality, time, batch.gateway_time)


def _is_scaled(row: MappingRow) -> bool:
    return row.scale != 1 or row.offset != 0


def _check(row: MappingRow) -> None:
    if not (isfinite(row.scale) and isfinite(row.offset)) or row.scale == 0:
        text = f"tag id {row.tag_id}: scale {row.scale}, offset {row.offset}; both must be finite, and scale not 0"
        raise Misconfigured(text, code="E1190")
    if _is_scaled(row) and row.type in NOT_NUMBERS:
        text = f"tag id {row.tag_id}: scale and offset apply to numbers, its type is {row.type.value}; remove them"
        raise Misconfigured(text, code="E1190")
