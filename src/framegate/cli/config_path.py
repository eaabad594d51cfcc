"""Paths of `edge cfg get` and `edge cfg set`: from `driver/mb1/scan/fast` to a place in a table, and its value.

A path is a kind, a name, and keys: gateway/name, endpoint/plc1/url, driver/mb1, connector/cloud/batch, rule/high,
variable/pump1.flow/scale. Names of tags may hold slashes; the longest name that exists is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from framegate.config.history import Texts
from framegate.config.schema import Table
from framegate.config.yaml import TABLE_BYTES_MAX, Path, load_yaml
from framegate.contract.errors import Misconfigured

_KINDS: Mapping[str, tuple[Table, str]] = {
    "endpoint": ("endpoints", "endpoints"),
    "driver": ("drivers", "drivers"),
    "connector": ("drivers", "connectors"),
    "rule": ("drivers", "rules"),
    "gateway": ("drivers", "gateway"),
    "variable": ("variables", "variables"),
}


@dataclass(frozen=True, slots=True)
class Address:
    """A place in a table.

    path     as the table has it: keys, and an index in variables
    row      name of the row where a whole row is meant, else ""
    """

    table: Table
    path: Path
    row: str
    exists: bool
    value: Any


def find_address(texts: Texts, path: str) -> Address:
    """Raises Misconfigured E4033 - no such kind, or no name; E4037 - the table cannot be read."""
    kind, _, rest = path.strip("/").partition("/")
    if kind not in _KINDS or (not rest and kind != "gateway"):
        kinds = ", ".join(_KINDS)
        raise Misconfigured(
            f"{path}: a path is a kind, a name and keys, driver/mb1/endpoint; kinds are {kinds}", code="E4033"
        )
    table, section = _KINDS[kind]
    tree = _tree(texts, table)
    steps: Path
    if kind == "variable":
        steps, row = _variable(tree, rest)
    else:
        steps = (section, *(step for step in rest.split("/") if step))
        row = str(steps[1]) if len(steps) == 2 and kind != "gateway" else ""
    value, exists = tree, True
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value, exists = None, False
            break
    return Address(table, steps, row, exists, value)


def given_value(address: Address, text: str) -> Any:
    """The value that a command line gives: YAML, or the content of a file where a whole row is meant.

    raises Misconfigured E4038 - it is no YAML, or no row
    """
    source, data = "the value", text.encode()
    if address.row:
        file = FilePath(text)
        if file.is_file():
            source = str(file)
            with file.open("rb") as opened:
                data = opened.read(TABLE_BYTES_MAX)
    document = load_yaml(data)
    if document.flaws or not document.is_whole:
        flaw = document.flaws[0]
        raise Misconfigured(f"{source} is no YAML at {flaw.line}:{flaw.column}: {flaw.text}", code="E4038")
    value = document.value
    if not address.row:
        return value
    if not isinstance(value, dict):
        text = f"{source} is no row; give a file, or a mapping such as '{{plugin: modbus, endpoint: plc1}}'"
        raise Misconfigured(text, code="E4038")
    return {"tag": address.row, **value} if address.table == "variables" else value


def _variable(tree: Any, rest: str) -> tuple[Path, str]:
    rows = tree.get("variables") if isinstance(tree, dict) else None
    rows = rows if isinstance(rows, list) else []
    index_of = {row.get("tag"): index for index, row in enumerate(rows) if isinstance(row, dict)}
    parts = rest.split("/")
    for length in range(len(parts), 0, -1):
        index = index_of.get("/".join(parts[:length]))
        if index is not None:
            keys = parts[length:]
            return ("variables", index, *keys), "" if keys else "/".join(parts[:length])
    return ("variables", len(rows)), rest


def _tree(texts: Texts, table: Table) -> Any:
    if table not in texts:
        raise Misconfigured(
            f"{table}.yml: there is no such file, or it cannot be read; `edge check` says why", code="E4037"
        )
    document = load_yaml(texts[table])
    if document.flaws or not document.is_whole:
        flaw = document.flaws[0]
        text = f"{table}.yml:{flaw.line}:{flaw.column} {flaw.text}; correct this first, `edge check` shows everything"
        raise Misconfigured(text, code="E4037")
    return document.value
