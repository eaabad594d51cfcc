"""What the driver says of tables that it cannot work with, and of its own schema and example."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from framegate.contract.driver import BoundTag
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import TagId, ValueType
from framegate_plugins.modbus.driver import ModbusDriver
from framegate_plugins.modbus.options import parse_options
from framegate_plugins.modbus.trial import Trial, bound_tags

HERE = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("row", "key", "words"),
    [
        ("4x70000 int16", "address", "beyond 65536"), ("hr:65535 int32", "address", "ends beyond 65535"),
        ("coil:1 int16", "type", "its type is bool"), ("hr:1.3 int16", "type", "has type bool"),
        ("hr:1 string", "length", "length is missing"), ("hr:1 string length=900", "length", "from 1 to 250"),
        ("hr:1 int32 word_order=middle", "word_order", "one of big, little"),
        ("hr:1.h int16", "address", "int8 or uint8"),
        ("hr:1 bool bit=16", "bit", "from 0 to 15"), ("hr:1.3 bool bit=3", "bit", "already names a bit"),
        ("hr:99 int32", "address", "forbidden range hr:100-110"),
        ("hr:1 string length=60", "address", "max_registers is 20"),
    ],
)  # fmt: skip
def test_tag_that_cannot_be_read_is_named_with_its_key(row: str, key: str, words: str) -> None:
    driver = ModbusDriver({"forbidden": ["hr:100-110"], "max_registers": 20})
    with pytest.raises(Misconfigured) as caught:
        driver.plan(bound_tags("hr:1 int16", row))
    (problem,) = caught.value.tag_problems
    assert (problem.tag, problem.key) == ("t1", key)
    assert words in problem.text


def test_options_wrong_are_all_named() -> None:
    with pytest.raises(Misconfigured) as caught:
        ModbusDriver(
            {"unit": 256, "timeout": "1x", "framing": "rtuu", "forbidden": ["hr:9-1"], "unti": 1, "max_gap": True}
        )
    assert [problem.path for problem in caught.value.problems] == [
        ("options", key) for key in ("max_gap", "forbidden", "unit", "framing", "timeout", "unti")
    ]


async def test_framings_that_differ_on_one_line_are_refused(trial: Trial) -> None:
    simulator = await trial.simulate()
    await trial.open(simulator.url)
    with pytest.raises(Misconfigured, match="already speaks tcp"):
        await ModbusDriver({"framing": "rtu"}).open(trial.context(simulator.url))


def test_schema_names_every_option_with_its_default() -> None:
    schema = json.loads((HERE / "driver.schema.json").read_text())
    defaults = {key: row["default"] for key, row in schema["properties"].items()}
    assert parse_options(defaults) == parse_options({})
    assert all(row["description"] for row in schema["properties"].values())
    assert all(row["description"] for row in schema["$defs"]["tag"]["properties"].values())


def test_example_plans_without_problems() -> None:
    tables = yaml.safe_load((HERE / "example.yaml").read_text())
    for name, row in tables["drivers"].items():
        tags = [
            BoundTag(
                TagId(i),
                v["tag"],
                v["address"],
                ValueType(v["type"]),
                v.get("access", "R"),
                {k: v[k] for k in ("length",) if k in v},
            )
            for i, v in enumerate(tables["variables"])
            if v["source"] == name
        ]
        assert len(ModbusDriver(row["options"]).plan(tags).tag) == len(tags)
