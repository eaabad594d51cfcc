"""Rows of the three tables after validation: typed, frozen, in seconds and bytes.

The text form of each key, with limits and defaults, is in contract/tables/*.schema.json; tables.py makes these rows
from it. Nothing here knows YAML. Variables are many: equal texts and options of rows are one shared object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from framegate.access.issuer import IssuerOptions
from framegate.config.origins import NO_ORIGINS, Origins
from framegate.contract.errors import Problem
from framegate.contract.frame import Access, ValueType
from framegate.contract.plugin import Isolation
from framegate.mapper.processing import AS_READ, Processing, Span

Durability: TypeAlias = Literal["fsync", "os"]
DiskFull: TypeAlias = Literal["block", "drop_oldest", "drop_new"]
Encoding: TypeAlias = Literal["json", "json-batch", "protobuf"]
Compression: TypeAlias = Literal["none", "zstd"]
TimeUnit: TypeAlias = Literal["ms", "us", "ns", "iso"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
Reload: TypeAlias = Literal["auto", "manual"]
Start: TypeAlias = Literal["oldest", "newest"]
RuleKind: TypeAlias = Literal["window", "alarm", "lua", "wasm", "onnx"]
BacklogWord: TypeAlias = Literal["in_order", "live_first"]

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
"""The one empty options mapping that all rows without options share."""


@dataclass(frozen=True, slots=True)
class StoreRow:
    """Limits of the durable log; times in seconds, sizes in bytes."""

    durability: Durability = "fsync"
    commit_interval: float = 0.01
    ring_rows: int = 262_144
    retention_bytes: int = 1 << 30
    retention_age: float = 604_800.0
    keep_acked_bytes: int = 256 << 20
    keep_acked_age: float = 3_600.0
    disk_full: DiskFull = "block"


@dataclass(frozen=True, slots=True)
class AccessRow:
    """Who may come in besides those who hold tokens; key files are relative to the tables' folder."""

    issuers: tuple[IssuerOptions, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiRow:
    """The API. listen: host:port; cert, key, ca: paths as written, "" where there are none; origins: of web pages."""

    listen: str = "127.0.0.1:8470"
    cert: str = ""
    key: str = ""
    ca: str = ""
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PluginsRow:
    """What installed plugins may do. in_process: names of native plugins that may run inside the gateway."""

    in_process: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayRow:
    """The gateway itself. `metrics` is host:port, or "" for none; `reload` says whether changed files take effect.

    outbound  hosts that may be called over HTTP although they lie in this machine, on its link or at a cloud's metadata
    """

    name: str = "gateway"
    tenant: str = "plant"
    metrics: str = "127.0.0.1:9100"
    log_level: LogLevel = "info"
    reload: Reload = "auto"
    api: ApiRow | None = None
    store: StoreRow = StoreRow()
    outbound: tuple[str, ...] = ()
    access: AccessRow = AccessRow()
    plugins: PluginsRow = PluginsRow()


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """One line of endpoints.yml, as written; framegate.endpoint gives it its meaning."""

    name: str
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DriverRow:
    """One device. `scan` maps each scan class to its period in seconds; it always has "default".

    isolation  "": as the shape of its plugin has it
    """

    name: str
    plugin: str
    endpoint: str
    options: Mapping[str, Any]
    scan: Mapping[str, float]
    enabled: bool
    isolation: Isolation | Literal[""] = ""


@dataclass(frozen=True, slots=True)
class ConnectorRow:
    """One way out. `topic` and `backfill_topic` are "" where their defaults apply; `linger` is in seconds."""

    name: str
    plugin: str
    endpoint: str
    encoding: Encoding
    batch: int
    topic: str
    compress: Compression
    time: TimeUnit
    options: Mapping[str, Any]
    enabled: bool
    window_rows: int
    windows_in_flight: int
    linger: float
    start: Start
    backlog: BacklogWord
    backfill_topic: str


@dataclass(frozen=True, slots=True)
class BridgeRow:
    """One server. tags, commands: patterns of what is shown and of what may be written; `memory_max` is in bytes."""

    name: str
    plugin: str
    endpoint: str
    tags: tuple[str, ...]
    commands: tuple[str, ...]
    memory_max: int
    options: Mapping[str, Any]
    enabled: bool


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule. `options` are all keys but kind and enabled, as written; the kind gives them their meaning."""

    name: str
    kind: RuleKind
    enabled: bool
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Writing:
    """What writes of a tag have to pass, beside its access and limits.

    idempotent    writing the same value twice does no harm
    interlock     Lua expression over other tags; writes are refused while it is false
    needs_select  it has to be selected before it is operated
    writes_per_s  0: no limit of its own
    """

    idempotent: bool = False
    interlock: str = ""
    needs_select: bool = False
    writes_per_s: float = 0.0


AS_ASKED = Writing()
"""The one object of all rows that ask for nothing."""


class VariableRow(Struct, frozen=True, gc=False):
    """One tag; a struct of msgspec, because a load makes one for each of 100,000 rows.

    `rename` is "" where the tag goes out under its own name; `options` are its plugin's keys.

    source      "" for a tag that is calculated from others; it has no address then
    limits      lowest and highest value that may be written, in engineering units
    processing  what happens to its values on their way to the bus
    writing     what its writes have to pass
    bridges     how bridges show it, by their names
    """

    tag: str
    type: ValueType
    source: str = ""
    address: str = ""
    access: Access = "R"
    unit: str = ""
    description: str = ""
    scan: str = "default"
    scale: float = 1.0
    offset: float = 0.0
    rename: str = ""
    limits: Span | None = None
    processing: Processing = AS_READ
    options: Mapping[str, Any] = NO_OPTIONS
    writing: Writing = AS_ASKED
    bridges: Mapping[str, Any] = NO_OPTIONS

    @property
    def name(self) -> str:
        """Name under which the tag is known outside: its new name, if it has one."""
        return self.rename or self.tag


@dataclass(frozen=True, slots=True)
class Tables:
    """A whole, valid configuration. `warnings` hold what is allowed but looks unintended.

    origins  where rows of `variables` come from that templates made
    """

    gateway: GatewayRow
    endpoints: Mapping[str, EndpointRow]
    drivers: Mapping[str, DriverRow]
    connectors: Mapping[str, ConnectorRow]
    variables: tuple[VariableRow, ...]
    warnings: tuple[Problem, ...] = ()
    rules: Mapping[str, RuleRow] = field(default_factory=dict)
    origins: Origins = NO_ORIGINS
    bridges: Mapping[str, BridgeRow] = field(default_factory=dict)
