"""The rows and scripts of the reference pages do what the pages say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from framegate.contract.frame import ValueType
from framegate.contract.law import law_text
from framegate.mapper.rules.script import make

ROOT = Path(__file__).resolve().parents[5]
LAW = json.loads(law_text("tables/drivers.schema.json"))


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / "reference" / page).read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def validator(kind: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for({"$ref": f"#/$defs/{kind}", "$defs": LAW["$defs"]})


ROWS = [
    (kind, row)
    for page, kind in (("rule-scripts.md", "lua_rule"), ("rule-models.md", "onnx_rule"))
    for block in blocks(page, "yaml")
    for row in yaml.safe_load(block)["rules"].values()
]


@pytest.mark.parametrize(("kind", "row"), ROWS)
def test_rows_of_the_pages_keep_the_law(kind: str, row: dict[str, Any]) -> None:
    validator(kind).validate(row)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("lua_rule", {"file": "../a.lua"}),
        ("lua_rule", {"file": "a.txt"}),
        ("lua_rule", {"inputs": []}),
        ("lua_rule", {"outputs": {"x": "real"}}),
        ("lua_rule", {"deadline": "soon"}),
        ("onnx_rule", {"model": "models:/wear"}),
        ("onnx_rule", {"model": "../wear.onnx"}),
        ("onnx_rule", {"token": "the-token-itself"}),
        ("onnx_rule", {"registry": "https://user:word@host"}),
        ("onnx_rule", {"inputs": [{"tag": "a", "window": "1m"}]}),
        ("onnx_rule", {"inputs": [{"tag": "a", "last": 0}]}),
        ("onnx_rule", {"threads": 9}),
        ("onnx_rule", {"no_such_key": 1}),
    ],
)
def test_other_rows_break_the_law(kind: str, change: dict[str, Any]) -> None:
    row = next(row for name, row in ROWS if name == kind)
    assert not validator(kind).is_valid({**row, **change})


def test_there_are_rows_of_both_kinds() -> None:
    assert sorted(kind for kind, _ in ROWS) == ["lua_rule", "onnx_rule", "onnx_rule"]


def test_script_of_the_page_runs(stage: Any) -> None:
    (text,) = blocks("rule-scripts.md", "lua")
    (stage.folder / "power.lua").write_text(text)
    rule = make("power", {"file": "power.lua", "inputs": ["a"]}, stage.context)
    assert [row[:2] for row in stage.rows(rule.take(stage.batch("a", 2500.0)))] == [("line.power", 2.5)]
    assert stage.catalogue.find("line.power").unit == "kW"


def test_what_the_page_lists_is_what_there_is(stage: Any) -> None:
    text = (ROOT / "docs" / "reference" / "rule-scripts.md").read_text("utf-8")
    listed = re.search(r"`(assert .*?)`", text)
    assert listed is not None
    names = {*listed[1].split(), "bit", "math", "string", "table", "log", "_G", "GOOD", "UNCERTAIN", "BAD"}
    rule = stage.make(
        """return function()
          local names = {}
          for name in pairs(_G) do names[#names + 1] = name end
          return {value = table.concat(names, ' ')}
        end""",
        outputs={"o": ValueType.STRING.value},
    )
    (row,) = stage.rows(rule.take(stage.batch("a", 1.0)))
    assert set(row[1].split()) == names
