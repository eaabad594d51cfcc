from __future__ import annotations

import asyncio
import time
from math import inf
from typing import TYPE_CHECKING

import numpy as np
import pytest

from framegate.contract.command import Outcome, Write
from framegate.contract.errors import Busy, DeviceRefused, Misconfigured, NoReply, NotConnected
from framegate.contract.frame import TagId, ValueType
from framegate.contract.plugin import Isolation, Permissions
from framegate.contract.quality import Quality
from framegate.testing.check_driver import check_driver
from framegate.testing.fakes import FakeLines, rows_in
from framegate.testing.stalls import Stalls
from tests.unit.carrier.native.conftest import tag

if TYPE_CHECKING:
    from tests.unit.carrier.native.conftest import Stage, Told

HAND_OVERS = 4
"""Each may come as late as a thread that only sleeps."""
ASKS = Permissions(in_process=True)
TYPES = [type_ for type_ in ValueType if type_ is not ValueType.JSON]
TAGS = [tag(number, type_) for number, type_ in enumerate(TYPES, 1)]
MANNER = tag(30, ValueType.INT64)
ALL = [*TAGS, MANNER]


async def test_driver_keeps_the_contract(stage: Stage) -> None:
    writes = [Write(TagId(1), value=True), Write(TagId(10), 2.5), Write(TagId(3), -7)]
    await check_driver(stage.driver, TAGS[:-1], stage.lines, scans=120, writes=writes)


async def test_driver_over_a_line_keeps_the_contract(stage: Stage) -> None:
    stage.lines = FakeLines({"plc": lambda _: b"ok"})
    await check_driver(lambda: stage.driver({"ask": True}), TAGS[:-1], stage.lines, endpoint="plc", scans=60)


async def test_read_brings_every_type_as_its_own(stage: Stage) -> None:
    driver = await stage.opened()
    plan = driver.plan(ALL)
    await driver.read(plan)
    rows = {id_: value for batch in await driver.read(plan) for id_, value, _ in rows_in(batch)}
    expected = {1: False, 2: 4, 3: 6, 5: 10, 9: 18, 10: 20.0, 11: 22.0, 12: "n24", 13: b"n26", 30: 60}
    assert {number: rows[number] for number in expected} == expected
    assert {number: type(value) for number, value in rows.items()}[9] is int
    assert len(rows) == len(ALL)


async def test_tags_that_are_written_only_are_not_read(stage: Stage) -> None:
    driver = await stage.opened()
    plan = driver.plan([tag(1), tag(2, access="W")])
    assert plan.tag.tolist() == [1]
    batches = await driver.read(plan)
    assert [row[0] for batch in batches for row in rows_in(batch)] == [1]


async def test_many_rows_cross_in_several_packets(stage: Stage) -> None:
    driver = await stage.opened()
    plan = driver.plan([tag(number) for number in range(1, 6_001)])
    batches = await driver.read(plan)
    assert np.array_equal(batches[0].value, np.arange(1, 6_001, dtype=np.float64))


async def test_values_out_of_a_type_are_bad_rows(stage: Stage, tell: Told) -> None:
    driver = await stage.opened()
    tags = [tag(100, ValueType.INT8), tag(101, ValueType.UINT16), tag(102, ValueType.INT64)]
    plan = driver.plan(tags)
    for _ in range(2):
        batches = await driver.read(plan)
    assert [row[1:] for batch in batches for row in rows_in(batch)] == [
        (None, Quality.BAD_OUT_OF_RANGE),
        (202, 0),
        (204, 0),
    ]


@pytest.mark.parametrize(
    ("manner", "qualities", "mismatches"),
    [
        (11, {Quality.BAD_NO_DATA}, []),
        (
            21,
            {Quality.BAD_TYPE_MISMATCH},
            [("bool", "EDGE_BOOL"), ("int64", "EDGE_I64"), ("string", "EDGE_STR"), ("uint64", "EDGE_U64")],
        ),
    ],
)
async def test_cells_that_do_not_fit_their_tags_are_bad_rows(
    stage: Stage, tell: Told, manner: int, qualities: set[int], mismatches: list[tuple[str, str]]
) -> None:
    driver = await stage.opened()
    tags = [MANNER, tag(2, ValueType.BOOL), tag(3, ValueType.STRING), tag(4, ValueType.UINT64)]
    plan = driver.plan(tags)
    await tell(driver, tags, t30=manner)
    for _ in range(2):
        batches = await driver.read(plan)
    assert {row[2] for batch in batches for row in rows_in(batch)} == qualities
    told = stage.log.events("driver_kind_mismatch")
    assert sorted((each["type"], each["wanted"]) for each in told) == mismatches
    assert {each["emitted"] for each in told} <= {"EDGE_F64"}


@pytest.mark.parametrize("manner", [12, 13])
async def test_texts_outside_the_heap_or_not_utf8_are_bad_rows(stage: Stage, tell: Told, manner: int) -> None:
    driver = await stage.opened()
    tags = [MANNER, tag(3, ValueType.STRING)]
    plan = driver.plan(tags)
    await tell(driver, tags, t30=manner)
    rows = {row[0]: row[2] for batch in await driver.read(plan) for row in rows_in(batch)}
    assert rows == {3: Quality.BAD_DECODING_ERROR, 30: 0}


@pytest.mark.parametrize(
    ("manner", "error", "code"),
    [(14, NoReply, "E4520"), (15, NotConnected, "E4521"), (16, DeviceRefused, "E4522"), (17, Busy, "E4526"),
     (18, NotConnected, "E4521"), (22, NotConnected, "E4521")],
)  # fmt: skip
async def test_statuses_of_a_poll_are_errors_of_the_gateway_with_the_rows_that_came(
    stage: Stage, tell: Told, manner: int, error: type[NotConnected], code: str
) -> None:
    driver = await stage.opened()
    plan = driver.plan([MANNER, tag(31, ValueType.INT64)])
    await tell(driver, ALL, t30=manner)
    with pytest.raises(error) as caught:
        await driver.read(plan)
    assert caught.value.stable_code == code
    assert [batch.tag.tolist() for batch in caught.value.partial] == ([] if manner == 15 else [[30]])


async def test_writes_have_the_outcomes_that_their_statuses_mean(stage: Stage) -> None:
    driver = await stage.opened()
    driver.plan(ALL)
    meant = {
        0.0: Outcome.CONFIRMED, -3.0: Outcome.REJECTED, -4.0: Outcome.REJECTED, -5.0: Outcome.REJECTED,
        -8.0: Outcome.NOT_SENT, -9.0: Outcome.NOT_SENT, -2.0: Outcome.UNKNOWN, -6.0: Outcome.UNKNOWN,
        -99.0: Outcome.UNKNOWN,
    }  # fmt: skip
    results = await driver.write([Write(TagId(10), value) for value in meant])
    assert [result.outcome for result in results] == list(meant.values())
    assert [result.reason == "" for result in results] == [outcome is Outcome.CONFIRMED for outcome in meant.values()]


async def test_writes_that_do_not_fit_are_rejected_and_the_others_sent(stage: Stage, tell: Told) -> None:
    driver = await stage.opened()
    plan = driver.plan(ALL)
    results = await driver.write([
        Write(TagId(12), "grüß"), Write(TagId(12), 5), Write(TagId(1), 1), Write(TagId(9), -1), Write(TagId(3), "x"),
        Write(TagId(10), value=True), Write(TagId(99), 1.0), Write(TagId(9), 2**63), Write(TagId(13), b"\0"),
    ])  # fmt: skip
    confirmed = [index for index, result in enumerate(results) if result.outcome is Outcome.CONFIRMED]
    assert confirmed == [0, 7, 8]
    assert all(result.outcome is Outcome.REJECTED for index, result in enumerate(results) if index not in confirmed)
    rows = {row[0]: row[1] for batch in await driver.read(plan) for row in rows_in(batch)}
    assert rows[12] == "grüß"


async def test_write_that_is_over_before_it_begins_is_not_sent(stage: Stage) -> None:
    driver = await stage.opened()
    driver.plan(ALL)
    expired, on_time = Write(TagId(10), 1.0, expires=asyncio.get_running_loop().time() - 1), Write(TagId(10), 1.0, inf)
    assert [result.outcome for result in await driver.write([expired])] == [Outcome.NOT_SENT]
    assert [result.outcome for result in await driver.write([on_time])] == [Outcome.CONFIRMED]
    await driver.close()
    assert [result.outcome for result in await driver.write([on_time])] == [Outcome.NOT_SENT]


async def test_refused_tags_are_bad_rows_and_the_others_are_read(stage: Stage) -> None:
    driver = await stage.opened({"refuse_tags": True})
    plan = driver.plan([tag(1), tag(2, address="nowhere"), tag(3)])
    for _ in range(2):
        rows = {row[0]: row[2] for batch in await driver.read(plan) for row in rows_in(batch)}
        assert rows == {1: 0, 2: Quality.BAD_CONFIGURATION_ERROR, 3: 0}
    assert [line["tags"] for line in stage.log.events("driver_refused_tags")] == ["t2"]
    assert stage.log.events("driver_refused_tags")[0]["reason"] == "address: there is no such place"


async def test_more_plans_than_groups_are_told_again(stage: Stage) -> None:
    driver = await stage.opened()
    plans = [driver.plan([tag(number)]) for number in range(1, 80)]
    for _ in range(2):
        for plan in plans:
            assert len(await driver.read(plan)) == 1


async def test_options_that_the_driver_refuses_park_it_with_its_words(stage: Stage) -> None:
    driver = stage.driver({"refuse_create": True})
    with pytest.raises(Misconfigured) as caught:
        await driver.open(stage.context)
    assert caught.value.stable_code == "E4514"
    assert "option speed is beyond 9" in caught.value.text


async def test_device_that_does_not_answer_connect_is_not_connected(stage: Stage) -> None:
    stage.lines = FakeLines({"plc": lambda _: b"no"})
    with pytest.raises(Misconfigured):  # the driver calls a wrong answer invalid
        await stage.driver({"ask": True}).open(stage.context)
    stage.lines = FakeLines({"plc": lambda _: b"ok"}, is_refusing=True)
    with pytest.raises(NotConnected):
        await stage.driver({"ask": True}).open(stage.context)


def said(stage: Stage) -> list[str]:
    return [line["text"] for line in stage.log.events("driver_says")]


@pytest.mark.parametrize("isolation", ["process", "none"])
async def test_every_instance_that_was_created_is_disconnected_and_destroyed(
    stage: Stage, isolation: Isolation
) -> None:
    stage.lines = FakeLines({"plc": lambda _: b"no"})
    for _ in range(2):
        with pytest.raises(Misconfigured):
            await stage.driver({"ask": True}, ASKS, isolation).open(stage.context)
    async with asyncio.timeout(5):
        while len(said(stage)) < 6:  # noqa: ASYNC110 - a thread may take a moment
            await asyncio.sleep(0.01)
    assert said(stage) == ["created", "disconnected", "destroyed"] * 2
    with pytest.raises(Misconfigured):
        await stage.driver({"refuse_create": True}, ASKS, isolation).open(stage.context)
    assert len(said(stage)) == 6, "what was not created has no end"


async def test_cancelled_read_ends_its_wait_and_the_next_one_works(stage: Stage, tell: Told) -> None:
    silent = True
    stage.lines = FakeLines({"plc": lambda asked: b"" if silent and asked == b"x" else b"ok"})
    driver = await stage.opened()
    plan = driver.plan([MANNER])
    await tell(driver, ALL, t30=20)  # waits for the device for as long as it is let
    reading = asyncio.ensure_future(driver.read(plan))
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    with Stalls() as machine:
        started = time.monotonic()
        await tell(driver, ALL, t30=0)
        assert len(await driver.read(plan)) == 1
        assert time.monotonic() - started < 1.0 + HAND_OVERS * machine.worst()
