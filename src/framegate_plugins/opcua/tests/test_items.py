"""Monitored items without a network: what is news, what is held back, what a queue keeps."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest

from framegate.contract.frame import ValueType
from framegate_plugins.opcua.server.binary import Extension, NodeId
from framegate_plugins.opcua.server.items import DATA_CHANGE_FILTER, REPORTING, MonitoredItem, TagItem
from framegate_plugins.opcua.server.limits import QUEUE_MAX
from framegate_plugins.opcua.server.requests import MonitoringParameters
from framegate_plugins.opcua.server.status import OVERFLOW, ServiceFault
from framegate_plugins.opcua.server.tag_node import BOTH_TIMES, Row, TagNode
from framegate_plugins.opcua.tests.bridge_stage import tag

NO_FILTER = Extension(NodeId(0, 0), b"")
STATUS, STATUS_VALUE, STATUS_VALUE_TIME = 0, 1, 2
NONE, ABSOLUTE, PERCENT = 0, 1, 2
BAD = 0x800A_0000
NAN = float("nan")


class Owner:
    def __init__(self) -> None:
        self.ready = self.held = 0

    def is_ready(self, item: MonitoredItem) -> None:
        self.ready += 1

    def is_held(self, item: MonitoredItem) -> None:
        self.held += 1


def item_of(
    filter_: Extension = NO_FILTER, queue: int = 100, sampling_ms: float = 0.0, *, is_oldest: bool = True, **more: Any
) -> TagItem:
    node = TagNode(tag(1, "t.v", **more), "v", NodeId(3, "/"))
    parameters = MonitoringParameters(7, sampling_ms, filter_, queue, is_oldest)
    return TagItem(1, Owner(), node, parameters, REPORTING, BOTH_TIMES)


def filter_of(trigger: int, kind: int = NONE, value: float = 0.0) -> Extension:
    return Extension(NodeId(0, DATA_CHANGE_FILTER), struct.pack("<IId", trigger, kind, value))


def row(value: Any, status: int = 0, time: int = 1) -> Row:
    return (value, status, time, time)


def told(item: TagItem, rows: Sequence[Row]) -> list[Row]:
    """Rows that wait in the queue after these came."""
    for number, each in enumerate(rows):
        item.take(each, float(number))
    return list(item._queue)


@pytest.mark.parametrize(
    ("filter_", "more", "values", "expected"),
    [
        (NO_FILTER, {}, [1.0, 1.0, 2.0, NAN, NAN, 1.0], [0, 2, 3, 5]),
        (filter_of(STATUS), {}, [1.0, 2.0], [0]),
        (filter_of(STATUS_VALUE, ABSOLUTE, 1.0), {}, [1.0, 2.0, 2.1, 3.0, NAN], [0, 2, 4]),
        (filter_of(STATUS_VALUE, PERCENT, 10.0), {"span": (0.0, 200.0)}, [0.0, 19.0, 20.0, 21.0, 42.0], [0, 3, 4]),
        (NO_FILTER, {"type_": ValueType.STRING}, ["a", "a", "b"], [0, 2]),
    ],
)
def test_filter_lets_changes_pass(
    filter_: Extension, more: dict[str, Any], values: list[Any], expected: list[int]
) -> None:
    rows = [row(value) for value in values]
    assert told(item_of(filter_, **more), rows) == [rows[number] for number in expected]


def test_status_alone_and_time_alone_are_news_where_they_are_asked_for() -> None:
    rows = [row(1.0), row(1.0, BAD), row(2.0, BAD), row(2.0, BAD, time=2), row(1.0)]
    assert told(item_of(), rows) == [rows[0], rows[1], rows[4]]
    assert told(item_of(filter_of(STATUS_VALUE_TIME)), rows) == [rows[0], rows[1], rows[3], rows[4]]


@pytest.mark.parametrize(
    ("filter_", "more"),
    [
        (filter_of(3), {}),
        (filter_of(1, 3), {}),
        (filter_of(1, ABSOLUTE, -1.0), {}),
        (filter_of(1, ABSOLUTE, NAN), {}),
        (filter_of(1, PERCENT, 10.0), {}),
        (filter_of(1, ABSOLUTE, 1.0), {"type_": ValueType.STRING}),
        (filter_of(1, ABSOLUTE, 1.0), {"type_": ValueType.BOOL}),
        (Extension(NodeId(0, DATA_CHANGE_FILTER), b"\x01"), {}),
        (Extension(NodeId(0, 727), b""), {}),
    ],
)
def test_filter_that_makes_no_sense_is_refused(filter_: Extension, more: dict[str, Any]) -> None:
    with pytest.raises(ServiceFault):
        item_of(filter_, **more)


def test_queue_keeps_the_newest_or_the_oldest_and_marks_the_loss() -> None:
    rows = [row(float(number)) for number in range(5)]
    assert told(item_of(queue=1), rows) == [rows[4]]
    assert told(item_of(queue=2), rows) == [(3.0, OVERFLOW, 1, 1), rows[4]]
    assert told(item_of(queue=2, is_oldest=False), rows) == [rows[0], (4.0, OVERFLOW, 1, 1)]
    assert item_of(queue=10**9).queue_max == QUEUE_MAX
    assert item_of(queue=0).queue_max == 1


def test_sampling_holds_the_newest_back_until_it_is_time() -> None:
    item = item_of(sampling_ms=10_000.0)
    rows = [row(float(number)) for number in range(4)]
    assert told(item, rows) == [rows[0]]
    assert not item.release(9.9)
    assert item.release(10.0)
    assert list(item._queue) == [rows[0], rows[3]]


def test_deleted_item_is_told_of_nothing() -> None:
    item = item_of()
    assert len(item.node.items) == 1
    item.stop()
    assert len(item.node.items) == 0
