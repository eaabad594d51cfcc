"""The watch over the wall clock: a step is told, a slew is not, and a clock gone wild does not fill the log."""

from __future__ import annotations

import asyncio

import pytest

from framegate.observe.clock_watch import TELL_INTERVAL_S, ClockWatch
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import CollectingLog, FakeClock


async def looked(clock: FakeClock, log: CollectingLog, metrics: Metrics, *steps_s: float) -> int:
    """One look a second after each of these steps; steps that were counted."""
    watch = asyncio.create_task(ClockWatch(clock, log, metrics).run())
    await asyncio.sleep(0)
    for step_s in steps_s:
        clock.step_wall(step_s)
        await clock.advance(1.0)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    return metrics.counter("edge_clock_steps_total").value


@pytest.mark.parametrize("step_s", [1.1, -1.1, 86_400.0, -3_600.0, -315_360_000.0])
async def test_step_of_more_than_a_second_is_told_once(step_s: float) -> None:
    log = CollectingLog()
    assert await looked(FakeClock(), log, Metrics(), 0.0, step_s, 0.0, 0.0) == 1
    assert log.events("clock_stepped") == [{"step_s": step_s, "steps": 1}]


async def test_each_of_two_steps_is_told_at_once() -> None:
    log = CollectingLog()
    assert await looked(FakeClock(), log, Metrics(), 86_400.0, 0.0, -3_600.0) == 2
    assert [entry["step_s"] for entry in log.events("clock_stepped")] == [86_400.0, -3_600.0]


async def test_slewing_clock_is_no_step() -> None:
    log = CollectingLog()
    assert await looked(FakeClock(), log, Metrics(), *[0.9] * 100, *[-0.9] * 100) == 0
    assert log.events("clock_stepped") == []


async def test_clock_with_a_wild_rate_is_told_once_a_minute_and_counted() -> None:
    log = CollectingLog()
    looks = 3 * int(TELL_INTERVAL_S)
    assert await looked(FakeClock(), log, Metrics(), *[99.0] * looks) == looks
    told = log.events("clock_stepped")
    assert len(told) == 3
    assert [entry["steps"] for entry in told] == [1, 60, 60]
