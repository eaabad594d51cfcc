"""Monitored items: what a client wants to be told of one attribute, and the values that wait to be sent.

A tag's rows come to TagItem as they enter the node; whatever else can be read is looked at by ReadItem, once a
publishing interval. Source: OPC UA Part 4, 5.12 (items, queues), 7.17.2 (DataChangeFilter), 7.39.1 (overflow bit).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from framegate.contract.errors import FrameBroken
from framegate_plugins.opcua.server import binary
from framegate_plugins.opcua.server.binary import NULL, Extension, Reader
from framegate_plugins.opcua.server.limits import PUBLISHING_MS_MAX, QUEUE_MAX
from framegate_plugins.opcua.server.requests import MonitoringParameters
from framegate_plugins.opcua.server.status import (
    BAD_FILTER_NOT_ALLOWED,
    BAD_MONITORED_ITEM_FILTER_INVALID,
    BAD_MONITORED_ITEM_FILTER_UNSUPPORTED,
    OVERFLOW,
    ServiceFault,
)
from framegate_plugins.opcua.server.tag_node import Row, TagNode

DISABLED, SAMPLING, REPORTING = 0, 1, 2
"""MonitoringMode."""
DATA_CHANGE_FILTER: Final = 724
"""Default Binary encoding."""
_STATUS, _STATUS_VALUE, _STATUS_VALUE_TIME = 0, 1, 2
"""DataChangeTrigger."""
_ABSOLUTE, _PERCENT = 1, 2
"""DeadbandType."""
_BAD: Final = 0x8000_0000


class Owner(Protocol):
    """The subscription of an item."""

    def is_ready(self, item: MonitoredItem) -> None:
        """Something waits in its queue."""

    def is_held(self, item: MonitoredItem) -> None:
        """It has a value that its sampling interval does not let pass yet."""


class MonitoredItem:
    """What both kinds have in common. times: TimestampsToReturn of its values."""

    def __init__(self, number: int, owner: Owner, parameters: MonitoringParameters, mode: int, times: int) -> None:
        self.id, self.mode, self.times = number, mode, times
        self._owner = owner
        self._queue: deque[Any] = deque()
        self.set(parameters, times)

    def set(self, parameters: MonitoringParameters, times: int) -> None:
        self.client_handle, self.times = parameters.client_handle, times
        self.sampling_s = sampling_s(parameters.sampling_ms)
        self.queue_max = queue_max(parameters.queue_size)
        self._discards_oldest = parameters.discards_oldest
        self.shorten()

    def shorten(self) -> None:
        """Give up what the queue may not keep any more."""
        while len(self._queue) > self.queue_max:
            self._queue.popleft()

    def clear(self) -> None:
        self._queue.clear()

    def __len__(self) -> int:
        """Values that wait."""
        return len(self._queue)

    def pop(self) -> bytes:
        """The oldest of them, as MonitoredItemNotification."""
        return binary.u32(self.client_handle) + self.encode(self._queue.popleft())

    def encode(self, entry: Any) -> bytes:
        """A DataValue of what was queued."""
        encoded: bytes = entry
        return encoded

    def stop(self) -> None:
        """It is deleted."""

    def _mark(self, entry: Any) -> Any:
        """The same value, with the sign that others were lost."""
        return entry

    def _enqueue(self, entry: Any) -> None:
        queue = self._queue
        if len(queue) >= self.queue_max:
            if self.queue_max == 1:
                queue.clear()  # of a queue of one the newest is wanted, and nothing is said of the others
                queue.append(entry)
            elif self._discards_oldest:
                queue.popleft()
                queue[0] = self._mark(queue[0])
                queue.append(entry)
            else:
                queue[-1] = self._mark(entry)
        else:
            queue.append(entry)
        if self.mode == REPORTING:
            self._owner.is_ready(self)


class TagItem(MonitoredItem):
    """The value of a tag."""

    def __init__(
        self, number: int, owner: Owner, node: TagNode, parameters: MonitoringParameters, mode: int, times: int
    ) -> None:
        self.node = node
        self._last: Row | None = None
        self._held: Row | None = None
        self._due = 0.0
        super().__init__(number, owner, parameters, mode, times)
        node.items = (*node.items, self)

    def set(self, parameters: MonitoringParameters, times: int) -> None:
        self._trigger, self._deadband = filter_of(parameters.filter, self.node)
        super().set(parameters, times)

    def take(self, row: Row, now: float) -> None:
        if self.mode == DISABLED:
            return
        if self.sampling_s:
            if now < self._due:
                self._held = row
                self._owner.is_held(self)
                return
            self._due, self._held = now + self.sampling_s, None
        last = self._last
        if last is None or self._is_news(row, last):
            self._last = row
            self._enqueue(row)

    def release(self, now: float) -> bool:
        """Take the value that was held back, once it is time; False while it is not."""
        held = self._held
        if held is not None and now < self._due:
            return False
        if held is not None:
            self.take(held, now)
        return True

    def begin(self, now: float) -> None:
        """The first value: what the node holds now."""
        self._last, self._due = None, 0.0
        self.take(self.node.row, now)

    def encode(self, entry: Any) -> bytes:
        return self.node.data_value(entry, self.times)

    def stop(self) -> None:
        self.node.items = tuple(item for item in self.node.items if item is not self)

    def _mark(self, entry: Any) -> Any:
        return (entry[0], entry[1] | OVERFLOW, entry[2], entry[3])

    def _is_news(self, row: Row, last: Row) -> bool:
        if row[1] != last[1]:
            return True
        if self._trigger == _STATUS:
            return False
        if self._trigger == _STATUS_VALUE_TIME and row[2] != last[2]:
            return True
        if row[1] & _BAD:
            return False
        value, before = row[0], last[0]
        if self._deadband:
            return not abs(value - before) <= self._deadband  # so that NaN is news
        return bool(value != before) and not (value != value and before != before)  # noqa: PLR0124 - NaN after NaN


class ReadItem(MonitoredItem):
    """Any other attribute. read: gives it as an encoded DataValue without times; is_live: it may change."""

    def __init__(
        self,
        number: int,
        owner: Owner,
        read: Callable[[], bytes],
        parameters: MonitoringParameters,
        mode: int,
        times: int,
        *,
        is_live: bool,
    ) -> None:
        self._read, self.is_live = read, is_live
        self._last: bytes | None = None
        super().__init__(number, owner, parameters, mode, times)

    def set(self, parameters: MonitoringParameters, times: int) -> None:
        if parameters.filter.type != NULL and parameters.filter.type.identifier != DATA_CHANGE_FILTER:
            raise ServiceFault(BAD_MONITORED_ITEM_FILTER_UNSUPPORTED)
        super().set(parameters, times)

    def look(self) -> None:
        """Read it, and note whether it has changed."""
        if self.mode == DISABLED:
            return
        value = self._read()
        if value != self._last:
            self._last = value
            self._enqueue(value)


def filter_of(extension: Extension, node: TagNode) -> tuple[int, float]:
    """Trigger and absolute deadband. raises ServiceFault"""
    if extension.type == NULL:
        return _STATUS_VALUE, 0.0
    if extension.type != (0, DATA_CHANGE_FILTER):
        raise ServiceFault(BAD_MONITORED_ITEM_FILTER_UNSUPPORTED)
    try:
        reader = Reader(extension.body)
        trigger, kind, value = reader.u32(), reader.u32(), reader.f64()
    except FrameBroken:
        raise ServiceFault(BAD_MONITORED_ITEM_FILTER_INVALID) from None
    if trigger > _STATUS_VALUE_TIME or kind > _PERCENT or not 0.0 <= value < float("inf"):
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
