"""Every description of the tables and of the plugins in English and Chinese, and schemas that editors take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from framegate.config import merge_schemas
from framegate.config.sample import SAMPLES
from framegate.config.schema import TABLES, Language, Table, schema_text, table_schema
from framegate.config.yaml import load_yaml
from framegate.contract.law import law_folder
from framegate.package.discover import discover

PLUGINS = discover()
FILES = [*(law_folder() / "tables").glob("*.schema.json")]
FILES += [path for plugin in PLUGINS.values() for path in plugin.folder.glob("*.schema.json")]
FILES += list((law_folder().parent / "src" / "framegate_plugins" / "_template").glob("*.schema.json"))


def described(schema: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, list):
        for number, item in enumerate(schema):
            yield from described(item, f"{place}/{number}")
    elif isinstance(schema, dict):
        if isinstance(schema.get("description"), str):
            yield place, schema
        for key, inner in schema.items():
            yield from described(inner, f"{place}/{key}")


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= letter <= "\u9fff" for letter in text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_description_has_a_chinese_counterpart(path: Any) -> None:
    found = list(described(json.loads(path.read_text(encoding="utf-8"))))
    assert found
    missing = [place for place, schema in found if not is_chinese(schema.get("description_zh", ""))]
    assert missing == []


def test_files_of_all_plugins_are_looked_at() -> None:
    assert {path.parent.name for path in FILES} >= {"tables", "modbus", "mqtt"}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_merged_schema_speaks_one_language(table: Table, language: Language) -> None:
    schema = merge_schemas(PLUGINS, language)[table]
    texts = [entry["description"] for _, entry in described(schema)]
    assert len(texts) > 20
    assert {is_chinese(text) for text in texts} == {language == "zh"}
    assert "description_zh" not in schema_text(schema)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_merged_schema_is_draft_07_and_takes_the_sample(table: Table, language: Language) -> None:
    schema = merge_schemas(PLUGINS, language)[table]
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema_rs.meta.validate(schema)
    judge = jsonschema_rs.Draft7Validator(schema)
    sample = load_yaml(SAMPLES[table].encode()).value
    assert judge.is_valid(sample)
    assert not judge.is_valid({**sample, "no_such_key": 1})


@pytest.mark.parametrize(
    ("table", "is_right"),
    [
        ({"variables": [], "templates": {"m": {"variables": [{"tag": "{name}"}]}}}, True),
        ({"variables": [], "instances": [{"template": "m", "name": "A", "base": 1, "each": {"n": "1-9"}}]}, True),
        ({"variables": [], "instances": {"A": {"template": "m"}}}, True),
        ({"variables": [], "instances": [{"template": "m"}]}, False),
        ({"variables": [], "instances": {"A": {"template": "m", "each": {"n": "1..9"}}}}, False),
        ({"variables": [], "instances": {"A": {"template": "m", "base": [1]}}}, False),
        ({"variables": [], "templates": {"m": {"variables": []}}}, False),
        ({"variables": [], "templates": {"m": {"variables": [{}]}}}, False),
        ({"variables": [], "templates": {"m": {"variables": [{"tag": "a"}], "parameters": {"name": {}}}}}, False),
    ],
)
def test_editors_judge_templates(table: dict[str, Any], is_right: bool) -> None:
    assert jsonschema_rs.Draft7Validator(merge_schemas(PLUGINS)["variables"]).is_valid(table) is is_right


def test_merging_leaves_both_languages_in_the_law() -> None:
    merge_schemas(PLUGINS, "zh")
    assert "description_zh" in json.dumps(table_schema("drivers"))
