"""The rows of one group on their way through the steps, and the steps that need no expression: clamp and enum.

A column is copied before it is changed for the first time: a batch that came in is shared and stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, isfinite
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import Int64Column, ObjectColumn, UInt32Column, ValueColumn
from framegate.contract.quality import Quality
from framegate.mapper.processing import Span

BAD = 0x8000_0000
SEVERITY = 0xC000_0000
CODE = 0xFFFF_0000  # severity and code; the lower half holds information bits
LIMIT_LOW = 0x0500  # InfoType DataValue (bit 10) and LimitBits Low (bit 8); OPC UA Part 4, 7.39
LIMIT_HIGH = 0x0600  # InfoType DataValue and LimitBits High (bit 9)
Rows = npt.NDArray[np.intp]


class Columns:
    """value [rows]; quality and time [rows], or [1] for all rows."""

    __slots__ = ("_owns_quality", "_owns_value", "quality", "rows", "time", "value")

    def __init__(
        self, rows: int, value: ValueColumn, quality: UInt32Column, time: Int64Column, *, owns_value: bool = False
    ) -> None:
        self.rows, self.value, self.quality, self.time = rows, value, quality, time
        self._owns_value = owns_value
        self._owns_quality = False

    def at(self, rows: Rows | slice) -> tuple[ValueColumn, UInt32Column, Int64Column]:
        """value, quality and time of some rows; one element that stands for all stays one. A slice means all rows."""
        quality, time = self.quality, self.time
        if isinstance(rows, slice):
            return self.value, quality, time
        return (
            self.value[rows],
            quality if len(quality) == 1 else quality[rows],
            time if len(time) == 1 else time[rows],
        )

    def own_value(self) -> ValueColumn:
        if not self._owns_value:
            self.value = self.value.copy()
            self._owns_value = True
        return self.value

    def take_value(self, value: ValueColumn) -> None:
        """All values are others now; the column is handed over."""
        self.value, self._owns_value = value, True

    def own_quality(self) -> UInt32Column:
        if not self._owns_quality:
            self.quality = np.array(np.broadcast_to(self.quality, self.rows))
            self._owns_quality = True
        return self.quality


class Clamp(NamedTuple):
    """Limits for some rows of a group, in the column's own kind."""

    rows: Rows
    low: npt.NDArray[Any]
    high: npt.NDArray[Any]

    def apply(self, columns: Columns) -> None:
        rows, low, high = self
        value = columns.value[rows]
        under, over = value < low, value > high  # False for NaN: it is no value to limit
        if not (under.any() or over.any()):
            return
        columns.own_value()[rows] = np.where(under, low, np.where(over, high, value))
        quality = columns.own_quality()
        bits = np.where(under, np.uint32(LIMIT_LOW), np.where(over, np.uint32(LIMIT_HIGH), np.uint32(0)))
        is_bad = quality[rows] & np.uint32(BAD) != 0
        quality[rows] |= np.where(is_bad, np.uint32(0), bits)


def clamp(rows: Sequence[int], spans: Sequence[Span], kind: str) -> Clamp | None:
    """None when there are no rows. An integer keeps its kind: its limits are the whole numbers within the span."""
    if not rows:
        return None
    place = np.array(rows, np.intp)
    if kind == "d":
        return Clamp(place, np.array([span[0] for span in spans]), np.array([span[1] for span in spans]))
    info = np.iinfo(np.dtype(kind))
    low, high = int(info.min), int(info.max)
    ends = [(_within(ceil, span[0], low, high), _within(floor, span[1], low, high)) for span in spans]
    return Clamp(place, np.array([end[0] for end in ends], kind), np.array([end[1] for end in ends], kind))


def _within(whole: Any, limit: float, low: int, high: int) -> int:
    return min(max(whole(limit), low), high) if isfinite(limit) else low if limit < 0 else high


class Texts(NamedTuple):
    """Enum texts by number, one table per row."""

    tables: Sequence[Mapping[int, str]]

    def apply(self, columns: Columns) -> None:
        """Numbers become texts; one that is not listed becomes its decimal text, and Uncertain."""
        result: ObjectColumn = np.empty(columns.rows, np.object_)
        unlisted = []
        for row, (number, table) in enumerate(zip(columns.value.tolist(), self.tables, strict=True)):
            text = table.get(number)  # 3.0 finds 3, and True finds 1
            if text is None:
                text = decimal_text(number)
                unlisted.append(row)
            result[row] = text
        columns.value = result
        if unlisted:
            quality = columns.own_quality()
            good = [row for row in unlisted if quality[row] & SEVERITY == 0]
            quality[good] = Quality.UNCERTAIN


def decimal_text(number: float) -> str:
    """12 for 12.0, 12.5 for 12.5."""
    if isinstance(number, float) and number.is_integer():
        return str(int(number))
    return str(int(number)) if isinstance(number, bool) else str(number)
