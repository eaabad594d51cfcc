"""Monitored items: what a client wants to be told of one attribute.

Values of tags are compared and queued in the columns of item_table.py; whatever else can be read is looked at by
ReadItem, once a publishing interval. Source: OPC UA Part 4, 5.12 (items, queues), 7.17.2 (DataChangeFilter).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from framegate.contract.errors import FrameBroken
from framegate_plugins.opcua.server.binary import NULL, Extension, Reader
from framegate_plugins.opcua.server.item_table import (
    DISABLED,
    REPORTING,
    STATUS_VALUE,
    STATUS_VALUE_TIME,
    ItemTable,
    Settings,
)
from framegate_plugins.opcua.server.limits import PUBLISHING_MS_MAX, QUEUE_MAX
from framegate_plugins.opcua.server.newest import Row
from framegate_plugins.opcua.server.requests import MonitoringParameters
from framegate_plugins.opcua.server.status import (
    BAD_FILTER_NOT_ALLOWED,
    BAD_MONITORED_ITEM_FILTER_INVALID,
    BAD_MONITORED_ITEM_FILTER_UNSUPPORTED,
    ServiceFault,
)
from framegate_plugins.opcua.server.tag_node import NO_TIMES, TagNode

DATA_CHANGE_FILTER: Final = 724
"""Default Binary encoding."""
_ABSOLUTE, _PERCENT = 1, 2
"""DeadbandType."""


class Owner(Protocol):
    """The subscription of an item."""

    def is_ready(self, item: ReadItem) -> None:
        """Something waits in its queue, to be sent."""

    def is_not_ready(self, item: ReadItem) -> None:
        """Nothing is to be sent of it any more."""


class MonitoredItem(Protocol):
    """What both kinds have in common."""

    id: int
    sampling_s: float
    queue_max: int

    def __len__(self) -> int:
        """Values that wait."""

    def set(self, parameters: MonitoringParameters, times: int) -> None:
        """Take other parameters. times: TimestampsToReturn of its values; raises ServiceFault"""

    def switch(self, mode: int) -> bool:
        """Another MonitoringMode; True: it was off, and begins with the value of now."""

    def stop(self) -> None:
        """It is deleted."""


class TagItem:
    """The value of a tag: a slot of the table."""

    __slots__ = ("_mode", "_table", "_times", "id", "node", "queue_max", "sampling_s", "slot")

    def __init__(
        self, number: int, table: ItemTable, node: TagNode, parameters: MonitoringParameters, mode: int, times: int
    ) -> None:
        self.id, self.node, self._table, self._mode = number, node, table, mode
        self.slot = table.add(self, node.place, node.fixed_type, mode, self._settings(parameters, times))

    def __len__(self) -> int:
        return self._table.waiting(self.slot)

    def set(self, parameters: MonitoringParameters, times: int) -> None:
        self._table.set(self.slot, self._settings(parameters, times))

    def switch(self, mode: int) -> bool:
        before, self._mode = self._mode, mode
        self._table.switch(self.slot, mode)
        return before == DISABLED != mode

    def stop(self) -> None:
        self._table.remove(self.slot)

    def encode(self, row: Row) -> bytes:
        return self.node.data_value(row, self._times)

    def _settings(self, parameters: MonitoringParameters, times: int) -> Settings:
        trigger, deadband = filter_of(parameters.filter, self.node)
        self._times = times
        self.sampling_s = sampling_s(parameters.sampling_ms)
        self.queue_max = queue_max(parameters.queue_size)
        return Settings(
            parameters.client_handle, times, trigger, parameters.discards_oldest,
            self.sampling_s, deadband, self.queue_max,
        )  # fmt: skip


class ReadItem:
    """Any other attribute. read: gives it as an encoded DataValue without times; is_live: it may change."""

    def __init__(
        self,
        number: int,
        owner: Owner,
        read: Callable[[], bytes],
        parameters: MonitoringParameters,
        mode: int,
        *,
        is_live: bool,
    ) -> None:
        self.id, self.is_live = number, is_live
        self._owner, self._read, self._mode = owner, read, mode
        self._last: bytes | None = None
        self._queue: deque[bytes] = deque()
        self.set(parameters, NO_TIMES)

    def __len__(self) -> int:
        return len(self._queue)

    def set(self, parameters: MonitoringParameters, times: int) -> None:
        if parameters.filter.type != NULL and parameters.filter.type.identifier != DATA_CHANGE_FILTER:
            raise ServiceFault(BAD_MONITORED_ITEM_FILTER_UNSUPPORTED)
        self.client_handle = parameters.client_handle
        self.sampling_s = sampling_s(parameters.sampling_ms)
        self.queue_max = queue_max(parameters.queue_size)
        self._discards_oldest = parameters.discards_oldest
        while len(self._queue) > self.queue_max:
            self._queue.popleft()

    def switch(self, mode: int) -> bool:
        before, self._mode = self._mode, mode
        if mode == DISABLED:
            self._queue.clear()
        if mode == REPORTING and self._queue:
            self._owner.is_ready(self)
        else:
            self._owner.is_not_ready(self)
        return before == DISABLED != mode

    def stop(self) -> None:
        self._owner.is_not_ready(self)

    def look(self) -> None:
        """Read it, and note whether it has changed."""
        if self._mode == DISABLED:
            return
        value = self._read()
        if value == self._last:
            return
        self._last = value
        if len(self._queue) >= self.queue_max:  # nothing marks the loss: such values carry no status
            del self._queue[0 if self._discards_oldest else -1]
        self._queue.append(value)
        if self._mode == REPORTING:
            self._owner.is_ready(self)

    def pop(self) -> bytes:
        """The oldest value that waits."""
        return self._queue.popleft()


def filter_of(extension: Extension, node: TagNode) -> tuple[int, float]:
    """Trigger and absolute deadband. raises ServiceFault"""
    if extension.type == NULL:
        return STATUS_VALUE, 0.0
    if extension.type != (0, DATA_CHANGE_FILTER):
        raise ServiceFault(BAD_MONITORED_ITEM_FILTER_UNSUPPORTED)
    try:
        reader = Reader(extension.body)
        trigger, kind, value = reader.u32(), reader.u32(), reader.f64()
    except FrameBroken:
        raise ServiceFault(BAD_MONITORED_ITEM_FILTER_INVALID) from None
    if trigger > STATUS_VALUE_TIME or kind > _PERCENT or not 0.0 <= value < float("inf"):
        raise ServiceFault(BAD_MONITORED_ITEM_FILTER_INVALID)
    if not kind:
        return trigger, 0.0
    if not node.is_number or node.is_numbered:
        raise ServiceFault(BAD_FILTER_NOT_ALLOWED)
    if kind == _ABSOLUTE:
        return trigger, value
    if node.tag.span is None or value > 100.0:
        raise ServiceFault(
            BAD_MONITORED_ITEM_FILTER_INVALID if node.tag.span else BAD_MONITORED_ITEM_FILTER_UNSUPPORTED
        )
    return trigger, (node.tag.span[1] - node.tag.span[0]) * value / 100.0


def sampling_s(asked_ms: float) -> float:
    """Of a sampling interval; 0.0: each row as it comes, also where -1 asks for the publishing interval."""
    return min(asked_ms, PUBLISHING_MS_MAX) / 1000.0 if asked_ms > 0.0 else 0.0


def queue_max(asked: int) -> int:
    return max(1, min(asked, QUEUE_MAX))
