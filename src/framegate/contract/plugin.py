"""Manifests: what a plugin says of itself in `plugin.toml`, read before any of its code.

name = "modbus"            also the value of `plugin:` in drivers.yml
api = 1
version = "0.1.0"
summary = "Modbus TCP, RTU, ASCII, RTU over TCP, UDP, TLS"

[driver]
entry = "framegate_plugins.modbus.driver:ModbusDriver"
schema = "driver.schema.json"       options of the row; `$defs/tag` holds the keys it adds to a tag row
endpoint = ["tcp", "serial"]        schemes it can use; absent: it needs no endpoint

[simulator]
entry = "framegate_plugins.modbus.simulator:start"

[witness]                               reads back what reached a remote, for demo and tests
entry = "framegate_plugins.mqtt.subscription:subscribe"

[command]                               verbs of its own: `edge modbus WORDS...`
entry = "framegate_plugins.modbus.command:run"     run(words, home) -> rows to show; home: HOME/private/modbus

[[protocol]]                        one line of README's table each
name = "Modbus TCP"
roles = ["driver"]
grade = "A"
judges = "pymodbus, libmodbus, modbus-serial"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

Role: TypeAlias = Literal["driver", "connector", "bridge", "simulator", "witness", "command"]
PLUGIN_API = 1


@dataclass(frozen=True, slots=True)
class RoleEntry:
    """One role of a plugin: where its class is and what its options look like."""

    entry: str
    schema: Mapping[str, Any]
    endpoint: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol a plugin speaks, and how far that was proven: A, B, T or D."""

    name: str
    roles: tuple[str, ...]
    grade: Literal["A", "B", "T", "D"]
    judges: str


@dataclass(frozen=True, slots=True)
class Manifest:
    name: str
    api: int
    version: str
    summary: str
    folder: Path
    roles: Mapping[Role, RoleEntry]
    protocols: tuple[Protocol, ...]
