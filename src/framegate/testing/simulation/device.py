"""A device for the simulation: a driver that answers with values nobody else ever had, or fails as a driver may.

It keeps the contract of contract/driver.py and runs in a real slot of the runtime; what it was asked, and whether that
was answered in the bus, is checked at each scan (B1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from framegate.contract.driver import BoundTag, DriverContext, Plan
from framegate.contract.errors import DeviceRefused, FrameBroken, NoReply, NotConnected
from framegate.contract.frame import Batch, Kind, TagId, ValueColumn, ValueType, uniform_quality, uniform_time
from framegate.contract.ports import Catalogue, Clock
from framegate.contract.quality import Quality
from framegate.testing.scripted import Layout, ScriptedDriver, ScriptedPlan
from framegate.testing.simulation.swarm import DeviceDraw
from framegate.testing.simulation.witness import WatchedSink

TYPES = (ValueType.FLOAT64, ValueType.INT64, ValueType.UINT64, ValueType.BOOL, ValueType.STRING)
LATENCY_S = 0.03
HANG_CHANCE = 0.1  # of a fault: the device falls silent, and the driver with it


@dataclass(slots=True)
class DeviceWeather:
    """faults: chance that a call fails"""

    faults: float = 0.0


@dataclass(slots=True)
class Counter:
    """Numbers its values over all lives of the gateway."""

    value: int = 0


def tags_of(name: str, draw: DeviceDraw, catalogue: Catalogue) -> list[BoundTag]:
    """The device's tags, named in the catalogue."""
    tags = []
    for number in range(draw.tags):
        type_ = TYPES[number % len(TYPES)]
        tag_id = catalogue.intern(f"{name}.t{number}", name, type_, "", "R")
        tags.append(BoundTag(TagId(tag_id), f"{name}.t{number}", str(number), type_, "R", {}))
    return tags


class SimDriver(ScriptedDriver):
    """One life of a driver of one device."""

    def __init__(self, draw: DeviceDraw, weather: DeviceWeather, counter: Counter, dice: Random) -> None:
        super().__init__()
        self.sink: WatchedSink | None = None
        self._draw, self._weather, self._counter, self._dice = draw, weather, counter, dice
        self._asked: Sequence[int] = ()
        self._clock: Clock | None = None

    async def open(self, context: DriverContext) -> None:
        self._clock = context.clock
        await asyncio.sleep(self._dice.random() * LATENCY_S)
        if self._dice.random() < self._weather.faults:
            raise NotConnected("simulated device: unreachable")
        self.is_open = True

    async def read(self, plan: Plan) -> Sequence[Batch]:
        assert isinstance(plan, ScriptedPlan)
        assert self.sink is not None
        self.calls.clear()
        self.sink.answered(self._asked)
        self._asked = plan.tag.tolist()
        self.sink.asking(self._asked)
        await asyncio.sleep(self._dice.random() * LATENCY_S)
        if self._dice.random() < self._weather.faults:
            await self._fail(plan)
        return self._batches(plan.layouts)

    async def close(self) -> None:
        self.is_open = False

    async def _fail(self, plan: ScriptedPlan) -> None:
        if self._dice.random() < HANG_CHANCE:
            await asyncio.get_running_loop().create_future()
        partial = self._batches(plan.layouts[: self._dice.randint(0, len(plan.layouts) - 1)])
        raise self._dice.choice(
            (
                NoReply("simulated device: silent", partial=partial),
                NotConnected("simulated device: the line broke"),
                FrameBroken("simulated device: no frame"),
                DeviceRefused("simulated device: no", quality=Quality.BAD_NODE_ID_UNKNOWN),
            )
        )

    def _batches(self, layouts: Sequence[Layout]) -> list[Batch]:
        rounds = self._dice.randint(1, self._draw.burst)
        return [self._batch(layout) for _ in range(rounds) for layout in layouts]

    def _batch(self, layout: Layout) -> Batch:
        assert self._clock is not None
        rows = len(layout.tag)
        self._counter.value += 1
        now_ns = self._clock.now_ns()
        value = self._column(layout.kind, rows, self._counter.value)
        value.flags.writeable = False
        return Batch(layout.tag, value, uniform_quality(Quality.GOOD), uniform_time(now_ns), now_ns)

    def _column(self, kind: Kind, rows: int, number: int) -> ValueColumn:
        if kind is Kind.OBJECT:
            column = np.empty(rows, dtype=np.object_)
            column[:] = [f"{number} {row} ".ljust(self._draw.text_bytes, "x") for row in range(rows)]
            return column
        if kind is Kind.BOOL:
            return np.array([(number + row) % 2 == 0 for row in range(rows)], dtype=np.bool_)
        first = number * 100
        if kind is Kind.FLOAT:
            return np.arange(first, first + rows, dtype=np.float64)
        if kind is Kind.INT:
            return np.arange(first, first + rows, dtype=np.int64)
        return np.arange(first, first + rows, dtype=np.uint64)
