"""Many slots together: joining, leaving, isolation, and two hundred devices on a real loop."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from framegate.contract.errors import NoReply, NotConnected
from framegate.endpoint.backoff import BACKOFF_MIN_S, Backoff
from framegate.endpoint.clock import SystemClock
from framegate.observe.metrics import Metrics
from framegate.runtime.lifecycle import State
from framegate.runtime.runtime import Runtime
from framegate.runtime.slot import ScanPlan, Slot
from framegate.testing.fakes import CollectingLog, CollectingSink, FakeLines
from framegate.testing.loop import run_virtual
from framegate.testing.scripted import ScriptedDriver, Step, never, scripted_tags


def test_backoff_doubles_with_full_jitter_to_its_bound() -> None:
    dice = random.Random(7)
    backoff = Backoff(random.Random(7))
    bounds = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [backoff.next_wait_s() for _ in bounds] == [max(BACKOFF_MIN_S, bound * dice.random()) for bound in bounds]
    backoff.reset()
    assert backoff.next_wait_s() <= 1
    for _ in range(5000):
        assert BACKOFF_MIN_S <= backoff.next_wait_s() <= 60


def test_add_and_remove_while_running_leaves_others_alone(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        first, second = plant.slot(ScriptedDriver(), name="a"), plant.slot(ScriptedDriver(), name="b")
        await plant.runtime.start([first])
        await asyncio.sleep(1.01)
        plant.runtime.add(second)
        await asyncio.sleep(1.01)
        assert [health.name for health in plant.runtime.health()] == ["a", "b"]
        await plant.runtime.remove("a")
        assert first.health.state is State.SHUTDOWN
        assert plant.runtime.slot("a") is None
        labels = {key for _, children in plant.metrics.collect() for key, _ in children}
        assert (("device", "a"),) not in labels
        assert (("device", "b"),) in labels
        again = plant.slot(ScriptedDriver(), name="a")
        plant.runtime.add(again)
        await asyncio.sleep(1.01)
        assert again.health.scans_ok == 11  # one at once, then each period
        assert second.health.scans_skipped == 0
        assert second.health.scans_ok in {19, 20, 21}
        await plant.runtime.stop()
        await plant.runtime.stop()

    run_virtual(scenario())


def test_pause_of_the_bus_skips_scans_of_all(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slots = [plant.slot(ScriptedDriver(), name=name) for name in "ab"]
        await plant.runtime.start(slots)
        await asyncio.sleep(0.51)
        plant.sink.is_paused = True
        done = [slot.health.scans_ok for slot in slots]
        await asyncio.sleep(1.0)
        assert [slot.health.scans_ok for slot in slots] == done
        assert plant.metrics.counter("edge_scans_skipped_total", device="a", reason="paused").value == 10
        plant.sink.is_paused = False
        await asyncio.sleep(0.2)
        assert [slot.health.scans_ok for slot in slots] == [count + 2 for count in done]
        await plant.runtime.stop()

    run_virtual(scenario())


def test_restart_closes_and_opens_at_once_with_fresh_driver(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        old, fresh = ScriptedDriver(on_read=[None, never]), ScriptedDriver()
        slot = plant.slot(old, factory=lambda: fresh)
        await plant.runtime.start([slot])
        await plant.until(lambda: old.calls.count("read 1") == 2)
        slot.restart()
        await plant.until(lambda: slot.health.scans_ok == 2, limit_s=1)
        assert fresh.calls == ["open", "read 1"]
        assert old.calls[-1] == "close"
        assert slot.health.last_error == ""
        assert slot.health.state is State.ACTIVE
        await plant.runtime.stop()

    run_virtual(scenario())


def test_restart_ends_a_long_back_off(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver(on_open=[NotConnected("refused")] * 12))
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.failing_in_a_row == 12)
        await plant.until(lambda: slot.health.state is State.BACKOFF)
        slot.restart()
        await plant.until(lambda: slot.health.state is State.ACTIVE, limit_s=0.3)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_cancellation_of_owner_closes_every_driver(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        drivers = [ScriptedDriver(on_read=[never]), ScriptedDriver()]

        async def owner() -> None:
            await plant.runtime.start([plant.slot(driver, name=str(id(driver))) for driver in drivers])
            try:
                await never()
            finally:
                await plant.runtime.stop()

        task = asyncio.create_task(owner())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert [driver.calls[-1] for driver in drivers] == ["close", "close"]
        assert len(asyncio.all_tasks()) == 1

    run_virtual(scenario())


async def test_two_hundred_devices_fifty_hang_others_keep_time() -> None:
    good, bad, period_s, seconds = 150, 50, 0.1, 3.0
    sink, log, clock, metrics, dice = CollectingSink(), CollectingLog(), SystemClock(), Metrics(), random.Random(1)
    runtime = Runtime(FakeLines(), sink, clock, dice, log, metrics)

    def slot(number: int) -> Slot:
        hangs: list[Step] = [never, *[NoReply("silent")] * 100, never]
        driver = ScriptedDriver(on_read=hangs if number >= good else ())
        tags = scripted_tags(number * 10, 5)
        plans = [ScanPlan("default", period_s, driver.plan(tags), tags)]
        context = runtime.context(f"d{number}", "")
        return Slot(f"d{number}", driver, plans, context, sink, clock, dice, log, metrics)

    slots = [slot(number) for number in range(good + bad)]
    start = clock.monotonic()
    await runtime.start(slots)
    await clock.sleep(seconds)
    due = int((clock.monotonic() - start) / period_s)
    healthy = [each.health for each in slots[:good]]
    await runtime.stop()
    assert sum(health.scans_ok for health in healthy) >= 0.99 * good * (due - 1)
    assert sum(health.scans_failed for health in healthy) == 0
    assert clock.monotonic() - start < seconds + 1.5
