"""Sheets as XLSX. Text stays text: a column of addresses is formatted as text, so that nobody's 4x1 or 1:20 becomes
a number or a date. Formulas are neither written nor run; their last value counts.

A workbook is a ZIP of XML from anywhere. Before it is opened, it is unpacked once within bounds, and the furthest
cell is looked for: a reader reserves room for every cell up to there.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from framegate.config.sheet.columns import Column
from framegate.config.sheet.sheet import (
    CELL_CHARACTERS_MAX,
    SHEET_COLUMNS_MAX,
    SHEET_ROWS_MAX,
    Cell,
    DateCell,
    Sheet,
    bounded,
    unreadable,
)
from framegate.contract.errors import Misconfigured

UNPACKED_BYTES_MAX = 256 << 20
"""Bytes of all parts of a workbook, unpacked."""
PARTS_MAX = 1_000
CELLS_MAX = 8_000_000
"""Rows times columns up to the furthest cell."""
XLSX_CELL_CHARACTERS_MAX = 32_767
"""Excel's own bound."""
SHEET_NAME = "variables"

_CHUNK = 1 << 20
_USUAL = re.compile(rb' r="([^"]*)"')
_UNUSUAL = (
    b"r='",
    b'"r=',
    b"'r=",
    b"\tr",
    b"\nr",
    b"\rr",
    b"r =",
    b"r\t",
    b"r\n",
    b"r\r",
    b"r= ",
    b"r=\t",
    b"r=\n",
    b"r=\r",
)
"""Ways to write the attribute `r` that programs do not choose: then the slower search looks for all of them."""
_REFERENCE = re.compile(rb"""[\s"']r\s*=\s*["']([^"']*)["']""")
_PLACE = re.compile(rb"([A-Z]{0,3})([0-9]{1,7})")


def write_xlsx(columns: Sequence[Column], rows: Iterable[Mapping[int, tuple[Any, str]]]) -> bytes:
    """Bytes of a workbook.

    rows    values and cells by the number of their column; a number that XLSX holds exactly is written as one
    raises  Misconfigured E1144 - a cell is too long for a workbook
    """
    import xlsxwriter  # noqa: PLC0415 - needed by this form alone

    stream = io.BytesIO()
    book = xlsxwriter.Workbook(stream, {"in_memory": True})
    sheet = book.add_worksheet(SHEET_NAME)
    as_text, bold = book.add_format({"num_format": "@"}), book.add_format({"bold": True})
    for number, column in enumerate(columns):
        sheet.set_column(number, number, None, as_text if column.kind == "text" else None)
        sheet.write_string(0, number, column.name, bold)
    sheet.freeze_panes(1, 1)
    for row_number, row in enumerate(rows, 1):
        for number, (value, cell) in row.items():
            if columns[number].kind != "text" and _is_exact(value):
                sheet.write_number(row_number, number, value)
                continue
            if len(cell) > XLSX_CELL_CHARACTERS_MAX:
                text = f"row {row_number + 1} {columns[number].name}: too long for a workbook; export as CSV"
                raise Misconfigured(text, code="E1144")
            sheet.write_string(row_number, number, cell, as_text if columns[number].kind == "text" else None)
    book.close()
    return stream.getvalue()


def read_xlsx(name: str, data: bytes) -> Sheet:
    """The sheet `variables` of a workbook, or its first one.

    raises Misconfigured E1145 - no workbook, or out of bounds
    """
    from python_calamine import CalamineError, CalamineWorkbook  # noqa: PLC0415 - needed by this form alone

    _check_parts(name, data)
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(data))
        names = book.sheet_names
        if not names:
            raise unreadable(name, "the workbook has no sheet")
        rows = book.get_sheet_by_name(SHEET_NAME if SHEET_NAME in names else names[0]).to_python(skip_empty_area=False)
        cells = [[_cell(value) for value in row] for row in rows]
    except (CalamineError, ValueError, OSError) as error:
        raise unreadable(name, f"cannot be read as a workbook ({error}); save it anew as .xlsx") from error
    header = [str(cell) if isinstance(cell, str) else cell.shown for cell in cells[0]] if cells else []
    return bounded(name, Sheet(header, cells[1:]))


def _is_exact(value: Any) -> bool:
    """Whether a workbook, which keeps 16 digits, gives the same number back."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e15 and float(f"{value:.16G}") == value


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        if len(value) > CELL_CHARACTERS_MAX:
            raise ValueError(f"a cell has more than {CELL_CHARACTERS_MAX:,} characters")
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
    return DateCell(str(value))


def _check_parts(name: str, data: bytes) -> None:
    """Unpack everything once within bounds, and look for cells that are too far out."""
    left = UNPACKED_BYTES_MAX
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
            if len(parts) > PARTS_MAX or not any(part.filename == "xl/workbook.xml" for part in parts):
                raise unreadable(name, "is no workbook of the form .xlsx")
            for part in parts:
                with archive.open(part) as stream:
                    left -= _check_part(name, part.filename, stream, left)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise unreadable(name, f"is damaged, or no workbook ({error}); save it anew as .xlsx") from error


def _check_part(name: str, part: str, stream: Any, left: int) -> int:
    """Size of one part. Raises when it has more than `left` bytes."""
    is_sheet = part.startswith("xl/worksheets/")
    size, tail, rows, columns = 0, b"", 0, 0
    while chunk := stream.read(_CHUNK):
        size += len(chunk)
        if size > left:
            raise unreadable(name, f"unpacks to more than {UNPACKED_BYTES_MAX >> 20} MiB; no table needs that")
        if not is_sheet:
            continue
        window = tail + chunk
        tail = window[-64:]
        if b"\0" in window:  # UTF-16, which no program writes, would hide the places
            raise unreadable(name, f"{part} is not UTF-8; save it anew as .xlsx")
        search = _REFERENCE if any(way in window for way in _UNUSUAL) else _USUAL
        for found in search.finditer(window):
            place = _PLACE.fullmatch(found[1])
            if place is None:
                raise unreadable(name, f"{part} holds a cell at no place; save it anew as .xlsx")
            rows, columns = max(rows, int(place[2])), max(columns, _column_number(place[1]))
        if columns > SHEET_COLUMNS_MAX or rows > SHEET_ROWS_MAX + 1 or rows * columns > CELLS_MAX:
            text = f"{part} reaches to row {rows:,}, column {columns:,}; delete cells that are far out"
            raise unreadable(name, text)
    return size


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number
