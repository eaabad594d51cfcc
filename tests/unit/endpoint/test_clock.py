"""The real clock, and blocking work beside the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from framegate.contract.ports import Clock
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.thread import in_thread

if TYPE_CHECKING:
    from tests.unit.endpoint.conftest import Bench


async def test_clock_in_a_loop_has_its_time_base() -> None:
    clock: Clock = SystemClock()
    before = clock.monotonic()
    assert before == pytest.approx(asyncio.get_running_loop().time(), abs=1.0)
    await clock.sleep(0.01)
    assert clock.monotonic() - before >= 0.009
    assert abs(clock.now_ns() - time.time_ns()) < 1_000_000_000


def test_clock_outside_a_loop_is_the_same_clock() -> None:
    assert SystemClock().monotonic() == pytest.approx(time.monotonic(), abs=1.0)


async def test_thread_result_and_error_reach_the_waiter() -> None:
    name = await in_thread("open-test", lambda: threading.current_thread().name)
    assert name == "open-test"
    with pytest.raises(ZeroDivisionError):
        await in_thread("fails", lambda: 1 // 0)


async def test_thread_result_too_late_is_given_back(bench: Bench) -> None:
    may_end = threading.Event()
    given_back: list[bool] = []
    waiter = asyncio.create_task(in_thread("slow", lambda: may_end.wait(10.0), given_back.append))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    may_end.set()
    await bench.until(lambda: given_back == [True])
