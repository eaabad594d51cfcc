from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from framegate.carrier.python import ProcessDriver
from framegate.carrier.remote import calls, child_process
from framegate.contract.command import Outcome, Write
from framegate.contract.driver import BoundTag, DriverContext
from framegate.contract.errors import Busy, DeviceRefused, GatewayError, Misconfigured, NoReply, NotConnected
from framegate.contract.frame import TagId, ValueType
from framegate.contract.plugin import Manifest, Permissions, RoleEntry
from framegate.contract.quality import Quality
from framegate.endpoint.clock import SystemClock
from framegate.testing.check_driver import check_driver
from framegate.testing.fakes import CollectingLog, FakeLines, rows_in
from tests.unit.carrier.native.conftest import childless

UNRULY = Path(__file__).with_name("unruly")
TYPES = list(ValueType)
TAGS = [BoundTag(TagId(number), f"t{number}", "here", type_, "RW", {}) for number, type_ in enumerate(TYPES, 1)]
CLOSED_S = 3.0
"""Promised is one second, of a machine that has nothing else to do."""
SOON_S = 10.0
"""On a busy machine; what the driver does too slowly takes a minute."""
TEXT = TagId(TYPES.index(ValueType.STRING) + 1)


def manifest(permissions: Permissions | None = None) -> Manifest:
    roles: dict[Any, RoleEntry] = {"driver": RoleEntry("unruly.driver:UnrulyDriver", {}, ())}
    return Manifest("unruly", (1, 1), "1", "", UNRULY, roles, (), permissions=permissions or Permissions())


@pytest.fixture
def log() -> CollectingLog:
    return CollectingLog()


@pytest.fixture
def context(log: CollectingLog) -> DriverContext:
    return DriverContext("meter1", "", FakeLines(), SystemClock(), log)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., ProcessDriver]]:
    made: list[ProcessDriver] = []

    def make(options: Any = None, permissions: Permissions | None = None) -> ProcessDriver:
        made.append(ProcessDriver(manifest(permissions), options or {}))
        return made[-1]

    yield make
    for driver in made:
        await driver.close()
    await childless()


Make = Callable[..., ProcessDriver]


async def behaving(driver: ProcessDriver, context: DriverContext, manner: str) -> Any:
    """The driver, opened, that behaves so from now on; and its plan."""
    await driver.open(context)
    plan = driver.plan(TAGS)
    await driver.read(plan)
    assert [result.outcome for result in await driver.write([Write(TEXT, manner)])] == [Outcome.CONFIRMED]
    return plan


async def test_process_driver_keeps_the_contract(make: Make) -> None:
    writes = [Write(TEXT, "x"), Write(TagId(1), value=True)]
    await check_driver(make, TAGS, FakeLines(), scans=60, writes=writes)


async def test_every_type_crosses_as_its_own(make: Make, context: DriverContext, log: CollectingLog) -> None:
    driver = make()
    await driver.open(context)
    plan = driver.plan(TAGS)
    await driver.read(plan)
    values = {tag: value for batch in await driver.read(plan) for tag, value, _ in rows_in(batch)}
    assert values == {
        1: True, **dict.fromkeys(range(2, 10), 2), 10: 2.0, 11: 2.0, 12: "n2", 13: b"\xff", 14: {"polls": [1]},
    }  # fmt: skip
    assert [line["text"] for line in log.events("driver_says")] == ["unruly_opened device=meter1"]


@pytest.mark.parametrize(
    ("manner", "error", "code"),
    [("silent", NoReply, "E5012"), ("busy", Busy, "E5013"), ("refused", DeviceRefused, "E5014"),
     ("bug", NotConnected, "E4517")],
)  # fmt: skip
async def test_errors_of_the_driver_are_raised_as_what_they_are(
    make: Make, context: DriverContext, manner: str, error: type[GatewayError], code: str
) -> None:
    driver = make()
    plan = await behaving(driver, context, manner)
    with pytest.raises(error) as caught:
        await driver.read(plan)
    assert caught.value.stable_code == code
    if isinstance(caught.value, Busy):
        assert caught.value.wait_s == 7.5
    if isinstance(caught.value, DeviceRefused):
        assert caught.value.quality == 0x803D0000
    if manner == "bug":
        assert "ValueError: seven is no eight" in caught.value.text


async def test_rows_before_a_silence_count_however_long_its_words_are(make: Make, context: DriverContext) -> None:
    driver = make()
    await behaving(driver, context, "silent at the end")
    numbers = [BoundTag(TagId(100 + each), f"n{each}", "here", ValueType.FLOAT64, "R", {}) for each in range(60)]
    with pytest.raises(NoReply) as caught:
        await driver.read(driver.plan(numbers))
    assert caught.value.text.startswith("the device is silent at the end")
    assert sum(len(batch.tag) for batch in caught.value.partial) == 59


@pytest.mark.parametrize(
    ("manner", "code", "words"),
    [("segfault", "E4510", "SIGSEGV"), ("abort", "E4510", "SIGABRT"), ("exit", "E4510", "status 0"),
     ("deadlock", "E4511", "did not answer"), ("busy loop", "E4511", "did not answer")],
)  # fmt: skip
async def test_faults_of_the_process_are_told_and_it_comes_back(
    make: Make, context: DriverContext, manner: str, code: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = make()
    plan = await behaving(driver, context, manner)
    monkeypatch.setattr(child_process, "SILENT_S", 0.8)
    with pytest.raises(NotConnected) as caught:
        await driver.read(plan)
    assert (caught.value.stable_code, words in caught.value.text) == (code, True), caught.value
    monkeypatch.setattr(child_process, "SILENT_S", calls.SILENT_S)
    await driver.open(context)
    assert len(await driver.read(plan)) == 5


async def test_memory_beyond_its_own_is_an_error_of_the_driver(make: Make, context: DriverContext) -> None:
    driver = make(permissions=Permissions(memory=48 << 20))
    plan = await behaving(driver, context, "memory")
    with pytest.raises(NotConnected) as caught:
        await driver.read(plan)
    assert "MemoryError" in caught.value.text


async def test_confined_driver_reaches_nothing(
    make: Make, context: DriverContext, log: CollectingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_SECRET", "not for everybody")
    driver = make()
    plan = await behaving(driver, context, "escape")
    if log.events("driver_confined_in_part"):
        pytest.skip("this machine cannot confine all of it")
    values = {tag: value for batch in await driver.read(plan) for tag, value, _ in rows_in(batch)}
    assert values[TEXT] == "nothing"


class DatagramLines(FakeLines):
    """A line of datagrams to a device."""

    async def hand_over(self, endpoint: str) -> socket.socket:
        line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        line.connect(("127.0.0.1", 9))
        return line


async def test_confined_driver_sends_datagrams_to_its_device_only(make: Make, log: CollectingLog) -> None:
    driver = make()
    plan = await behaving(driver, DriverContext("meter1", "line", DatagramLines(), SystemClock(), log), "escape")
    if log.events("driver_confined_in_part"):
        pytest.skip("this machine cannot confine all of it")
    values = {tag: value for batch in await driver.read(plan) for tag, value, _ in rows_in(batch)}
    assert values[TEXT] == "send"


async def test_writes_have_their_outcomes_and_reasons(make: Make, context: DriverContext) -> None:
    driver = make()
    await driver.open(context)
    driver.plan(TAGS)
    results = await driver.write([Write(TagId(1), value=True), Write(TEXT, "refuse"), Write(TagId(14), {"a": 1})])
    assert [(result.outcome, result.reason) for result in results] == [
        (Outcome.CONFIRMED, ""), (Outcome.REJECTED, "as asked"), (Outcome.CONFIRMED, ""),
    ]  # fmt: skip
    results = await driver.write([Write(TEXT, "die now"), Write(TagId(1), value=True)])
    assert {result.outcome for result in results} == {Outcome.UNKNOWN}
    assert "SIGKILL" in results[0].reason


async def test_write_that_raises_is_unknown_and_says_what_was_raised(make: Make, context: DriverContext) -> None:
    driver = make()
    await driver.open(context)
    driver.plan(TAGS)
    results = await driver.write([Write(TEXT, "lose the line"), Write(TagId(1), value=True)])
    assert [(result.outcome, result.reason) for result in results] == [
        (Outcome.UNKNOWN, "E5015 the line broke under the write")
    ] * 2


async def test_refused_tags_are_bad_rows(make: Make, context: DriverContext) -> None:
    driver = make()
    await driver.open(context)
    plan = driver.plan([TAGS[0], BoundTag(TagId(77), "lost", "nowhere", ValueType.INT16, "R", {})])
    rows = {tag: status for batch in await driver.read(plan) for tag, _, status in rows_in(batch)}
    assert rows == {1: 0, 77: Quality.BAD_CONFIGURATION_ERROR}


async def test_options_and_entries_that_are_wrong_park_the_driver(make: Make, context: DriverContext) -> None:
    with pytest.raises(Misconfigured) as caught:
        await make({"wrong": True}).open(context)
    assert (caught.value.stable_code, "option wrong is wrong" in caught.value.text) == ("E5020", True)


async def test_cancelled_read_ends_and_the_next_one_works(make: Make, context: DriverContext) -> None:
    driver = make()
    plan = await behaving(driver, context, "slow")
    reading = asyncio.ensure_future(driver.read(plan))
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    started = time.monotonic()
    await driver.write([Write(TEXT, "well")])
    assert len(await driver.read(plan)) == 5
    assert time.monotonic() - started < SOON_S


async def test_close_of_a_driver_that_never_closes_is_in_time(make: Make, context: DriverContext) -> None:
    driver = make()
    await behaving(driver, context, "close never")
    started = time.monotonic()
    await driver.close()
    assert time.monotonic() - started < CLOSED_S
