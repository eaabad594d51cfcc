"""Other scans for a running slot: the driver stays open, and nothing that old tables asked for is published."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from framegate.contract.errors import Misconfigured, NoReply, NotConnected
from framegate.contract.frame import ValueType
from framegate.contract.quality import Quality
from framegate.runtime.lifecycle import State
from framegate.runtime.scan import Scan, ScanPlan, scans_of
from framegate.testing.loop import run_virtual
from framegate.testing.scripted import ScriptedDriver, scripted_tags


def scans(first: int, count: int, period_s: float = 0.1, type_: ValueType = ValueType.FLOAT64) -> list[Scan]:
    tags = scripted_tags(first, count, type_)
    return scans_of([ScanPlan("default", period_s, ScriptedDriver().plan(tags), tags)])


def tags_seen(plant: Any) -> set[int]:
    return {tag for tag, _, _ in plant.sink.rows}


def test_exchange_running_slot_reads_the_new_tags_at_once_and_stays_open(make_plant: Any) -> None:
    async def scenario() -> None:
        plant, driver = make_plant(), ScriptedDriver()
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await asyncio.sleep(0.55)
        plant.sink.clear()
        old = slot.exchange(scans(11, 3))
        await asyncio.sleep(0.001)
        assert tags_seen(plant) == {11, 12, 13}
        await asyncio.sleep(0.5)
        assert tags_seen(plant) == {11, 12, 13}
        assert slot.health.tags == 3
        assert driver.calls.count("open") == 1
        assert "close" not in driver.calls
        assert slot.health.scans_skipped == 0
        plant.sink.clear()
        slot.exchange(old)
        await asyncio.sleep(0.2)
        assert tags_seen(plant) == {1, 2}
        await plant.runtime.stop()

    run_virtual(scenario())


def test_exchange_other_period_holds_from_then_on(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver())
        await plant.runtime.start([slot])
        await asyncio.sleep(0.55)
        slot.exchange(scans(1, 2, period_s=1.0))
        before = slot.health.scans_ok
        await asyncio.sleep(5.05)
        assert slot.health.scans_ok - before == 6  # one at once, then each second
        await plant.runtime.stop()

    run_virtual(scenario())


@pytest.mark.parametrize("error", [None, NoReply("silent"), NotConnected("gone")])
def test_exchange_scan_under_way_is_made_again_and_not_published(make_plant: Any, error: Exception | None) -> None:
    async def scenario() -> None:
        plant = make_plant()
        answer = asyncio.Event()

        async def late() -> None:
            await answer.wait()
            if error is not None:
                raise error

        slot = plant.slot(ScriptedDriver(on_read=[None, late]))
        await plant.runtime.start([slot])
        await asyncio.sleep(0.15)
        plant.sink.clear()
        slot.exchange(scans(11, 2))
        answer.set()
        await asyncio.sleep(0.05)
        good = {tag for tag, _, quality in plant.sink.rows if not quality}
        assert not good & {1, 2}
        if not isinstance(error, NotConnected):  # the loss of a line is told to the tags that there are now
            assert good == {11, 12}
        assert tags_seen(plant) == {11, 12}
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_exchange_device_that_is_down_tells_new_tags_so(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver(on_open=[NotConnected("away")] * 3))
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.state is State.BACKOFF)
        plant.sink.clear()
        slot.exchange([*scans(1, 3, type_=ValueType.INT32)])
        assert [(tag, quality) for tag, _, quality in plant.sink.rows] == [(3, Quality.BAD_NOT_CONNECTED)]
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        await plant.runtime.stop()

    run_virtual(scenario())


@pytest.mark.parametrize("at_s", [0.0, 0.2, 0.9])
def test_exchange_silent_device_is_asked_on(make_plant: Any, at_s: float) -> None:
    """In quarantine, between two probes and while one is under way."""

    async def scenario() -> None:
        plant = make_plant()

        async def slow_silence() -> None:
            await asyncio.sleep(0.5)
            raise NoReply("silent")

        slot = plant.slot(ScriptedDriver(on_read=[None, *[NoReply("silent")] * 3, *[slow_silence] * 3]))
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.state is State.QUARANTINE)
        await asyncio.sleep(at_s)
        slot.exchange(scans(11, 2))
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        assert {11, 12} <= tags_seen(plant)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_exchange_misconfigured_device_is_opened_again(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver(on_open=[Misconfigured("no such bank")]))
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.state is State.MISCONFIGURED)
        slot.exchange(scans(11, 2))
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_exchange_to_nothing_and_back_goes_on(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver())
        await plant.runtime.start([slot])
        await asyncio.sleep(0.15)
        slot.exchange([])
        plant.sink.clear()
        await asyncio.sleep(1.0)
        assert plant.sink.rows == []
        slot.exchange(scans(11, 2))
        await asyncio.sleep(0.25)
        assert tags_seen(plant) == {11, 12}
        await plant.runtime.stop()

    run_virtual(scenario())
