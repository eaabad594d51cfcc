"""The columns of monitored items against a model that takes row by row, as Part 4, 5.12 and 7.17.2 tell it."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.frame import Batch, Value, ValueType
from framegate_plugins.opcua.server.binary import Extension, NodeId
from framegate_plugins.opcua.server.item_table import DISABLED, REPORTING
from framegate_plugins.opcua.server.items import DATA_CHANGE_FILTER
from framegate_plugins.opcua.server.newest import Row
from framegate_plugins.opcua.server.notification import Notification
from framegate_plugins.opcua.server.status import BAD_OUT_OF_RANGE, BAD_WAITING_FOR_INITIAL_DATA, OVERFLOW
from framegate_plugins.opcua.server.tag_node import BOTH_TIMES, NO_TIMES, SERVER_ONLY, SOURCE_ONLY
from framegate_plugins.opcua.tests.bridge_stage import tag
from framegate_plugins.opcua.tests.item_stage import HANDLE, Items, batch_of, row

BAD, UNCERTAIN, GOOD = 0x800A_0000, 0x4090_0000, 0
TYPES = (ValueType.FLOAT64, ValueType.FLOAT32, ValueType.INT64, ValueType.UINT64, ValueType.BOOL, ValueType.STRING)
VALUES: dict[ValueType, tuple[Value, ...]] = {
    ValueType.FLOAT64: (0.0, 0.5, 3.0, -1e308, float("inf")),
    ValueType.FLOAT32: (0.0, 0.5, 3.0, -2.5),
    ValueType.INT64: (0, 1, 3, -(2**63), 2**63 - 1),
    ValueType.UINT64: (0, 1, 3, 2**64 - 1),
    ValueType.BOOL: (False, True),
    ValueType.STRING: ("", "a", "b"),
}


@dataclass
class Model:
    """An item, taken row by row."""

    type: ValueType
    trigger: int
    deadband: float
    sampling_s: float
    queue_max: int
    discards_oldest: bool
    mode: int = REPORTING
    last: Row | None = None
    held: Row | None = None
    due: float = 0.0
    queue: deque[Row] = field(default_factory=deque)

    def take(self, row: Row, now: float) -> None:
        if self.mode == DISABLED:
            return
        if self.sampling_s and now < self.due:
            self.held = row
            return
        self.due, self.held = now + self.sampling_s, None
        if self.last is None or self.is_news(row, self.last):
            self.last = row
            self.enqueue(row)

    def is_news(self, row: Row, last: Row) -> bool:
        if row[1] != last[1]:
            return True
        if self.trigger == 0:
            return False
        if self.trigger == 2 and row[2] != last[2]:
            return True
        if row[1] & 0x8000_0000:
            return False
        return bool(row[0] != last[0]) and not (self.deadband and abs(row[0] - last[0]) <= self.deadband)

    def enqueue(self, row: Row) -> None:
        queue = self.queue
        if len(queue) < self.queue_max:
            queue.append(row)
        elif self.queue_max == 1:
            queue[0] = row
        elif self.discards_oldest:
            queue.popleft()
            queue[0] = marked(queue[0])
            queue.append(row)
        else:
            queue[-1] = marked(row)

    def release(self, now: float) -> None:
        held = self.held
        if held is not None and now >= self.due:
            self.held = None
            self.take(held, now)

    def begin(self, row: Row, now: float) -> None:
        self.last, self.due = None, 0.0
        self.take(row, now)

    def switch(self, mode: int) -> bool:
        before, self.mode = self.mode, mode
        if mode == DISABLED:
            self.queue.clear()
            self.held = None
        return before == DISABLED != mode


def marked(row: Row) -> Row:
    return (row[0], row[1] | OVERFLOW, row[2], row[3])


def told(row: Row) -> Row:
    """As a client sees it."""
    return (None if row[1] & 0x8000_0000 else row[0], *row[1:])


Step = tuple[str, Any]


@st.composite
def models(draw: st.DrawFn) -> tuple[int, Model]:
    """A tag, and an item of it."""
    number = draw(st.integers(0, len(TYPES) - 1))
    can_band = TYPES[number] not in {ValueType.BOOL, ValueType.STRING}
    return number, Model(
        TYPES[number],
        draw(st.integers(0, 2)),
        draw(st.sampled_from((0.0, 0.0, 1.0, 2.5))) if can_band else 0.0,
        draw(st.sampled_from((0.0, 0.0, 2.0))),
        draw(st.sampled_from((1, 1, 2, 3, 10))),
        draw(st.booleans()),
    )


@st.composite
def rows(draw: st.DrawFn) -> list[tuple[int, Row]]:
    """Rows of any tags, one tag more than once, in the order in which they came."""
    found = []
    for number in draw(st.lists(st.integers(0, len(TYPES) - 1), min_size=1, max_size=12)):
        value = draw(st.sampled_from(VALUES[TYPES[number]]))
        found.append((number, (value, draw(st.sampled_from((GOOD, GOOD, GOOD, UNCERTAIN, BAD))), 0, 0)))
    return found


STEPS = st.lists(
    st.one_of(
        rows().map(lambda each: ("rows", each)),
        rows().map(lambda each: ("rows", each)),
        st.just(("send", 0)),
        st.just(("release", 0)),
        st.tuples(st.just("switch"), st.tuples(st.integers(0, 7), st.integers(0, 2))),
    ),
    max_size=25,
)


class Trial:
    """Both, given the same."""

    def __init__(self, wanted: Sequence[tuple[int, Model]]) -> None:
        self.wanted = wanted
        self.models = [model for _, model in wanted]
        self.items = Items([tag(number, f"t.v{number}", type_) for number, type_ in enumerate(TYPES)])
        self.newest: list[Row] = [(None, BAD_WAITING_FOR_INITIAL_DATA, 0, 0)] * len(TYPES)
        for number, model in wanted:
            filter_ = struct.pack("<IId", model.trigger, 1 if model.deadband else 0, model.deadband)
            self.items.add(
                f"t.v{number}", Extension(NodeId(0, DATA_CHANGE_FILTER), filter_), model.queue_max,
                model.sampling_s * 1_000, is_oldest=model.discards_oldest,
            )  # fmt: skip
            model.begin(self.newest[number], 0.0)
        self.items.table.begin(self.items.slots(), 0.0)

    def rows(self, came: Sequence[tuple[int, Row]], now: int) -> None:
        time = 100 * (1 + now // 3)  # so that some rows differ in nothing else, and some in nothing
        stamped = [(number, (each[0], each[1], time, time)) for number, each in came]
        self.items.space.update(by_kind(stamped), float(now))
        for number, each in stamped:
            self.newest[number] = each
            for model in (model for tag_number, model in self.wanted if tag_number == number):
                model.take(each, float(now))

    def release(self, _: object, now: int) -> None:
        self.items.table.release(self.items.slots(), float(now))
        for model in self.models:
            model.release(float(now))

    def switch(self, what: tuple[int, int], now: int) -> None:
        place = what[0] % len(self.wanted)
        (number, model), item = self.wanted[place], self.items.made[place]
        if model.switch(what[1]):
            model.begin(self.newest[number], float(now))
        if item.switch(what[1]):
            self.items.table.begin(self.items.slots([item]), float(now))

    def send(self, _: object = None, now: int = 0) -> None:
        ready = {number: model for number, model in enumerate(self.models) if model.mode == REPORTING and model.queue}
        assert self.items.sent() == {number: [told(row) for row in model.queue] for number, model in ready.items()}
        for model in ready.values():
            model.queue.clear()


@settings(max_examples=60)
@given(st.lists(models(), min_size=1, max_size=8), STEPS)
def test_columns_and_rows_one_by_one_agree(wanted: list[tuple[int, Model]], steps: list[Step]) -> None:
    trial = Trial(wanted)
    for now, (step, what) in enumerate(steps, start=1):
        getattr(trial, step)(what, now)
        assert [len(item) for item in trial.items.made] == [len(model.queue) for model in trial.models]
    trial.send()


def test_rows_of_another_kind_than_their_tag_are_fitted_or_bad() -> None:
    items = Items([tag(1, "t.float"), tag(2, "t.int", ValueType.INT16), tag(3, "t.json", ValueType.JSON)])
    for name in ("t.float", "t.int", "t.json"):
        items.add(name)
    items.give({1: row(5), 2: row(5), 3: row(5), 99: row(5)}, np.int64)
    assert items.sent() == {0: [row(5.0)], 1: [row(5)], 2: [row("5")]}
    items.give({1: row(2.5), 2: row(2.5), 3: row(2.5)}, np.float64)
    assert items.sent() == {0: [row(2.5)], 1: [row(None, BAD_OUT_OF_RANGE)], 2: [row("2.5")]}
    items.give({2: row(0, BAD)}, np.float64)
    assert items.sent() == {1: [row(None, BAD)]}


@pytest.mark.parametrize(
    ("type_", "kind", "value", "expected"),
    [
        (ValueType.INT8, np.int64, 127, 127),
        (ValueType.INT8, np.int64, 128, None),
        (ValueType.UINT8, np.int64, -1, None),
        (ValueType.UINT32, np.int64, 2**32 - 1, 2**32 - 1),
        (ValueType.UINT32, np.int64, 2**32, None),
        (ValueType.INT64, np.int64, -(2**63), -(2**63)),
        (ValueType.UINT64, np.uint64, 2**64 - 1, 2**64 - 1),
        (ValueType.FLOAT32, np.float64, 1e39, None),
        (ValueType.FLOAT32, np.float64, float("inf"), float("inf")),
        (ValueType.FLOAT64, np.float64, 1e300, 1e300),
        (ValueType.BOOL, np.bool_, True, True),
    ],
)
def test_value_that_its_type_cannot_hold_is_bad(type_: ValueType, kind: type, value: Value, expected: Value) -> None:
    items = Items([tag(1, "t.v", type_)])
    items.add("t.v")
    items.give({1: row(value)}, kind)
    assert items.sent() == {0: [row(expected, 0 if expected is not None else BAD_OUT_OF_RANGE)]}


@pytest.mark.parametrize("times", [SOURCE_ONLY, SERVER_ONLY, BOTH_TIMES, NO_TIMES])
def test_columns_and_single_values_have_the_same_bytes(times: int) -> None:
    types = [type_ for type_ in TYPES if type_ is not ValueType.STRING]
    items = Items([tag(number, f"t.v{number}", type_) for number, type_ in enumerate(types)])
    for number, type_ in enumerate(types):
        items.add(f"t.v{number}", times=times)
        source = 0 if number % 2 else 1_795_000_000_123_456_700
        status = UNCERTAIN if number % 3 else GOOD
        items.give({number: (VALUES[type_][1], status, source, source + 100)}, np.dtype(type_.kind.value).type)
    for number, item in enumerate(items.made):
        single, columns = Notification(1, 1_000), Notification(1, 1_000)
        single.add(HANDLE + number, item.encode(item.node.row))
        items.table.fill(columns, items.slots([item]))
        assert columns.encoded() == single.encoded()


def by_kind(wanted: Sequence[tuple[int, Row]]) -> list[Batch]:
    """Batches as they come from the bus: those of one kind in one or two."""
    found = []
    for kind in dict.fromkeys(TYPES[number].kind for number, _ in wanted):
        chosen = [each for each in wanted if TYPES[each[0]].kind is kind]
        parts = [chosen[:3], chosen[3:]] if len(chosen) > 3 else [chosen]
        found += [batch_of(part, np.dtype(kind.value).type) for part in parts]
    return found
