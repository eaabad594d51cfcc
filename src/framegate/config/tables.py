"""From checked raw rows to typed ones: units, defaults, shared texts.

Every value has passed its schema; what a schema cannot say about one row alone (limits of durations and sizes, scan
periods) is checked here. Relations between rows are in references.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any

from msgspec import ValidationError, convert

from framegate.access.issuer import ALGORITHMS, IssuerOptions
from framegate.config.problems import Problems
from framegate.config.rows import (
    AS_ASKED,
    NO_OPTIONS,
    AccessRow,
    ApiRow,
    BridgeRow,
    ConnectorRow,
    DriverRow,
    GatewayRow,
    PluginsRow,
    RuleRow,
    StoreRow,
    VariableRow,
    Writing,
)
from framegate.config.schema import table_schema
from framegate.config.units import bytes_text, duration_text, parse_bytes, parse_duration
from framegate.config.yaml import Path
from framegate.contract.frame import Access, ValueType
from framegate.mapper.processing import AS_READ, Processing, Span

SCAN_PERIOD_S_MIN = 0.01
SCAN_PERIOD_S_MAX = 86_400.0
SCAN_GRID_S = 0.025
"""Scans start on a common grid, so that devices of one period share a wake-up."""
SHARED_OPTIONS_MAX = 4_096
"""Distinct option mappings of tag rows that are looked for again; later ones are kept apart."""

BRIDGE_MEMORY_BYTES = 512 << 20

_DEFAULT_SCAN: Mapping[str, float] = MappingProxyType({"default": 1.0})
_COMMIT_INTERVAL_S = (0.001, 10.0)
_AGE_S = (60.0, 10 * 365 * 86_400.0)
_RETENTION_BYTES = (1 << 20, 1 << 50)
_LINGER_S = (0.0, 60.0)
_BRIDGE_MEMORY_BYTES = (64 << 20, 64 << 30)
_TYPES = {value_type.value: value_type for value_type in ValueType}
_PROCESSING_KEYS = frozenset(
    ("invert", "expr", "inverse", "clamp", "enum", "when", "every", "range", "deadband", "swinging_door", "heartbeat")
)
_WRITING_KEYS = frozenset(("idempotent", "interlock", "select", "writes_per_s"))
_PLAIN_KEYS = frozenset(
    ("tag", "type", "source", "address", "access", "unit", "description", "scan", "scale", "offset", "rename")
)
"""Keys that stand for themselves."""
_ROW_KEYS = frozenset(table_schema("variables")["$defs"]["variable"]["properties"])


class Reader:
    """Typed values out of one mapping; what is out of its limits becomes a problem."""

    def __init__(self, row: Mapping[str, Any], path: Path, problems: Problems) -> None:
        self.row = row
        self.path = path
        self.problems = problems

    def seconds(self, key: str, default: float, limits: tuple[float, float]) -> float:
        """Value of a duration; `limits` in seconds."""
        if key not in self.row:
            return default
        value = parse_duration(self.row[key])
        if not limits[0] <= value <= limits[1]:
            self._refuse(key, duration_text(limits[0]), duration_text(limits[1]))
        return value

    def size(self, key: str, default: int, limits: tuple[int, int]) -> int:
        """Value of a size; `limits` in bytes."""
        if key not in self.row:
            return default
        value = parse_bytes(self.row[key])
        if not limits[0] <= value <= limits[1]:
            self._refuse(key, bytes_text(limits[0]), bytes_text(limits[1]))
        return value

    def _refuse(self, key: str, low: str, high: str) -> None:
        text = f'"{self.row[key]}" is out of range; it can be {low} to {high}'
        self.problems.add("drivers", (*self.path, key), "E1109", text)


def gateway_row(raw: Mapping[str, Any], problems: Problems) -> GatewayRow:
    """The section `gateway` of drivers.yml."""
    rest = {key: value for key, value in raw.items() if key not in {"access", "api", "outbound", "plugins", "store"}}
    store, access = _store_row(raw.get("store", {}), problems), _access_row(raw.get("access", {}))
    api = _api_row(raw["api"], problems) if "api" in raw else None
    plugins = PluginsRow(tuple(raw.get("plugins", {}).get("in_process", ())))
    outbound = tuple(raw.get("outbound", ()))
    return GatewayRow(**rest, api=api, store=store, access=access, outbound=outbound, plugins=plugins)


def _access_row(raw: Mapping[str, Any]) -> AccessRow:
    issuers = (
        IssuerOptions(
            issuer=row["issuer"],
            keys=FilePath(row["keys"]),
            audience=row.get("audience", ""),
            algorithms=tuple(row.get("algorithms", ALGORITHMS)),
            tenant=row.get("tenant", ""),
        )
        for row in raw.get("issuers", ())
    )
    return AccessRow(tuple(issuers))


def _api_row(raw: Mapping[str, Any], problems: Problems) -> ApiRow:
    tls = raw.get("tls", {})
    row = ApiRow(
        listen=raw.get("listen", ApiRow().listen),
        cert=tls.get("cert", ""),
        key=tls.get("key", ""),
        ca=tls.get("ca", ""),
        origins=tuple(raw.get("origins", ())),
    )
    if not row.cert and not is_loopback(row.listen):
        text = f'"{row.listen}" can be reached from other machines; add tls with cert and key, or listen on 127.0.0.1'
        path = ("gateway", "api", "listen") if "listen" in raw else ("gateway", "api")
        problems.add("drivers", path, "E4241", text)
    return row


def is_loopback(listen: str) -> bool:
    """Whether a host:port can be reached from this machine only. A name other than localhost may be anywhere."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _store_row(raw: Mapping[str, Any], problems: Problems) -> StoreRow:
    default = StoreRow()
    read = Reader(raw, ("gateway", "store"), problems)
    return StoreRow(
        durability=raw.get("durability", default.durability),
        commit_interval=read.seconds("commit_interval", default.commit_interval, _COMMIT_INTERVAL_S),
        ring_rows=raw.get("ring_rows", default.ring_rows),
        retention_bytes=read.size("retention_bytes", default.retention_bytes, _RETENTION_BYTES),
        retention_age=read.seconds("retention_age", default.retention_age, _AGE_S),
        keep_acked_bytes=read.size("keep_acked_bytes", default.keep_acked_bytes, (0, _RETENTION_BYTES[1])),
        keep_acked_age=read.seconds("keep_acked_age", default.keep_acked_age, (0.0, _AGE_S[1])),
        disk_full=raw.get("disk_full", default.disk_full),
    )


def driver_row(name: str, raw: Mapping[str, Any], problems: Problems) -> DriverRow:
    """One row of the section `drivers`."""
    read = Reader(raw.get("scan", {}), ("drivers", name, "scan"), problems)
    periods = {key: read.seconds(key, 1.0, (SCAN_PERIOD_S_MIN, SCAN_PERIOD_S_MAX)) for key in read.row}
    return DriverRow(
        name=name,
        plugin=raw["plugin"],
        endpoint=raw.get("endpoint", ""),
        options=_frozen(raw.get("options", {})),
        scan=MappingProxyType({**_DEFAULT_SCAN, **periods}) if periods else _DEFAULT_SCAN,
        enabled=raw.get("enabled", True),
        isolation=raw.get("isolation", ""),
    )


def connector_row(name: str, raw: Mapping[str, Any], problems: Problems) -> ConnectorRow:
    """One row of the section `connectors`."""
    read = Reader(raw, ("connectors", name), problems)
    return ConnectorRow(
        name=name,
        plugin=raw["plugin"],
        endpoint=raw.get("endpoint", ""),
        encoding=raw.get("encoding", "json-batch"),
        batch=raw.get("batch", 32),
        topic=raw.get("topic", ""),
        compress=raw.get("compress", "none"),
        time=raw.get("time", "ms"),
        options=_frozen(raw.get("options", {})),
        enabled=raw.get("enabled", True),
        window_rows=raw.get("window_rows", 4096),
        windows_in_flight=raw.get("windows_in_flight", 4),
        linger=read.seconds("linger", 0.0, _LINGER_S),
        start=raw.get("start", "oldest"),
        backlog=raw.get("backlog", "in_order"),
        backfill_topic=raw.get("backfill_topic", ""),
    )


def bridge_row(name: str, raw: Mapping[str, Any], problems: Problems) -> BridgeRow:
    """One row of the section `bridges`."""
    read = Reader(raw, ("bridges", name), problems)
    return BridgeRow(
        name=name,
        plugin=raw["plugin"],
        endpoint=raw.get("endpoint", ""),
        tags=tuple(raw.get("tags", ("*",))),
        commands=tuple(raw.get("commands", {}).get("tags", ())),
        memory_max=read.size("memory_max", BRIDGE_MEMORY_BYTES, _BRIDGE_MEMORY_BYTES),
        options=_frozen(raw.get("options", {})),
        enabled=raw.get("enabled", True),
    )


def rule_row(name: str, raw: Mapping[str, Any]) -> RuleRow:
    """One row of the section `rules`."""
    options = {key: value for key, value in raw.items() if key not in {"kind", "enabled"}}
    return RuleRow(name, raw["kind"], raw.get("enabled", True), _frozen(options))


def _frozen(options: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(options)) if options else NO_OPTIONS


def _span(raw: Mapping[str, Any], key: str) -> Span | None:
    return (float(raw[key][0]), float(raw[key][1])) if key in raw else None


def _writing_of(raw: Mapping[str, Any]) -> Writing:
    get = raw.get
    return Writing(
        idempotent=get("idempotent", False),
        interlock=get("interlock", ""),
        needs_select=get("select", "") == "required",
        writes_per_s=float(get("writes_per_s", 0)),
    )


class VariableMaker:
    """Makes tag rows; equal texts, numbers and options of different rows become one object.

    Lives as long as one load. Without the sharing, 100,000 rows keep twice the memory.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._numbers: dict[float, float] = {}
        self._options: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        self._processings: dict[Processing, Processing] = {}

    def make_all(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[VariableRow]:
        """Rows of variables.yml; those of plain keys alone, as nearly all are, at a sixth of the cost."""
        if all(row.keys() <= _PLAIN_KEYS for row in rows):
            with contextlib.suppress(ValidationError):  # an address may be a number
                return convert(rows, list[VariableRow])
        return [self.make(row) for row in rows]

    def make(self, raw: Mapping[str, Any]) -> VariableRow:
        """One row of variables.yml."""
        share, get = self._texts.setdefault, raw.get
        address = raw.get("address", "")
        if address.__class__ is int:
            address = str(address)
        unit, source, scan = get("unit", ""), get("source", ""), get("scan", "default")
        access: Access = get("access", "R")
        return VariableRow(
            tag=raw["tag"],
            type=_TYPES[raw["type"]],
            source=share(source, source),
            address=share(address, address),
            access=share(access, access),  # type: ignore[arg-type]  # the schema allows R, W and RW only
            unit=share(unit, unit),
            description=get("description", ""),
            scan=share(scan, scan),
            scale=self._number(get("scale", 1.0)),
            offset=self._number(get("offset", 0.0)),
            rename=get("rename", ""),
            limits=_span(raw, "limits"),
            processing=AS_READ if raw.keys().isdisjoint(_PROCESSING_KEYS) else self._processing_of(raw),
            options=NO_OPTIONS if raw.keys() <= _ROW_KEYS else self._options_of(raw),
            writing=AS_ASKED if raw.keys().isdisjoint(_WRITING_KEYS) else _writing_of(raw),
            bridges=_frozen(get("bridges", {})),
        )

    def _number(self, value: float) -> float:
        return self._numbers.setdefault(value, float(value))

    def _processing_of(self, raw: Mapping[str, Any]) -> Processing:
        get = raw.get
        deadband: Any = get("deadband", 0)
        percent = float(deadband[:-1]) if isinstance(deadband, str) else 0.0
        is_reported = "deadband" in raw or "swinging_door" in raw or "heartbeat" in raw
        made = Processing(
            invert=get("invert", False),
            expr=get("expr", ""),
            inverse=get("inverse", ""),
            clamp=_span(raw, "clamp"),
            enum=tuple(sorted((int(key), text) for key, text in get("enum", {}).items())),
            when=get("when", "change" if is_reported else "data"),
            every=parse_duration(raw["every"]) if "every" in raw else 0.0,
            range=_span(raw, "range"),
            deadband=0.0 if isinstance(deadband, str) else float(deadband),
            deadband_percent=percent,
            swinging_door=float(get("swinging_door", 0)),
            heartbeat=parse_duration(raw["heartbeat"]) if "heartbeat" in raw else 0.0,
        )
        return self._processings.setdefault(made, made) if len(self._processings) < SHARED_OPTIONS_MAX else made

    def _options_of(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        options = {key: value for key, value in raw.items() if key not in _ROW_KEYS}
        identity = tuple((key, value.__class__, value) for key, value in options.items())
        try:
            known = self._options.get(identity)
        except TypeError:  # a list among the values: kept apart
            return MappingProxyType(options)
        if known is None:
            known = MappingProxyType(options)
            if len(self._options) < SHARED_OPTIONS_MAX:
                self._options[identity] = known
        return known
