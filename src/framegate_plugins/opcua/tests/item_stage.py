"""Monitored items of tags without a network: rows go in, what a client would be sent comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from framegate.contract.bridge import BridgeTag
from framegate.contract.frame import Batch, Value
from framegate_plugins.opcua.server.binary import NULL, Extension, NodeId, Reader
from framegate_plugins.opcua.server.item_table import REPORTING, ItemTable
from framegate_plugins.opcua.server.items import TagItem
from framegate_plugins.opcua.server.limits import ANSWER_BYTES_MAX, NOTIFICATIONS_MAX
from framegate_plugins.opcua.server.newest import Row
from framegate_plugins.opcua.server.notification import Notification
from framegate_plugins.opcua.server.requests import MonitoringParameters
from framegate_plugins.opcua.server.space import Space
from framegate_plugins.opcua.server.tag_node import BOTH_TIMES, TAGS, TagNode

NO_FILTER = Extension(NULL, b"")
HANDLE = 100
"""Client handle of item 0; the others follow."""


class Items:
    """A space, and items in it, by number. Times of rows are whole hundreds of ns from 1970 on, not 0."""

    def __init__(self, tags: Sequence[BridgeTag]) -> None:
        self.space = Space("plant", tags, {}, "urn:plant")
        self.made: list[TagItem] = []

    @property
    def table(self) -> ItemTable:
        return self.space.items

    def add(
        self,
        name: str,
        filter_: Extension = NO_FILTER,
        queue: int = 100,
        sampling_ms: float = 0.0,
        *,
        is_oldest: bool = True,
        mode: int = REPORTING,
        times: int = BOTH_TIMES,
    ) -> TagItem:
        """An item of a tag, which has not begun. raises ServiceFault"""
        node = self.space.find(NodeId(TAGS, name))
        assert isinstance(node, TagNode)
        parameters = MonitoringParameters(HANDLE + len(self.made), sampling_ms, filter_, queue, is_oldest)
        self.made.append(TagItem(len(self.made), self.table, node, parameters, mode, times))
        return self.made[-1]

    def slots(self, items: Sequence[TagItem] | None = None) -> Any:
        return np.array(sorted(item.slot for item in (self.made if items is None else items)), np.int64)

    def give(self, rows: Mapping[int, Row], kind: type = np.float64, now: float = 0.0) -> None:
        """One row for each tag id, in one batch. kind: of the column."""
        self.space.update([batch_of(list(rows.items()), kind)], now)

    def sent(self, values_max: int = NOTIFICATIONS_MAX, bytes_max: int = ANSWER_BYTES_MAX) -> dict[int, list[Row]]:
        """What one notification takes, by number of the item."""
        made = Notification(values_max, bytes_max)
        self.table.fill(made, self.table.ready(self.slots()))
        return decoded(made.encoded())


def batch_of(rows: Sequence[tuple[int, Row]], kind: type = np.float64) -> Batch:
    """Tag ids with rows; the server time of the last one is that of all."""
    values: Any = np.empty(len(rows), kind)
    for number, (_, row) in enumerate(rows):
        values[number] = row[0]
    status = np.array([row[1] for _, row in rows], np.uint32)
    source = np.array([row[2] for _, row in rows], np.int64)
    return Batch(np.array([id_ for id_, _ in rows], np.int32), values, status, source, rows[-1][1][3])


def decoded(notification: bytes) -> dict[int, list[Row]]:
    """Rows of a DataChangeNotification, by number of the item; a row that has no value has None."""
    reader, found = Reader(notification), dict[int, list[Row]]()
    for _ in range(reader.i32()):
        number, value = reader.u32() - HANDLE, reader.data_value()
        held: Any = None if value.value is None else value.value.value
        row: Row = (held, value.status, value.source_time or 0, value.server_time or 0)
        found.setdefault(number, []).append(row)
    assert reader.i32() == -1
    assert reader.left == 0
    return found


def row(value: Value, status: int = 0, time: int = 100) -> Row:
    return (value, status, time, time)
