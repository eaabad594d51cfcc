"""Tables as sheets: every key of every row, nothing resolved and no secret.

References such as ${env:PASSWORD} stand in tables and go out as they are; what they lead to is never looked up. A
secret that a table holds in clear text is masked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from framegate.config.problems import Problems
from framegate.config.schema import Table, merge_schemas
from framegate.config.sheet.cells import encode
from framegate.config.sheet.columns import TEMPLATE, Column, Kind, columns_of, variable_columns
from framegate.config.sheet.table import read_raw
from framegate.config.sheet.text_file import write_csv
from framegate.config.sheet.workbook import write_xlsx
from framegate.config.source import read_table
from framegate.config.yaml import load_yaml
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest

SheetForm: TypeAlias = Literal["csv", "xlsx"]
MASK = "***"

_SECRET_KEY = re.compile(r"password|passwd|secret|token|api_?key|private_?key", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{[a-z]+:[^{}]+\}")
_LOGIN = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)")
_SECTIONS: Mapping[Table, tuple[tuple[str, str], ...]] = {
    "endpoints": (("endpoints", "endpoint"),),
    "drivers": (("drivers", "driver"), ("connectors", "connector"), ("bridges", "bridge"), ("rules", "rule")),
}
"""Sections of the small tables, each with the definition in the schema that describes its rows."""

_Values: TypeAlias = Mapping[str, Any]
_Places: TypeAlias = Mapping[str, tuple[int, Kind]]


def export_sheet(folder: Path, plugins: Mapping[str, Manifest], table: Table, form: SheetForm) -> tuple[bytes, int]:
    """Bytes of a file with one table of a folder, and how many rows it has.

    raises Misconfigured E1000 - the table cannot be read; E1144 - a cell is too long for a workbook
    """
    columns, rows = _variables(folder, plugins) if table == "variables" else _sections(folder, plugins, table)
    place = {column.name: (number, column.kind) for number, column in enumerate(columns)}
    if form == "xlsx":
        return write_xlsx(columns, (dict(_pairs(row, place)) for row in rows)), len(rows)
    return write_csv(list(place), (_cells(row, place) for row in rows)), len(rows)


def _pairs(row: _Values, place: _Places) -> Iterator[tuple[int, tuple[Any, str]]]:
    for name, value in row.items():
        number, kind = place[name]
        yield number, (value, encode(value, kind))


def _cells(row: _Values, place: _Places) -> list[str]:
    cells = [""] * len(place)
    for name, value in row.items():
        number, kind = place[name]
        cells[number] = encode(value, kind)
    return cells


def _variables(folder: Path, plugins: Mapping[str, Manifest]) -> tuple[list[Column], list[_Values]]:
    raw = read_raw(folder)
    made: list[_Values] = [{**row.row, TEMPLATE: row.label} for row in raw.made]
    columns = variable_columns(plugins, [*raw.rows, *(row.row for row in raw.made)])
    return [*columns, Column(TEMPLATE, "text")], [*raw.rows, *made]


def _sections(folder: Path, plugins: Mapping[str, Manifest], table: Table) -> tuple[list[Column], list[_Values]]:
    named = list(_named_rows(folder, table))
    schema = merge_schemas(plugins)[table]
    columns: dict[str, Column] = {}
    for section, row in _SECTIONS[table]:
        of_section = columns_of(schema, row, (given for where, _, given in named if where == section))
        for column in of_section:
            columns.setdefault(column.name, column)
    ordered = [Column("section", "text"), Column("name", "text"), *columns.values()]
    values: list[_Values] = [
        {"section": section, "name": name, **{key: _masked(key, value) for key, value in row.items()}}
        for section, name, row in named
    ]
    return ordered, values


def _named_rows(folder: Path, table: Table) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    data = read_table(folder, table)
    if not isinstance(data, bytes):
        raise Misconfigured(f"{table}.yml: {data.text}", code=data.code)
    document = load_yaml(data)
    if document.flaws or not isinstance(document.value, Mapping):
        problems = Problems()
        for flaw in document.flaws:
            problems.add_flaw(table, flaw)
        raise Misconfigured(f"{table}.yml cannot be read; see `edge check`", problems=problems.placed({table: data}))
    for section, _ in _SECTIONS[table]:
        rows = document.value.get(section)
        for name, row in rows.items() if isinstance(rows, Mapping) else ():
            if isinstance(row, Mapping):
                yield section, name, row


def _masked(key: str, value: Any) -> Any:
    """A value without secrets in clear text; references stay."""
    if isinstance(value, Mapping):
        return {inner: _masked(inner, item) for inner, item in value.items()}
    if isinstance(value, list):
        return [_masked(key, item) for item in value]
    if not isinstance(value, str) or _REFERENCE.fullmatch(value):
        return value
    return MASK if _SECRET_KEY.search(key) else _LOGIN.sub(MASK, value)
