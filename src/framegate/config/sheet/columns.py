"""Columns of a sheet: the keys of a table's rows, in the schema's order, each with what its cells hold.

Keys that plugins add are columns like any other. `(template)` is no key: it says which instance made a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from framegate.config.schema import Schema, Table, merge_schemas
from framegate.contract.plugin import Manifest

Kind: TypeAlias = Literal["text", "number", "boolean", "any"]
"""What a cell without quotes and brackets is taken for. text: itself; number, any: what YAML would take it for, with a
decimal comma too; boolean: the words of a few languages."""

TEMPLATE = "(template)"
_KINDS: Mapping[str, Kind] = {"string": "text", "number": "number", "integer": "number", "boolean": "boolean"}


class Column(NamedTuple):
    """One column, by the key that its cells are values of."""

    name: str
    kind: Kind


def columns_of(schema: Schema, row: str, rows: Iterable[Mapping[str, Any]] = ()) -> list[Column]:
    """Columns for rows that `$defs/<row>` describes; keys that only stand in `rows` follow behind."""
    properties = schema["$defs"][row]["properties"]
    columns = {key: Column(key, _kind(key, rule, schema)) for key, rule in properties.items()}
    for given in rows:
        for key in given:
            if key not in columns:
                columns[key] = Column(key, "any")
    return list(columns.values())


def variable_columns(plugins: Mapping[str, Manifest], rows: Iterable[Mapping[str, Any]] = ()) -> list[Column]:
    """Columns of variables.yml."""
    table: Table = "variables"
    return columns_of(merge_schemas(plugins)[table], "variable", rows)


def _kind(key: str, rule: Any, schema: Schema) -> Kind:
    if key == "address":  # a number is taken for its digits: 40001 and "40001" are one address
        return "text"
    while isinstance(rule, Mapping) and "$ref" in rule:
        rule = _at(schema, rule["$ref"])
    if not isinstance(rule, Mapping):
        return "any"
    if isinstance(rule.get("type"), str):
        return _KINDS.get(rule["type"], "any")
    if rule.get("enum") and all(isinstance(choice, str) for choice in rule["enum"]):
        return "text"
    choices = {_kind("", choice, schema) for choice in rule.get("anyOf", ())}
    return choices.pop() if len(choices) == 1 else "any"


def _at(schema: Schema, reference: str) -> Any:
    place: Any = schema
    for step in reference.removeprefix("#/").split("/"):
        place = place.get(step, {}) if isinstance(place, Mapping) else {}
    return place
