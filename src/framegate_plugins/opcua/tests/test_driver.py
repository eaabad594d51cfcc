"""The driver against the simulator: contract, subscriptions, reads, writes, methods, what is refused."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from framegate.contract.command import Outcome, Write
from framegate.contract.driver import Subscribes
from framegate.contract.errors import Misconfigured, NotConnected
from framegate.contract.frame import TagId, ValueType
from framegate.contract.quality import Quality
from framegate.testing.check_driver import check_driver
from framegate_plugins.opcua.driver import OpcuaDriver
from framegate_plugins.opcua.simulator import Simulator
from framegate_plugins.opcua.tests.stage import OPEN, Stage, rows_in, tags, values_in


def test_driver_subscribes() -> None:
    assert isinstance(OpcuaDriver(OPEN), Subscribes)


async def test_driver_keeps_the_contract(stage: Stage, server: Simulator) -> None:
    context = stage.context(server.url)
    rows = tags("t0 float64", "t1 float64", "array json", "text string", "running bool", "i=2256 json R", "nope int32")
    writes = [Write(TagId(0), 5.0), Write(TagId(3), "on"), Write(TagId(4), False)]

    def factory() -> OpcuaDriver:
        driver = OpcuaDriver(OPEN)
        driver.plan(rows)  # so that it knows what may be written
        return driver

    await check_driver(factory, rows, stage.pool, endpoint=context.endpoint, scans=60, writes=writes)


async def test_first_read_has_every_tag_and_later_ones_what_changed(stage: Stage, server: Simulator) -> None:
    driver = await stage.open(server.url)
    plan = await stage.follow(driver, tags(*(f"t{number} float64" for number in range(20))))
    assert values_in(await driver.read(plan)) == {number: float(number) for number in range(20)}
    assert rows_in(await driver.read(plan)) == []
    await server.write(7, 42.5)
    assert await stage.until(driver, plan, lambda found: 7 in found) == {7: 42.5}
    assert stage.news[-1] is plan


async def test_tag_arrays_of_the_same_tags_are_the_same(stage: Stage, server: Simulator) -> None:
    driver = await stage.open(server.url)
    plan = await stage.follow(driver, tags("t0 float64", "t1 float64"))
    await driver.read(plan)
    arrays = set()
    for step in range(3):
        await server.write(0, 100.0 + step)
        batches: Any = []
        async with asyncio.timeout(5):
            while not batches:
                await asyncio.sleep(0.02)
                batches = await driver.read(plan)
        arrays.add(id(batches[0].tag))
    assert len(arrays) == 1


async def test_values_between_two_scans_are_all_told_where_a_tag_is_sampled_faster(
    stage: Stage, server: Simulator
) -> None:
    driver = await stage.open(server.url)
    plan = await stage.follow(driver, [tag._replace(options={"queue": 10}) for tag in tags("t0 float64")], period_s=0.3)
    await driver.read(plan)
    for value in (1.5, 2.5, 3.5):
        await server.write(0, value)
    await stage.until(driver, plan, lambda found: found.get(0) == 3.5)
    await asyncio.sleep(0)
    for value in (4.5, 5.5, 6.5):
        await server.write(0, value)
    told: list[Any] = []
    async with asyncio.timeout(5):
        while not told:
            await asyncio.sleep(0.05)
            told = [value for _, value, _ in rows_in(await driver.read(plan))]
    assert told == [4.5, 5.5, 6.5]


async def test_bad_node_among_others_is_bad_alone(stage: Stage, server: Simulator) -> None:
    driver = await stage.open(server.url)
    plan = await stage.follow(
        driver, tags("t0 float64", "nope float64", "nsu=http://nowhere;s=x float64", "text float64", "t1 int8")
    )
    statuses = {tag: status for tag, _, status in rows_in(await driver.read(plan))}
    assert statuses == {
        0: 0,
        1: Quality.BAD_NODE_ID_UNKNOWN,
        2: Quality.BAD_NODE_ID_UNKNOWN,
        3: Quality.BAD_TYPE_MISMATCH,
        4: Quality.BAD_TYPE_MISMATCH,
    }
    ((_, _, values),) = [line for line in stage.log.lines if line[1] == "opcua_misfit"]
    assert set(values["reasons"]) == {"t3", "t4"}
    await server.write(0, 9.0)
    assert await stage.until(driver, plan, lambda found: 0 in found) == {0: 9.0}


async def test_types_of_tags_are_what_they_read(stage: Stage, server: Simulator) -> None:
    driver = await stage.open(server.url)
    rows = tags("array json", "text string", "running bool", "t3 float32", "i=2258 int64 R", "i=2258 string R")
    rows += [tags("array int16", first=6)[0]._replace(options={"index_range": "1"})]
    plan = await stage.follow(driver, rows)
    found = values_in(await driver.read(plan))
    now = found.pop(4)
    assert isinstance(now, int)
    assert abs(now - time.time_ns()) < 10**10
    assert str(found.pop(5)).endswith("Z")
    assert found == {0: [1, 2, 3], 1: "ready", 2: True, 3: 3.0, 6: 2}


async def test_poll_reads_everything_at_every_scan(stage: Stage, server: Simulator) -> None:
    driver = await stage.open(server.url, {**OPEN, "mode": "poll"})
    plan = await stage.follow(driver, tags("t0 float64", "t1 float64"))
    for _ in range(3):
        assert values_in(await driver.read(plan)) == {0: 0.0, 1: 1.0}
    assert stage.news == []


async def test_plan_that_is_not_followed_is_read_whole_and_watched_by_nobody(stage: Stage, server: Simulator) -> None:
    driver = await stage.open(server.url)
    plan = driver.plan(tags("t0 float64"))
    for _ in range(2):
        assert values_in(await driver.read(plan)) == {0: 0.0}


async def test_exchanged_plan_ends_the_watch_of_the_old_one(stage: Stage, server: Simulator) -> None:
    driver = await stage.open(server.url)
    old = await stage.follow(driver, tags("t0 float64"))
    await driver.read(old)
    new = await stage.follow(driver, tags("t1 float64", first=1))
    assert values_in(await driver.read(new)) == {1: 1.0}
    assert list(driver._watches) == [new]
    await server.write(0, 5.0)
    await server.write(1, 6.0)
    assert await stage.until(driver, new, lambda found: 1 in found) == {1: 6.0}


async def test_writes_are_answered_each_by_its_own_outcome(stage: Stage, server: Simulator) -> None:
    driver = await stage.open(server.url)
    plan = driver.plan(tags("t0 float64", "text string", "array json", "nope float64", "i=2256 json RW", "t1 float32"))
    driver.follow([(plan, 1.0)])
    results = await driver.write(
        [
            Write(TagId(0), 1.25),
            Write(TagId(1), "语"),
            Write(TagId(2), [7, 8]),
            Write(TagId(3), 1.0),
            Write(TagId(2), "x"),
            Write(TagId(77), 1.0),
            Write(TagId(5), 3.5, expires=0.0),
        ]
    )
    assert [result.outcome for result in results] == [
        Outcome.CONFIRMED, Outcome.CONFIRMED, Outcome.CONFIRMED, Outcome.REJECTED, Outcome.REJECTED, Outcome.REJECTED,
        Outcome.NOT_SENT,
    ]  # fmt: skip
    assert "BadUserAccessDenied" in results[3].reason  # what asyncua says of a node that it does not have
    assert "str given, Int32 wanted" in results[4].reason
    assert values_in(await driver.read(driver.plan(tags("t0 float64", "text string", "array json", "t1 float32")))) == {
        0: 1.25,
        1: "语",
        2: [7, 8],
        3: 1.0,
    }


async def test_method_is_called_by_a_write(stage: Stage, server: Simulator) -> None:
    driver = await stage.open(server.url)
    row = tags("reset int32 W", "reset json W")
    plan = driver.plan([tag._replace(options={"method": "i=85"}) for tag in row])
    driver.follow([(plan, 1.0)])
    results = await driver.write(
        [Write(TagId(0), 3), Write(TagId(1), [4]), Write(TagId(1), [1, 2]), Write(TagId(1), [])]
    )
    assert [result.outcome for result in results] == [
        Outcome.CONFIRMED, Outcome.CONFIRMED, Outcome.REJECTED, Outcome.REJECTED
    ]  # fmt: skip
    assert "the method takes 1" in results[2].reason
    assert server.resets == 7


async def test_write_without_a_session_is_not_sent(stage: Stage, server: Simulator) -> None:
    driver = OpcuaDriver(OPEN)
    driver.plan(tags("t0 float64"))
    (result,) = await driver.write([Write(TagId(0), 1.0)])
    assert result.outcome is Outcome.NOT_SENT


async def test_server_that_ends_is_told_at_once_and_read_again_after(stage: Stage, server: Simulator) -> None:
    driver = await stage.open(server.url)
    plan = await stage.follow(driver, tags("t0 float64"))
    await driver.read(plan)
    stage.news.clear()
    await server.stop()
    await stage.told()
    with pytest.raises(NotConnected):
        await driver.read(plan)
    await driver.close()
    await server.listen()
    await driver.open(stage.context(server.url))
    assert values_in(await driver.read(plan)) == {0: 0.0}


async def test_close_leaves_no_task_behind(stage: Stage, server: Simulator) -> None:
    before = {task.get_name() for task in asyncio.all_tasks()}
    driver = await stage.open(server.url)
    plan = await stage.follow(driver, tags("t0 float64"))
    await driver.read(plan)
    started = time.monotonic()
    await driver.close()
    assert time.monotonic() - started < 1.0
    await asyncio.sleep(0)
    left = {task.get_name() for task in asyncio.all_tasks()} - before
    assert not any(name.startswith("opcua") for name in left)


async def test_source_time_is_the_one_that_the_row_asks_for(stage: Stage, server: Simulator) -> None:
    before = time.time_ns()
    await server.write(0, 1.0)
    for source_time in ("source", "server", "gateway"):
        driver = await stage.open(server.url, {**OPEN, "source_time": source_time})
        (batch,) = await driver.read(driver.plan(tags("t0 float64")))
        assert before <= int(batch.source_time[0]) <= time.time_ns()
        assert (int(batch.source_time[0]) == batch.gateway_time) is (source_time == "gateway")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"security": "maybe"}, "is not one of sign_and_encrypt, sign, none"),
        ({"timeout": "1h"}, "outside"),
        ({"path": "UA"}, "begins with no /"),
        ({"identity": "certificate"}, "go together"),
        ({"identity": "certificate", "user_certificate": "../x"}, "without its suffix"),
        ({"sekurity": "none"}, "no option of opcua"),
        ({"items_per_call": 0}, "whole number"),
        ({"write_timestamp": "yes"}, "neither true nor false"),
    ],
)
def test_wrong_option_is_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        OpcuaDriver(options)


@pytest.mark.parametrize(
    ("address", "options", "key"),
    [
        ("Pump.Speed", {}, "address"),
        ("ns=70000;s=x", {}, "address"),
        ("i=-1", {}, "address"),
        ("i=5000000000", {}, "address"),
        ("ns=2;g=no", {}, "address"),
        ("ns=2;b=xyz", {}, "address"),
        ("i=1", {"index_range": "a"}, "index_range"),
        ("i=1", {"member": "a..b"}, "member"),
        ("i=1", {"queue": -1}, "queue"),
        ("i=1", {"sampling": "fast"}, "sampling"),
        ("i=1", {"server_deadband": 1, "server_deadband_percent": 1}, "server_deadband"),
        ("i=1", {"method": "i=2"}, "access"),
    ],
)
def test_wrong_tag_is_told_with_its_key(address: str, options: dict[str, Any], key: str) -> None:
    (tag,) = tags("i=1 float64")
    with pytest.raises(Misconfigured) as caught:
        OpcuaDriver(OPEN).plan([tag._replace(address=address, options=options)])
    assert [problem.key for problem in caught.value.tag_problems] == [key]


def test_plan_has_readable_tags_only_and_its_ids_are_frozen() -> None:
    plan = OpcuaDriver(OPEN).plan(tags("t0 float64 R", "t1 float64 W", "t2 float64 RW"))
    assert plan.tag.tolist() == [0, 2]
    assert plan.tag.dtype == np.int32
    assert not plan.tag.flags.writeable
    assert set(plan.writable) == {1, 2}
    assert plan.columns.points[0].type is ValueType.FLOAT64
