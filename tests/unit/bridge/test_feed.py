"""What a bridge is told: all of it, the newest of each tag, nothing that it does not show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from framegate.bridge import feed as feed_module
from framegate.bridge.feed import Feed
from framegate.bridge.wire import Rows, Unpacker, from_bridge, message, to_bridge
from framegate.bus.latest import Latest
from framegate.contract.bridge import BridgeTag
from framegate.contract.frame import Batch, TagId, ValueType, uniform_quality, uniform_time

TAGS = [
    BridgeTag(TagId(number), f"t{number}", kind, "R")
    for number, kind in enumerate((ValueType.FLOAT64, ValueType.INT16, ValueType.BOOL, ValueType.STRING), 1)
]
COLUMNS = [np.array(ids, np.int32) for ids in ([1], [1, 5], [2, 6], [2], [3], [4], [7, 8], [1, 2])]
"""Some of tags that are not shown, some mixed."""


class Bus:
    """Latest values and a feed, as in a gateway, and a bridge that keeps what it is told."""

    def __init__(self) -> None:
        self.latest = Latest()
        self.woken = 0
        self.feed = Feed(TAGS, self.latest.value, self.wake)
        self.unpacker = Unpacker()
        self.told: dict[int, Any] = {}
        self.now = 1

    def wake(self) -> None:
        self.woken += 1

    def publish(self, tag: np.ndarray, value: Sequence[object]) -> None:
        self.now += 1
        dtype = {1: np.float64, 2: np.int64, 3: np.bool_, 4: np.object_}.get(int(tag[0]), np.float64)
        column: Any = np.array(value, dtype)
        batch = Batch(tag, column, uniform_quality(0), uniform_time(self.now), self.now)
        self.latest.update(batch)
        self.feed.publish([batch])

    def carry(self) -> Rows | None:
        rows = self.feed.take()
        if rows is not None:
            said = to_bridge.decode(message(rows)[4:])
            assert isinstance(said, Rows)
            for batch in self.unpacker.batches(said):
                times = batch.source_time.tolist() * (len(batch.tag) if len(batch.source_time) == 1 else 1)
                self.told.update(zip(batch.tag.tolist(), zip(batch.value.tolist(), times, strict=True), strict=True))
        return rows

    def carry_all(self) -> None:
        while self.carry() is not None or not self.feed.is_done:
            pass

    def expected(self) -> dict[int, Any]:
        found = {tag.id: self.latest.value(tag.id) for tag in TAGS}
        return {tag: (reading[0], reading[2]) for tag, reading in found.items() if reading is not None}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(range(len(COLUMNS))), st.integers(0, 1)),
        st.tuples(st.just("carry"), st.just(0), st.just(0)),
        st.tuples(st.just("begin"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(steps)
def test_a_bridge_ends_with_the_newest_row_of_every_tag_it_shows(plan: list[tuple[str, int, int]]) -> None:
    bus = Bus()
    bus.feed.begin()
    for what, which, value in plan:
        if what == "publish":
            bus.publish(COLUMNS[which], [value] * len(COLUMNS[which]))
        elif what == "carry":
            bus.carry()
        else:
            bus.feed.begin()
            bus.unpacker, bus.told = Unpacker(), {}
    bus.carry_all()
    assert bus.told == bus.expected()


def test_a_value_never_goes_back_while_a_snapshot_is_told() -> None:
    bus = Bus()
    bus.publish(COLUMNS[0], [1.0])
    bus.feed.begin()
    bus.publish(COLUMNS[0], [2.0])
    bus.publish(COLUMNS[7], [3.0, 4.0])
    seen: list[float] = []
    while bus.carry() is not None:
        seen.append(bus.told[1][0])
    assert seen == sorted(seen)
    assert bus.told == bus.expected()


def test_batches_of_one_column_that_wait_are_merged_and_told_as_one_array() -> None:
    bus = Bus()
    bus.feed.begin()
    bus.carry_all()
    woken = bus.woken
    for value in range(5):
        bus.publish(COLUMNS[0], [value])
    rows = bus.carry()
    assert rows is not None
    assert len(rows.batches) == 1
    assert bus.woken == woken + 1
    bus.publish(COLUMNS[0], [9.0])
    again = bus.carry()
    assert again is not None
    assert again.batches[0].tag == b""
    assert bus.told == bus.expected()


def test_too_many_columns_that_wait_become_a_snapshot() -> None:
    bus = Bus()
    bus.feed.begin()
    bus.carry_all()
    for number in range(feed_module.WAITING_MAX + 10):
        bus.publish(np.array([1, 2 + number % 3], np.int32)[:1], [float(number)])
    rows = bus.carry()
    assert rows is not None
    assert len(rows.batches) < 20
    bus.carry_all()
    assert bus.told == bus.expected()


def test_columns_are_forgotten_on_both_sides_before_they_are_too_many() -> None:
    bus = Bus()
    bus.feed.begin()
    bus.carry_all()
    for number in range(2 * feed_module.COLUMNS_MAX + 10):
        bus.publish(np.array([1], np.int32), [float(number)])
        if number % 100 == 0:
            bus.publish(COLUMNS[3], [number])
            bus.carry()
    bus.carry_all()
    assert bus.told == bus.expected()
    assert len(bus.unpacker._columns) <= feed_module.COLUMNS_MAX + 1


def test_what_a_bridge_may_say_is_a_closed_list() -> None:
    assert {kind.__struct_config__.tag for kind in from_bridge.type.__args__} == {
        "ready", "refused", "report", "line", "submit", "wait",
    }  # fmt: skip
