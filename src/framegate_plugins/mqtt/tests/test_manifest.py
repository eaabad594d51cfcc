"""What the plugin says of itself agrees with what it does."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import jsonschema_rs
import pytest
import yaml

from framegate.contract.law import law_text
from framegate_plugins.mqtt.connector import MqttConnector
from framegate_plugins.mqtt.options import Options, parse_options

FOLDER = Path(__file__).parents[1]
SCHEMA: dict[str, Any] = json.loads((FOLDER / "connector.schema.json").read_text())
MANIFEST = tomllib.loads((FOLDER / "plugin.toml").read_text())
EXAMPLE = cast(dict[str, Any], yaml.safe_load((FOLDER / "example.yaml").read_text()))


@pytest.mark.parametrize("role", ["connector", "simulator"])
def test_entry_of_the_manifest_exists(role: str) -> None:
    module, _, name = MANIFEST[role]["entry"].partition(":")
    assert callable(getattr(import_module(module), name))


def test_defaults_of_the_schema_are_those_of_the_code() -> None:
    defaults = {name: entry["default"] for name, entry in SCHEMA["properties"].items()}
    assert parse_options(defaults) == Options()
    assert len(defaults) == len(fields(Options))


@pytest.mark.parametrize("name", EXAMPLE["connectors"])
def test_connector_of_the_example_is_accepted_by_schema_and_code(name: str) -> None:
    options = EXAMPLE["connectors"][name]["options"]
    jsonschema_rs.validator_for(SCHEMA).validate(options)
    MqttConnector(options)


def test_codes_and_events_of_the_code_are_in_the_law() -> None:
    source = "".join(path.read_text() for path in FOLDER.glob("*.py"))
    errors, telemetry = tomllib.loads(law_text("errors.toml")), tomllib.loads(law_text("telemetry.toml"))
    assert {code for code in errors if code.startswith("E51") and f'"{code}"' not in source} == set()
    for event in telemetry["event"]:
        assert not event.startswith("mqtt_") or f'"{event}"' in source
