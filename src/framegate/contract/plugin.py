"""Manifests: what a plugin says of itself in `plugin.toml`, read before any of its code.

A packaged plugin calls the same file `driver.toml`; keys that only packages have are marked so.

name = "modbus"            also the value of `plugin:` in drivers.yml
api = 1                    or {min = 1, max = 2}: versions of the plugin API that it works with
version = "0.1.0"
serial = 7                 package: rises with every release; absent: 0
arch = "x86_64-linux"      package: what its native files were built for; absent: any
summary = "Modbus TCP, RTU, ASCII, RTU over TCP, UDP, TLS"

[driver]
entry = "framegate_plugins.modbus.driver:ModbusDriver"
schema = "driver.schema.json"       options of the row; `$defs/tag` holds the keys it adds to a tag row
endpoint = ["tcp", "serial"]        schemes it can use; absent: it needs no endpoint
shape = "native"                    python (absent), native (contract/driver.h) or wasm (contract/driver.wit)
artifact = "plugin.so"              native and wasm: the file, in place of `entry`
scan_s_max = 10                     a driver that loses its line where it is not read so often; absent: it does not

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

[permissions]                       what it asks beside its tags and the line of its row; absent: the least
memory = 67108864                   bytes
network = "own"                     opens sockets itself; "handed" (absent): uses lines that the gateway opens
home = true                         keeps files in a folder of its own
in_process = true                   asks to run inside the gateway; only a trusted, named native driver is let

[files]                             package: every other file of it
"plugin.so" = {sha256 = "...", size = 14336}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

Role: TypeAlias = Literal["driver", "connector", "bridge", "rule", "simulator", "witness", "command"]
Shape: TypeAlias = Literal["python", "native", "wasm"]
Isolation: TypeAlias = Literal["none", "process"]
"""Where a driver runs: inside the gateway, or in a child. A WASM driver is confined either way and knows neither."""
PLUGIN_API = 1
"""The newest plugin API."""
SUPPORTED_APIS = (1,)
"""Plugin APIs that work here, the newest last; older ones by shims (docs/reference/plugin-api.md)."""
MEMORY_MAX_DEFAULT = 64 << 20
"""Bytes of a confined driver whose manifest asks for nothing else."""


@dataclass(frozen=True, slots=True)
class RoleEntry:
    """One role of a plugin: where its class is and what its options look like.

    entry     package.module:Name; "" where the shape has an artifact
    artifact  name of a file of the plugin; "" for Python
    scan_s_max  a device has to be read at least so often, seconds, or its line is lost; 0: it is not
    """

    entry: str
    schema: Mapping[str, Any]
    endpoint: tuple[str, ...]
    shape: Shape = "python"
    artifact: str = ""
    scan_s_max: int = 0


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol a plugin speaks, and how far that was proven: A, B, T or D."""

    name: str
    roles: tuple[str, ...]
    grade: Literal["A", "B", "T", "D"]
    judges: str


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a plugin asks of the gateway, beside its tags and the line of its row. Shown before it is accepted."""

    memory: int = MEMORY_MAX_DEFAULT
    network: Literal["handed", "own"] = "handed"
    home: bool = False
    in_process: bool = False


class PackagedFile(NamedTuple):
    """A file of a package, as its signed manifest has it. sha256: lower-case hex."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """api  versions of the plugin API it works with, lowest and highest"""

    name: str
    api: tuple[int, int]
    version: str
    summary: str
    folder: Path
    roles: Mapping[Role, RoleEntry]
    protocols: tuple[Protocol, ...]
    serial: int = 0
    arch: str = ""
    permissions: Permissions = Permissions()
    files: Mapping[str, PackagedFile] = field(default_factory=dict)


def api_for(span: tuple[int, int], supported: tuple[int, ...] = SUPPORTED_APIS) -> int | None:
    """The newest plugin API that plugin and gateway both know; None where there is none."""
    return max((api for api in supported if span[0] <= api <= span[1]), default=None)


class Artifact(NamedTuple):
    """A file of a plugin, as it is loaded: its bytes are those that were verified, and cannot change any more.

    fd      a sealed memfd; whoever got the artifact closes it when nothing is loaded from it any more
    sha256  lower-case hex
    """

    name: str
    fd: int
    sha256: str
    size: int
