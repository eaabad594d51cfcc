"""The one way from a folder with three tables to Tables: `edge check`, `edge run` and every reload walk it.

Everything wrong is found in one go: text, schema, references, endpoints. What needs a plugin's code is in
plugin_check.py, because plugins are handed in by whoever may load them. Nothing here connects, writes or waits.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from framegate.config.access_check import check_access
from framegate.config.bridge_references import check_shown
from framegate.config.endpoint_check import endpoint_problems
from framegate.config.explain import Finding, findings_of, listed, suggestion
from framegate.config.isolation import check_isolation
from framegate.config.lines import load_rows
from framegate.config.problems import Problems
from framegate.config.references import RowReferences, VariableReferences, check_lanes, check_topic
from framegate.config.rows import (
    BridgeRow,
    ConnectorRow,
    DriverRow,
    EndpointRow,
    GatewayRow,
    RuleRow,
    Tables,
    VariableRow,
)
from framegate.config.rule_references import RuleReferences
from framegate.config.scan_bound import check_scan_bounds
from framegate.config.schema import TABLES, Table, table_check
from framegate.config.source import read_table
from framegate.config.tables import bridge_row, connector_row, driver_row, gateway_row, rule_row
from framegate.config.templates import Expansion
from framegate.config.variables import VariablesReader
from framegate.config.warnings import warnings_of
from framegate.config.yaml import Document, Flaw, Path, load_yaml
from framegate.contract.errors import Misconfigured, Problem
from framegate.contract.plugin import Manifest


def load_tables(
    folder: FilePath, plugins: Mapping[str, Manifest], texts: Mapping[Table, bytes] | None = None
) -> Tables:
    """Read and check endpoints.yml, drivers.yml and variables.yml of a folder.

    folder   paths of certificates and keys in the tables are relative to it
    plugins  manifests by plugin name
    texts    the tables' bytes where they do not come from the folder's files, e.g. those of a generation
    raises   Misconfigured E1000 - with every problem, placed; at most PROBLEMS_MAX and a count of the others
    """
    load = _Load(folder, plugins, {} if texts is None else texts)
    with garbage_waits():
        tables = load.run()
    if load.problems:
        placed = load.problems.placed(load.texts)
        noun = "problem" if load.problems.count == 1 else "problems"
        raise Misconfigured(f"{load.problems.count:,} {noun} in the tables of {folder}; see each line", problems=placed)
    return tables


@contextlib.contextmanager
def garbage_waits() -> Iterator[None]:
    """No cycle collector meanwhile: a load makes millions of short-lived objects and no cycles; it saves a third."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Load:
    """State of one load: texts read, problems found, rows that are fine."""

    def __init__(self, folder: FilePath, plugins: Mapping[str, Manifest], texts: Mapping[Table, bytes]) -> None:
        self.folder = folder
        self.plugins = plugins
        self.problems = Problems()
        self.texts: dict[str, bytes] = {table: data for table, data in texts.items()}  # noqa: C416 - other key type
        self.names: dict[str, Mapping[str, Any] | None] = {}
        """Raw rows by section, wrong ones too; None where the table could not be read."""
        self.rules: dict[str, RuleRow] = {}
        self.bridges: dict[str, BridgeRow] = {}
        self.scanless: set[str] = set()
        """Drivers whose scan classes are not known, because they are written wrongly."""

    def run(self) -> Tables:
        for table in TABLES:
            self._read(table)
        endpoints = self._endpoints()
        gateway, drivers, connectors = self._drivers()
        variables, used, unused = self._variables(
            {name: row for name, row in drivers.items() if name not in self.scanless}
        )
        if self.rules:
            names = {row.name for row in variables} if "variables" in self.texts else None
            RuleReferences(self.rules, names, self.problems).check()
        check_scan_bounds(drivers, variables, self.plugins, self.problems)
        check_shown(variables, self.names["bridges"], self.bridges, self.plugins, self.problems)
        tables = Tables(
            gateway,
            endpoints,
            drivers,
            connectors,
            variables,
            rules=self.rules,
            origins=self.problems.origins,
            bridges=self.bridges,
        )
        if self.problems:
            return tables
        gathered = warnings_of(tables, used, unused)
        return replace(tables, warnings=gathered.placed(self.texts)) if gathered else tables

    def _read(self, table: Table) -> None:
        if table in self.texts:
            return
        data = read_table(self.folder, table)
        if isinstance(data, bytes):
            self.texts[table] = data
        else:
            self.problems.add(table, (), data.code, data.text)

    def _document(self, table: Table) -> dict[str, Any] | None:
        """The small tables as a tree; None when there is none to check."""
        if table not in self.texts:
            return None
        return self._whole(table, load_yaml(self.texts[table]))

    def _whole(self, table: Table, document: Document) -> dict[str, Any] | None:
        for flaw in document.flaws:
            self.problems.add_flaw(table, flaw)
        if not document.is_whole:
            return None
        if document.value is None:
            text = f"the file is empty; it needs the key {table}, and `{table}: {{}}` says that there are none"
            text = text.replace("{}", "[]") if table == "variables" else text
            self.problems.add_flaw(table, Flaw(1, 1, "E1102", text))
            return None
        if not isinstance(document.value, dict):
            self.problems.add_flaw(table, Flaw(1, 1, "E1108", f"the file is not a mapping; it begins with `{table}:`"))
            return None
        return document.value

    def _faults(self, table: Table, document: dict[str, Any]) -> set[Path]:
        """Check a tree against its table's schema; paths of the values at fault."""
        wrong: set[Path] = set()
        for finding in findings_of(table_check(table), document):
            is_key = finding.code == "E1106" or (finding.code == "E1110" and _is_name(finding.path))
            self.problems.add(table, finding.path, finding.code, finding.text, at_key=is_key)
            wrong.add(finding.path)
        return wrong

    def _section(self, document: dict[str, Any] | None, section: str) -> Mapping[str, Any]:
        found = None if document is None else document.get(section, {})
        self.names[section] = found if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def _endpoints(self) -> dict[str, EndpointRow]:
        document = self._document("endpoints")
        rows = self._section(document, "endpoints")
        wrong = self._faults("endpoints", document) if document is not None else set()
        sound = _sound(rows, ("endpoints",), wrong)
        good = {name: EndpointRow(name, row) for name, row in sound.items() if "url" in row}
        for row in good.values():
            for problem in endpoint_problems(row, self.folder):
                self.problems.add_problem(problem)
        return good

    def _drivers(self) -> tuple[GatewayRow, dict[str, DriverRow], dict[str, ConnectorRow]]:
        document = self._document("drivers")
        drivers, connectors = self._section(document, "drivers"), self._section(document, "connectors")
        wrong = self._faults("drivers", document) if document is not None else set()
        raw = self._section(document, "gateway")
        self.scanless = {str(path[1]) for path in wrong if path[:1] == ("drivers",) and path[2:3] == ("scan",)}
        sound = _sound(raw, ("gateway",), wrong)
        if any(path[:2] == ("gateway", "access") for path in wrong):
            sound.pop("access", None)
        gateway = gateway_row(sound, self.problems)
        check_access(gateway.access, self.folder, self.problems)
        references = RowReferences(self.plugins, self.names["endpoints"], self.problems)
        good_drivers = {
            name: driver_row(name, row, self.problems) for name, row in _usable("drivers", drivers, wrong).items()
        }
        good_connectors = {
            name: connector_row(name, row, self.problems)
            for name, row in _usable("connectors", connectors, wrong).items()
        }
        bridges = _usable("bridges", self._section(document, "bridges"), wrong)
        self.bridges = {name: bridge_row(name, row, self.problems) for name, row in bridges.items()}
        for driver in good_drivers.values():
            references.check("drivers", "driver", driver)
        check_isolation(good_drivers.values(), self.plugins, gateway, self.problems)
        for bridge in self.bridges.values():
            references.check("bridges", "bridge", bridge)
        for connector in good_connectors.values():
            references.check("connectors", "connector", connector)
            check_topic("topic", connector.topic, connector, self.problems)
            check_topic("backfill_topic", connector.backfill_topic, connector, self.problems)
            check_lanes(connector, self.problems)
        rules = _sound(self._section(document, "rules"), ("rules",), wrong)
        at_fault = {str(path[1]) for path in wrong if path[:1] == ("rules",) and len(path) > 1}
        self.rules = {name: rule_row(name, row) for name, row in rules.items() if name not in at_fault}
        return gateway, good_drivers, good_connectors

    def _variables(self, drivers: Mapping[str, DriverRow]) -> tuple[tuple[VariableRow, ...], set[str], list[str]]:
        """Tag rows, the drivers they name, and the templates that no instance uses."""
        references = VariableReferences(self.names["drivers"], drivers, self.problems)
        if "variables" not in self.texts:
            return (), references.used, []
        reader = VariablesReader(self.plugins, self.names["drivers"] or {}, references, self.problems)
        document = self._whole("variables", load_rows(self.texts["variables"], "variables", reader.take))
        reader.take_rest(document)
        unused = self._expand(document, reader) if document is not None else []
        reader.finish()
        return tuple(reader.rows), references.used, unused

    def _expand(self, document: Mapping[str, Any], reader: VariablesReader) -> list[str]:
        """Hand out the rows that instances make of templates; the templates that no instance uses."""
        rest = {**document, "variables": []} if isinstance(document.get("variables"), list) else dict(document)
        if self._faults("variables", rest):
            return []
        expansion = Expansion(document, self.problems)
        self.problems.origins = expansion.origins
        for index, row in expansion.rows(reader.taken):
            reader.take(index, (row,))
        return expansion.unused


def _sound(value: Mapping[str, Any], path: Path, wrong: set[Path]) -> dict[str, Any]:
    """A tree without the values at fault."""
    return {
        key: _sound(inner, (*path, key), wrong) if isinstance(inner, dict) else inner
        for key, inner in value.items()
        if (*path, key) not in wrong
    }


def _usable(section: str, rows: Mapping[str, Any], wrong: set[Path]) -> dict[str, dict[str, Any]]:
    """Rows that can be checked on, without their keys at fault; no rule then complains of a key that was dropped."""
    return {
        name: kept
        for name, kept in _sound(rows, (section,), wrong).items()
        if not any(key in rows[name] and key not in kept for key in ("plugin", "endpoint", "options", "encoding"))
    }


def _is_name(path: Path) -> bool:
    return len(path) == 2 and path[0] in ("endpoints", "drivers", "connectors", "bridges", "rules")


def load_rules(file: FilePath, only: str = "") -> list[RuleRow]:
    """Rules of one file, a drivers.yml or one with the key `rules` alone, by themselves; tags are not looked at.

    only    a rule's name; "" = all of them
    raises  Misconfigured E5041 - the file cannot be read, holds no rules or not that one; E1000 with problems of rows
    """
    data = read_table(file.parent, file.name.removesuffix(".yml"))
    document = load_yaml(data) if isinstance(data, bytes) else None
    if document is None or not isinstance(document.value, dict) or not isinstance(document.value.get("rules"), dict):
        why = data.text if isinstance(data, Finding) else "it holds no mapping `rules`"
        raise Misconfigured(f"rules of {file}: {why}", code="E5041")
    rules = document.value["rules"]
    if only and only not in rules:
        text = f"rules of {file}: no rule {only}{suggestion(only, rules)}; it has {listed(list(rules))}"
        raise Misconfigured(text, code="E5041")
    wanted = {name: row for name, row in rules.items() if only in {"", name}}
    problems = [
        Problem("drivers", finding.path, finding.code, f"{'.'.join(map(str, finding.path[1:]))}: {finding.text}")
        for finding in findings_of(table_check("drivers"), {"drivers": {}, "rules": wanted})
    ]
    if problems or document.flaws:
        flaws = [Problem("drivers", (), flaw.code, f"line {flaw.line}: {flaw.text}") for flaw in document.flaws]
        raise Misconfigured(f"rules of {file} cannot work", problems=(*flaws, *problems))
    return [rule_row(name, row) for name, row in wanted.items()]
