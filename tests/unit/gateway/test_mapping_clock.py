from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from framegate.bus.bus import Bus
from framegate.config.rows import GatewayRow, Tables, VariableRow
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Access, Batch, Tag, TagId, ValueType, uniform_quality, uniform_time
from framegate.contract.ports import Clock, Log
from framegate.gateway.binding import bind
from framegate.gateway.mapping_clock import MappingClock
from framegate.mapper.mapping import Mapping, MappingRow, compile_mapping
from framegate.mapper.processing import AS_READ, Processing

S = 1_000_000_000


class Names:
    """A catalogue that only remembers."""

    def __init__(self) -> None:
        self.tags: list[Tag] = []

    def intern(self, name: str, device: str, type_: ValueType, unit: str, access: str) -> TagId:
        self.tags.append(Tag(TagId(len(self.tags) + 1), name, device, type_, unit, cast(Access, access)))
        return self.tags[-1].id

    def tag(self, tag_id: int) -> Tag:
        return self.tags[tag_id - 1]

    def find(self, name: str) -> Tag | None:
        return next((tag for tag in self.tags if tag.name == name), None)


class Stage:
    """Bus, clock and log of one test."""

    def __init__(self) -> None:
        self.placed: list[Batch] = []
        self.swapped: list[Mapping] = []
        self.events: list[str] = []
        self.now_s = 0
        self.is_full = False
        self.sleeps = 0
        self.has_placed = asyncio.Event()

    def place(self, batches: Sequence[Batch]) -> None:
        if self.is_full:
            raise StoreFailed("the log is full")
        self.placed += batches
        self.has_placed.set()

    def swap_mapping(self, mapping: Mapping) -> None:
        self.swapped.append(mapping)

    def now_ns(self) -> int:
        return self.now_s * S

    async def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        await asyncio.sleep(0)

    def error(self, event: str, **values: Any) -> None:
        self.events.append(event)

    def clock_of(self, mapping: Mapping) -> MappingClock:
        return MappingClock(mapping, cast(Bus, self), cast(Clock, self), cast(Log, self))


def heartbeat_mapping(stage: Stage) -> Mapping:
    row = MappingRow(TagId(1), processing=Processing(when="change", heartbeat=1.0))
    mapping = compile_mapping([row])
    mapping(Batch(np.ones(1, np.int32), np.ones(1), uniform_quality(0), uniform_time(0), stage.now_ns()))
    return mapping


def test_tick_places_what_is_due_and_another_mapping_goes_on() -> None:
    stage = Stage()
    clock = stage.clock_of(heartbeat_mapping(stage))
    clock.tick()
    assert stage.placed == []
    stage.now_s = 1
    clock.tick()
    assert len(stage.placed) == 1
    other = compile_mapping([MappingRow(TagId(1), processing=Processing(when="change", heartbeat=2.0))])
    clock.use(other)
    assert stage.swapped == [other]
    stage.now_s = 3
    clock.tick()
    assert [batch.value.tolist() for batch in stage.placed] == [[1.0], [1.0]]


async def test_run_of_a_mapping_that_asks_nothing_of_time_sleeps_until_another_comes() -> None:
    stage = Stage()
    clock = stage.clock_of(compile_mapping([MappingRow(TagId(1), scale=2.0)]))
    running = asyncio.create_task(clock.run())
    await asyncio.sleep(0.01)
    assert stage.sleeps == 0
    other = heartbeat_mapping(stage)
    clock.use(other)
    stage.now_s = 1
    await asyncio.wait_for(stage.has_placed.wait(), 5)
    assert [batch.value.tolist() for batch in stage.placed] == [[1.0]]
    running.cancel()


def test_tick_of_a_full_log_says_so_once() -> None:
    stage = Stage()
    clock = stage.clock_of(heartbeat_mapping(stage))
    stage.is_full = True
    for stage.now_s in range(1, 5):
        clock.tick()
    assert stage.events == ["mapping_rows_refused"]


def variable(tag: str, source: str, processing: Processing = AS_READ, rename: str = "") -> VariableRow:
    return VariableRow(tag, ValueType.INT16, source, "4x1", rename=rename, processing=processing)


def test_bind_gives_calculated_tags_to_no_device_and_enums_out_as_text() -> None:
    rows = (
        variable("a", "plc"),
        variable("b", "plc", Processing(enum=((0, "off"),))),
        variable("c", "plc", Processing(enum=((0, "off"),)), rename="out"),
        variable("d", "", Processing(expr="tag['a'] + 1")),
        variable("e", "plc"),
    )
    names = Names()
    binding = bind(Tables(GatewayRow(), {}, {}, {}, rows), names)
    assert [tag.name for tag in binding.tags["plc"]["default"]] == ["a", "b", "c", "e"]
    assert set(binding.tags) == {"plc"}
    assert [row.name for row in binding.mapping] == ["a", "b", "c", "d"], "e asks for nothing and nobody reads it"
    types = {tag.name: (tag.type, tag.device) for tag in names.tags}
    assert types["b"] == (ValueType.STRING, "plc")
    assert types["c"] == (ValueType.INT16, "plc")
    assert types["out"] == (ValueType.STRING, "plc")
    assert types["d"] == (ValueType.INT16, "gateway")
    assert binding.alarm is not None
    assert names.tag(binding.alarm).name == "alarm.mapping"
