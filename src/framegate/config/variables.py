"""Tag rows on their way from the text to VariableRow, in groups: a raw row lives no longer than its group.

Each group is checked at once against the schema of its rows' plugin; only a group that fails is looked at row by
row. That keeps 100,000 tags within seconds and memory within the typed rows plus one group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framegate.config.explain import findings_of
from framegate.config.problems import Problems
from framegate.config.processing import ProcessingReferences
from framegate.config.references import VariableReferences
from framegate.config.rows import VariableRow
from framegate.config.schema import Check, rows_check
from framegate.config.tables import VariableMaker
from framegate.contract.plugin import Manifest

GROUP_ROWS = 512
"""Raw rows held at once."""


class VariablesReader:
    """Takes raw rows in order and gathers typed ones in `rows`."""

    def __init__(
        self,
        plugins: Mapping[str, Manifest],
        drivers: Mapping[str, Any],
        references: VariableReferences,
        problems: Problems,
    ) -> None:
        """drivers: raw rows of drivers.yml by name; a row's plugin decides which keys its tags may have."""
        self.rows: list[VariableRow] = []
        self._plugins = plugins
        self._plugin_of = {
            name: row["plugin"]
            for name, row in drivers.items()
            if isinstance(row, Mapping) and isinstance(row.get("plugin"), str) and row["plugin"] in plugins
        }
        self._references = references
        self._problems = problems
        self._checks: dict[str, Check] = {}
        self._processing = ProcessingReferences(problems)
        self._maker = VariableMaker()
        self._group: list[tuple[int, Any]] = []
        self.taken = 0
        """Rows taken so far, wrong ones too."""

    def take(self, index: int, rows: Sequence[Any]) -> None:
        """Raw rows, with the index of the first."""
        self.taken = index + len(rows)
        self._group += enumerate(rows, index)
        if len(self._group) >= GROUP_ROWS:
            self._check_group()

    def take_rest(self, document: Mapping[str, Any] | None) -> None:
        """The rows of the table's tree, which holds them only if they were not handed out one by one."""
        left = document.get("variables") if document is not None else None
        self.take(self.taken, left if isinstance(left, list) else ())
        self._check_group()

    def finish(self) -> None:
        """There are no more rows: what only the whole table shows."""
        self._check_group()
        self._processing.finish(self._references.tags, self.rows)

    def _check_group(self) -> None:
        group, self._group = self._group, []
        by_source: dict[Any, list[tuple[int, Any]]] = {}
        for row in group:
            source = row[1].get("source") if row[1].__class__ is dict else None
            by_source.setdefault(source if source.__class__ is str else None, []).append(row)
        by_plugin: dict[str, list[tuple[int, Any]]] = {}
        for source, rows in by_source.items():
            by_plugin.setdefault(self._plugin_of.get(source, ""), []).extend(rows)
        wrong: dict[int, set[str]] = {}
        for plugin, rows in by_plugin.items():
            self._find_wrong(self._check_of(plugin), rows, wrong)
        if not wrong and self._references.passes(group):
            made_rows = self._maker.make_all([raw for _, raw in group])
            self.rows += made_rows
            for (index, _), made in zip(group, made_rows, strict=True):
                self._processing.check(index, made)
            return
        for index, raw in group:
            if index not in wrong:
                made = self._maker.make(raw)
                self.rows.append(made)
                self._references.check(index, raw)
                self._processing.check(index, made)
            elif isinstance(raw, dict):
                self._references.check(index, {key: raw[key] for key in raw.keys() - wrong[index]})

    def _check_of(self, plugin: str) -> Check:
        check = self._checks.get(plugin)
        if check is None:
            entry = self._plugins[plugin].roles.get("driver") if plugin else None
            try:
                check = rows_check(entry)
            except ValueError:  # told once, where drivers.yml names the plugin
                check = rows_check(None)
            self._checks[plugin] = check
        return check

    def _find_wrong(self, check: Check, rows: list[tuple[int, Any]], wrong: dict[int, set[str]]) -> None:
        """Book every mistake, and in `wrong` the keys at fault by row."""
        values = [raw for _, raw in rows]
        if check.passes(values):
            return
        for finding in findings_of(check, values):
            position = finding.path[0]
            assert isinstance(position, int)
            index = rows[position][0]
            wrong.setdefault(index, set()).update(str(step) for step in finding.path[1:2])
            path = ("variables", index, *finding.path[1:])
            self._problems.add("variables", path, finding.code, finding.text, at_key=finding.code == "E1106")
