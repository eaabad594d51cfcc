"""variables.yml as a sheet sees it: raw rows in their order, and those that templates make, each with its label.

Rows are not judged here; a text that cannot be read, or instances that cannot be made, are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framegate.config.problems import Problems
from framegate.config.schema import table_check
from framegate.config.source import read_table
from framegate.config.templates import Expansion
from framegate.config.yaml import Document, load_yaml
from framegate.contract.errors import Misconfigured

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MadeRow:
    """A row that an instance made, and `template/instance`."""

    row: Row
    label: str


@dataclass(frozen=True, slots=True)
class RawVariables:
    """The table's bytes, the rows of its list, and the made ones."""

    data: bytes
    rows: list[Row]
    made: list[MadeRow]


def read_raw(folder: Path) -> RawVariables:
    """Read variables.yml of a folder.

    raises Misconfigured E1000 - with problems, when its text or its instances are wrong
    """
    data = read_table(folder, "variables")
    problems = Problems()
    if not isinstance(data, bytes):
        problems.add("variables", (), data.code, data.text)
        raise _refused(problems, b"")
    document = load_yaml(data)
    rows = _rows_of(document, problems)
    if problems:
        raise _refused(problems, data)
    expansion = Expansion(document.value, problems)
    made = list(expansion.rows(len(rows)))
    if problems:
        raise _refused(problems, data)
    return RawVariables(data, rows, [_labelled(expansion, index, row) for index, row in made])


def _rows_of(document: Document, problems: Problems) -> list[Row]:
    for flaw in document.flaws:
        problems.add_flaw("variables", flaw)
    value = document.value
    rows = value.get("variables") if isinstance(value, Mapping) else None
    if problems:
        return []
    if not isinstance(value, Mapping) or not isinstance(rows, list):
        problems.add("variables", (), "E1107", "the list `variables` is missing; `variables: []` says that it is empty")
        return []
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            problems.add("variables", ("variables", index), "E1108", "this row is not a mapping (key: value)")
    for error in table_check("variables").errors({**value, "variables": []}):
        problems.add("variables", tuple(error.instance_path), "E1104", f"{error.message}; see `edge check`")
    return rows


def _labelled(expansion: Expansion, index: int, row: Row) -> MadeRow:
    origin = expansion.origins.of(index)
    assert origin is not None
    return MadeRow(row, f"{origin.template}/{origin.name}")


def _refused(problems: Problems, data: bytes) -> Misconfigured:
    placed = problems.placed({"variables": data} if data else {})
    return Misconfigured(f"{problems.count:,} problems in variables.yml; see each line", problems=placed)
