"""Another driver between two scans: nothing is missed where it can be opened beside; if it fails, the old one stays."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from framegate.contract.command import Outcome, Write
from framegate.contract.driver import BoundTag, Plan
from framegate.contract.errors import DeviceRefused, GatewayError, Misconfigured, NoReply, NotConnected
from framegate.contract.frame import Batch, TagId, uniform_quality
from framegate.contract.quality import Quality
from framegate.runtime.lifecycle import State
from framegate.runtime.scan import ScanPlan, scans_of
from framegate.runtime.slot import Service, Slot
from framegate.runtime.swap import HOLD_S, OPEN_S, Successor, swap_beside, swap_in_place
from framegate.testing.loop import run_virtual
from framegate.testing.scripted import ScriptedDriver, never, scripted_tags

TAGS = tuple(scripted_tags(1, 2))
PERIOD_S = 0.1


def successor(slot: Slot, driver: ScriptedDriver, tags: Sequence[BoundTag] = TAGS) -> Successor:
    scans = scans_of([ScanPlan("scan0", PERIOD_S, driver.plan(tags), tags)])
    return Successor(slot, driver, Service(ScriptedDriver, scans, slot.service.context))


async def active(plant: Any, *drivers: ScriptedDriver) -> list[Slot]:
    slots = [plant.slot(driver, name=f"plc{i}", factory=ScriptedDriver) for i, driver in enumerate(drivers)]
    await plant.runtime.start(slots)
    await plant.until(lambda: all(slot.health.state is State.ACTIVE for slot in slots))
    return slots


def test_swap_beside_misses_no_scan_and_closes_the_old_one_last(make_plant: Any) -> None:
    async def scenario() -> None:
        plant, old, new = make_plant(), ScriptedDriver(), ScriptedDriver(on_open=[0.35], on_read=[0.2])
        (slot,) = await active(plant, old)
        await asyncio.sleep(0.05)
        before = slot.health.scans_ok
        await swap_beside(successor(slot, new))
        await asyncio.sleep(0.5)
        assert slot.health.scans_ok - before >= 10  # while it opened, and afterwards: one each period
        assert slot.health.scans_skipped == slot.health.scans_failed == slot.health.reconnects == 0
        assert {quality for _, _, quality in plant.sink.rows} == {0}
        assert old.calls[-1] == "close"
        assert new.calls[:2] == ["open", "read 1"]
        assert "close" not in new.calls
        assert not old.is_open
        await plant.runtime.stop()
        assert new.calls[-1] == "close"

    run_virtual(scenario())


async def every_tag_bad(self: ScriptedDriver, plan: Plan) -> Sequence[Batch]:
    batches = await ScriptedDriver.read(self, plan)
    return [batch._replace(quality=uniform_quality(Quality.BAD_NO_DATA)) for batch in batches]


async def half_the_tags(self: ScriptedDriver, plan: Plan) -> Sequence[Batch]:
    return [
        Batch(one.tag[:1], one.value[:1], one.quality[:1], one.source_time[:1], one.gateway_time)
        for one in await ScriptedDriver.read(self, plan)
    ]


class AllBad(ScriptedDriver):
    read = every_tag_bad


class Half(ScriptedDriver):
    read = half_the_tags


class Stubborn(ScriptedDriver):
    """Its `open` ends neither by itself nor when it is cancelled; only the end of the test ends it."""

    async def open(self, context: Any) -> None:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await never()


class FirstTagBad(ScriptedDriver):
    """Its sensor is broken, under every version of the driver."""

    async def read(self, plan: Plan) -> Sequence[Batch]:
        batches = []
        for batch in await ScriptedDriver.read(self, plan):
            quality = np.where(batch.tag == 1, np.uint32(Quality.BAD_SENSOR_FAILURE), np.uint32(0))
            quality.flags.writeable = False
            batches.append(batch._replace(quality=quality))
        return batches


FAILURES = [
    (lambda: ScriptedDriver(on_open=[NotConnected("one connection only")]), NotConnected, "E2000"),
    (lambda: ScriptedDriver(on_open=[Misconfigured("no such option")]), Misconfigured, "E1000"),
    (lambda: ScriptedDriver(on_open=[ZeroDivisionError("a bug")]), Misconfigured, "E4652"),
    (lambda: ScriptedDriver(on_open=[never]), NoReply, "E4651"),
    (lambda: ScriptedDriver(on_read=[NoReply("silent")]), NoReply, "E2100"),
    (lambda: ScriptedDriver(on_read=[KeyError("a bug")]), Misconfigured, "E4652"),
    (lambda: ScriptedDriver(on_read=[asyncio.CancelledError()]), Misconfigured, "E4652"),
    (AllBad, Misconfigured, "E4650"),
    (Half, Misconfigured, "E4650"),
    (Stubborn, NoReply, "E4651"),
]


@pytest.mark.parametrize(("make", "kind", "code"), FAILURES)
def test_swap_beside_new_driver_fails_old_one_never_notices(
    make_plant: Any, make: Callable[[], ScriptedDriver], kind: type[GatewayError], code: str
) -> None:
    async def scenario() -> None:
        plant, old, new = make_plant(), ScriptedDriver(), make()
        (slot,) = await active(plant, old)
        with pytest.raises(kind) as caught:
            await swap_beside(successor(slot, new))
        assert caught.value.stable_code == code
        before = slot.health.scans_ok
        await asyncio.sleep(1.0)
        assert slot.health.scans_ok - before == 10
        assert slot.health.scans_failed == slot.health.reconnects == 0
        assert old.calls.count("open") == 1
        assert "close" not in old.calls
        assert not new.is_open
        await plant.runtime.stop()

    run_virtual(scenario())


def test_swap_goes_on_to_a_scan_that_can_be_read_where_the_smallest_one_is_bad(make_plant: Any) -> None:
    async def scenario() -> None:
        plant, old, new = make_plant(), FirstTagBad(), FirstTagBad()
        parts = [(PERIOD_S, TAGS[:1]), (PERIOD_S, TAGS)]
        slot = plant.slot(old, parts, factory=FirstTagBad)
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        plans = [ScanPlan(f"scan{len(tags)}", period_s, new.plan(tags), tags) for period_s, tags in parts]
        service = Service(FirstTagBad, scans_of(plans), slot.service.context)
        await swap_beside(Successor(slot, new, service))
        assert slot.driver is new
        await plant.runtime.stop()

    run_virtual(scenario())


def test_device_that_is_in_trouble_already_proves_nothing(make_plant: Any) -> None:
    async def scenario() -> None:
        refused = DeviceRefused("not now", quality=Quality.BAD_DEVICE_FAILURE)
        plant, old = make_plant(), ScriptedDriver(on_read=[None, refused, never])
        (slot,) = await active(plant, old)
        assert successor(slot, ScriptedDriver()).is_proof
        await plant.until(lambda: bool(slot.health.last_error))
        assert slot.health.state is State.ACTIVE
        assert not successor(slot, ScriptedDriver()).is_proof
        await plant.runtime.stop()

    run_virtual(scenario())


@pytest.mark.parametrize(("make", "kind", "code"), FAILURES)
def test_swap_in_place_new_driver_fails_old_ones_are_opened_again(
    make_plant: Any, make: Callable[[], ScriptedDriver], kind: type[GatewayError], code: str
) -> None:
    async def scenario() -> None:
        plant, olds = make_plant(), [ScriptedDriver(), ScriptedDriver()]
        slots = await active(plant, *olds)
        news = [make(), ScriptedDriver()]
        with pytest.raises(kind) as caught:
            await swap_in_place([successor(slot, new) for slot, new in zip(slots, news, strict=True)])
        assert caught.value.stable_code == code
        for slot, old in zip(slots, olds, strict=True):
            before = slot.health.scans_ok
            await asyncio.sleep(1.0)
            assert slot.health.scans_ok - before in {10, 11}  # one may have come due while it stood still
            assert slot.health.reconnects == 0
            assert old.calls.count("open") == 2
            assert old.is_open
        assert not any(new.is_open for new in news)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_swap_in_place_second_device_fails_all_go_back(make_plant: Any) -> None:
    async def scenario() -> None:
        plant, olds = make_plant(), [ScriptedDriver(), ScriptedDriver()]
        slots = await active(plant, *olds)
        news = [ScriptedDriver(), ScriptedDriver(on_open=[Misconfigured("not this one")])]
        with pytest.raises(Misconfigured):
            await swap_in_place([successor(slot, new) for slot, new in zip(slots, news, strict=True)])
        assert [slot.driver for slot in slots] == olds
        assert all(old.is_open for old in olds)
        assert not any(new.is_open for new in news)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_swap_in_place_old_ones_are_closed_before_new_ones_open(make_plant: Any) -> None:
    async def scenario() -> None:
        plant, olds = make_plant(), [ScriptedDriver(), ScriptedDriver()]
        slots = await active(plant, *olds)
        open_at_once: list[int] = []

        async def count() -> None:
            open_at_once.append(sum(old.is_open for old in olds))

        news = [ScriptedDriver(on_open=[count]), ScriptedDriver(on_open=[count])]
        await swap_in_place([successor(slot, new) for slot, new in zip(slots, news, strict=True)])
        assert open_at_once == [0, 0]
        assert [slot.driver for slot in slots] == news
        await asyncio.sleep(0.5)
        assert all(slot.health.state is State.ACTIVE and not slot.health.scans_failed for slot in slots)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_swap_in_place_old_one_cannot_be_opened_again_the_slot_brings_it_back(make_plant: Any) -> None:
    async def scenario() -> None:
        plant, old = make_plant(), ScriptedDriver(on_open=[None, NotConnected("gone")])
        (slot,) = await active(plant, old)
        with pytest.raises(NotConnected):
            await swap_in_place([successor(slot, ScriptedDriver(on_open=[NotConnected("busy")]))])
        await asyncio.sleep(0.01)
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        assert slot.driver is not old
        await plant.runtime.stop()

    run_virtual(scenario())


@pytest.mark.parametrize("swap", [swap_beside, lambda new: swap_in_place([new])])
def test_swap_write_that_waits_is_carried_out_by_the_new_driver(make_plant: Any, swap: Any) -> None:
    async def scenario() -> None:
        plant, old, new = make_plant(), ScriptedDriver(on_close=[0.05]), ScriptedDriver(on_open=[0.1])
        (slot,) = await active(plant, old)
        changing = asyncio.create_task(swap(successor(slot, new)))
        await plant.until(lambda: slot.driver is new or "close" in old.calls, step_s=0.001)
        results = await slot.write([Write(TagId(1), 2.0)], plant.clock.monotonic() + 5)
        assert [result.outcome for result in results] == [Outcome.CONFIRMED]
        await changing
        assert "write" in new.calls
        assert "write" not in old.calls
        await plant.runtime.stop()

    run_virtual(scenario())


def test_swap_waits_for_the_scan_under_way(make_plant: Any) -> None:
    async def scenario() -> None:
        plant, old = make_plant(), ScriptedDriver(on_read=[None, 3.0])
        (slot,) = await active(plant, old)
        await asyncio.sleep(0.15)
        rows = len(plant.sink.rows)
        began = plant.clock.monotonic()
        await swap_beside(successor(slot, ScriptedDriver()))
        assert 2.5 < plant.clock.monotonic() - began < HOLD_S
        assert len(plant.sink.rows) == rows + 2  # the long scan was published, not dropped
        await plant.runtime.stop()

    run_virtual(scenario())


@pytest.mark.parametrize("swap", [swap_beside, lambda new: swap_in_place([new])])
def test_swap_device_restarts_meanwhile_the_new_driver_serves_in_the_end(make_plant: Any, swap: Any) -> None:
    async def scenario() -> None:
        plant, old = make_plant(), ScriptedDriver()
        (slot,) = await active(plant, old)
        new = ScriptedDriver(on_open=[0.5])
        changing = asyncio.create_task(swap(successor(slot, new)))
        await asyncio.sleep(0.2)
        slot.restart()
        await changing
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        made = slot.driver
        assert made is not old
        assert slot.service.factory is ScriptedDriver
        assert isinstance(made, ScriptedDriver)
        assert made.is_open
        assert not old.is_open
        await plant.runtime.stop()

    run_virtual(scenario())


@pytest.mark.parametrize("swap", [swap_beside, lambda new: swap_in_place([new])])
def test_swap_gateway_stops_meanwhile_everything_is_closed(make_plant: Any, swap: Any) -> None:
    async def scenario() -> None:
        plant, old, new = make_plant(), ScriptedDriver(), ScriptedDriver(on_open=[1.0])
        (slot,) = await active(plant, old)
        changing = asyncio.create_task(swap(successor(slot, new)))
        await asyncio.sleep(0.3)
        changing.cancel()
        await plant.runtime.stop()
        await asyncio.wait((changing,))
        assert not old.is_open
        assert not new.is_open

    run_virtual(scenario())


def test_succeed_device_that_is_down_is_opened_by_the_new_driver_at_once(make_plant: Any) -> None:
    async def scenario() -> None:
        plant, old = make_plant(), ScriptedDriver(on_open=[Misconfigured("five crashes")])
        slot = plant.slot(old, factory=ScriptedDriver)
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.state is State.MISCONFIGURED)
        slot.succeed(successor(slot, ScriptedDriver()).service)
        await asyncio.sleep(0.05)
        assert slot.health.state is State.ACTIVE
        assert slot.driver is not old
        await plant.runtime.stop()

    run_virtual(scenario())


def test_open_deadline_leaves_a_child_time_to_start() -> None:
    assert OPEN_S >= 10
