"""The scheduler: grid, skips, pauses, alarms, one timer for all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from framegate.observe.metrics import Metrics
from framegate.runtime.schedule import GRID_S, Scheduler, SkipReason
from framegate.testing.loop import LoopClock, VirtualLoop, run_virtual


class Member:
    """Remembers when it was woken."""

    def __init__(self) -> None:
        self.woken: list[tuple[float, int]] = []
        self.skipped: list[tuple[int, int, str]] = []
        self.swept: list[float] = []

    def due(self, classes: int) -> None:
        self.woken.append((asyncio.get_running_loop().time(), classes))

    def skip(self, classes: int, periods: int, reason: SkipReason) -> None:
        self.skipped.append((classes, periods, reason))

    def sweep(self, now: float) -> None:
        self.swept.append(now)


def scheduler_with(**options: Any) -> Scheduler:
    return Scheduler(LoopClock(), Metrics(), **options)


def test_due_two_periods_are_aligned_to_grid() -> None:
    async def scenario() -> None:
        scheduler, member, other = scheduler_with(), Member(), Member()
        await asyncio.sleep(0.013)
        scheduler.join(member, [0.1, 1.0])
        await asyncio.sleep(0.05)
        scheduler.join(other, [0.1])
        await asyncio.sleep(3)
        scheduler.stop()
        for when, classes in member.woken:
            tick = when / GRID_S
            assert tick == pytest.approx(round(tick), abs=1e-6)
            assert round(tick) % (4 if classes == 1 else 40) == 0
        assert [classes for _, classes in member.woken].count(1) == 30
        assert [classes for _, classes in member.woken].count(2) == 3
        assert {when for when, _ in other.woken} <= {when for when, _ in member.woken}

    run_virtual(scenario())


def test_ticks_odd_period_is_rounded_up() -> None:
    async def scenario() -> None:
        scheduler = scheduler_with()
        assert [scheduler.ticks(period) for period in (0.001, 0.025, 0.026, 0.1, 1.0, 3600)] == [1, 1, 2, 4, 40, 144000]

    run_virtual(scenario())


def test_late_loop_skips_missed_periods_and_counts() -> None:
    async def scenario() -> None:
        scheduler, member = scheduler_with(), Member()
        scheduler.join(member, [0.1])
        await asyncio.sleep(0.25)
        woken = len(member.woken)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.leap(1.0)  # the loop was held up for a second
        await asyncio.sleep(0.01)
        assert len(member.woken) == woken + 1
        assert sum(periods for _, periods, reason in member.skipped if reason == "late") == 9
        await asyncio.sleep(0.1)
        assert len(member.woken) == woken + 2
        scheduler.stop()

    run_virtual(scenario())


def test_pause_whole_periods_are_skipped_then_resumed() -> None:
    async def scenario() -> None:
        is_paused = False
        scheduler, member = scheduler_with(is_paused=lambda: is_paused), Member()
        scheduler.join(member, [0.1])
        await asyncio.sleep(0.51)
        before = len(member.woken)
        is_paused = True
        await asyncio.sleep(1.0)
        assert len(member.woken) == before
        assert member.skipped == [(1, 1, "paused")] * 10
        is_paused = False
        await asyncio.sleep(0.5)
        assert len(member.woken) == before + 5
        scheduler.stop()

    run_virtual(scenario())


def test_alarm_sooner_than_the_timer_fires_at_its_tick() -> None:
    async def scenario() -> None:
        scheduler = scheduler_with()
        loop = asyncio.get_running_loop()
        fired: list[str] = []
        start = loop.time()
        scheduler.call_at(start + 50, lambda: fired.append("late"))
        scheduler.call_at(start + 0.03, lambda: fired.append("soon"))
        scheduler.call_at(start + 0.04, lambda: fired.append("never")).cancel()
        await asyncio.sleep(0.051)
        assert fired == ["soon"]
        await asyncio.sleep(50)
        assert fired == ["soon", "late"]

    run_virtual(scenario())


def test_member_that_raises_does_not_stop_the_timer() -> None:
    class Rude(Member):
        def sweep(self, now: float) -> None:
            super().sweep(now)
            raise ZeroDivisionError

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        scheduler, member, rude = scheduler_with(), Member(), Rude()
        scheduler.join(member, [0.1])
        scheduler.join(rude, [0.1])
        await asyncio.sleep(2.01)
        scheduler.stop()
        assert len(rude.swept) == 4
        assert len(member.woken) == 20

    run_virtual(scenario())


def test_leave_last_member_sets_no_timer_again() -> None:
    async def scenario() -> None:
        scheduler, member = scheduler_with(), Member()
        scheduler.join(member, [0.1, 0.2])
        await asyncio.sleep(0.15)
        scheduler.leave(member)
        scheduler.leave(member)
        woken = len(member.woken)
        await asyncio.sleep(10)
        assert len(member.woken) == woken
        scheduler.join(member, [0.1])
        await asyncio.sleep(0.11)
        assert len(member.woken) > woken
        scheduler.stop()

    run_virtual(scenario())
