"""Latest values: for every tag its newest value, quality and times, in columns indexed by tag id.

Taking a batch costs next to nothing: it is kept as the newest one of its tag column, and only a look-up writes what
has gathered into the columns. A tag that was never read has no value, never 0; a Bad row has a quality and no
value.
"""

from __future__ import annotations

import numpy as np

from framegate.contract.frame import Batch, Int64Column, Kind, ObjectColumn, Value
from framegate.contract.quality import is_bad
from framegate.observe.api_face import LatestColumns

GATHERED_MAX = 4_096  # batches of distinct tag columns kept before the columns are written
_FIRST_CAPACITY = 1_024
_NEVER = 0
_NUMBERS = {kind.value: number for number, kind in enumerate(Kind, 1)}
_KINDS = dict(enumerate(Kind, 1))
_NUMERIC = (
    (_NUMBERS["d"], np.float64),
    (_NUMBERS["l"], np.int64),
    (_NUMBERS["L"], np.uint64),
    (_NUMBERS["?"], np.uint64),
)
_BAD = np.uint32(0x8000_0000)
EXACT_MAX = 2.0**53
"""Integers up to here are exact as float64."""
Reading = tuple[Value, int, int, int]
"""Value (None when Bad), quality, source time and gateway time in ns UTC."""


class Latest:
    """The newest row of every tag. Used from the loop thread."""

    def __init__(self) -> None:
        self._gathered: dict[int, Batch] = {}
        self._raw = np.zeros(_FIRST_CAPACITY, dtype=np.uint64)  # the bits of a float, integer or boolean
        self._kind = np.zeros(_FIRST_CAPACITY, dtype=np.uint8)
        self._quality = np.zeros(_FIRST_CAPACITY, dtype=np.uint32)
        self._source_time = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self._gateway_time = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self._object: ObjectColumn | None = None  # most gateways read numbers only

    def update(self, batch: Batch) -> None:
        """Take a batch; it replaces what its tag column brought before."""
        gathered = self._gathered
        key = id(batch.tag)  # the batch keeps its array alive, so the key stays its own
        gathered.pop(key, None)  # re-inserted at the end: batches apply in order of arrival
        gathered[key] = batch
        if len(gathered) > GATHERED_MAX:
            self._settle()

    def value(self, tag_id: int) -> Reading | None:
        """The newest row of a tag; None if it was never read."""
        if self._gathered:
            self._settle()
        if not 0 <= tag_id < len(self._kind) or self._kind[tag_id] == _NEVER:
            return None
        quality = int(self._quality[tag_id])
        value = None if is_bad(quality) else self._value(tag_id)
        return value, quality, int(self._source_time[tag_id]), int(self._gateway_time[tag_id])

    def columns(self, ids: Int64Column) -> LatestColumns:
        """The newest rows of some tags at once: int64[tags] ids -> columns of the same length."""
        if self._gathered:
            self._settle()
        known = (ids >= 0) & (ids < len(self._kind))
        rows = np.where(known, ids, 0)
        kind = np.where(known, self._kind[rows], _NEVER)
        raw = self._raw[rows]
        number = np.full(len(ids), np.nan)
        for one, dtype in _NUMERIC:
            of_kind = kind == one
            if of_kind.any():
                number[of_kind] = raw[of_kind].view(dtype)
        is_object = kind == _NUMBERS["O"]
        is_wide = ((kind == _NUMBERS["l"]) | (kind == _NUMBERS["L"])) & (np.abs(number) > EXACT_MAX)
        is_read = kind != _NEVER
        number[(self._quality[rows] & _BAD) != 0] = np.nan
        raw[is_object] = self._gateway_time[rows][is_object].view(np.uint64)
        return LatestColumns(number, raw, self._quality[rows], is_read, is_object, is_wide)

    def _value(self, tag_id: int) -> Value:
        kind = _KINDS[int(self._kind[tag_id])]
        if kind is Kind.FLOAT:
            return float(self._raw.view(np.float64)[tag_id])
        if kind is Kind.INT:
            return int(self._raw.view(np.int64)[tag_id])
        if kind is Kind.UINT:
            return int(self._raw[tag_id])
        if kind is Kind.BOOL:
            return bool(self._raw[tag_id])
        assert self._object is not None
        value: Value = self._object[tag_id]
        return value

    def _settle(self) -> None:
        gathered, self._gathered = self._gathered, {}
        highest = max(int(batch.tag.max()) for batch in gathered.values())
        if highest >= len(self._kind):
            self._grow(highest + 1)
        for batch in gathered.values():
            self._write(batch)

    def _write(self, batch: Batch) -> None:
        # Where a tag occurs twice, numpy lets the later assignment win: oldest first, as a batch is ordered.
        rows, value = batch.tag.astype(np.intp), batch.value  # converted once, not by each assignment
        char = value.dtype.char
        if char == "O":
            if self._object is None:
                self._object = np.empty(len(self._kind), dtype=np.object_)
            self._object[rows] = value
        elif char == "?":
            self._raw[rows] = value
        else:
            self._raw[rows] = value.view(np.uint64)
        self._kind[rows] = _NUMBERS[char]
        self._quality[rows] = batch.quality
        self._source_time[rows] = batch.source_time
        self._gateway_time[rows] = batch.gateway_time

    def _grow(self, needed: int) -> None:
        capacity = max(needed + needed // 4, 2 * len(self._kind))
        for name in ("_raw", "_kind", "_quality", "_source_time", "_gateway_time"):
            old = getattr(self, name)
            new = np.zeros(capacity, dtype=old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)
        if self._object is not None:
            objects = np.empty(capacity, dtype=np.object_)
            objects[: len(self._object)] = self._object
            self._object = objects
