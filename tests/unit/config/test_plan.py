"""What a change of tables does to a running gateway: as little as it can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from framegate.config.plan import Changes, Plan, outline_of, plan_change, steps_of
from framegate.config.rows import ConnectorRow, DriverRow, EndpointRow, GatewayRow, StoreRow, Tables, VariableRow
from framegate.contract.frame import ValueType
from framegate.mapper.processing import Processing

SCAN = MappingProxyType({"default": 1.0, "fast": 0.1})


def driver(name: str, **keys: Any) -> DriverRow:
    row = DriverRow(name, "modbus", "plc1", MappingProxyType({"unit": 1}), SCAN, enabled=True)
    return replace(row, **keys)


def connector(name: str, **keys: Any) -> ConnectorRow:
    row = ConnectorRow(
        name, "mqtt", "broker", "json", 32, "", "none", "ms", MappingProxyType({}), True, 4096, 4, 0.0, "oldest",
        "in_order", "",
    )  # fmt: skip
    return replace(row, **keys)


def tag(name: str, source: str = "mb1", **keys: Any) -> VariableRow:
    return msgspec.structs.replace(VariableRow(name, ValueType.INT16, source, "hr:1"), **keys)


def tables(**keys: Any) -> Tables:
    made = Tables(
        gateway=GatewayRow(),
        endpoints={name: EndpointRow(name, {"url": f"tcp://{name}:502"}) for name in ("plc1", "plc2", "broker")},
        drivers={"mb1": driver("mb1"), "mb2": driver("mb2", endpoint="plc2"), "off": driver("off", enabled=False)},
        connectors={"cloud": connector("cloud"), "local": connector("local", endpoint="plc2")},
        variables=(tag("a"), tag("b"), tag("c", "mb2")),
    )
    return replace(made, **keys)


def plan_to(after: Tables) -> Plan:
    return plan_change(outline_of(tables()), outline_of(after))


def with_tag(name: str, **keys: Any) -> Tables:
    return tables(
        variables=tuple(msgspec.structs.replace(row, **keys) if row.tag == name else row for row in tables().variables)
    )


def test_plan_same_tables_is_empty_in_any_order() -> None:
    assert not plan_to(tables())
    assert not plan_to(tables(variables=tuple(reversed(tables().variables))))
    assert steps_of(plan_to(tables())) == ()


@pytest.mark.parametrize(
    "keys",
    [
        {"scale": -1.0}, {"offset": -2.0}, {"unit": "bar"}, {"description": "inlet"}, {"rename": "x"},
        {"limits": (0.0, 1.0)}, {"processing": Processing(invert=True)}, {"processing": Processing(deadband=0.5)},
    ],
)  # fmt: skip
def test_plan_what_becomes_of_a_value_leaves_its_device_alone(keys: dict[str, Any]) -> None:
    plan = plan_to(with_tag("b", **keys))
    assert plan.tags.reworked.tolist() == [1]
    assert (plan.devices, plan.replanned, len(plan.tags.moved)) == (Changes(), (), 0)


@pytest.mark.parametrize(
    "keys",
    [
        {"address": "hr:2"}, {"type": ValueType.UINT16}, {"scan": "fast"}, {"access": "RW"},
        {"options": MappingProxyType({"bit": 1})},
    ],
)  # fmt: skip
def test_plan_where_a_value_is_read_plans_only_its_device_anew(keys: dict[str, Any]) -> None:
    plan = plan_to(with_tag("b", **keys))
    assert plan.replanned == ("mb1",)
    assert plan.tags.moved.tolist() == [1]
    assert plan.devices == Changes()


def test_plan_minus_one_and_minus_two_differ() -> None:
    """Python's hash of both is the same."""
    before = with_tag("a", scale=-1.0)
    plan = plan_change(outline_of(before), outline_of(with_tag("a", scale=-2.0)))
    assert plan.tags.reworked.tolist() == [0]


def test_plan_one_and_true_among_options_differ() -> None:
    before = with_tag("a", options=MappingProxyType({"swap": 1}))
    plan = plan_change(outline_of(before), outline_of(with_tag("a", options=MappingProxyType({"swap": True}))))
    assert plan.replanned == ("mb1",)


def test_plan_tag_moved_to_another_device_plans_both_anew() -> None:
    plan = plan_to(with_tag("c", source="mb1"))
    assert set(plan.replanned) == {"mb1", "mb2"}


def test_plan_tag_that_comes_or_goes_plans_its_device_anew() -> None:
    rows = tables().variables
    comes, goes = plan_to(tables(variables=(*rows, tag("d", "mb2")))), plan_to(tables(variables=rows[1:]))
    assert (comes.replanned, comes.tags.added.tolist()) == (("mb2",), [3])
    assert (goes.replanned, goes.tags.removed.tolist()) == (("mb1",), [0])
    assert steps_of(goes) == ("device mb1 is read by a new plan, its line stays open", "tags gone: 1")


def test_plan_scan_period_plans_anew_and_options_restart() -> None:
    drivers = tables().drivers
    slower = plan_to(
        tables(drivers={**drivers, "mb1": driver("mb1", scan=MappingProxyType({"default": 5.0, "fast": 0.1}))})
    )
    other = plan_to(tables(drivers={**drivers, "mb1": driver("mb1", options=MappingProxyType({"unit": 2}))}))
    assert (slower.replanned, slower.devices) == (("mb1",), Changes())
    assert (other.replanned, other.devices) == ((), Changes(restarted=("mb1",)))


def test_plan_devices_that_come_go_and_are_switched() -> None:
    drivers = {"mb1": driver("mb1", enabled=False), "off": driver("off"), "mb3": driver("mb3")}
    plan = plan_to(tables(drivers=drivers, variables=(tag("a"),)))
    assert plan.devices == Changes(started=("off", "mb3"), stopped=("mb1", "mb2"))
    assert plan.replanned == ()


def test_plan_endpoint_restarts_exactly_what_uses_it() -> None:
    endpoints = {**tables().endpoints, "plc2": EndpointRow("plc2", {"url": "tcp://elsewhere:502"})}
    plan = plan_to(tables(endpoints=endpoints))
    assert plan.endpoints == Changes(restarted=("plc2",))
    assert plan.devices == Changes(restarted=("mb2",))
    assert plan.connectors == Changes(restarted=("local",))


def test_plan_settings_of_the_process_are_named() -> None:
    gateway = GatewayRow(name="other", reload="manual", store=StoreRow(ring_rows=8192, retention_age=60.0))
    assert plan_to(tables(gateway=gateway)).settings == (
        "gateway.name", "gateway.store.ring_rows", "gateway.store.retention_age",
    )  # fmt: skip
    assert not plan_to(tables(gateway=GatewayRow(reload="manual")))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_steps_of_many_devices_are_cut(count: int, plan_of: Callable[[int], Plan]) -> None:
    steps = steps_of(plan_of(20 + count))
    assert len(steps) == 20 + (count > 0)
    assert count == 0 or steps[-1] == f"and {count:,} more devices like it"


@pytest.fixture
def plan_of() -> Callable[[int], Plan]:
    def make(devices: int) -> Plan:
        return replace(plan_to(tables()), replanned=tuple(f"mb{i}" for i in range(devices)))

    return make
