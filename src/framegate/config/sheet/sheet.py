"""A sheet as rows of cells, whatever file it came from, and the bounds on what is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from framegate.contract.errors import Misconfigured

SHEET_BYTES_MAX = 64 << 20
"""Bytes of one file; a CSV of 100,000 rich rows is about 15 MiB."""
SHEET_ROWS_MAX = 200_000
SHEET_COLUMNS_MAX = 200
CELL_CHARACTERS_MAX = 65_536


@dataclass(frozen=True, slots=True)
class DateCell:
    """A cell that a spreadsheet has turned into a date or a time: what was typed is lost."""

    shown: str


Cell: TypeAlias = "str | DateCell"


@dataclass(frozen=True, slots=True)
class Sheet:
    """Cells by row, the header apart. Row `index` of `rows` is row `index + 2` of the spreadsheet.

    decimal_comma  numbers may be written 0,5
    encoding       of a text file; "" for a workbook
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    decimal_comma: bool = False
    encoding: str = ""


def unreadable(name: str, text: str) -> Misconfigured:
    """The error for a file that is no sheet."""
    return Misconfigured(f"{name}: {text}", code="E1145")


def bounded(name: str, sheet: Sheet) -> Sheet:
    """The sheet, when it is within its bounds; those of cells are their readers'.

    raises Misconfigured E1145
    """
    if len(sheet.rows) > SHEET_ROWS_MAX:
        raise unreadable(name, f"more than {SHEET_ROWS_MAX:,} rows; divide the table among gateways")
    widest = max((len(row) for row in (sheet.header, *sheet.rows)), default=0)
    if widest > SHEET_COLUMNS_MAX:
        raise unreadable(name, f"more than {SHEET_COLUMNS_MAX} columns; no table has that many")
    return sheet
