"""Guests that mean harm: each is stopped in time, its reason is told, nobody else notices, and it comes back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from framegate.carrier.wasm import host
from framegate.carrier.wasm.worker import STACK_BYTES
from framegate.contract.driver import BoundTag
from framegate.contract.errors import FrameBroken, Misconfigured, NotConnected
from framegate.contract.frame import ValueType
from framegate.contract.quality import Quality
from framegate.testing.fakes import FakeClock

if TYPE_CHECKING:
    from tests.unit.carrier.wasm.conftest import Bench

POLL_S = 0.2
"""Time of a guest that means harm, for the call with which it does."""
LATE_S = 0.1
"""How long past its time a guest may run."""
HAND_OVERS = 4
"""From the end of a guest's time to who waits for it: the ticker, the guest's thread, the loop, the test. Each may wait
for the processor as long as a thread that only sleeps does (`lateness`), which on a free machine is no time."""
HANG_S_MAX = 3.0
"""Until a guest that hangs is found out about, whatever the budget of its call is."""
STALL_S_MAX = 0.05
"""Of the loop, with the same allowance."""
STOPPED = {
    "b": "out of bounds memory access",
    "c": "did not answer within 0.2 s",
    "d": "call stack exhausted",
    "e": "unreachable",
    "f": "did not answer within 0.2 s",
    "g": "did not answer within 0.2 s",
    "h": "in one poll|did not answer within 0.2 s",
    "i": "beyond the .* bytes of its memory",
    "j": "beyond the .* bytes of its memory",
    "k": "a row of tag 70000, which its group does not have",
    "l": "a column of case 99",
    "m": "a batch of 3 tags with a column of 4 entries",
    "n": r"ended itself \(exit 3\)",
    "o": "errc 77",
    "p": "beyond the .* bytes of its memory",
    "q": "did not answer within 0.2 s",
    "r": "did not answer within 0.2 s",
    "t": "beyond the .* bytes of its memory",
    "u": "beyond the .* bytes of its memory",
    "v": "called recv within cabi_realloc",
}


@pytest.mark.parametrize("mode", STOPPED)
async def test_hostile_poll_is_stopped_in_time_and_told(
    mode: str, bench: Bench, heartbeat: Callable[[], float], lateness: Callable[[], float]
) -> None:
    good, bad = await bench.opened_driver(), await bench.opened_driver(mode, poll=POLL_S)
    good_plan, bad_plan = good.plan(tags()), bad.plan(tags())
    heartbeat()
    lateness()
    started = time.monotonic()
    reading = asyncio.ensure_future(bad.read(bad_plan))
    scans = 0
    while not reading.done():
        assert (await good.read(good_plan))[0].rows == 125
        scans += 1
        await asyncio.sleep(0.01)
    with pytest.raises(NotConnected, match=STOPPED[mode]) as told:
        await reading
    took_s, allowance_s = time.monotonic() - started, HAND_OVERS * lateness()
    assert took_s < POLL_S + LATE_S + allowance_s
    assert told.value.stable_code in {"E4543", "E4544"}
    assert scans
    assert heartbeat() < STALL_S_MAX + allowance_s, "the loop went on"
    with pytest.raises(NotConnected):
        await bad.read(bad_plan)
    await bad.close()
    await bad.open(bench.context)  # a fresh instance


async def test_hostile_poll_that_never_waits_is_stopped_long_before_its_budget(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, lateness: Callable[[], float]
) -> None:
    assert host.COMPUTE_S_MAX + LATE_S <= HANG_S_MAX
    monkeypatch.setattr(host, "COMPUTE_S_MAX", 0.2)
    driver = await bench.opened_driver("c")
    plan = driver.plan(tags())
    lateness()
    started = time.monotonic()
    with pytest.raises(NotConnected, match=r"E4544 .*computed for 0.2 s without a pause"):
        await driver.read(plan)
    assert time.monotonic() - started < 0.2 + LATE_S + HAND_OVERS * lateness()


async def test_waiting_for_a_slow_device_is_no_computing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "COMPUTE_S_MAX", 0.05)
    driver = await bench.opened_driver()
    bench.device.delay_s = 0.3
    (batch,) = await driver.read(driver.plan(tags()))
    assert batch.rows == 125


async def test_hostile_poll_memory_stays_within_its_permission(bench: Bench) -> None:
    driver = await bench.opened_driver("e")
    before = resident_bytes()
    with pytest.raises(NotConnected):
        await driver.read(driver.plan(tags()))
    assert resident_bytes() - before < 16 << 20  # 4 MiB are permitted


async def test_hostile_recursion_traps_though_threads_are_small(bench: Bench) -> None:
    before = threading.stack_size(256 << 10)
    try:
        driver = await bench.opened_driver("d")
        with pytest.raises(NotConnected, match="call stack exhausted"):
            await driver.read(driver.plan(tags()))
    finally:
        threading.stack_size(before)
    assert STACK_BYTES >= 1 << 20


@pytest.mark.parametrize(
    ("mode", "error", "said"),
    [
        ("D", Misconfigured, "E4545 options: no such unit"),
        ("G", NotConnected, "unreachable"),
        ("H", NotConnected, "E4547 .*no such unit"),
    ],
)
async def test_hostile_start_is_told(mode: str, error: type[Exception], said: str, bench: Bench) -> None:
    with pytest.raises(error, match=said):
        await bench.opened_driver(mode)


async def test_hostile_disconnect_holds_up_close_no_longer_than_allowed(
    bench: Bench, lateness: Callable[[], float]
) -> None:
    driver = await bench.opened_driver("I", disconnect=POLL_S)
    lateness()
    started = time.monotonic()
    await driver.close()
    assert time.monotonic() - started < 1.0 + HAND_OVERS * lateness()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("(func $f unreachable) (start $f)", "unreachable"),
        ('(func (export "_initialize") (loop $l (br $l)))', "did not answer|interrupt"),
        ('(memory $m (export "m") 80)', "memory|E4541"),
    ],
)
async def test_hostile_module_start_is_stopped(body: str, said: str, bench: Bench) -> None:
    text = bench_text(body)
    with pytest.raises((NotConnected, Misconfigured), match=said):
        await bench.opened_driver("a", text, create=POLL_S)


@pytest.mark.parametrize("mode", ["E", "A", "B"])  # plan itself, or cabi_realloc for its text
async def test_hostile_planning_is_misconfigured_not_waited_for(
    mode: str, bench: Bench, lateness: Callable[[], float]
) -> None:
    driver = bench.driver(mode, plan=POLL_S)
    lateness()
    started = time.monotonic()
    with pytest.raises(Misconfigured, match=r"E4543 .*planning its tags was stopped"):
        await asyncio.to_thread(driver.plan, tags())
    assert time.monotonic() - started < 1.0 + HAND_OVERS * lateness()


async def test_refused_tags_are_named(bench: Bench) -> None:
    driver = bench.driver("F")
    with pytest.raises(Misconfigured) as told:
        await asyncio.to_thread(driver.plan, tags())
    assert [(each.tag, each.key, each.text) for each in told.value.tag_problems] == [
        ("press.3", "address", "is no register")
    ]


async def test_crash_loop_is_parked_and_ends_with_time(bench: Bench) -> None:
    clock = FakeClock()
    driver = bench.driver("b")
    bench.opened.append(driver)
    context = replace(bench.context, clock=clock)
    for _ in range(5):
        await driver.open(context)
        with pytest.raises(NotConnected):
            await driver.read(driver.plan(tags()))
        await driver.close()
        await clock.advance(1)
    with pytest.raises(Misconfigured, match=r"crashed 5 times within 60 s.*out of bounds"):
        await driver.open(context)
    await driver.close()
    assert [each["driver_id"] for each in bench.events("driver_crash_loop")] == ["press"]


async def test_text_that_is_none_is_a_bad_row(bench: Bench) -> None:
    driver = await bench.opened_driver("s")
    (batch,) = await driver.read(driver.plan(tags(2, ValueType.STRING)))
    assert batch.value.tolist() == [None, "hot"]
    assert batch.quality.tolist() == [Quality.BAD_DECODING_ERROR, Quality.UNCERTAIN]
    assert batch.source_time.tolist() == [1_700_000_000_000_000_000, batch.gateway_time]
    assert not any(column.flags.writeable for column in (batch.value, batch.quality, batch.source_time))


async def test_values_of_another_kind_are_bad_rows_and_told_once(bench: Bench) -> None:
    driver = await bench.opened_driver("w")
    mixed = [*tags(1, ValueType.FLOAT64), *tags(2, ValueType.BOOL)[1:]]
    plan = driver.plan(mixed)
    await driver.read(plan)
    reals, flags = await driver.read(plan)
    assert (reals.tag.tolist(), reals.value.dtype.char, reals.quality.tolist()) == ([1], "d", [0])
    assert (flags.tag.tolist(), flags.value.dtype.char) == ([2], "?")
    assert flags.quality.tolist() == [Quality.BAD_TYPE_MISMATCH]
    (told,) = bench.events("driver_kind_mismatch")
    assert (told["tags"], told["type"], told["emitted"], told["wanted"]) == (mixed[1].name, "bool", "reals", "bools")


async def test_answer_of_wrong_length_is_the_drivers_word_not_a_crash(bench: Bench) -> None:
    driver = await bench.opened_driver()
    plan = driver.plan(tags())
    assert (await driver.read(plan))[0].rows == 125
    bench.device.hang_up()
    with pytest.raises((NotConnected, FrameBroken)):
        await driver.read(plan)


def bench_text(body: str) -> bytes:
    from tests.unit.carrier.wasm.conftest import GUEST, wasm_of  # noqa: PLC0415

    text = GUEST.read_text()
    return wasm_of(text.rstrip().removesuffix(")") + body + ")")


def tags(count: int = 125, type_: ValueType = ValueType.UINT16) -> list[BoundTag]:
    from tests.unit.carrier.wasm.conftest import tags_of  # noqa: PLC0415

    return tags_of(count, type_)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
