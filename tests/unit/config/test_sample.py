from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import jsonschema_rs
import pytest

from framegate.config import load_tables, merge_schemas, write_samples
from framegate.config.schema import TABLES, Table, table_schema
from framegate.config.yaml import load_yaml
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest

Plugins = Mapping[str, Manifest]


def test_samples_pass_their_own_check_without_warnings(tmp_path: Path, plugins: Plugins) -> None:
    written = write_samples(tmp_path / "new" / "config", plugins)
    assert [path.name for path in written[:3]] == ["endpoints.yml", "drivers.yml", "variables.yml"]
    tables = load_tables(tmp_path / "new" / "config", plugins)
    assert tables.warnings == ()
    assert len(tables.variables) == 5


def test_samples_name_schemas_that_lie_beside_them(tmp_path: Path, plugins: Plugins) -> None:
    for path in write_samples(tmp_path, plugins)[:3]:
        first = path.read_text(encoding="utf-8").splitlines()[0]
        schema = tmp_path / first.removeprefix("# yaml-language-server: $schema=")
        rules = json.loads(schema.read_text(encoding="utf-8"))
        assert jsonschema_rs.is_valid(rules, load_yaml(path.read_bytes()).value)


def test_samples_never_overwrite(tmp_path: Path, plugins: Plugins) -> None:
    mine = tmp_path / "drivers.yml"
    mine.write_text("drivers: {}\n", encoding="utf-8")
    with pytest.raises(Misconfigured, match=r"^E1119 .*drivers\.yml exists already and stays as it is"):
        write_samples(tmp_path, plugins)
    assert [path.name for path in tmp_path.iterdir()] == ["drivers.yml"]
    assert mine.read_text(encoding="utf-8") == "drivers: {}\n"


def test_samples_into_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(Misconfigured, match=r"^E1119 "):
        write_samples(tmp_path / "taken")


@pytest.mark.parametrize("table", TABLES)
def test_every_key_of_the_law_has_a_description(table: Table) -> None:
    def check(schema: object, place: str) -> None:
        if isinstance(schema, list):
            for number, item in enumerate(schema):
                check(item, f"{place}/{number}")
        elif isinstance(schema, dict):
            for key, rule in schema.get("properties", {}).items():
                assert "description" in rule or "$ref" in rule, f"{place}/{key}"
            for key, inner in schema.items():
                check(inner, f"{place}/{key}")

    check(table_schema(table), table)


@pytest.mark.parametrize("draft", [jsonschema_rs.Draft7Validator, jsonschema_rs.Draft202012Validator])
def test_merged_schemas_judge_options_and_tag_keys(draft: type[jsonschema_rs.Validator], plugins: Plugins) -> None:
    merged = merge_schemas(plugins)
    drivers, variables = draft(merged["drivers"]), draft(merged["variables"])
    for options, is_right in (({"unit": 1}, True), ({"unti": 1}, False), ({"word_order": "up"}, False)):
        row = {"plugin": "modbus", "endpoint": "plc1", "options": options}
        assert drivers.is_valid({"drivers": {"mb1": row}}) is is_right
    assert not drivers.is_valid({"drivers": {"mb1": {"plugin": "mqtt"}}})
    tag = {"tag": "a", "source": "mb1", "address": "4x1", "type": "bool"}
    for keys, is_right in (
        ({"bit": 3}, True),
        ({"bit": 16}, False),
        ({"byte_order": "up"}, False),
        ({"bot": 1}, False),
    ):
        assert variables.is_valid({"variables": [{**tag, **keys}]}) is is_right


def test_merging_leaves_the_law_unchanged(plugins: Plugins) -> None:
    before = json.dumps(table_schema("drivers"))
    merge_schemas(plugins)
    assert json.dumps(table_schema("drivers")) == before
