"""Plugins as config sees them: manifests, and factories whose drivers refuse a few things without any I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from framegate.config import ConnectorRow, DriverRow
from framegate.contract.connector import Connector
from framegate.contract.driver import BoundTag, Driver
from framegate.contract.errors import Misconfigured, Problem, TagProblem
from framegate.contract.plugin import Manifest, Role, RoleEntry

MODBUS_OPTIONS = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {
        "unit": {"description": "Unit id.", "type": "integer", "minimum": 0, "maximum": 247, "default": 1},
        "word_order": {"$ref": "#/$defs/order"},
    },
    "$defs": {
        "order": {"enum": ["big", "little"]},
        "tag": {
            "type": "object",
            "properties": {
                "byte_order": {"$ref": "#/$defs/order"},
                "bit": {"description": "Bit in a register.", "type": "integer", "minimum": 0, "maximum": 15},
                "length": {"type": "integer", "minimum": 1},
            },
            "additionalProperties": False,
        },
    },
}
MQTT_OPTIONS = {"type": "object", "properties": {"qos": {"enum": [0, 1, 2]}, "retain": {"type": "boolean"}}}


class FakeDriver:
    """Refuses addresses beyond 65535, as a Modbus driver does."""

    def plan(self, tags: Sequence[BoundTag]) -> None:
        problems = [
            TagProblem(
                tag.name, "address", "E5001", f"tag {tag.name}: address {tag.address} is beyond 65535; correct it"
            )
            for tag in tags
            if int(tag.address.rpartition("x")[2]) > 65535
        ]
        if problems:
            raise Misconfigured("addresses", code="E5001", tag_problems=problems)


@pytest.fixture
def plugins() -> Mapping[str, Manifest]:
    def manifest(name: str, role: Role, schema: Mapping[str, Any], *endpoint: str) -> Manifest:
        return Manifest(name, (1, 1), "1.0.0", "", Path(), {role: RoleEntry("", schema, endpoint)}, ())

    found = (
        manifest("modbus", "driver", MODBUS_OPTIONS, "tcp", "serial"),
        manifest("mqtt", "connector", MQTT_OPTIONS, "tcp", "tls+tcp"),
        manifest("ramp", "driver", {"type": "object", "properties": {}}),
    )
    return {entry.name: entry for entry in found}


@pytest.fixture
def make_driver() -> Callable[[DriverRow], Driver]:
    def make(row: DriverRow) -> Driver:
        if row.options.get("unit") == 13:
            raise Misconfigured("unit 13 and I do not get along; use another unit", code="E5002")
        if row.options.get("unit") == 0:
            places = [Problem("", ("unit",), "E5003", "unit 0 is for broadcasts; use 1 to 247")]
            places.append(Problem("drivers", ("options", "word_order"), "E5004", "no order goes with unit 0"))
            raise Misconfigured("options", problems=places)
        return cast(Driver, FakeDriver())

    return make


@pytest.fixture
def make_connector() -> Callable[[ConnectorRow], Connector]:
    def make(row: ConnectorRow) -> Connector:
        if row.options.get("qos") == 2:
            raise Misconfigured("this broker has no qos 2; use 1", code="E5101")
        return cast(Connector, object())

    return make
