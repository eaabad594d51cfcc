"""A driver at work without a gateway around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from framegate.contract.driver import BoundTag, DriverContext, Plan
from framegate.contract.frame import Access, Batch, TagId, Value, ValueType
from framegate.contract.quality import is_bad
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.endpoint import endpoint_from_row
from framegate.endpoint.pool import EndpointPool
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import CollectingLog
from framegate_plugins.opcua.driver import OpcuaDriver, UaPlan
from framegate_plugins.opcua.simulator import NAMESPACE, Simulator, start

DEADLINE_S = 10.0
OPEN = {"security": "none", "timeout": "2s"}
"""Options of a row for a server without security."""


class Stage:
    """Simulators, lines and drivers that end together. news: plans that a driver asked to be read, in order."""

    def __init__(self, home: Path | None = None) -> None:
        self.log = CollectingLog()
        self.clock = SystemClock()
        self.home = home
        self.news: list[Plan] = []
        self.simulators: list[Simulator] = []
        self._told = asyncio.Event()
        self.pool = EndpointPool({}, self.clock, self.log, Metrics())
        self._rows: dict[str, Mapping[str, object]] = {}
        self._drivers: list[OpcuaDriver] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for driver in self._drivers:
            await driver.close()
        await self.pool.close()
        for simulator in self.simulators:
            await simulator.close()

    async def simulate(self, **options: Any) -> Simulator:
        simulator = await start(options)
        self.simulators.append(simulator)
        return simulator

    def context(self, url: str, **row: object) -> DriverContext:
        name = next((name for name, known in self._rows.items() if known["url"] == url), f"line{len(self._rows)}")
        self._rows[name] = {"url": url, **row}
        self.pool.update({name: endpoint_from_row(name, row, Path()) for name, row in self._rows.items()})
        return DriverContext("server", name, self.pool, self.clock, self.log, home=self.home, ready=self._ready)

    async def open(self, url: str, options: Mapping[str, Any] = OPEN, **row: object) -> OpcuaDriver:
        driver = OpcuaDriver(options)
        self._drivers.append(driver)
        await driver.open(self.context(url, **row))
        return driver

    async def follow(self, driver: OpcuaDriver, tags: list[BoundTag], period_s: float = 0.05) -> UaPlan:
        plan = driver.plan(tags)
        driver.follow([(plan, period_s)])
        return plan

    async def until(
        self, driver: OpcuaDriver, plan: Plan, wanted: Callable[[dict[int, Value]], bool]
    ) -> dict[int, Value]:
        """Read whenever there is something, until the values so far are as wanted."""
        found: dict[int, Value] = {}
        async with asyncio.timeout(DEADLINE_S):
            while True:
                self._told.clear()
                found |= values_in(await driver.read(plan))
                if wanted(found):
                    return found
                await self._told.wait()

    async def told(self) -> None:
        """Wait until a driver asks to be read."""
        async with asyncio.timeout(DEADLINE_S):
            while not self.news:
                self._told.clear()
                await self._told.wait()

    def _ready(self, plan: Plan) -> None:
        self.news.append(plan)
        self._told.set()


def tags(*rows: str, first: int = 0) -> list[BoundTag]:
    """Tags from `identifier type [access] [key=value ...]` in the simulator's namespace, numbered from `first`."""
    made = []
    for number, row in enumerate(rows, first):
        name, type_, *rest = row.split()
        access = cast(Access, next((word for word in rest if word in {"R", "W", "RW"}), "RW"))
        options = {key: value for key, mark, value in (word.partition("=") for word in rest) if mark}
        address = name if "=" in name else f"nsu={NAMESPACE};s={name}"
        made.append(BoundTag(TagId(number), f"t{number}", address, ValueType(type_), access, options))
    return made


def rows_in(batches: Any) -> list[tuple[int, Value, int]]:
    """tag, value (None where Bad), status."""
    return [
        (int(tag), None if is_bad(int(status)) else value, int(status))
        for batch in batches
        for tag, value, status in zip(
            batch.tag.tolist(), batch.value.tolist(), _spread(batch, batch.quality).tolist(), strict=True
        )
    ]


def values_in(batches: Any) -> dict[int, Value]:
    return {tag: value for tag, value, _ in rows_in(batches)}


def _spread(batch: Batch, column: Any) -> Any:
    return column.repeat(batch.rows) if len(column) == 1 else column
