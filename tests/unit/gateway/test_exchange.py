"""All devices of a plugin: the canary first, devices of one connection together, and back at the first failure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from framegate.contract.driver import DriverContext
from framegate.contract.errors import GatewayError, Misconfigured, NotConnected
from framegate.gateway.plugins.exchange import CANARY_S, Exchange
from framegate.observe.metrics import Metrics
from framegate.runtime.lifecycle import State
from framegate.runtime.runtime import Runtime
from framegate.runtime.scan import ScanPlan, scans_of
from framegate.runtime.slot import Service, Slot
from framegate.runtime.swap import Successor
from framegate.testing.fakes import CollectingLog, CollectingSink, FakeLines
from framegate.testing.loop import LoopClock, run_virtual
from framegate.testing.scripted import ScriptedDriver, scripted_tags

PERIOD_S = 0.1


class Line(ScriptedDriver):
    """A driver of a version, on an endpoint that may take one connection only; the order of openings is kept.

    open_on  versions that are open now, by endpoint
    """

    open_on: dict[str, list[str]] = {}  # noqa: RUF012 - a test begins with its own
    order: list[str] = []  # noqa: RUF012 - the same
    single: frozenset[str] = frozenset()

    def __init__(self, version: str, **steps: Any) -> None:
        super().__init__(**steps)
        self.version = version
        self._endpoint = ""

    async def open(self, context: DriverContext) -> None:
        there = self.open_on.setdefault(context.endpoint, [])
        if context.endpoint in self.single and any(other != self.version for other in there):
            raise NotConnected(f"{context.endpoint} takes one connection")
        await super().open(context)
        self._endpoint = context.endpoint
        there.append(self.version)
        self.order.append(f"{context.name} {self.version}")

    async def close(self) -> None:
        await super().close()
        if self._endpoint:
            self.open_on[self._endpoint].remove(self.version)
            self._endpoint = ""


class Plant:
    """Devices by name on endpoints, with as many tags as said."""

    def __init__(self, devices: Sequence[tuple[str, str, int]], single: frozenset[str] = frozenset()) -> None:
        Line.open_on, Line.order, Line.single = {}, [], single
        self.clock, self.sink, self.log, self.metrics = LoopClock(), CollectingSink(), CollectingLog(), Metrics()
        self.runtime = Runtime(FakeLines(), self.sink, self.clock, random.Random(7), self.log, self.metrics)
        self.devices = devices
        self.slots = [self._slot(*device) for device in devices]

    def _slot(self, name: str, endpoint: str, tags: int) -> Slot:
        driver, bound = Line("old"), scripted_tags(1, tags)
        plans = [ScanPlan("default", PERIOD_S, driver.plan(bound), bound)]
        context = self.runtime.context(name, endpoint)
        return Slot(
            name, driver, plans, context, self.sink, self.clock, random.Random(7), self.log, self.metrics,
            factory=lambda: Line("old"),
        )  # fmt: skip

    async def start(self) -> None:
        await self.runtime.start(self.slots)
        await self.all_active()
        Line.order.clear()
        self.sink.clear()

    async def all_active(self, first: int = 0) -> None:
        for _ in range(10_000):
            if all(slot.health.state is State.ACTIVE for slot in self.slots[first:]):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("not active")

    def news(self, make: Callable[[str], Line]) -> list[Successor]:
        """A new driver for each device."""
        found = []
        for slot, (name, _, tags) in zip(self.slots, self.devices, strict=True):
            driver, bound = make(name), scripted_tags(1, tags)
            scans = scans_of([ScanPlan("default", PERIOD_S, driver.plan(bound), bound)])
            service = Service(lambda name=name: make(name), scans, slot.service.context)  # type: ignore[misc]
            found.append(Successor(slot, driver, service))
        return found

    def versions(self) -> list[str]:
        return [getattr(slot.driver, "version", "") for slot in self.slots]


FIELD = (("big", "plc1", 50), ("small", "plc2", 2), ("middle", "plc1", 10), ("twin", "plc2", 5))


def exchange(plant: Plant, serial: frozenset[str] = frozenset()) -> Exchange:
    return Exchange(plant.clock, is_single=lambda endpoint: endpoint in serial)


def test_run_canary_is_the_smallest_and_its_neighbours_follow() -> None:
    async def scenario() -> None:
        plant = Plant(FIELD)
        await plant.start()
        await exchange(plant).run(plant.news(lambda _: Line("new")))
        assert Line.order == ["small new", "twin new", "middle new", "big new"]
        assert plant.versions() == ["new"] * 4
        assert {quality for _, _, quality in plant.sink.rows} == {0}
        assert all(slot.health.scans_skipped == slot.health.scans_failed == 0 for slot in plant.slots)
        await plant.runtime.stop()

    run_virtual(scenario())


@pytest.mark.parametrize("is_known", [True, False])
def test_run_endpoint_that_takes_one_connection_its_devices_change_together(*, is_known: bool) -> None:
    """Known as a serial port is, or found out because a second connection is refused."""

    async def scenario() -> None:
        single = frozenset(("plc2",))
        plant = Plant(FIELD, single)
        await plant.start()
        await exchange(plant, single if is_known else frozenset()).run(plant.news(lambda _: Line("new")))
        assert plant.versions() == ["new"] * 4
        assert Line.open_on == {"plc1": ["new"] * 2, "plc2": ["new"] * 2}
        assert all(slot.health.reconnects == 0 and slot.health.scans_failed == 0 for slot in plant.slots)
        await plant.runtime.stop()

    run_virtual(scenario())


@pytest.mark.parametrize("single", [frozenset(), frozenset(("plc1",)), frozenset(("plc1", "plc2"))])
@pytest.mark.parametrize("failing", ["small", "twin", "middle", "big"])
def test_run_one_device_fails_every_device_is_served_by_the_old_version(failing: str, single: frozenset[str]) -> None:
    async def scenario() -> None:
        plant = Plant(FIELD, single)
        await plant.start()

        def make(name: str) -> Line:
            return Line("new", on_read=[Misconfigured("not this firmware")] * 9 if name == failing else ())

        with pytest.raises(Misconfigured, match="not this firmware") as caught:
            await exchange(plant, single).run(plant.news(make))
        assert caught.value.stable_code == "E4653"
        await asyncio.sleep(1.0)
        await plant.all_active()
        assert plant.versions() == ["old"] * 4
        assert Line.open_on == {"plc1": ["old"] * 2, "plc2": ["old"] * 2}
        await plant.runtime.stop()

    run_virtual(scenario())


@pytest.mark.parametrize("step", [NotConnected("lost"), KeyError("bug"), Misconfigured("what?")])
def test_run_canary_fails_while_it_is_watched_nobody_else_was_touched(step: Exception) -> None:
    async def scenario() -> None:
        plant = Plant(FIELD)
        await plant.start()
        with pytest.raises(GatewayError) as caught:
            await exchange(plant).run(plant.news(lambda _: Line("new", on_read=[None, None, step])))
        assert caught.value.stable_code == "E4653"
        await asyncio.sleep(0.5)
        await plant.all_active()
        assert plant.versions() == ["old"] * 4
        assert not [entry for entry in Line.order if entry.startswith(("big", "middle"))]
        await plant.runtime.stop()

    run_virtual(scenario())


def test_run_canary_that_is_scanned_seldom_is_not_waited_for_longer_than_its_time() -> None:
    async def scenario() -> None:
        plant = Plant((("slow", "plc1", 1),))
        await plant.start()
        slot = plant.slots[0]
        scans = slot.scans
        for scan in scans:
            scan.period_s = 3_600.0
        slot.exchange(scans)
        await asyncio.sleep(0.5)
        news = plant.news(lambda _: Line("new"))
        for scan in news[0].service.scans:
            scan.period_s = 3_600.0
        began = plant.clock.monotonic()
        await exchange(plant).run(news)
        assert plant.clock.monotonic() - began <= CANARY_S + 1
        await plant.runtime.stop()

    run_virtual(scenario())


def test_run_device_that_is_away_proves_nothing_and_gets_the_new_version_all_the_same() -> None:
    async def scenario() -> None:
        plant = Plant(FIELD)
        away = plant.slots[0]
        away.succeed(replace_factory(away.service, lambda: Line("old", on_open=[NotConnected("no power")] * 3)))
        await plant.runtime.start(plant.slots)
        await plant.all_active(1)
        assert away.health.state is State.BACKOFF
        await exchange(plant).run(plant.news(lambda _: Line("new")))
        await plant.all_active()
        assert plant.versions() == ["new"] * 4
        await plant.runtime.stop()

    run_virtual(scenario())


def replace_factory(service: Service, factory: Callable[[], Line]) -> Service:
    return service._replace(factory=factory)


def test_take_back_after_a_whole_run_the_old_version_serves() -> None:
    async def scenario() -> None:
        plant = Plant(FIELD)
        await plant.start()
        one = exchange(plant)
        await one.run(plant.news(lambda _: Line("new")))
        await one.take_back()
        assert plant.versions() == ["old"] * 4
        assert {quality for _, _, quality in plant.sink.rows} == {0}
        await plant.runtime.stop()

    run_virtual(scenario())
