"""The template keeps the driver contract, and its ramp is a ramp."""

from __future__ import annotations

from typing import Any

import pytest

from framegate.contract.driver import BoundTag, DriverContext
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import TagId, ValueType
from framegate.testing.check_driver import check_driver
from framegate.testing.fakes import CollectingLog, FakeClock, FakeLines
from framegate_plugins._template.driver import RampDriver


def ramp_tag(number: int, **options: Any) -> BoundTag:
    return BoundTag(TagId(number), f"ramp.{number}", "ramp", ValueType.FLOAT64, "R", options)


async def test_driver_examined_keeps_contract() -> None:
    await check_driver(lambda: RampDriver({"period": 5}), [ramp_tag(1), ramp_tag(2, phase=0.5)], FakeLines())


async def test_read_quarter_period_later_gives_quarter_of_span() -> None:
    clock = FakeClock(start_ns=0)
    driver = RampDriver({"low": 10, "high": 30, "period": 8})
    plan = driver.plan([ramp_tag(1), ramp_tag(2, phase=0.5)])
    await driver.open(DriverContext("ramp1", "", FakeLines(), clock, CollectingLog()))
    await clock.advance(2)
    (batch,) = await driver.read(plan)
    assert batch.value.tolist() == [15.0, 25.0]
    await driver.close()


def test_plan_unknown_address_names_tag() -> None:
    tag = BoundTag(TagId(1), "ramp.1", "slope", ValueType.BOOL, "R", {})
    with pytest.raises(Misconfigured) as caught:
        RampDriver({}).plan([tag])
    assert [(problem.tag, problem.key) for problem in caught.value.tag_problems] == [
        ("ramp.1", "address"),
        ("ramp.1", "type"),
    ]


def test_constructor_high_below_low_is_refused() -> None:
    with pytest.raises(Misconfigured, match="high must be above low"):
        RampDriver({"low": 5, "high": 1})
