"""Sandboxed drivers that mean harm, between others that must not notice.

Each is stopped, told, started again, and parked when it has crashed five times. FRAMEGATE_UNRULY=full plays every one;
by default there are a few.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from framegate.carrier.wasm import WasmDriver
from framegate.contract.driver import BoundTag, Driver
from framegate.contract.frame import TagId, ValueType
from framegate.contract.ports import Lines
from framegate.contract.quality import Quality
from framegate.observe.metrics import Metrics
from framegate.runtime.health import SlotHealth
from framegate.runtime.lifecycle import State
from framegate.runtime.runtime import Runtime
from framegate.runtime.slot import ScanPlan, Slot
from framegate.testing import plant
from framegate.testing.fakes import CollectingLog, CollectingSink
from framegate.testing.stalls import Stalls
from framegate_plugins.modbus.driver import ModbusDriver
from framegate_plugins.modbus.trial import Trial, bound_tags
from tests.unit.carrier.wasm.conftest import Bench, tags_of

pytest.importorskip("wasmtime", reason="sandboxed plugins need the package wasmtime")
IS_FULL = os.environ.get("FRAMEGATE_UNRULY") == "full"
PERIOD_S = 0.25
POLL_S = 0.5
"""Of a guest that means harm."""
TIMEOUT_S = 10.0
"""Of a request to a good device, so that no stall of the machine makes a scan fail."""
HARM = {
    "b": "out of bounds", "c": "endless loop", "d": "recursion", "e": "memory bomb", "f": "flood of calls",
    "g": "flood of log lines", "h": "flood of rows", "j": "huge output", "v": "calls from cabi_realloc",
}  # fmt: skip
FEW = ("b", "c", "e", "h")


@dataclass
class Yard:
    """A runtime on real clocks, with real devices beside sandboxes."""

    runtime: Runtime
    trial: Trial
    bench: Bench
    log: CollectingLog
    sink: CollectingSink
    stalls: Stalls

    async def add(
        self, name: str, make: Callable[[], Driver], tags: list[BoundTag], endpoint: str, lines: Lines
    ) -> None:
        driver, runtime = make(), self.runtime
        plans = [ScanPlan("default", PERIOD_S, await asyncio.to_thread(driver.plan, tags), tags)]
        context = replace(runtime.context(name, endpoint), lines=lines)
        ports = (self.sink, runtime.clock, runtime.dice, self.log, runtime.metrics)
        slot = Slot(name, driver, plans, context, *ports, factory=make)
        runtime.add(slot)

    def health(self, name: str) -> SlotHealth:
        slot = self.runtime.slot(name)
        assert slot is not None
        return slot.health


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    async with Trial() as trial:
        log, sink = CollectingLog(), CollectingSink()
        runtime = Runtime(trial.pool, sink, trial.clock, random.Random(7), log, Metrics())
        await runtime.start()
        with Stalls() as stalls:
            made = Yard(runtime, trial, Bench(tmp_path / "machine-code"), log, sink, stalls)
            yield made
        await runtime.stop()
        made.bench.device.close()


@pytest.mark.timeout(300)
async def test_unruly_sandboxes_cost_their_neighbours_nothing(yard: Yard) -> None:
    simulator = await yard.trial.simulate(units=[1, 2], size=200)
    rows = bound_tags(*(f"hr:{number} int16" for number in range(100)))
    for unit in (1, 2):
        endpoint = yard.trial.endpoint(simulator.url)
        await yard.add(f"good{unit}", _modbus(unit), rows, endpoint, yard.trial.pool)
    lines = cast(Lines, yard.bench.device)
    await yard.add("good-wasm", _sandbox(yard, "a"), tags_of(), "plc", lines)
    good = ["good1", "good2", "good-wasm"]
    await plant.until(lambda: all(yard.health(name).state is State.ACTIVE for name in good), "the good ones")
    before = {name: yard.health(name).scans_skipped for name in good}  # while they were opened
    yard.stalls.forget()
    bad = {HARM[mode]: mode for mode in (HARM if IS_FULL else FEW)}
    for number, (name, mode) in enumerate(bad.items()):
        tags = [BoundTag(TagId(n), "x", "a", ValueType.UINT16, "R", {}) for n in range(1, 126)]
        await yard.add(
            name, _sandbox(yard, mode), [tag._replace(name=f"{number}.{tag.id}") for tag in tags], "plc", lines
        )
    parked = State.MISCONFIGURED
    await plant.until(lambda: all(yard.health(name).state is parked for name in bad), "each to be parked", 120.0)
    looped = {values["driver_id"] for _, event, values in yard.log.lines if event == "driver_crash_loop"}
    assert looped == set(bad)
    for name in good:
        health = yard.health(name)
        assert health.scans_skipped - before[name] <= yard.stalls.periods_missed(PERIOD_S), name
        assert (name, health.scans_failed, health.reconnects) == (name, 0, 0)
        assert health.scans_ok > 10
    assert Quality.BAD_NOT_CONNECTED in {status for _, status in yard.sink.rows_of_tag(5)}


def _modbus(unit: int) -> Callable[[], Driver]:
    return lambda: ModbusDriver({"unit": unit, "timeout": TIMEOUT_S})


def _sandbox(yard: Yard, mode: str) -> Callable[[], WasmDriver]:
    return (lambda: yard.bench.driver(mode, poll=POLL_S)) if mode in HARM else (lambda: yard.bench.driver(mode))
