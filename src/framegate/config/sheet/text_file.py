"""Sheets as CSV: written as UTF-8 with a byte order mark and commas, which every spreadsheet opens; read more widely.

Read are UTF-8, UTF-16 and GBK (GB 18030), separated by comma, semicolon or tab. With a semicolon or a tab a number may
have a decimal comma. Text that is not UTF-8 and carries no mark is taken for GBK: name the encoding when that is wrong.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Sequence

from framegate.config.sheet.sheet import CELL_CHARACTERS_MAX, SHEET_ROWS_MAX, Sheet, bounded, unreadable

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_DELIMITERS = (",", ";", "\t")


def write_csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """Bytes of a file with these cells."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(header)
    writer.writerows(rows)
    return codecs.BOM_UTF8 + stream.getvalue().encode()


def read_csv(name: str, data: bytes, known: Iterable[str], encoding: str = "") -> Sheet:
    """The sheet in a file's bytes.

    known     column names: the delimiter that finds most of them in the first line is taken
    encoding  "" to find it out
    raises    Misconfigured E1145 - no such encoding, undecodable, no CSV, out of bounds
    """
    text, used = _decoded(name, data, encoding)
    delimiter = _delimiter(text, frozenset(known))
    csv.field_size_limit(CELL_CHARACTERS_MAX)
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            rows.append(row)
            if len(rows) > SHEET_ROWS_MAX + 1:
                break
    except csv.Error as error:
        raise unreadable(name, f"row {len(rows) + 1} is no CSV ({error}); save it anew as CSV UTF-8") from error
    header = rows[0] if rows else []
    return bounded(name, Sheet(header, rows[1:], decimal_comma=delimiter != ",", encoding=used))


def _decoded(name: str, data: bytes, encoding: str) -> tuple[str, str]:
    mark, marked = next(((mark, used) for mark, used in _MARKS if data.startswith(mark)), (b"", ""))
    if not encoding and not marked and b"\0" in data[:64]:  # a header is ASCII: every other byte of UTF-16 is 0
        marked = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    choices = [encoding] if encoding else [marked] if marked else ["utf-8", "gb18030"]
    for choice in choices:
        try:
            return data[len(mark) :].decode(choice), choice
        except UnicodeDecodeError:
            continue
        except LookupError:
            raise unreadable(name, f"no encoding {choice}; such as utf-8, utf-16, gb18030, cp1252") from None
    raise unreadable(name, f"is not {' or '.join(choices)}; name its encoding with --encoding, or save as CSV UTF-8")


def _delimiter(text: str, known: frozenset[str]) -> str:
    first = text.partition("\n")[0][:CELL_CHARACTERS_MAX]

    def found(delimiter: str) -> int:
        return len({cell.strip().strip('"') for cell in first.split(delimiter)} & known)

    return max(_DELIMITERS, key=found)
