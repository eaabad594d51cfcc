"""Options of a bridge: defaults, limits, and agreement with the schema that people see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from framegate.contract.bridge import BridgeTag
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import TagId, ValueType
from framegate_plugins.modbus.bridge import ModbusBridge
from framegate_plugins.modbus.bridge_options import BridgeOptions, Gaps, QualityPolicy, parse_bridge_options

FOLDER = Path(__file__).parents[1]
SCHEMA = json.loads((FOLDER / "bridge.schema.json").read_text("utf-8"))


def test_defaults_are_those_of_the_schema() -> None:
    said = {key: row["default"] for key, row in SCHEMA["properties"].items()}
    assert parse_bridge_options(said) == parse_bridge_options({}) == BridgeOptions()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("unit", 256), ("framing", "x"), ("quality", "good"), ("quality_from", 65536), ("gaps", "none"),
        ("automatic_from", -1), ("text_bytes", 0), ("byte_order", 1), ("word_order", ""), ("clients", 0),
        ("writes_in_flight", 65), ("clients_per_peer", 1025), ("requests_per_s", 0), ("port", 502),
    ],
)  # fmt: skip
def test_wrong_option_is_named_by_parser_and_schema(key: str, value: object) -> None:
    with pytest.raises(Misconfigured, match=f"E5020 modbus options: {key}: ") as caught:
        ModbusBridge({key: value})
    assert [problem.path for problem in caught.value.problems] == [("options", key)]
    assert not jsonschema_rs.is_valid(SCHEMA, {key: value})


@pytest.mark.parametrize(("key", "value"), [("write_timeout", "1h"), ("idle_timeout", "soon"), ("idle_timeout", 0)])
def test_duration_out_of_range_is_named(key: str, value: object) -> None:
    with pytest.raises(Misconfigured, match=f"E5020 modbus options: {key}: "):
        ModbusBridge({key: value})


def test_every_option_is_understood() -> None:
    options = parse_bridge_options({"quality": "register", "gaps": "exception", "write_timeout": "300ms", "clients": 3})
    assert (options.quality, options.gaps) == (QualityPolicy.REGISTER, Gaps.EXCEPTION)
    assert (options.write_timeout_s, options.limits.clients) == (0.3, 3)


def test_example_can_be_served() -> None:
    tables: dict[str, Any] = yaml.safe_load((FOLDER / "example.yaml").read_text("utf-8"))
    row = tables["bridges"]["scada"]
    jsonschema_rs.validate(SCHEMA, row["options"])
    tags = []
    for number, tag in enumerate(tables["variables"]):
        shown = tag.get("bridges", {}).get("scada")
        if shown is not None:
            jsonschema_rs.validate(SCHEMA["$defs"]["tag"], shown)
            type_ = ValueType.FLOAT64 if "scale" in tag else ValueType(tag["type"])
            tags.append(BridgeTag(TagId(number), tag["tag"], type_, tag.get("access", "R"), options=shown))
    assert len(tags) == 3
    ModbusBridge(row["options"]).check(tags)
