"""Rows of the bus on their way to one bridge: the newest ones, merged by tag column while it is slow.

A bridge shows what is, not what was: of two batches with the same tag column that wait, the older is dropped. Live
rows are shown before they are durable, as in every live view (I4 is about what leaves for good).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from framegate.bridge.wire import PackedBatch, Rows, pack_batch
from framegate.contract.bridge import BridgeTag
from framegate.contract.frame import Batch, Int32Column, Kind, Value

WAITING_MAX = 4_096
"""Batches of distinct tag columns that wait; beyond, the bridge is told everything anew."""
COLUMNS_MAX = 4_096
"""Tag columns known by number; beyond, all are told anew."""
SNAPSHOT_ROWS = 1_000
"""Rows of a snapshot that are looked up in one turn of the loop."""
ONCE = 0
"""Number of tag columns that do not come again."""
Reading = tuple[Value, int, int, int]
"""Value (None when Bad), quality, source time and gateway time in ns UTC; see bus.latest."""
_NOTHING: dict[Kind, Value] = {Kind.FLOAT: 0.0, Kind.INT: 0, Kind.UINT: 0, Kind.BOOL: False, Kind.OBJECT: None}


class _Column(NamedTuple):
    """A tag column of the bus, kept alive so that its identity stays its own.

    rows   int64[rows] of those that are shown; None: all
    shown  the ids of those
    """

    tag: Int32Column
    rows: npt.NDArray[np.int64] | None
    shown: Int32Column
    number: int


class Feed:
    """What one bridge has not been told yet. Used on the loop.

    wake  called when there is something, once until `take`
    """

    def __init__(
        self, tags: Sequence[BridgeTag], latest: Callable[[int], Reading | None], wake: Callable[[], None]
    ) -> None:
        self._tags = tags
        self._latest = latest
        self._wake = wake
        ids = np.array([tag.id for tag in tags], np.int64)
        self._is_shown = np.zeros(int(ids.max()) + 1 if len(ids) else 0, np.bool_)
        self._is_shown[ids] = True
        self._columns: dict[int, _Column] = {}
        self._numbers = 0
        self._waiting: dict[int, Batch] = {}
        self._is_told: set[int] = set()
        self._forget = True
        self._snapshot = 0

    def begin(self) -> None:
        """The bridge knows nothing: everything is to be told."""
        self._columns.clear()
        self._is_told.clear()
        self._forget = True
        self._snapshot = 0
        self._waiting.clear()

    def publish(self, batches: Sequence[Batch]) -> None:
        """Rows that have come to the bus."""
        waiting = self._waiting
        was_empty = not waiting
        for batch in batches:
            key = id(batch.tag)
            column = self._columns.get(key)
            if column is None or column.tag is not batch.tag:
                column = self._learn(batch.tag)
            if len(column.shown):
                waiting.pop(key, None)  # put back at the end: batches are told in the order in which they came
                waiting[key] = batch
        if len(waiting) > WAITING_MAX:
            waiting.clear()
            self._snapshot = 0
        if was_empty and (waiting or not self.is_done):
            self._wake()

    @property
    def is_done(self) -> bool:
        """Every tag was told once."""
        return self._snapshot >= len(self._tags)

    def take(self) -> Rows | None:
        """What is to be told next; None: nothing. Takes a thousand rows of a snapshot at most."""
        batches = [self._packed(batch) for batch in self._waiting.values()]
        self._waiting.clear()
        if not self.is_done:  # behind the rows that waited: what is looked up now is no older
            tags = self._tags[self._snapshot : self._snapshot + SNAPSHOT_ROWS]
            self._snapshot += len(tags)
            batches += [pack_batch(batch, ONCE, batch.tag) for batch in _batches_of(tags, self._latest)]
        if not batches:
            return None
        forget, self._forget = self._forget, False
        return Rows(batches, forget)

    def _learn(self, tag: Int32Column) -> _Column:
        if len(self._columns) >= COLUMNS_MAX:
            kept = {key: self._columns[key] for key in self._waiting}
            self._columns.clear()
            self._columns.update(kept)
            self._is_told.clear()
            self._forget = True
        shown = tag < len(self._is_shown)
        shown &= self._is_shown[np.where(shown, tag, 0)] if len(self._is_shown) else False
        rows = None if shown.all() else np.flatnonzero(shown)
        column = self._columns[id(tag)] = _Column(tag, rows, tag if rows is None else tag[rows], self._number())
        return column

    def _packed(self, batch: Batch) -> PackedBatch:
        column = self._columns[id(batch.tag)]
        is_new = column.number not in self._is_told
        self._is_told.add(column.number)
        return pack_batch(_picked(batch, column), column.number, column.shown if is_new else None)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


def _picked(batch: Batch, column: _Column) -> Batch:
    rows = column.rows
    if rows is None:
        return batch
    quality, time = batch.quality, batch.source_time
    return Batch(
        column.shown,
        batch.value[rows],
        quality if len(quality) == 1 else quality[rows],
        time if len(time) == 1 else time[rows],
        batch.gateway_time,
    )


def _batches_of(tags: Sequence[BridgeTag], latest: Callable[[int], Reading | None]) -> list[Batch]:
    """The newest rows of tags that were read at all, a batch per kind."""
    found: dict[Kind, list[tuple[int, Value, int, int]]] = {}
    taken = 0
    for tag in tags:
        reading = latest(tag.id)
        if reading is not None:
            value, quality, source_time, gateway_time = reading
            kind = tag.type.kind
            found.setdefault(kind, []).append(
                (tag.id, _NOTHING[kind] if value is None else value, quality, source_time)
            )
            taken = max(taken, gateway_time)
    return [_batch(kind, rows, taken) for kind, rows in found.items()]


def _batch(kind: Kind, rows: Sequence[tuple[int, Value, int, int]], taken: int) -> Batch:
    ids, values, qualities, times = zip(*rows, strict=True)
    value = np.empty(len(rows), kind.value)
    value[:] = values
    return Batch(
        np.array(ids, np.int32), value, np.array(qualities, np.uint32), np.array(times, np.int64), taken
    )  # fmt: skip
