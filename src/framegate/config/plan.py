"""What a new configuration changes in a running one: which devices, connectors and tags, and nothing else.

    plan = plan_change(outline_of(running), outline_of(wanted))

A tag whose scale, unit, description or processing changes leaves its device alone: only the mapping is made anew. A
tag whose address, type, access or scan changes, that is new or gone, has its device's reads planned anew; the line
stays open. Only changed options, plugins or endpoints restart what they belong to. Pure; gateway/apply.py acts on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.config.rows import (
    AS_ASKED,
    NO_OPTIONS,
    BridgeRow,
    ConnectorRow,
    DriverRow,
    EndpointRow,
    GatewayRow,
    RuleRow,
    StoreRow,
    Tables,
    VariableRow,
)
from framegate.config.shown import shown_tags
from framegate.config.watch import Signature
from framegate.mapper.processing import AS_READ

Hashes = npt.NDArray[np.int64]
STEPS_MAX = 20
"""Devices, connectors or endpoints of one fate that steps_of names."""
LIVE_SETTINGS = frozenset(("reload",))
"""Keys of the gateway that a running gateway takes; the others want a restart of the process."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A configuration without its tag rows: 28 bytes a tag stay of them, 100,000 rows would hold 30 MiB.

    scripts  what tells one state of the rules' scripts from another
    tag      int64[rows], hash of the tag's name
    read     int64[rows], hash of what its driver is told
    rest     int64[rows], hash of everything else
    device   int32[rows], index into `sources`
    shown    by bridge, a hash of what it shows

    Hashes are Python's own, keyed anew in every process: good for comparisons within one, 64 bits wide.
    """

    gateway: GatewayRow
    endpoints: Mapping[str, EndpointRow]
    drivers: Mapping[str, DriverRow]
    connectors: Mapping[str, ConnectorRow]
    rules: Mapping[str, RuleRow]
    scripts: Signature
    tag: Hashes
    read: Hashes
    rest: Hashes
    device: npt.NDArray[np.int32]
    sources: tuple[str, ...]
    bridges: Mapping[str, BridgeRow]
    shown: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of one kind of thing, by what becomes of it; each is in one list at most."""

    started: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.started or self.stopped or self.restarted)


@dataclass(frozen=True, slots=True)
class TagChanges:
    """Places of tag rows: in the new table, but for `removed`, which are places in the old one.

    moved     its driver reads it differently
    reworked  read as before; what becomes of its values, or what is said about it, changes
    """

    added: Hashes
    moved: Hashes
    reworked: Hashes
    removed: Hashes

    def __bool__(self) -> bool:
        return bool(len(self.added) or len(self.moved) or len(self.reworked) or len(self.removed))


@dataclass(frozen=True, slots=True)
class Plan:
    """The difference of two configurations.

    endpoints  rows of endpoints.yml; what uses one that changed is restarted with it
    replanned  devices whose reads are planned anew while their lines stay open
    settings   keys of drivers.yml that only a restart of the process can change
    """

    endpoints: Changes
    devices: Changes
    connectors: Changes
    bridges: Changes
    rules: Changes
    replanned: tuple[str, ...]
    tags: TagChanges
    settings: tuple[str, ...]

    def __bool__(self) -> bool:
        parts = (self.endpoints, self.devices, self.connectors, self.bridges, self.rules)
        return any((*parts, self.replanned, self.tags, self.settings))


def outline_of(tables: Tables, scripts: Signature = ()) -> Outline:
    """What a plan needs of a configuration. 100,000 rows take 0.2 s."""
    digest, rows = _RowDigest(), tables.variables
    sources: dict[str, int] = {}
    device = [sources.setdefault(row.source, len(sources)) for row in rows]
    return Outline(
        gateway=tables.gateway,
        endpoints=tables.endpoints,
        drivers=tables.drivers,
        connectors=tables.connectors,
        rules=tables.rules,
        scripts=scripts,
        tag=np.array([hash(row.tag) for row in rows], np.int64),
        read=np.array(list(map(digest.read, rows)), np.int64),
        rest=np.array(list(map(digest.rest, rows)), np.int64),
        device=np.array(device, np.int32),
        sources=tuple(sources),
        bridges=tables.bridges,
        shown={name: hash(shown_tags(row, rows)) for name, row in _enabled(tables.bridges).items()},
    )


def plan_change(old: Outline, new: Outline) -> Plan:
    """What is to be done to come from one configuration to another."""
    endpoints = _changes(old.endpoints, new.endpoints)
    fresh_endpoints = {*endpoints.restarted, *endpoints.started, *endpoints.stopped}
    devices = _changes(_enabled(old.drivers), _enabled(new.drivers), fresh_endpoints, ignored="scan")
    connectors = _changes(_enabled(old.connectors), _enabled(new.connectors), fresh_endpoints)
    tags = _tag_changes(old, new)
    concerned = {new.sources[index] for index in new.device[np.concatenate((tags.added, tags.moved))].tolist()}
    concerned |= _old_devices(old, new, tags)
    concerned |= {
        name for name, row in new.drivers.items() if name in old.drivers and old.drivers[name].scan != row.scan
    }
    running = {name for name in _enabled(new.drivers) if name in _enabled(old.drivers)}
    replanned = tuple(name for name in new.drivers if name in concerned & running - {*devices.restarted})
    return Plan(
        endpoints,
        devices,
        connectors,
        _bridge_changes(old, new, fresh_endpoints),
        _rule_changes(old, new),
        replanned,
        tags,
        _settings(old.gateway, new.gateway),
    )


def steps_of(plan: Plan) -> tuple[str, ...]:
    """What a plan does, for people: one line for each thing that notices, and one for the tags."""
    steps = [f"{key} takes effect when the gateway restarts" for key in plan.settings]
    for noun, changes, verb in (
        ("endpoint", plan.endpoints, "changes"),
        ("device", plan.devices, "restarts"),
        ("connector", plan.connectors, "restarts"),
        ("bridge", plan.bridges, "restarts, its clients connect anew"),
        ("rule", plan.rules, "is made anew, its state stays"),
    ):
        steps += _steps(noun, changes.started, "comes")
        steps += _steps(noun, changes.stopped, "goes")
        steps += _steps(noun, changes.restarted, verb)
    steps += _steps("device", plan.replanned, "is read by a new plan, its line stays open")
    tags = plan.tags
    counts = (
        (tags.added, "new"),
        (tags.removed, "gone"),
        (tags.moved, "read differently"),
        (tags.reworked, "read as before, with other scale, name, unit, text or processing"),
    )
    steps += [f"tags {what}: {len(rows):,}" for rows, what in counts if len(rows)]
    return tuple(steps)


def _steps(noun: str, names: Sequence[str], verb: str) -> list[str]:
    shown = [f"{noun} {name} {verb}" for name in names[:STEPS_MAX]]
    more = len(names) - len(shown)
    return [*shown, f"and {more:,} more {noun}s like it"] if more else shown


class _RowDigest:
    """Hashes of tag rows. Numbers are hashed as text: hash(-1) is hash(-2), and 1 is True."""

    def __init__(self) -> None:
        self._texts: dict[float, str] = {}
        self._options: dict[int, str] = {id(NO_OPTIONS): ""}
        self._processing: dict[int, str] = {id(AS_READ): ""}

    def read(self, row: VariableRow) -> int:
        options = self._options.get(id(row.options))
        if options is None:
            options = self._options[id(row.options)] = repr(sorted(row.options.items()))
        return hash((row.source, row.scan, row.address, row.type.value, row.access, options))

    def rest(self, row: VariableRow) -> int:
        processing = self._processing.get(id(row.processing))
        if processing is None:
            processing = self._processing[id(row.processing)] = repr(row.processing)
        texts, scale, offset = self._texts, row.scale, row.offset
        scale_text = texts.get(scale) or texts.setdefault(scale, repr(scale))
        offset_text = texts.get(offset) or texts.setdefault(offset, repr(offset))
        limits = "" if row.limits is None else repr(row.limits)
        writing = "" if row.writing is AS_ASKED else repr(row.writing)
        bridges = "" if row.bridges is NO_OPTIONS else repr(row.bridges)
        return hash(
            (row.unit, row.description, scale_text, offset_text, row.rename, limits, processing, writing, bridges)
        )


def _changes(
    old: Mapping[str, Any], new: Mapping[str, Any], fresh_endpoints: Iterable[str] = (), ignored: str = ""
) -> Changes:
    """Rows by name that came, went, or are no longer equal; `ignored` names a key that does not count."""
    fresh = set(fresh_endpoints)

    def is_other(before: Any, after: Any) -> bool:
        if ignored:
            before = replace(before, **{ignored: getattr(after, ignored)})
        return bool(before != after or getattr(after, "endpoint", "") in fresh)

    return Changes(
        started=tuple(name for name in new if name not in old),
        stopped=tuple(name for name in old if name not in new),
        restarted=tuple(name for name, row in new.items() if name in old and is_other(old[name], row)),
    )


def _rule_changes(old: Outline, new: Outline) -> Changes:
    """A changed script may be any one's: every rule with a script is made anew with it."""
    changes = _changes(old.rules, new.rules)
    if old.scripts == new.scripts:
        return changes
    told = {*changes.started, *changes.restarted}
    scripted = tuple(name for name, row in new.rules.items() if row.kind in {"lua", "wasm"} and name not in told)
    return replace(changes, restarted=changes.restarted + scripted)


def _bridge_changes(old: Outline, new: Outline, fresh_endpoints: Iterable[str]) -> Changes:
    """A bridge restarts with its row, its endpoint, and with any change of what it shows."""
    changes = _changes(_enabled(old.bridges), _enabled(new.bridges), fresh_endpoints)
    told = {*changes.started, *changes.restarted}
    others = tuple(name for name, shown in new.shown.items() if name not in told and old.shown.get(name) != shown)
    return replace(changes, restarted=changes.restarted + others)


def _enabled(rows: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: row for name, row in rows.items() if row.enabled}


def _tag_changes(old: Outline, new: Outline) -> TagChanges:
    _, in_old, in_new = np.intersect1d(old.tag, new.tag, assume_unique=True, return_indices=True)
    is_moved = old.read[in_old] != new.read[in_new]
    is_reworked = ~is_moved & (old.rest[in_old] != new.rest[in_new])
    return TagChanges(
        added=np.setdiff1d(np.arange(len(new.tag)), in_new, assume_unique=True),
        moved=np.sort(in_new[is_moved]),
        reworked=np.sort(in_new[is_reworked]),
        removed=np.setdiff1d(np.arange(len(old.tag)), in_old, assume_unique=True),
    )


def _old_devices(old: Outline, new: Outline, tags: TagChanges) -> set[str]:
    """Devices that read something until now which is gone or has moved."""
    moved = np.flatnonzero(np.isin(old.tag, new.tag[tags.moved]))
    return {old.sources[index] for index in old.device[np.concatenate((tags.removed, moved))].tolist()}


def _settings(old: GatewayRow, new: GatewayRow) -> tuple[str, ...]:
    found = []
    for field in fields(GatewayRow):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after or field.name in LIVE_SETTINGS:
            continue
        if isinstance(before, StoreRow):
            inner = (key.name for key in fields(StoreRow) if getattr(before, key.name) != getattr(after, key.name))
            found += [f"gateway.{field.name}.{name}" for name in inner]
        else:
            found.append(f"gateway.{field.name}")
    return tuple(found)
