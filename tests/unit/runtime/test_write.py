"""Writes of a slot: they overtake reads, are bounded, and are answered honestly by their deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag
from framegate.contract.errors import NoReply, NotConnected
from framegate.contract.frame import TagId
from framegate.runtime.lane import ORDERS_WAITING_MAX
from framegate.runtime.lifecycle import State
from framegate.testing.loop import run_virtual
from framegate.testing.scripted import ScriptedDriver, ScriptedPlan, never, scripted_tags

ONE = [Write(TagId(1), 1.0)]


def outcomes(results: Any) -> list[Outcome]:
    return [result.outcome for result in results]


def test_write_waiting_reads_are_overtaken(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver(on_read=[0.5])
        slot = plant.slot(driver, [(0.1, scripted_tags(1, 1)), (0.1, scripted_tags(2, 1))])
        await plant.runtime.start([slot])
        await plant.until(lambda: driver.calls == ["open", "read 1"])
        results = await slot.write(ONE, plant.clock.monotonic() + 5)
        assert results == [WriteResult(TagId(1), Outcome.CONFIRMED)]
        await plant.until(lambda: slot.health.scans_ok >= 2)
        assert driver.calls[:4] == ["open", "read 1", "write", "read 2"]
        await plant.runtime.stop()

    run_virtual(scenario())


def test_write_many_in_a_row_do_not_starve_reads(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver(on_write=[0.05] * 60)
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        deadline = plant.clock.monotonic() + 60
        await asyncio.gather(*(slot.write(ONE, deadline) for _ in range(60)))
        between = driver.calls[driver.calls.index("write") :]
        assert between.count("write") == 60
        assert between.count("read 1") >= 3
        await plant.runtime.stop()

    run_virtual(scenario())


def test_write_device_away_is_not_sent(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver(on_open=[NotConnected("refused")] * 100))
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.state is State.BACKOFF)
        (result,) = await slot.write(ONE, plant.clock.monotonic() + 5)
        assert result.outcome is Outcome.NOT_SENT
        assert result.reason.startswith("E4105 device plc1 is not connected (backoff)")
        await plant.runtime.stop()

    run_virtual(scenario())


def test_write_deadline_passes_in_lane_is_not_sent(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver(on_read=[3.0])
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: "read 1" in driver.calls)
        before = plant.clock.monotonic()
        assert outcomes(await slot.write(ONE, before + 1)) == [Outcome.NOT_SENT]
        assert 0.9 < plant.clock.monotonic() - before < 1.1
        assert outcomes(await slot.write(ONE, before)) == [Outcome.NOT_SENT]
        await plant.until(lambda: slot.health.scans_ok > 3)
        assert "write" not in driver.calls, "no byte leaves after the deadline"
        await plant.runtime.stop()

    run_virtual(scenario())


def test_write_no_answer_by_deadline_is_unknown(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver(on_write=[2.0]))
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        assert outcomes(await slot.write(ONE, plant.clock.monotonic() + 1)) == [Outcome.UNKNOWN]
        await plant.runtime.stop()

    run_virtual(scenario())


def test_write_hanging_or_lost_is_unknown_and_those_behind_are_not_sent(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver(on_write=[never, NotConnected("reset")]))
        await plant.runtime.start([slot])
        for _ in range(2):
            await plant.until(lambda: slot.health.state is State.ACTIVE)
            deadline = plant.clock.monotonic() + 100
            first, second = await asyncio.gather(slot.write(ONE, deadline), slot.write(ONE, deadline))
            assert outcomes(first) == [Outcome.UNKNOWN]
            assert outcomes(second) == [Outcome.NOT_SENT]
            assert outcomes(await slot.write(ONE, deadline)) == [Outcome.NOT_SENT], "at once, while it goes down"
            await plant.until(lambda: slot.health.state is State.BACKOFF)
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        assert outcomes(await slot.write(ONE, plant.clock.monotonic() + 1)) == [Outcome.CONFIRMED]
        await plant.runtime.stop()

    run_virtual(scenario())


def test_write_lane_full_is_not_sent_at_once(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver(on_read=[3.0])
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: "read 1" in driver.calls)
        deadline = plant.clock.monotonic() + 60
        waiting = [asyncio.create_task(slot.write(ONE, deadline)) for _ in range(ORDERS_WAITING_MAX)]
        await asyncio.sleep(0)
        (result,) = await slot.write(ONE, deadline)
        assert result.outcome is Outcome.NOT_SENT
        assert result.reason.startswith("E4104")
        answers = await asyncio.gather(*waiting)
        assert {outcome for answer in answers for outcome in outcomes(answer)} == {Outcome.CONFIRMED}
        await plant.runtime.stop()

    run_virtual(scenario())


def test_write_caller_cancelled_leaves_the_lane(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver(on_read=[1.0])
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: "read 1" in driver.calls)
        task = asyncio.create_task(slot.write(ONE, plant.clock.monotonic() + 60))
        await asyncio.sleep(0)
        task.cancel()
        await plant.until(lambda: slot.health.scans_ok > 2)
        assert task.cancelled()
        assert "write" not in driver.calls
        await plant.runtime.stop()

    run_virtual(scenario())


def test_write_wrong_number_of_results_is_a_bug(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver()

        async def write(commands: object) -> list[WriteResult]:
            return []

        driver.write = write  # type: ignore[method-assign]
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        assert outcomes(await slot.write(ONE, plant.clock.monotonic() + 5)) == [Outcome.UNKNOWN]
        await plant.until(lambda: len(plant.log.events("slot_bug")) == 1)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_write_tags_are_introduced_to_a_driver_that_has_not_scanned_them(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver(on_read=[5.0])
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.state.is_open)
        planned: list[str] = []
        plan = driver.plan

        def noted(tags: Sequence[BoundTag]) -> ScriptedPlan:
            planned.extend(tag.name for tag in tags)
            return plan(tags)

        driver.plan = noted  # type: ignore[method-assign]
        tags = scripted_tags(7, 1)
        for _ in range(2):
            writes = [Write(tags[0].id, 1.0)]
            assert outcomes(await slot.write(writes, plant.clock.monotonic() + 9, tags)) == [Outcome.CONFIRMED]
        assert planned == [tags[0].name]
        await plant.runtime.stop()

    run_virtual(scenario())


def test_read_back_brings_rows_out_of_turn_and_publishes_none(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver())
        tags = scripted_tags(3, 1)
        with pytest.raises(NotConnected, match="E4105"):
            await slot.read_back(tags, plant.clock.monotonic() + 1)
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        published = len(plant.sink.published)
        (batch,) = await slot.read_back(tags, plant.clock.monotonic() + 1)
        assert batch.tag.tolist() == [tags[0].id]
        assert len(plant.sink.published) == published
        await plant.runtime.stop()

    run_virtual(scenario())


def test_read_back_of_a_silent_device_fails_by_its_deadline(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver(on_read=[0.0, *[3.0] * 9]))
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.state is State.ACTIVE)
        before = plant.clock.monotonic()
        with pytest.raises(NoReply):
            await slot.read_back(scripted_tags(3, 1), before + 1)
        assert plant.clock.monotonic() - before < 1.1
        await plant.runtime.stop()

    run_virtual(scenario())
