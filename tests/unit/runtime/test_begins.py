"""Scans that go on without the shift's task: what lands leaves at once, and everything else ends as with `read`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from framegate.contract.command import Outcome, Write
from framegate.contract.driver import Begun, Plan
from framegate.contract.errors import NoReply, NotConnected
from framegate.contract.frame import Batch, TagId
from framegate.contract.quality import Quality, is_bad
from framegate.runtime.lifecycle import State
from framegate.runtime.scan import READ_DEADLINE_S, ScanPlan, scans_of
from framegate.runtime.shift import WRITES_IN_A_ROW_MAX
from framegate.testing.loop import run_virtual
from framegate.testing.scripted import ScriptedDriver, ScriptedPlan, good_batches, scripted_tags

LANDS_S = 0.03
ONE = [Write(TagId(1), 1.0)]


class Beginner(ScriptedDriver):
    """A driver whose scans land by themselves after LANDS_S.

    ends       what a scan brings instead of good rows, by its number from 0: an error that `end` raises, or that
               `batches` or `begin` raise when it is no error of a device
    takes_s    how long a scan takes, by its number
    """

    def __init__(self, ends: dict[int, BaseException] | None = None, takes_s: dict[int, float] | None = None) -> None:
        super().__init__(on_write=[0.001] * 64)
        self.ends, self.takes_s = ends or {}, takes_s or {}
        self.begun: list[Flight] = []

    def begin(self, plan: Plan, landed: Callable[[], None]) -> Begun | None:
        assert isinstance(plan, ScriptedPlan)
        number = len(self.begun)
        error = self.ends.get(number)
        if isinstance(error, AttributeError):
            raise error
        if not self.is_open:
            return None
        self.calls.append(f"begin {plan.tag[0]}")
        flight = Flight(plan, error)
        self.begun.append(flight)
        takes_s = self.takes_s.get(number, LANDS_S)
        flight.alarm = asyncio.get_running_loop().call_later(takes_s, landed)
        return flight


class Flight:
    """One scan of a Beginner."""

    alarm: asyncio.TimerHandle

    def __init__(self, plan: ScriptedPlan, error: BaseException | None) -> None:
        self.plan, self.error = plan, error

    def batches(self) -> Sequence[Batch] | None:
        if isinstance(self.error, ValueError):
            raise self.error
        return None if self.error else good_batches(self.plan, 1)

    async def end(self) -> Sequence[Batch]:
        assert self.error is not None
        raise self.error

    def withdraw(self) -> None:
        self.alarm.cancel()


def begins(driver: ScriptedDriver) -> int:
    return sum(call.startswith("begin") for call in driver.calls)


def test_begun_scans_are_published_without_the_task(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Beginner()
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.scans_ok == 11)
        assert driver.calls[:2] == ["open", "read 1"]  # the first scan is read
        assert begins(driver) in {10, 11}
        assert sum(batch.rows for batch in plant.sink.published) == 22
        assert slot.health.state is State.ACTIVE
        await plant.runtime.stop()

    run_virtual(scenario())


def test_two_scan_classes_that_are_due_together_follow_each_other(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Beginner()
        slot = plant.slot(driver, [(0.1, scripted_tags(1, 2)), (0.1, scripted_tags(3, 1))])
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.scans_ok == 10)
        assert driver.calls[3:7] == ["begin 1", "begin 3", "begin 1", "begin 3"]
        assert slot.health.scans_skipped == 0
        await plant.runtime.stop()

    run_virtual(scenario())


def test_scan_that_lands_badly_is_bad_rows_and_the_next_one_is_begun(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Beginner(ends={1: NoReply("silent")})
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.scans_ok == 5)
        assert slot.health.scans_failed == 1
        bad = [batch for batch in plant.sink.published if is_bad(int(batch.quality[0]))]
        assert [(batch.rows, int(batch.quality[0])) for batch in bad] == [(2, Quality.BAD_TIMEOUT)]
        assert driver.calls.count("open") == 1
        await plant.runtime.stop()

    run_virtual(scenario())


@pytest.mark.parametrize("error", [NotConnected("cut"), ValueError("a bug in batches"), AttributeError("in begin")])
def test_scan_that_ends_the_shift_opens_the_device_again(make_plant: Any, error: BaseException) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Beginner(ends={2: error})
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: driver.calls.count("open") == 2 or "close" in driver.calls)
        driver.ends.clear()
        await plant.until(lambda: slot.health.scans_ok > 5)
        assert driver.calls.count("open") == 2
        assert slot.health.state is State.ACTIVE
        await plant.runtime.stop()

    run_virtual(scenario())


def test_scan_that_never_lands_is_given_up_at_its_deadline(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Beginner(takes_s={1: 1e6})
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: len(driver.begun) == 2)
        began = plant.clock.monotonic()
        await plant.until(lambda: "close" in driver.calls)
        assert READ_DEADLINE_S <= plant.clock.monotonic() - began < READ_DEADLINE_S + 2
        assert driver.begun[1].alarm.cancelled(), "it was not withdrawn"
        await plant.until(lambda: slot.health.scans_ok > 3)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_writes_go_into_a_begun_scan_but_not_for_ever_and_what_is_read_back_waits(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Beginner(takes_s={0: 2.0})
        slot = plant.slot(driver, [(5.0, scripted_tags(1, 2))])
        await plant.runtime.start([slot])
        await plant.until(lambda: len(driver.begun) == 1)
        deadline = plant.clock.monotonic() + 9
        writes = [asyncio.create_task(slot.write(ONE, deadline)) for _ in range(WRITES_IN_A_ROW_MAX + 2)]
        back = asyncio.create_task(slot.read_back(scripted_tags(2, 1), deadline))
        await asyncio.sleep(1.0)
        assert driver.calls.count("write") == WRITES_IN_A_ROW_MAX
        results = await asyncio.gather(*writes)
        assert {result.outcome for each in results for result in each} == {Outcome.CONFIRMED}
        await back
        assert driver.calls[-1] == "read 2"
        assert slot.health.scans_ok == 2
        await plant.runtime.stop()

    run_virtual(scenario())


def test_scan_of_exchanged_plans_is_not_published(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Beginner(takes_s={1: 0.5})
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: len(driver.begun) == 2)
        before = len(plant.sink.published)
        tags = scripted_tags(7, 1)
        slot.exchange(scans_of([ScanPlan("new", 0.1, driver.plan(tags), tags)]))
        await plant.until(lambda: slot.health.scans_ok > 4)
        assert {int(tag) for batch in plant.sink.published[before:] for tag in batch.tag} == {7}
        await plant.runtime.stop()

    run_virtual(scenario())


def test_stop_withdraws_what_was_begun(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Beginner(takes_s={0: 5.0})
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: len(driver.begun) == 1)
        await plant.runtime.stop()
        assert driver.begun[0].alarm.cancelled()
        assert driver.calls[-1] == "close"

    run_virtual(scenario())
