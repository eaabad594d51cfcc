"""Relations between rows: who names whom, which names stand twice, what a row asks of its plugin.

A row that is wrong in itself still counts as a name, so that one mistake is told once and not by every row that
refers to it. Where a whole table could not be read, nothing is said of references into it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from framegate.config.explain import findings_of, listed, suggestion
from framegate.config.problems import Problems
from framegate.config.rows import BridgeRow, ConnectorRow, DriverRow
from framegate.config.schema import options_check
from framegate.contract.frame import Kind, ValueType
from framegate.contract.plugin import Manifest, Role, RoleEntry
from framegate.endpoint.url import SCHEMES

ServedRow = DriverRow | ConnectorRow | BridgeRow
"""Rows that name a plugin and an endpoint."""
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}?|\}")
_TOPIC_WORDS = ("tenant", "gateway", "connector", "device", "tag")
LANES = 2  # of a connector with backlog: live_first
_NOT_NUMBERS = frozenset(kind.value for kind in ValueType if kind.kind in {Kind.BOOL, Kind.OBJECT})


class RowReferences:
    """Checks of driver, connector and bridge rows against plugins and endpoints."""

    def __init__(
        self, plugins: Mapping[str, Manifest], endpoints: Mapping[str, Any] | None, problems: Problems
    ) -> None:
        """endpoints: raw rows by name, or None when that table could not be read."""
        self._plugins = plugins
        self._endpoints = endpoints
        self._problems = problems

    def check(self, section: str, role: Role, row: ServedRow) -> None:
        """Plugin, options and endpoint of one row."""
        entry = self._entry(section, role, row)
        if entry is None:
            self._check_endpoint_name(section, row)
            return
        path = (section, row.name)
        try:
            options = options_check(entry)
        except ValueError as error:
            text = f"the schema of plugin {row.plugin} is broken ({error}); install another version of the plugin"
            self._problems.add("drivers", (*path, "plugin"), "E1114", text)
        else:
            for finding in findings_of(options, dict(row.options)):
                steps = (*path, "options", *finding.path) if row.options else path
                text = finding.text if row.options else f"in options, {finding.text}"
                self._problems.add("drivers", steps, finding.code, text, at_key=finding.code == "E1106")
        self._check_endpoint(section, row, entry)

    def _entry(self, section: str, role: Role, row: ServedRow) -> RoleEntry | None:
        fitting = sorted(name for name, manifest in self._plugins.items() if role in manifest.roles)
        manifest = self._plugins.get(row.plugin)
        if manifest is not None and role in manifest.roles:
            return manifest.roles[role]
        choice = f"plugins with a {role} are {listed(fitting)}" if fitting else f"no plugin with a {role} is installed"
        path = (section, row.name, "plugin")
        if manifest is None:
            text = f"no plugin {row.plugin}{suggestion(row.plugin, fitting)}; {choice}"
            self._problems.add("drivers", path, "E1111", text)
        else:
            self._problems.add("drivers", path, "E1114", f"plugin {row.plugin} has no {role}; {choice}")
        return None

    def _check_endpoint(self, section: str, row: ServedRow, entry: RoleEntry) -> None:
        path = (section, row.name)
        if not entry.endpoint:
            if row.endpoint:
                text = f"plugin {row.plugin} uses no endpoint; remove this key"
                self._problems.add("drivers", (*path, "endpoint"), "E1115", text, at_key=True)
            return
        if not row.endpoint:
            text = f"the key endpoint is missing; plugin {row.plugin} connects by {listed(entry.endpoint)}"
            self._problems.add("drivers", path, "E1107", text)
            return
        raw = self._check_endpoint_name(section, row)
        url = raw.get("url") if isinstance(raw, Mapping) else None
        scheme = url.partition("://")[0] if isinstance(url, str) else ""
        # TLS carries the same bytes as TCP, and a memory line stands in for any line in tests.
        fits = scheme.removeprefix("tls+") in entry.endpoint or scheme in entry.endpoint or scheme == "memory"
        if scheme in SCHEMES and not fits:
            text = f"{row.endpoint} is a {scheme} endpoint; plugin {row.plugin} connects by {listed(entry.endpoint)}"
            self._problems.add("drivers", (*path, "endpoint"), "E1115", text)

    def _check_endpoint_name(self, section: str, row: ServedRow) -> Any:
        if self._endpoints is None or not row.endpoint:
            return None
        if row.endpoint not in self._endpoints:
            text = f"no endpoint {row.endpoint} in endpoints.yml{suggestion(row.endpoint, self._endpoints)}"
            if self._endpoints:
                text += f"; it has {listed(list(self._endpoints))}"
            self._problems.add("drivers", (section, row.name, "endpoint"), "E1111", text)
        return self._endpoints.get(row.endpoint)


def check_topic(key: str, topic: str, row: ConnectorRow, problems: Problems) -> None:
    """Placeholders of a connector's topic, which stands under `key`."""
    path = ("connectors", row.name, key)
    for found in _PLACEHOLDER.finditer(topic):
        word = found[1]
        if word is None or not found[0].endswith("}"):
            problems.add("drivers", path, "E1110", f'"{topic}" has a brace without its partner; write {{device}}')
        elif word not in _TOPIC_WORDS:
            text = f"{{{word}}} is not one of {listed(_TOPIC_WORDS)}{suggestion(word, _TOPIC_WORDS)}"
            problems.add("drivers", path, "E1104", text)
        elif word == "tag" and row.encoding != "json":
            text = f"{{tag}} needs `encoding: json`; with {row.encoding} a message holds many tags"
            problems.add("drivers", path, "E1104", text)


def check_lanes(row: ConnectorRow, problems: Problems) -> None:
    """Live values and back-fill each need a window of their own."""
    if row.backlog == "live_first" and row.windows_in_flight < LANES:
        text = f"backlog: live_first needs windows_in_flight of {LANES} or more, one for each of its lanes; it is 1"
        problems.add("drivers", ("connectors", row.name, "windows_in_flight"), "E1110", text)


class VariableReferences:
    """Checks of tag rows against their sources and against each other, one row after the other."""

    def __init__(self, sources: Collection[str] | None, drivers: Mapping[str, DriverRow], problems: Problems) -> None:
        """sources: every name in drivers.yml, or None when it could not be read; drivers: the valid rows."""
        self._sources = sources
        self._drivers = drivers
        self._problems = problems
        self.tags: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self.used: set[str] = set()

    def passes(self, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> bool:
        """Take valid raw rows as one if nothing can be said against any; else none, and each is to be checked."""
        tags = {raw["tag"]: index for index, raw in rows}
        if len(tags) < len(rows) or not self.tags.keys().isdisjoint(tags) or not self._names.keys().isdisjoint(tags):
            return False
        if any("rename" in raw or raw["type"] in _NOT_NUMBERS for _, raw in rows):
            return False
        asked = {(raw.get("source", ""), raw.get("scan", "default")) for _, raw in rows}
        if not all(source in self._drivers and scan in self._drivers[source].scan for source, scan in asked):
            return False
        self.tags.update(tags)
        self._names.update(tags)
        self.used.update(source for source, _ in asked)
        return True

    def check(self, index: int, raw: Mapping[str, Any]) -> None:
        """One raw row, without those of its keys that are wrong in themselves; `index` is its place in the list."""
        tag, source = raw.get("tag"), raw.get("source")
        if tag is not None:
            first = self.tags.setdefault(tag, index)
            if first == index:
                self._check_name(index, tag, raw.get("rename"))
            else:
                text = f'"{tag}" stands first at {{other}}; every tag has a name of its own'
                other = ("variables", ("variables", first, "tag"))
                self._problems.add("variables", ("variables", index, "tag"), "E1112", text, other=other)
        if source is not None:
            self.used.add(source)
            driver = self._drivers.get(source)
            if driver is not None:
                if raw.get("scan", "default") not in driver.scan:
                    self._unknown_scan(index, raw, driver)
            elif self._sources is not None and source not in self._sources:
                near = "" if self._problems.is_full else suggestion(source, self._sources)
                text = f"no driver {source} in drivers.yml{near}"
                self._problems.add("variables", ("variables", index, "source"), "E1111", text)
        if raw.get("type") in _NOT_NUMBERS and (raw.get("scale", 1) != 1 or raw.get("offset", 0) != 0):
            key = "scale" if raw.get("scale", 1) != 1 else "offset"
            text = f"this tag is {raw['type']}, and {key} is for numbers; remove it"
            self._problems.add("variables", ("variables", index, key), "E1113", text, at_key=True)

    def _check_name(self, index: int, tag: str, rename: str | None) -> None:
        """Names after renaming must differ, too."""
        name = rename or tag
        first = self._names.setdefault(name, index)
        if first != index:
            text = f'"{name}" goes out already for the tag at {{other}}; give one of them another name'
            key = "rename" if rename else "tag"
            other = ("variables", ("variables", first))
            self._problems.add("variables", ("variables", index, key), "E1112", text, other=other)

    def _unknown_scan(self, index: int, raw: Mapping[str, Any], driver: DriverRow) -> None:
        wanted, classes = raw["scan"], list(driver.scan)
        text = f"{driver.name} has no scan class {wanted}{suggestion(wanted, classes)}; it has {listed(classes)}"
        self._problems.add("variables", ("variables", index, "scan"), "E1111", text)
