"""Templates of variables.yml: a device described once, and the rows that its instances make of it.

templates:
  meter:
    parameters: {base: {type: integer}}
    variables:
      - {tag: "{name}.power", address: "hr:{base+12}", type: float32, unit: kW}
instances:
  - {template: meter, name: "M{n:03}", source: bus1, base: "{n*100}", each: {n: 1-100}}

A row knows `name`, `source` and the template's parameters; a row with an address and no source is read by the
instance's. An instance with `each` stands for one instance per value, and its own texts know that value. Made rows
are ordinary ones, checked like any other. What a text may hold is in placeholders.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from framegate.config.explain import listed, shown, suggestion
from framegate.config.origins import Origins
from framegate.config.placeholders import PlaceholderWrong, Values, compile_mapping, plain_text
from framegate.config.problems import Problems
from framegate.config.yaml import Path

MADE_ROWS_MAX = 200_000
"""Rows that all instances of a table make together."""
RESERVED = ("template", "name", "source", "each")
"""Keys of an instance that are no parameters."""

_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "text"),
    "integer": ((int,), "a whole number"),
    "number": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
}
_FillRow = Callable[[Values], dict[str, Any]]


class Expansion:
    """Makes rows of the instances of one table, whose tree has passed its schema."""

    def __init__(self, document: Mapping[str, Any], problems: Problems) -> None:
        self.origins = Origins()
        self._templates: Mapping[str, Any] = document.get("templates", {})
        self._instances: Any = document.get("instances", [])
        self._problems = problems
        self._compiled: dict[str, list[_FillRow] | None] = {}
        self._made = 0

    @property
    def unused(self) -> list[str]:
        """Templates without an instance, once all rows are made."""
        return [name for name in self._templates if name not in self._compiled]

    def rows(self, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Made rows with their indexes, which begin at `first`."""
        for path, name, instance in self._named():
            template = instance["template"]
            if template not in self._templates:
                known = listed(list(self._templates)) if self._templates else "no template"
                text = f"no template {template}{suggestion(template, self._templates)}; the table has {known}"
                self._problems.add("variables", (*path, "template"), "E1140", text)
                continue
            fills = self._fills_of(template)
            if fills is None:
                continue
            for values in self._values_of(path, name, instance):
                if self._made + len(fills) > MADE_ROWS_MAX:
                    text = f"instances make more than {MADE_ROWS_MAX:,} rows up to here; divide them among gateways"
                    self._problems.add("variables", path, "E1143", text)
                    return
                self.origins.add(first + self._made, path, plain_text(values["name"]), template)
                for fill in fills:
                    index = first + self._made
                    self._made += 1
                    row = self._filled(fill, values, index)
                    if row is not None:
                        yield index, row

    def _named(self) -> Iterator[tuple[Path, Any, Mapping[str, Any]]]:
        if isinstance(self._instances, Mapping):
            for name, instance in self._instances.items():
                yield ("instances", name), instance.get("name", name), instance
        else:
            for index, instance in enumerate(self._instances):
                yield ("instances", index), instance["name"], instance

    def _fills_of(self, template: str) -> list[_FillRow] | None:
        """The template's rows, compiled; None when one of them cannot be."""
        if template not in self._compiled:
            rows = self._templates[template]["variables"]
            path = ("templates", template, "variables")
            fills = [self._compile((*path, index), row) for index, row in enumerate(rows)]
            whole = [fill for fill in fills if fill is not None]
            self._compiled[template] = whole if len(whole) == len(fills) else None
        return self._compiled[template]

    def _compile(self, path: Path, row: Mapping[str, Any]) -> _FillRow | None:
        try:
            return compile_mapping(row)
        except PlaceholderWrong as wrong:
            self._problems.add("variables", path, "E1141", str(wrong))
            return None

    def _filled(self, fill: _FillRow, values: Values, index: int) -> dict[str, Any] | None:
        try:
            row = fill(values)
        except PlaceholderWrong as wrong:
            self._problems.add("variables", ("variables", index), "E1141", str(wrong))
            return None
        if "address" in row and "source" not in row and "source" in values:
            row["source"] = values["source"]
        return row

    def _values_of(self, path: Path, name: Any, instance: Mapping[str, Any]) -> Iterator[Values]:
        """What the placeholders of a template's row stand for, per instance that this one stands for."""
        given = {key: value for key, value in instance.items() if key not in {"template", "name", "each"}}
        fill = self._compile(path, {"name": name, **given})
        if fill is None:
            return
        parameters = self._templates[instance["template"]].get("parameters", {})
        defaults = {key: rule["default"] for key, rule in parameters.items() if "default" in rule}
        for variables in _each(instance):
            try:
                values = {**defaults, **fill(variables)}
            except PlaceholderWrong as wrong:
                self._problems.add("variables", path, "E1141", str(wrong))
                return
            if not self._are_right(path, parameters, values):
                return  # the other values of `each` would tell the same
            yield values

    def _are_right(self, path: Path, parameters: Mapping[str, Any], values: Values) -> bool:
        before = self._problems.count
        for key, value in values.items():
            if key in {"name", "source"}:
                continue
            if key not in parameters:
                known = listed(list(parameters)) if parameters else "none"
                text = f"the template has no parameter {key}{suggestion(key, parameters)}; its parameters are {known}"
                self._problems.add("variables", (*path, key), "E1142", text, at_key=True)
                continue
            kinds, words = _TYPES.get(parameters[key].get("type", ""), ((object,), ""))
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds and words):
                self._problems.add("variables", (*path, key), "E1142", f"{shown(value)} is not {words}")
        for key in parameters:
            if key not in values:
                self._problems.add("variables", path, "E1142", f"the parameter {key} is missing, and has no default")
        return self._problems.count == before


def _each(instance: Mapping[str, Any]) -> Iterator[Values]:
    each = instance.get("each")
    if each is None:
        yield {}
        return
    ((name, among),) = each.items()
    for value in _counted(among) if isinstance(among, str) else among:
        yield {name: value}


def _counted(span: str) -> Iterable[int]:
    """Whole numbers of a text such as 1-100."""
    first, _, last = span.partition("-")
    return range(int(first), int(last) + 1)
