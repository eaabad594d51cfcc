"""From tag rows to plans: every tag gets its catalogue id, every device its merged reads per scan class.

The walk is the same for `edge check` and `edge run`: factories construct, drivers plan, nothing connects.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from framegate.config import BridgeRow, ConnectorRow, DriverRow, Tables, VariableRow
from framegate.contract.bridge import Bridge
from framegate.contract.connector import Connector
from framegate.contract.driver import BoundTag, Driver
from framegate.contract.frame import TagId, ValueType
from framegate.contract.plugin import Manifest
from framegate.contract.ports import Catalogue
from framegate.gateway.home import Home
from framegate.gateway.plugins.carriers import make_driver, make_role
from framegate.mapper.alarms import ALARM_DEVICE, ALARM_TAG
from framegate.mapper.expression import parse_expression
from framegate.mapper.mapping import MappingRow
from framegate.mapper.processing import AS_READ
from framegate.runtime.slot import ScanPlan

CALCULATED_DEVICE = ALARM_DEVICE


@dataclass(frozen=True, slots=True)
class Factories:
    """Makes drivers, connectors and bridges from their rows, by the plugins' manifests.

    home  where native and WASM drivers have their files; None: there are none
    """

    plugins: Mapping[str, Manifest]
    home: Home | None = None

    def driver(self, row: DriverRow) -> Driver:
        """raises Misconfigured - the plugin cannot be loaded, or the options cannot work"""
        return make_driver(self.plugins[row.plugin], row, self.home)

    def connector(self, row: ConnectorRow) -> Connector:
        """raises Misconfigured - the plugin cannot be loaded, or the options cannot work"""
        return cast(Connector, make_role(self.plugins[row.plugin], "connector", row.options))

    def bridge(self, row: BridgeRow) -> Bridge:
        """For checks alone; one that serves is made in its own process.

        raises Misconfigured - the plugin cannot be loaded, or the options cannot work
        """
        return cast(Bridge, make_role(self.plugins[row.plugin], "bridge", row.options))


@dataclass(frozen=True, slots=True)
class Binding:
    """What the tag table means to the running gateway.

    tags     per device and scan class, as its driver is told
    mapping  rows whose values or names change on the way to the bus, and those that expressions read
    alarm    tag under which failing expressions are told; None where there is no expression
    """

    tags: Mapping[str, Mapping[str, Sequence[BoundTag]]]
    mapping: Sequence[MappingRow]
    alarm: TagId | None

    def plans(self, row: DriverRow, driver: Driver) -> list[ScanPlan]:
        """The device's merged reads, one plan per scan class that has tags; raises Misconfigured."""
        classes = self.tags.get(row.name, {})
        return [ScanPlan(name, row.scan[name], driver.plan(tags), tags) for name, tags in classes.items()]


def bind(tables: Tables, catalogue: Catalogue, devices: Container[str] | None = None) -> Binding:
    """Intern every tag and sort the table by device and scan class.

    devices  those whose tags are asked for, beside tags that may be written; None: all
    """
    tags: dict[str, dict[str, list[BoundTag]]] = {}
    mapping: list[MappingRow] = []
    read = _read_by_expressions(tables.variables)
    for row in tables.variables:
        tag_id = _intern(row, row.tag, catalogue, is_out=not row.rename)
        rename_id = out_id(row, catalogue) if row.rename else None
        is_asked = row.processing is not AS_READ or row.scale != 1.0 or row.offset != 0.0 or rename_id is not None
        if is_asked or row.tag in read:
            mapping.append(
                MappingRow(
                    tag_id, row.scale, row.offset, row.type, rename_id, row.processing, row.tag, bool(row.source)
                )
            )
        if row.source and (devices is None or row.source in devices or "W" in row.access):
            bound = BoundTag(tag_id, row.tag, row.address, row.type, row.access, row.options)
            tags.setdefault(row.source, {}).setdefault(row.scan, []).append(bound)
    has_expressions = any(row.processing.expr for row in tables.variables)
    alarm = catalogue.intern(ALARM_TAG, ALARM_DEVICE, ValueType.STRING, "", "R") if has_expressions else None
    return Binding(tags, mapping, alarm)


def _read_by_expressions(rows: Sequence[VariableRow]) -> set[str]:
    """Names of all tags that an expression reads."""
    texts = [row.processing.expr for row in rows if row.processing.expr]
    return {name for text in texts for name in parse_expression(text).dependencies}


def out_id(row: VariableRow, catalogue: Catalogue) -> TagId:
    """Id under which the rows of a tag go out."""
    return _intern(row, row.name, catalogue, is_out=True)


def _intern(row: VariableRow, name: str, catalogue: Catalogue, *, is_out: bool) -> TagId:
    """A tag with an enum goes out as text; the gateway itself stands for the device of a calculated one."""
    type_ = ValueType.STRING if is_out and row.processing.enum else row.type
    return catalogue.intern(name, row.source or CALCULATED_DEVICE, type_, row.unit, row.access)
