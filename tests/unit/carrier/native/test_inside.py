from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from framegate.carrier.native import inside
from framegate.contract.command import Write
from framegate.contract.errors import Misconfigured, NotConnected
from framegate.contract.frame import TagId, ValueType
from framegate.contract.plugin import Permissions
from framegate.testing.check_driver import check_driver
from framegate.testing.fakes import FakeLines, rows_in
from tests.unit.carrier.native.conftest import tag

if TYPE_CHECKING:
    from tests.unit.carrier.native.conftest import Stage, Told

ASKS = Permissions(in_process=True)
MANNER = tag(30, ValueType.INT64)
TAGS = [MANNER, tag(10), tag(12, ValueType.STRING)]


async def test_inside_keeps_the_contract(stage: Stage) -> None:
    stage.lines = FakeLines({"plc": lambda _: b"ok"})
    writes = [Write(TagId(10), 2.5), Write(TagId(12), "x")]
    await check_driver(
        lambda: stage.driver({"ask": True}, ASKS, "none"), TAGS, stage.lines, endpoint="plc", scans=60, writes=writes
    )


def test_inside_is_for_plugins_that_ask_for_it(stage: Stage) -> None:
    with pytest.raises(Misconfigured) as caught:
        stage.driver(isolation="none")
    assert caught.value.stable_code == "E4507"


async def test_inside_many_devices_share_one_library(stage: Stage) -> None:
    drivers = [await stage.opened(permissions=ASKS, isolation="none") for _ in range(5)]
    assert len(inside._loaded) == 1
    plan = drivers[0].plan([tag(10)])
    for polls, driver in enumerate(drivers, 1):
        for _ in range(polls):
            batches = await driver.read(plan)
        assert [row[1] for batch in batches for row in rows_in(batch)] == [10.0 * polls]
    before = threading.active_count()
    for driver in drivers:
        await driver.close()
    async with asyncio.timeout(5):
        while threading.active_count() > before - 5:  # noqa: ASYNC110 - nothing tells of a thread that ends
            await asyncio.sleep(0.01)


async def test_inside_hang_is_left_behind_and_the_driver_opened_again(
    stage: Stage, tell: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "SILENT_S", 0.1)
    driver = await stage.opened(permissions=ASKS, isolation="none")
    plan = driver.plan(TAGS)
    await tell(driver, TAGS, t30=4)  # waits for a signal, for ever
    with pytest.raises(NotConnected) as caught:
        await driver.read(plan)
    assert caught.value.stable_code == "E4511"
    await driver.open(stage.context)
    assert len(await driver.read(plan)) == 3


async def test_inside_rows_that_cannot_be_end_the_instance(stage: Stage, tell: Told) -> None:
    driver = await stage.opened(permissions=ASKS, isolation="none")
    plan = driver.plan(TAGS)
    await tell(driver, TAGS, t30=8)
    with pytest.raises(NotConnected) as caught:
        await driver.read(plan)
    assert caught.value.stable_code == "E4512"
    await driver.open(stage.context)
    assert len(await driver.read(plan)) == 3
