"""From tag rows to plans: every tag gets its catalogue id, every device its merged reads per scan class.

The walk is the same for `edge check` and `edge run`: factories construct, drivers plan, nothing connects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from framegate.config import ConnectorRow, DriverRow, Tables, VariableRow
from framegate.contract.connector import Connector
from framegate.contract.driver import BoundTag, Driver
from framegate.contract.frame import TagId
from framegate.contract.plugin import Manifest
from framegate.contract.ports import Catalogue
from framegate.mapper.mapping import MappingRow
from framegate.runtime.discover import load_role
from framegate.runtime.slot import ScanPlan


@dataclass(frozen=True, slots=True)
class Factories:
    """Makes drivers and connectors from their rows, by the plugins' manifests."""

    plugins: Mapping[str, Manifest]

    def driver(self, row: DriverRow) -> Driver:
        """raises Misconfigured - the plugin cannot be loaded, or the options cannot work"""
        made = load_role(self.plugins[row.plugin], "driver")(row.options)
        return cast(Driver, made)

    def connector(self, row: ConnectorRow) -> Connector:
        """raises Misconfigured - the plugin cannot be loaded, or the options cannot work"""
        made = load_role(self.plugins[row.plugin], "connector")(row.options)
        return cast(Connector, made)


@dataclass(frozen=True, slots=True)
class Binding:
    """What the tag table means to the running gateway.

    tags     per device and scan class, as its driver is told
    mapping  rows whose values or names change on the way to the bus
    """

    tags: Mapping[str, Mapping[str, Sequence[BoundTag]]]
    mapping: Sequence[MappingRow]

    def plans(self, row: DriverRow, driver: Driver) -> list[ScanPlan]:
        """The device's merged reads, one plan per scan class that has tags; raises Misconfigured."""
        classes = self.tags.get(row.name, {})
        return [ScanPlan(name, row.scan[name], driver.plan(tags), tags) for name, tags in classes.items()]


def bind(tables: Tables, catalogue: Catalogue) -> Binding:
    """Intern every tag and sort the table by device and scan class."""
    tags: dict[str, dict[str, list[BoundTag]]] = {}
    mapping: list[MappingRow] = []
    for row in tables.variables:
        tag_id = _intern(row, row.tag, catalogue)
        rename_id = _intern(row, row.rename, catalogue) if row.rename else None
        if row.scale != 1.0 or row.offset != 0.0 or rename_id is not None:
            mapping.append(MappingRow(tag_id, row.scale, row.offset, row.type, rename_id))
        bound = BoundTag(tag_id, row.tag, row.address, row.type, row.access, row.options)
        tags.setdefault(row.source, {}).setdefault(row.scan, []).append(bound)
    return Binding(tags, mapping)


def _intern(row: VariableRow, name: str, catalogue: Catalogue) -> TagId:
    return catalogue.intern(name, row.source, row.type, row.unit, row.access)
