"""Plain data as canonical text: how the state of a script is kept, and how its declarations are read.

    t f                 true, false
    n<number>;          a number, 17 significant digits; nan, inf, -inf
    s<bytes>:<text>     a text, its length in decimal
    {<key><value>...}   a table: numbers ascending, then texts ascending

The writer is in `sandbox.lua`. Anything else than what it writes is refused here.
"""

from __future__ import annotations

import re
from typing import TypeAlias

Plain: TypeAlias = "bool | float | int | bytes | dict[Plain, Plain] | None"

DEPTH_MAX = 32
EXACT_INTEGER_MAX = 1 << 53
"""Whole numbers up to here are exact as Lua numbers."""
_NUMBER = re.compile(rb"n(-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf));", re.ASCII)
_LENGTH = re.compile(rb"s(\d{1,9}):", re.ASCII)


def read_plain(text: bytes) -> Plain:
    """The value that one text stands for; tables are dicts, whole numbers are int.

    raises ValueError - the text is no such text
    """
    value, place = _read(text, 0, 0)
    if place != len(text):
        raise ValueError(f"{len(text) - place} bytes behind the value")
    return value


def _read(text: bytes, place: int, depth: int) -> tuple[Plain, int]:
    sign = text[place : place + 1]
    if sign in (b"t", b"f"):
        return sign == b"t", place + 1
    if sign == b"n" and (number := _NUMBER.match(text, place)):
        value = float(number[1])
        is_whole = value.is_integer() and 0 < abs(value) <= EXACT_INTEGER_MAX  # -0.0 stays what it is
        return int(value) if is_whole else value, number.end()
    if sign == b"s" and (length := _LENGTH.match(text, place)):
        stop = length.end() + int(length[1])
        if stop <= len(text):
            return text[length.end() : stop], stop
    if sign == b"{" and depth < DEPTH_MAX:
        return _read_table(text, place + 1, depth + 1)
    raise ValueError(f"byte {place} begins no value")


def _read_table(text: bytes, place: int, depth: int) -> tuple[Plain, int]:
    table: dict[Plain, Plain] = {}
    while text[place : place + 1] != b"}":
        key, place = _read(text, place, depth)
        if isinstance(key, dict | bool) or key != key or key in table:  # noqa: PLR0124 - nan
            raise ValueError(f"byte {place} ends no key")
        value, place = _read(text, place, depth)
        table[key] = value
    return table, place + 1
