"""Monitored items without a network: what is news, what is held back, what a queue keeps."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from framegate.contract.frame import ValueType
from framegate_plugins.opcua.server.binary import Extension, NodeId
from framegate_plugins.opcua.server.item_table import DISABLED, REPORTING
from framegate_plugins.opcua.server.items import DATA_CHANGE_FILTER, TagItem
from framegate_plugins.opcua.server.limits import QUEUE_MAX
from framegate_plugins.opcua.server.newest import Row
from framegate_plugins.opcua.server.requests import MonitoringParameters
from framegate_plugins.opcua.server.status import BAD_WAITING_FOR_INITIAL_DATA, OVERFLOW, ServiceFault
from framegate_plugins.opcua.server.tag_node import BOTH_TIMES
from framegate_plugins.opcua.tests.bridge_stage import tag
from framegate_plugins.opcua.tests.item_stage import NO_FILTER, Items, row

STATUS, STATUS_VALUE, STATUS_VALUE_TIME = 0, 1, 2
NONE, ABSOLUTE, PERCENT = 0, 1, 2
BAD = 0x800A_0000
NAN = float("nan")


def item_of(filter_: Extension = NO_FILTER, queue: int = 100, sampling_ms: float = 0.0, **more: Any) -> Items:
    is_oldest = more.pop("is_oldest", True)
    items = Items([tag(1, "t.v", **more)])
    items.add("t.v", filter_, queue, sampling_ms, is_oldest=is_oldest)
    return items


def filter_of(trigger: int, kind: int = NONE, value: float = 0.0) -> Extension:
    return Extension(NodeId(0, DATA_CHANGE_FILTER), struct.pack("<IId", trigger, kind, value))


def told(items: Items, rows: Sequence[Row], kind: type = np.float64) -> list[Row]:
    """What the client is sent after these rows came, one a second."""
    for number, each in enumerate(rows):
        items.give({1: each}, kind, float(number))
    return items.sent().get(0, [])


def without_value(rows: Sequence[Row]) -> list[Row]:
    return [(None if each[1] & 0x8000_0000 else each[0], *each[1:]) for each in rows]


@pytest.mark.parametrize(
    ("filter_", "more", "values", "expected"),
    [
        (NO_FILTER, {}, [1.0, 1.0, 2.0, NAN, NAN, 1.0], [0, 2, 3, 5]),
        (filter_of(STATUS), {}, [1.0, 2.0], [0]),
        (filter_of(STATUS_VALUE, ABSOLUTE, 1.0), {}, [1.0, 2.0, 2.1, 3.0, NAN, NAN, 3.0], [0, 2, 4, 6]),
        (filter_of(STATUS_VALUE, PERCENT, 10.0), {"span": (0.0, 200.0)}, [0.0, 19.0, 20.0, 21.0, 42.0], [0, 3, 4]),
        (filter_of(STATUS_VALUE, ABSOLUTE, 1.0), {}, [1.7e308, -1.7e308, float("inf")], [0, 1, 2]),
    ],
)
def test_filter_lets_changes_pass(
    filter_: Extension, more: dict[str, Any], values: list[Any], expected: list[int]
) -> None:
    rows = [row(value) for value in values]
    assert repr(told(item_of(filter_, **more), rows)) == repr([rows[number] for number in expected])  # NaN is not NaN


@pytest.mark.parametrize(
    ("type_", "kind", "filter_", "values", "expected"),
    [
        (ValueType.STRING, np.object_, NO_FILTER, ["a", "a", "b", ""], [0, 2, 3]),
        (ValueType.BYTES, np.object_, NO_FILTER, [b"a", b"a", b""], [0, 2]),
        (ValueType.BOOL, np.bool_, NO_FILTER, [True, True, False], [0, 2]),
        (ValueType.UINT64, np.uint64, NO_FILTER, [2**64 - 1, 2**64 - 2, 2**64 - 2], [0, 1]),
        # Differences that neither int64 nor float64 holds.
        (ValueType.INT64, np.int64, filter_of(STATUS_VALUE, ABSOLUTE, 1.0), [-(2**63), 2**63 - 1], [0, 1]),
        (ValueType.INT64, np.int64, filter_of(STATUS_VALUE, ABSOLUTE, 1.0), [2**62, 2**62 + 1, 2**62 + 2], [0, 2]),
        (ValueType.UINT64, np.uint64, filter_of(STATUS_VALUE, ABSOLUTE, 1.0), [2**64 - 1, 2**64 - 2, 0], [0, 2]),
    ],
)
def test_changes_of_every_kind_are_seen(
    type_: ValueType, kind: type, filter_: Extension, values: list[Any], expected: list[int]
) -> None:
    rows = [row(value) for value in values]
    found = told(item_of(filter_, type_=type_), rows, kind)
    assert found == [rows[number] for number in expected]
    assert {type(each[0]) for each in found} == {type(values[0])}


def test_status_alone_and_time_alone_are_news_where_they_are_asked_for() -> None:
    rows = [row(1.0), row(1.0, BAD), row(2.0, BAD), row(2.0, BAD, time=200), row(1.0)]
    assert told(item_of(), rows) == without_value([rows[0], rows[1], rows[4]])
    assert told(item_of(filter_of(STATUS_VALUE_TIME)), rows) == without_value([rows[0], rows[1], rows[3], rows[4]])


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
    assert told(item_of(queue=2), rows) == [(3.0, OVERFLOW, 100, 100), rows[4]]
    assert told(item_of(queue=2, is_oldest=False), rows) == [rows[0], (4.0, OVERFLOW, 100, 100)]
    assert item_of(queue=10**9).made[0].queue_max == QUEUE_MAX
    assert item_of(queue=0).made[0].queue_max == 1


def test_mark_of_a_loss_is_sent_once_and_is_no_other_status() -> None:
    items = item_of(queue=2, is_oldest=False)
    assert told(items, [row(1.0), row(2.0), row(3.0)]) == [row(1.0), row(3.0, OVERFLOW)]
    assert told(items, [row(3.0), row(4.0)]) == [row(4.0)]
    for each in (row(5.0), row(6.0), row(7.0)):
        items.give({1: each})
    assert [items.sent(values_max=1), items.sent(values_max=1)] == [{0: [row(5.0)]}, {0: [row(7.0, OVERFLOW)]}]


def test_sampling_holds_the_newest_back_until_it_is_time() -> None:
    items = item_of(sampling_ms=10_000.0)
    rows = [row(float(number)) for number in range(4)]
    assert told(items, rows) == [rows[0]]
    items.table.release(items.slots(), 9.9)
    assert items.sent() == {}
    items.table.release(items.slots(), 10.0)
    assert items.sent() == {0: [rows[3]]}
    items.table.release(items.slots(), 30.0)
    assert items.sent() == {}


def test_item_begins_with_what_the_tag_holds() -> None:
    items = Items([tag(1, "t.v"), tag(2, "t.never")])
    items.give({1: row(5.0)})
    items.add("t.v")
    items.add("t.never")
    items.table.begin(items.slots(), 0.0)
    assert items.sent() == {0: [row(5.0)], 1: [(None, BAD_WAITING_FOR_INITIAL_DATA, 0, 0)]}
    items.table.begin(items.slots([items.made[0]]), 0.0)
    assert items.sent() == {0: [row(5.0)]}


def test_item_that_is_switched_off_forgets_and_one_that_samples_is_not_sent() -> None:
    items = item_of()
    item = items.made[0]
    assert told(items, [row(1.0)]) == [row(1.0)]
    assert not item.switch(1)
    items.give({1: row(2.0)})
    assert (len(item), items.sent()) == (1, {})
    assert not item.switch(DISABLED)
    items.give({1: row(3.0)})
    assert (len(item), items.sent()) == (0, {})
    assert item.switch(REPORTING)
    assert not item.switch(REPORTING)


def test_shorter_queue_gives_up_the_oldest() -> None:
    items = item_of()
    told_before = [row(float(number)) for number in range(5)]
    for each in told_before:
        items.give({1: each})
    items.made[0].set(MonitoringParameters(100, 0.0, NO_FILTER, 2, True), BOTH_TIMES)
    assert items.sent() == {0: told_before[3:]}


def test_deleted_item_is_told_of_nothing_and_its_slot_is_used_again() -> None:
    items = Items([tag(1, "t.v")])
    many = [items.add("t.v") for _ in range(200)]
    assert items.table.count(0) == len(items.table) == 200
    gone, items.made = many[::2], many[1::2]
    for item in gone:
        item.stop()
    assert items.table.count(0) == 100
    items.give({1: row(1.0)})
    assert sorted(items.sent()) == list(range(1, 200, 2))
    slots = {item.slot for item in gone}
    new = [items.add("t.v") for _ in gone]
    assert {item.slot for item in new} == slots
    assert [len(item) for item in new] == [0] * 100


def test_one_notification_has_a_bounded_number_of_values_and_bytes() -> None:
    items = Items([tag(number, f"t.v{number}") for number in range(20)])
    for number in range(20):
        items.add(f"t.v{number}")
    items.give({number: row(float(number)) for number in range(20)})
    assert len(items.sent(values_max=8)) == 8
    assert len(items.sent(bytes_max=100)) == 3
    assert len(items.sent()) == 9


def test_item_whose_queue_is_long_takes_no_place_of_the_others() -> None:
    items = Items([tag(1, "t.busy"), tag(2, "t.calm"), tag(3, "t.text", ValueType.STRING)])
    busy, calm, text = items.add("t.busy"), items.add("t.calm"), items.add("t.text")
    for number in range(50):
        items.give({1: row(float(number)), 2: row(7.0)})
    items.give({3: row("x")}, np.object_)
    found = items.sent(values_max=10)
    assert (len(found[0]), found[1], found[2]) == (4, [row(7.0)], [row("x")])
    assert (len(busy), len(calm), len(text)) == (46, 0, 0)


def test_items_that_come_value_by_value_share_what_is_left() -> None:
    items = Items([tag(number, f"t.v{number}", ValueType.STRING) for number in range(4)])
    made = [items.add(f"t.v{number}") for number in range(4)]
    for text in "abcdefghij":
        items.give({number: row(text) for number in range(4)}, np.object_)
    assert {number: len(rows) for number, rows in items.sent(values_max=10).items()} == {0: 2, 1: 2, 2: 3, 3: 3}
    assert {number: len(rows) for number, rows in items.sent(bytes_max=100).items()} == {0: 4}
    assert sum(map(len, made)) == 40 - 10 - 4


def test_text_that_is_shown_as_a_number_is_sent_as_one() -> None:
    made = Items(
        [tag(1, "t.v"), tag(2, "t.m", ValueType.STRING, texts=("off", "on"), options={"enumeration": "number"})]
    )
    item: TagItem = made.add("t.m")
    made.give({2: row("on")}, np.object_)
    assert made.sent() == {0: [row(1)]}
    made.give({2: row("none")}, np.object_)
    ((value, status, _, _),) = made.sent()[0]
    assert (value, status) == (None, 0x803C_0000)
    assert len(item) == 0
