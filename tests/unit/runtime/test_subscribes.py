"""A driver whose device tells of changes: what has come is published, silence is no fault, and news need not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from framegate.contract.driver import DriverContext, Plan
from framegate.contract.errors import NotConnected
from framegate.contract.frame import Batch
from framegate.contract.quality import Quality
from framegate.runtime.lifecycle import State
from framegate.runtime.scan import ScanPlan, scans_of
from framegate.testing.loop import run_virtual
from framegate.testing.scripted import ScriptedDriver, good_batches, scripted_tags


class TellingDriver(ScriptedDriver):
    """All tags on the first read after open, then only those of `news`."""

    def __init__(self, **steps: Any) -> None:
        super().__init__(**steps)
        self.followed: list[Plan] = []
        self.news: list[Sequence[Batch]] = []
        self.context: DriverContext | None = None
        self._is_told: set[int] = set()

    def follow(self, scans: Sequence[tuple[Plan, float]]) -> None:
        self.calls.append(f"follow {[period_s for _, period_s in scans]}")
        self.followed = [plan for plan, _ in scans]
        self._is_told &= {id(plan) for plan in self.followed}

    async def open(self, context: DriverContext) -> None:
        self._is_told.clear()
        self.context = context
        await super().open(context)

    async def read(self, plan: Plan) -> Sequence[Batch]:
        batches = await super().read(plan)
        if not any(plan is each for each in self.followed):
            return batches
        if id(plan) not in self._is_told:
            self._is_told.add(id(plan))
            return batches
        return self.news.pop(0) if self.news else ()

    def tell(self, batches: Sequence[Batch]) -> None:
        assert self.context is not None
        self.news.append(batches)
        self.context.ready(self.followed[0])


def test_quiet_device_is_read_on_and_nothing_is_published(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = TellingDriver()
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await asyncio.sleep(1.05)
        assert driver.calls[:2] == ["follow [0.1]", "open"]
        assert [quality for _, quality in plant.sink.rows_of_tag(1)] == [0]
        assert slot.health.scans_ok == 11
        assert slot.health.rows_total == 2
        assert slot.health.state is State.ACTIVE
        assert not plant.log.events("slot_rows_missing")
        await plant.runtime.stop()

    run_virtual(scenario())


def test_news_is_published_at_once_and_no_period_counts_as_late(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = TellingDriver()
        slot = plant.slot(driver, [(10.0, scripted_tags(1, 2))])
        await plant.runtime.start([slot])
        await asyncio.sleep(1.0)
        for _ in range(3):
            driver.tell(good_batches(driver.plan(scripted_tags(2, 1)), plant.clock.now_ns()))
            await asyncio.sleep(0.001)
        assert len(plant.sink.rows_of_tag(1)) == 1
        assert len(plant.sink.rows_of_tag(2)) == 4
        await asyncio.sleep(30.0)
        assert slot.health.scans_skipped == 0
        await plant.runtime.stop()

    run_virtual(scenario())


def test_news_while_the_bus_is_full_waits(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = TellingDriver()
        slot = plant.slot(driver, [(0.1, scripted_tags(1, 1))])
        await plant.runtime.start([slot])
        await asyncio.sleep(0.05)
        plant.sink.is_paused = True
        driver.tell(good_batches(driver.plan(scripted_tags(1, 1)), plant.clock.now_ns()))
        await asyncio.sleep(0.5)
        assert len(plant.sink.rows_of_tag(1)) == 1
        plant.sink.is_paused = False
        await asyncio.sleep(0.2)
        assert len(plant.sink.rows_of_tag(1)) == 2
        await plant.runtime.stop()

    run_virtual(scenario())


def test_lost_device_tells_every_tag_and_comes_back_with_all(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = TellingDriver(on_read=[None, None, NotConnected("the subscription is silent")])
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.reconnects == 1)
        await asyncio.sleep(0.5)
        assert [quality for _, quality in plant.sink.rows_of_tag(1)] == [0, Quality.BAD_NOT_CONNECTED, 0]
        await plant.runtime.stop()

    run_virtual(scenario())


def test_news_before_open_or_of_a_foreign_plan_wakes_nobody(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = TellingDriver()
        slot = plant.slot(driver, [(10.0, scripted_tags(1, 1))])
        await plant.runtime.start([slot])
        await asyncio.sleep(0.1)
        assert driver.context is not None
        reads = driver.calls.count("read 1")
        driver.context.ready(driver.plan(scripted_tags(1, 1)))
        await asyncio.sleep(0.1)
        assert driver.calls.count("read 1") == reads
        ready, plan = driver.context.ready, driver.followed[0]
        await plant.runtime.stop()
        ready(plan)
        assert driver.calls.count("read 1") == reads

    run_virtual(scenario())


def test_exchanged_scans_are_followed_and_read_whole(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = TellingDriver()
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await asyncio.sleep(0.25)
        tags = scripted_tags(5, 3)
        slot.exchange(scans_of([ScanPlan("new", 0.1, driver.plan(tags), tags)]))
        await asyncio.sleep(0.25)
        assert driver.calls.count("follow [0.1]") == 2
        assert [len(plant.sink.rows_of_tag(tag)) for tag in (1, 5, 6, 7)] == [1, 1, 1, 1]
        await plant.runtime.stop()

    run_virtual(scenario())


def test_read_out_of_turn_is_whole_and_follows_nothing(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = TellingDriver()
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await asyncio.sleep(0.05)
        (batch,) = await slot.read_back(scripted_tags(1, 1), plant.clock.monotonic() + 1)
        assert batch.tag.tolist() == [1]
        assert len(driver.followed) == 1
        await plant.runtime.stop()

    run_virtual(scenario())
