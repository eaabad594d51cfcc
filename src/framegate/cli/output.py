"""Data on stdout, in the form that was asked for: table on a terminal, JSON lines in a pipe, or as told by `-o`.

Rows are plain mappings with the same keys; what they mean is the verb's business. Libraries are imported by the form
that needs them, because most calls need none.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, TypeAlias

Format: TypeAlias = Literal["table", "json", "jsonl", "yaml", "csv"]
Row: TypeAlias = Mapping[str, Any]

PIPE_COLUMNS = 500
"""Width of a table that goes into a pipe: nothing is cut."""


def write_rows(rows: Iterable[Row], columns: Sequence[str], form: Format | None) -> int:
    """Write a list; returns how many rows there were.

    columns  keys in the order of the table and of CSV; other forms write every key
    """
    counted = _Counted(rows)
    match form or _usual():
        case "table":
            _table(counted, columns)
        case "csv":
            writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(counted)
        case "json":
            _line(_json(list(counted), indent=2))
        case "yaml":
            _line(_yaml(list(counted)))
        case "jsonl":
            for row in counted:
                _line(_json(row))
    return counted.count


def write_record(record: Row, form: Format | None) -> None:
    """Write one object; as a table, one line per key."""
    match form or _usual():
        case "table":
            width = max(len(key) for key in record)
            for key, value in record.items():
                _line(f"{key:<{width}}  {_cell(value)}")
        case "csv":
            write_rows([record], list(record), "csv")
        case "json":
            _line(_json(record, indent=2))
        case "yaml":
            _line(_yaml(record))
        case "jsonl":
            _line(_json(record))


def is_table(form: Format | None) -> bool:
    """True where people read the output."""
    return (form or _usual()) == "table"


class _Counted:
    """Passes rows on and counts them."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = iter(rows)
        self.count = 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> Row:
        row = next(self._rows)
        self.count += 1
        return row


def _usual() -> Format:
    return "table" if sys.stdout.isatty() else "jsonl"


def _line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


def _yaml(value: object) -> str:
    import yaml  # noqa: PLC0415 - see the module's docstring

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=PIPE_COLUMNS)).rstrip("\n")


def _table(rows: Iterable[Row], columns: Sequence[str]) -> None:
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    from rich.console import Console  # noqa: PLC0415 - see the module's docstring
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        is_number = isinstance(first.get(column), int | float) and not isinstance(first.get(column), bool)
        table.add_column(column.replace("_", " ").upper(), justify="right" if is_number else "left", overflow="fold")
    for row in chain((first,), rows):
        table.add_row(*(Text(_cell(row.get(column))) for column in columns))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    console.print(table)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case list() | dict() | tuple():
            return _json(value)
        case _:
            return str(value)
