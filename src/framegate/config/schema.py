"""The tables' JSON Schemas with the plugins' own merged in: for checking, and for editors.

Sources: contract/tables/*.schema.json, and the schema of each plugin role (its root describes `options`, its
`$defs/tag` the keys that it adds to a tag row). Checking takes the pieces apart, so that an error names the plugin's
rule and not a branch of a big `if`; `merge_schemas` puts them together for editors, as draft-07 allows.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, wraps
from typing import Any, Literal, TypeAlias, TypeVar

import jsonschema_rs

from framegate.contract.law import law_text
from framegate.contract.plugin import Manifest, Role, RoleEntry

Table: TypeAlias = Literal["endpoints", "drivers", "variables"]
TABLES: tuple[Table, ...] = ("endpoints", "drivers", "variables")
Schema: TypeAlias = dict[str, Any]
Language: TypeAlias = Literal["en", "zh"]

CHECKS_MAX = 64
"""Compiled checks of plugins' entries that are kept."""
_Entry = TypeVar("_Entry", RoleEntry, RoleEntry | None)
_ANNOTATIONS = ("title", "description", "description_zh", "$schema", "$id")
_CLOSERS = ("additionalProperties", "unevaluatedProperties", "patternProperties")


@cache
def table_schema(table: Table) -> Schema:
    """Schema of one table as the law has it, without any plugin. Not to be changed by its readers."""
    schema: Schema = json.loads(law_text(f"tables/{table}.schema.json"))
    return schema


class Check:
    """One compiled schema, and its text for the errors it raises."""

    __slots__ = ("_validator", "schema")

    def __init__(self, schema: Schema) -> None:
        """Compile. Raises ValueError when the schema itself is wrong."""
        self.schema = schema
        try:
            self._validator = jsonschema_rs.Draft202012Validator(schema)
        except jsonschema_rs.ReferencingError as error:
            raise ValueError(str(error)) from error
        except jsonschema_rs.ValidationError as error:
            raise ValueError(error.message) from error

    def passes(self, value: Any) -> bool:
        return self._validator.is_valid(value)

    def errors(self, value: Any) -> Iterator[jsonschema_rs.ValidationError]:
        """Every error, in the order of the schema."""
        return self._validator.iter_errors(value)


@cache
def table_check(table: Table) -> Check:
    """The check of a whole table, plugins' parts left open."""
    return Check({key: value for key, value in table_schema(table).items() if key != "$schema"})


def _kept(make: Callable[[_Entry], Check]) -> Callable[[_Entry], Check]:
    """Make a check once per entry: a compiled schema costs half a millisecond, and a reload asks for each device."""
    made: dict[int, tuple[_Entry, Check]] = {}

    @wraps(make)
    def find(entry: _Entry) -> Check:
        found = made.get(id(entry))
        if found is None or found[0] is not entry:
            if len(made) >= CHECKS_MAX:
                made.clear()
            found = made[id(entry)] = entry, make(entry)
        return found[1]

    return find


@_kept
def options_check(entry: RoleEntry) -> Check:
    """The check of one `options` mapping. Keys that the plugin does not name are refused."""
    schema = {key: value for key, value in entry.schema.items() if key not in _ANNOTATIONS}
    if not any(key in schema for key in _CLOSERS):
        schema["additionalProperties"] = False
    return Check(schema)


@_kept
def rows_check(entry: RoleEntry | None) -> Check:
    """The check of a list of tag rows that one plugin reads; with None, rows whose plugin is not known."""
    law = table_schema("variables")
    row = copy.deepcopy(law["$defs"]["variable"])
    schema: Schema = {"type": "array", "items": row, "$defs": dict(law["$defs"])}
    if entry is None:
        del row["additionalProperties"]
        return Check(schema)
    tag_keys = tag_schema(entry)
    if any(key in tag_keys for key in _CLOSERS[1:]) or tag_keys.get("additionalProperties") not in (None, False):
        del row["additionalProperties"]
    row["properties"] = {**dict.fromkeys(tag_keys.get("properties", {}), True), **row["properties"]}
    rule = {key: value for key, value in tag_keys.items() if key not in ("additionalProperties", *_ANNOTATIONS)}
    schema["$defs"]["plugin"] = rebased(dict(entry.schema), "#/$defs/plugin")
    row["allOf"] = [rebased(rule, "#/$defs/plugin")]
    return Check(schema)


def tag_schema(entry: RoleEntry) -> Mapping[str, Any]:
    """What the plugin says of tag rows; {} if nothing."""
    found = entry.schema.get("$defs", {}).get("tag", {})
    assert isinstance(found, Mapping)
    return found


def rebased(schema: Any, root: str) -> Any:
    """A copy of a schema whose local references begin at `root` instead of `#`."""
    if isinstance(schema, Mapping):
        return {
            key: root + value[1:]
            if key == "$ref" and isinstance(value, str) and value[:1] == "#"
            else rebased(value, root)
            for key, value in schema.items()
            if key not in ("$schema", "$id")
        }
    if isinstance(schema, list | tuple):
        return [rebased(item, root) for item in schema]
    return schema


def merge_schemas(manifests: Mapping[str, Manifest], language: Language = "en") -> dict[Table, Schema]:
    """Schemas of the three tables for editors: every plugin's options and tag keys are part of them.

    language  of the descriptions; one that a plugin does not have stays English
    """
    merged = {table: copy.deepcopy(table_schema(table)) for table in TABLES}
    defs = merged["drivers"]["$defs"]
    for role in ("driver", "connector", "bridge"):
        _merge_options(defs, role, manifests)
    _merge_tag_keys(merged["variables"]["$defs"], manifests)
    return {table: _described(schema, language) for table, schema in merged.items()}


def _described(schema: Any, language: Language) -> Any:
    """A copy with one description per place."""
    if isinstance(schema, list | tuple):
        return [_described(item, language) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    translated = schema.get("description_zh")
    described = {key: _described(value, language) for key, value in schema.items() if key != "description_zh"}
    if language == "zh" and isinstance(translated, str):
        described["description"] = translated
    return described


def schema_text(schema: Schema) -> str:
    """A schema as the text of a file."""
    return f"{json.dumps(schema, ensure_ascii=False, indent=2)}\n"


def _merge_options(defs: Schema, role: Role, manifests: Mapping[str, Manifest]) -> None:
    plugins = {name: manifest.roles[role] for name, manifest in sorted(manifests.items()) if role in manifest.roles}
    if not plugins:
        return
    row = defs[role]
    row["properties"]["plugin"]["enum"] = list(plugins)
    row["allOf"] = []
    for name, entry in plugins.items():
        place = f"{name}-{role}"
        defs[place] = rebased(options_check(entry).schema, f"#/$defs/{place}")
        row["allOf"].append(
            {
                "if": {"properties": {"plugin": {"const": name}}, "required": ["plugin"]},
                "then": {"properties": {"options": {"$ref": f"#/$defs/{place}"}}},
            }
        )


def _merge_tag_keys(defs: Schema, manifests: Mapping[str, Manifest]) -> None:
    known = defs["variable"]["properties"]
    added: dict[str, list[Schema]] = {}
    for name, manifest in sorted(manifests.items()):
        entry = manifest.roles.get("driver")
        if entry is None:
            continue
        place = f"{name}-driver"
        defs[place] = rebased(dict(entry.schema), f"#/$defs/{place}")
        for key in tag_schema(entry).get("properties", {}):
            if key not in known:
                added.setdefault(key, []).append({"$ref": f"#/$defs/{place}/$defs/tag/properties/{key}"})
    for key, choices in added.items():
        known[key] = choices[0] if len(choices) == 1 else {"anyOf": choices}
