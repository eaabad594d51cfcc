"""A driver at work without a gateway around it: for tests and measurements.

async with Trial() as trial:
    simulator = await trial.simulate(units=[1])
    driver = await trial.open(simulator.url, {"unit": 1})
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from framegate.contract.command import Outcome, Write
from framegate.contract.driver import BoundTag, DriverContext
from framegate.contract.frame import Access, Batch, TagId, Value, ValueType
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.endpoint import endpoint_from_row
from framegate.endpoint.pool import EndpointPool
from framegate.observe.log import make_log
from framegate.observe.metrics import Metrics
from framegate_plugins.modbus.driver import ModbusDriver
from framegate_plugins.modbus.simulator import Simulator, start


class Trial:
    """Simulators, lines and drivers that end together."""

    def __init__(self) -> None:
        self.log = make_log(io.StringIO())
        self.clock = SystemClock()
        self.pool = EndpointPool({}, self.clock, self.log, Metrics())
        self._rows: dict[str, Mapping[str, object]] = {}
        self._drivers: list[ModbusDriver] = []
        self.simulators: list[Simulator] = []

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
        """A simulator; `simulator.py` lists the options."""
        simulator = await start(options)
        self.simulators.append(simulator)
        return simulator

    def endpoint(self, url: str, **row: object) -> str:
        """Name of an endpoint with this address; the same for the same address."""
        name = next((name for name, known in self._rows.items() if known["url"] == url), f"line{len(self._rows)}")
        self._rows.setdefault(name, {"url": url, **row})
        self.pool.update({name: endpoint_from_row(name, row, Path()) for name, row in self._rows.items()})
        return name

    def context(self, url: str, **row: object) -> DriverContext:
        return DriverContext(f"device{len(self._drivers)}", self.endpoint(url, **row), self.pool, self.clock, self.log)

    async def open(self, url: str, options: Mapping[str, Any] | None = None, **row: object) -> ModbusDriver:
        """A driver whose line stands; `row` is what the endpoint's row says besides its URL."""
        driver = ModbusDriver(options or {})
        await driver.open(self.context(url, **row))
        self._drivers.append(driver)
        return driver


def bound_tags(*rows: str) -> list[BoundTag]:
    """Tags from `address type [key=value ...]`, numbered from 0; all may be written where the area allows."""
    tags = []
    for number, row in enumerate(rows):
        address, type_, *pairs = row.split()
        options = {key: parsed(value) for key, _, value in (pair.partition("=") for pair in pairs)}
        access: Access = "RW" if address.startswith(("hr", "coil", "4", "0")) else "R"
        tags.append(BoundTag(TagId(number), f"t{number}", address, ValueType(type_), access, options))
    return tags


def parsed(text: str) -> int | str:
    """A number where the text is one."""
    return int(text) if text.isdecimal() else text


def values_in(batches: Sequence[Batch]) -> dict[int, Value]:
    """Value by tag, for rows of Good quality."""
    return {tag: value for tag, value, status in _rows(batches) if status == 0}


def faults_in(batches: Sequence[Batch]) -> dict[int, int]:
    """StatusCode by tag, for rows of other quality."""
    return {tag: status for tag, _, status in _rows(batches) if status}


def _rows(batches: Sequence[Batch]) -> Iterator[tuple[int, Value, int]]:
    for batch in batches:
        quality = np.broadcast_to(batch.quality, batch.rows).tolist()
        yield from zip(batch.tag.tolist(), batch.value.tolist(), quality, strict=True)


EVERY_TYPE: tuple[tuple[str, Value], ...] = (
    ("hr:0 int16", -5),
    ("hr:1 uint16", 65000),
    ("hr:2 int32", -70000),
    ("hr:4 uint32 word_order=little", 4_000_000_000),
    ("hr:6 int64", -(2**40)),
    ("hr:10 uint64", 2**63 + 1),
    ("hr:14 float32 byte_order=little", 1.5),
    ("hr:16 float64", -2.25),
    ("hr:22 string length=10", "Pumpe 3°"),
    ("hr:27 bytes length=4", b"\x01\x02\x03\x04"),
    ("coil:0 bool", True),
    ("coil:1 bool", False),
    ("coil:9 bool", True),
    ("hr:20.l int8", -3),
    ("hr:20.h uint8", 200),
    ("hr:21.3 bool", True),
    ("hr:21.4 bool", False),
)
"""A row of every type, and a value to write to it; the last four need function 22."""


async def check_every_type(driver: ModbusDriver, rows: Sequence[tuple[str, Value]] = EVERY_TYPE) -> None:
    """Write a value of every type, read all of them back.

    raises AssertionError - a write that is not confirmed, or a value that reads back otherwise
    """
    tags = bound_tags(*(row for row, _ in rows))
    plan = driver.plan(tags)
    results = await driver.write([Write(tag.id, value) for tag, (_, value) in zip(tags, rows, strict=True)])
    assert [(result.outcome, result.reason) for result in results] == [(Outcome.CONFIRMED, "")] * len(rows)
    assert values_in(await driver.read(plan)) == {index: value for index, (_, value) in enumerate(rows)}
