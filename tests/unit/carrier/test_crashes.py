from __future__ import annotations

import pytest

from framegate.carrier.crashes import CRASHES_MAX, CRASHES_WITHIN_S, CrashLoop
from framegate.contract.errors import Misconfigured
from framegate.testing.fakes import FakeClock


async def test_crashes_in_a_row_park_the_driver_and_say_so_once() -> None:
    clock = FakeClock()
    crashes = CrashLoop(clock)
    made = []
    for number in range(CRASHES_MAX + 2):
        made.append(crashes.crashed(f"killed by SIGSEGV, time {number}"))
        await clock.advance(1.0)
    assert made == [False] * (CRASHES_MAX - 1) + [True, False, False]
    with pytest.raises(Misconfigured) as caught:
        crashes.check()
    assert caught.value.stable_code == "E4500"
    assert "killed by SIGSEGV, time 6" in caught.value.text


async def test_crashes_far_apart_are_no_loop() -> None:
    clock = FakeClock()
    crashes = CrashLoop(clock)
    for _ in range(4 * CRASHES_MAX):
        assert not crashes.crashed("exit 0")
        crashes.check()
        await clock.advance(CRASHES_WITHIN_S / (CRASHES_MAX - 1) + 0.1)
