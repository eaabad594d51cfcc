"""Values as cells and back, without loss: `decode(encode(value, kind), kind) == value`, and of the same type.

An empty cell is a key that is absent. Text stands as it is; put in quotes, as JSON does, where it would be taken for
something else, begins or ends with blanks, or holds control characters. Lists and mappings are JSON. What a
spreadsheet would run as a formula gets an apostrophe in front, which reading takes away again.
"""

from __future__ import annotations

import json
import re
from typing import Any

from framegate.config.sheet.columns import Kind
from framegate.config.yaml import plain_value

_RUNS = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20'")
"""What a formula can begin with, in wide characters too, and the apostrophe itself."""
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|_x[0-9A-Fa-f]{4}_")
"""Characters that do not survive every spreadsheet, and what XLSX takes for an escape."""
_NUMBER_WITH_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+(?:[eE][-+]?[0-9]+)?")
_BOOLEANS = {
    **dict.fromkeys(("true", "1", "wahr", "vrai", "verdadero", "真"), True),
    **dict.fromkeys(("false", "0", "falsch", "faux", "falso", "假"), False),
}


def encode(value: Any, kind: Kind) -> str:
    """The cell of a value."""
    if isinstance(value, str):
        return _text(value, kind)
    if isinstance(value, int) and kind == "text" and not isinstance(value, bool):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def decode(cell: str, kind: Kind, *, decimal_comma: bool = False) -> Any:
    """The value of a cell that is not empty; what cannot be one of its kind stays text, for the schema to judge."""
    if cell[:1] == "'" and cell[1:2] in _RUNS:
        return cell[1:]
    cell = cell.strip()
    if cell[:1] == '"' or (kind == "any" and cell[:1] in {"[", "{"}):
        return _from_json(cell)
    if kind == "text":
        return cell
    if kind == "boolean" and cell.casefold() in _BOOLEANS:
        return _BOOLEANS[cell.casefold()]
    if decimal_comma and _NUMBER_WITH_COMMA.fullmatch(cell):
        cell = cell.replace(",", ".")
    return plain_value(cell)


def is_same(left: Any, right: Any) -> bool:
    """Equal, and a boolean only to a boolean; 1 and 1.0 are one number."""
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _text(text: str, kind: Kind) -> str:
    is_plain = text == text.strip() != "" and text[0] != '"' and not _UNSAFE.search(text)
    if is_plain and kind != "text":
        is_plain = text[0] not in "[{" and plain_value(text) is text and text.casefold() not in _BOOLEANS
        is_plain = is_plain and not _NUMBER_WITH_COMMA.fullmatch(text)
    if not is_plain:
        quoted = json.dumps(text, ensure_ascii=bool(_UNSAFE.search(text)))
        return quoted.replace("_x", "\\u005fx")
    return f"'{text}" if text[0] in _RUNS else text


def _from_json(cell: str) -> Any:
    try:
        value = json.loads(cell, object_pairs_hook=_unique, parse_constant=_no_number)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        return cell
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")
