"""Drivers that crash, hang, eat memory or make noise, between others that must not notice.

FRAMEGATE_UNRULY=full runs every fault; by default there are a few. Each faulty driver behaves for three scans after it
was opened, then says so in the log, and does its worst.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from framegate.carrier.native import NativeDriver
from framegate.carrier.python import ProcessDriver
from framegate.contract.driver import BoundTag, Driver
from framegate.contract.frame import TagId, ValueType
from framegate.contract.plugin import Manifest, Permissions, RoleEntry
from framegate.contract.quality import Quality
from framegate.observe.metrics import Metrics
from framegate.runtime.health import SlotHealth
from framegate.runtime.lifecycle import State
from framegate.runtime.runtime import Runtime
from framegate.runtime.slot import ScanPlan, Slot
from framegate.testing import plant
from framegate.testing.fakes import CollectingSink
from framegate.testing.stalls import Stalls
from framegate_plugins.modbus.driver import ModbusDriver
from framegate_plugins.modbus.trial import Trial, bound_tags
from tests.unit.carrier.native.conftest import artifact, build, childless

IS_FULL = os.environ.get("FRAMEGATE_UNRULY") == "full"
CARRIERS = Path(__file__).resolve().parents[1] / "unit" / "carrier"
PERIOD_S = 0.25
CRASH_S_MAX = 1.0
HANG_S_MAX = 3.0
BUSY_MACHINE_S = 0.5
"""Beside that: the test's machine does other things as well."""
HAND_OVERS = 4
"""From what a driver does to the line in the log, each as late as a thread of this process was at worst."""
TIMEOUT_S = 10.0
"""Of a request to a good device, so that no stall of the machine makes a scan fail."""
NATIVE = {"segfault": 1, "abort": 2, "exit": 3, "deadlock": 4, "busy loop": 5, "memory": 6, "noise": 7}
FEW = {("native", "segfault"), ("native", "busy loop"), ("native", "noise"), ("python", "exit")}
HANGS = {"deadlock", "busy loop"}
HARMLESS = {("native", "noise"), ("python", "noise"), ("python", "memory")}
"""An error of the driver's own; and a flood of words, which is slowed down, and ended where a scan takes too long."""
CASES = [(carrier, fault) for carrier in ("native", "python") for fault in NATIVE]


@dataclass
class TimedLog:
    """A Log that keeps when a line came."""

    lines: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)

    def note(self, event: str, **values: Any) -> None:
        self.lines.append((time.monotonic(), event, values))

    debug = info = warning = error = note

    def of(self, device: str) -> list[tuple[float, str, dict[str, Any]]]:
        return [line for line in self.lines if line[2].get("driver_id") == device]


@dataclass
class Plant:
    """A runtime on real clocks and processes."""

    runtime: Runtime
    trial: Trial
    log: TimedLog
    sink: CollectingSink
    stalls: Stalls

    def add(self, name: str, make: Callable[[], Driver], tags: list[BoundTag], endpoint: str = "") -> None:
        driver, runtime = make(), self.runtime
        plans = [ScanPlan("default", PERIOD_S, driver.plan(tags), tags)]
        self.runtime.add(
            Slot(
                name, driver, plans, runtime.context(name, endpoint), self.sink, runtime.clock, runtime.dice, self.log,
                runtime.metrics, factory=make,
            )
        )  # fmt: skip

    def health(self, name: str) -> SlotHealth:
        slot = self.runtime.slot(name)
        assert slot is not None
        return slot.health

    def state(self, name: str) -> State:
        return self.health(name).state


@pytest.fixture
async def unruly() -> AsyncIterator[Plant]:
    async with Trial() as trial:
        log, sink = TimedLog(), CollectingSink()
        runtime = Runtime(trial.pool, sink, trial.clock, random.Random(7), log, Metrics())
        await runtime.start()
        with Stalls() as stalls:
            yield Plant(runtime, trial, log, sink, stalls)
        await runtime.stop()
        await childless()


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], NativeDriver]:
    path = build(CARRIERS / "native" / "ramp.c", tmp_path_factory.mktemp("unruly") / "plugin.so")
    roles: dict[Any, RoleEntry] = {"driver": RoleEntry("", {}, (), "native", "plugin.so")}
    manifest = Manifest("ramp", (1, 1), "1", "", Path(), roles, (), permissions=Permissions(memory=32 << 20))
    return lambda fault: NativeDriver(manifest, {"fault": fault}, lambda: artifact(path))


def python(fault: str) -> ProcessDriver:
    roles: dict[Any, RoleEntry] = {"driver": RoleEntry("unruly.driver:UnrulyDriver", {}, ())}
    return ProcessDriver(
        Manifest("unruly", (1, 1), "1", "", CARRIERS / "python" / "unruly", roles, ()), {"fault": fault}
    )


@pytest.mark.timeout(240)
async def test_unruly_drivers_cost_their_neighbours_nothing(
    unruly: Plant, native: Callable[[int], NativeDriver]
) -> None:
    simulator = await unruly.trial.simulate(units=[1, 2, 3], size=200)
    endpoint = unruly.trial.endpoint(simulator.url)
    rows = bound_tags(*(f"hr:{number} int16" for number in range(100)))
    good = [f"good{unit}" for unit in (1, 2, 3)]
    for unit, name in enumerate(good, 1):
        unruly.add(name, _modbus(unit), rows, endpoint)
    unruly.add("good-native", lambda: native(0), [BoundTag(TagId(900), "n", "a", ValueType.INT64, "R", {})])
    good.append("good-native")
    await plant.until(lambda: all(unruly.state(name) is State.ACTIVE for name in good), "the good ones")
    skipped = {name: unruly.health(name).scans_skipped for name in good}  # while they were opened
    unruly.stalls.forget()
    cases = CASES if IS_FULL else sorted(FEW)
    for number, (carrier, fault) in enumerate(cases):
        tag = BoundTag(TagId(1_000 + number), "x", "a", ValueType.INT64, "R", {})
        unruly.add(f"{carrier} {fault}", _maker(native, carrier, fault), [tag])
    deadly = [case for case in cases if case not in HARMLESS]
    wanted = State.MISCONFIGURED if IS_FULL else State.BACKOFF

    def has_fallen(case: tuple[str, str]) -> bool:
        lines = unruly.log.of(" ".join(case))
        fell = [event for _, event, _ in lines if event in {"slot_backoff", "slot_misconfigured"}]
        return unruly.state(" ".join(case)) is wanted if IS_FULL else bool(fell)

    await plant.until(lambda: all(map(has_fallen, deadly)), "each to have fallen", 200.0 if IS_FULL else 40.0)
    for case in deadly:
        _check_times(unruly.log, case, HAND_OVERS * unruly.stalls.worst())
    if IS_FULL:
        looped = {line[2]["driver_id"] for line in unruly.log.lines if line[1] == "driver_crash_loop"}
        assert looped >= {" ".join(case) for case in deadly}
    for name in good:
        health = unruly.health(name)
        assert health.scans_skipped - skipped[name] <= unruly.stalls.periods_missed(PERIOD_S), name
        assert (name, health.scans_failed, health.reconnects) == (name, 0, 0)
        assert health.scans_ok > 10


def _modbus(unit: int) -> Callable[[], Driver]:
    return lambda: ModbusDriver({"unit": unit, "timeout": TIMEOUT_S})


def _maker(native: Callable[[int], NativeDriver], carrier: str, fault: str) -> Callable[[], Driver]:
    return lambda: native(NATIVE[fault]) if carrier == "native" else python(fault)


def _check_times(log: TimedLog, case: tuple[str, str], stalled_s: float) -> None:
    """From the moment that a driver says what it is about to do, until the gateway has said what became of it."""
    limit = (HANG_S_MAX if case[1] in HANGS else CRASH_S_MAX) + BUSY_MACHINE_S + stalled_s
    announced = 0.0
    for moment, event, values in log.of(" ".join(case)):
        if event == "driver_says" and "fault now" in values["text"]:
            announced = moment
        elif event == "slot_backoff" and announced:
            assert moment - announced <= limit, (case, moment - announced)
            assert values["reason"], case
            return
    raise AssertionError(f"{case}: nothing was told of it")


async def test_a_fallen_driver_is_told_as_bad_rows_and_comes_back(
    unruly: Plant, native: Callable[[int], NativeDriver]
) -> None:
    unruly.add("meter", lambda: native(1), [BoundTag(TagId(5), "x", "a", ValueType.INT64, "R", {})])
    await plant.until(lambda: len([1 for _, status in unruly.sink.rows_of_tag(5) if status]) >= 1, "a Bad row")
    assert Quality.BAD_NOT_CONNECTED in {status for _, status in unruly.sink.rows_of_tag(5)}
    before = len(unruly.sink.rows_of_tag(5))
    await plant.until(lambda: len([s for _, s in unruly.sink.rows_of_tag(5)[before:] if not s]) >= 2, "good rows again")
