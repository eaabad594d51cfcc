"""Texts with placeholders, as templates hold them: `{name}.power`, `hr:{base+12}`, `M{n:03}`. Pure.

    {name}        the value itself; alone in a text it keeps its type: "{bit}" with bit: 3 is the number 3
    {base+12}     whole numbers with + - * and parentheses; 0x1F is hexadecimal
    {n:03}        a whole number, filled with zeros to three digits
    {{  }}        a brace

A text is compiled once and filled many times. What cannot be meant raises PlaceholderWrong, in words for people.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from framegate.config.explain import listed, shown, suggestion

PLACEHOLDER_CHARACTERS_MAX = 100
"""Characters between two braces; they also bound how deep parentheses nest."""
NUMBER_MAX = 1 << 63
"""Whole numbers that come out of arithmetic stay below, either way."""
DIGITS_MAX = 20
"""Width that zeros fill."""

Values: TypeAlias = Mapping[str, Any]
Fill: TypeAlias = Callable[[Values], Any]

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_TOKEN = re.compile(r"\s*(?:(0[xX][0-9A-Fa-f]+|[0-9]+)|([^\W\d]\w*)|([-+*()]))\s*")
_WIDTH = re.compile(r"0[1-9][0-9]?")
_WANTED = "write {name}, whole numbers with + - * as in {base+12}, or {n:03}; a brace itself is doubled"


class PlaceholderWrong(ValueError):
    """A placeholder that cannot be filled."""


def compile_value(value: Any) -> Fill:
    """How to fill every text inside a value from a table: lists and mappings are walked, keys stay.

    raises PlaceholderWrong
    """
    if isinstance(value, str):
        return _compile_text(value)
    if isinstance(value, list):
        items = [compile_value(item) for item in value]
        return lambda values: [fill(values) for fill in items]
    if isinstance(value, dict):
        return compile_mapping(value)
    return lambda _: value


def compile_mapping(row: Mapping[str, Any]) -> Callable[[Values], dict[str, Any]]:
    """How to fill a row."""
    fills = [(key, compile_value(value)) for key, value in row.items()]
    return lambda values: {key: fill(values) for key, fill in fills}


def plain_text(value: Any) -> str:
    """A value inside a longer text, as the table would spell it."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _compile_text(text: str) -> Fill:
    if "{" not in text and "}" not in text:
        return lambda _: text
    pieces: list[str | Fill] = []
    end = 0
    for found in _PIECE.finditer(text):
        pieces.append(text[end : found.start()])
        end = found.end()
        if found[0] in {"{{", "}}"}:
            pieces.append(found[0][0])
        elif found[1] is None:
            raise PlaceholderWrong(f"{shown(text)} has a brace without its partner; {_WANTED}")
        else:
            pieces.append(_compile_placeholder(found[1]))
    pieces.append(text[end:])
    parts = [piece for piece in pieces if piece != ""]
    if len(parts) == 1 and callable(parts[0]):
        return parts[0]
    return lambda values: "".join(part if isinstance(part, str) else plain_text(part(values)) for part in parts)


def _compile_placeholder(inner: str) -> Fill:
    if len(inner) > PLACEHOLDER_CHARACTERS_MAX:
        raise PlaceholderWrong(f"{{{inner[:20]}...}} is longer than {PLACEHOLDER_CHARACTERS_MAX} characters; {_WANTED}")
    body, colon, width = inner.partition(":")
    fill = _Arithmetic(body).compile()
    if not colon:
        return fill
    if not _WIDTH.fullmatch(width) or int(width) > DIGITS_MAX:
        raise PlaceholderWrong(f"{{{inner}}}: behind the colon stand 0 and a width up to {DIGITS_MAX}, as in {{n:03}}")
    return lambda values: f"{_whole(fill(values), inner):0{int(width)}d}"


class _Arithmetic:
    """Recursive descent over one placeholder: sum of products of numbers, names and parentheses."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[re.Match[str]] = []
        self._at = 0
        end = 0
        while end < len(text):
            token = _TOKEN.match(text, end)
            if token is None:
                raise self._wrong()
            self._tokens.append(token)
            end = token.end()

    def compile(self) -> Fill:
        if len(self._tokens) == 1 and self._tokens[0][2]:
            return _name(self._tokens[0][2])
        fill = self._sum()
        if self._at != len(self._tokens):
            raise self._wrong()
        text = self._text

        def bounded(values: Values) -> int:
            number: int = fill(values)
            if not -NUMBER_MAX < number < NUMBER_MAX:
                raise PlaceholderWrong(f"{{{text}}} becomes a number of more than 63 bits")
            return number

        return bounded

    def _wrong(self) -> PlaceholderWrong:
        return PlaceholderWrong(f"{{{self._text}}} cannot be read; {_WANTED}")

    def _sign(self, signs: str) -> str:
        """The next token if it is one of these signs; "" otherwise."""
        sign = self._tokens[self._at][3] if self._at < len(self._tokens) else None
        if not sign or sign not in signs:
            return ""
        self._at += 1
        return sign

    def _sum(self) -> Fill:
        left = self._product()
        while sign := self._sign("+-"):
            left = _added(left, self._product(), 1 if sign == "+" else -1)
        return left

    def _product(self) -> Fill:
        left = self._factor()
        while self._sign("*"):
            left = _multiplied(left, self._factor())
        return left

    def _factor(self) -> Fill:
        if self._sign("-"):
            return _multiplied(lambda _: -1, self._factor())
        if self._sign("("):
            inner = self._sum()
            if not self._sign(")"):
                raise self._wrong()
            return inner
        if self._at == len(self._tokens):
            raise self._wrong()
        number, name, _ = self._tokens[self._at].groups()
        self._at += 1
        if number:
            value = int(number, 16) if number[:2] in {"0x", "0X"} else int(number)
            return lambda _: value
        if not name:
            raise self._wrong()
        fill, text = _name(name), self._text
        return lambda values: _whole(fill(values), text)


def _added(left: Fill, right: Fill, sign: int) -> Fill:
    return lambda values: left(values) + sign * right(values)


def _multiplied(left: Fill, right: Fill) -> Fill:
    return lambda values: left(values) * right(values)


def _name(name: str) -> Fill:
    def fill(values: Values) -> Any:
        try:
            return values[name]
        except KeyError:
            known = listed(list(values)) if values else "nothing"
            text = f"{{{name}}} stands for nothing here{suggestion(name, values)}; known are {known}"
            raise PlaceholderWrong(text) from None

    return fill


def _whole(value: Any, text: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise PlaceholderWrong(f"{{{text}}} needs whole numbers, and {shown(value)} is none")
    return value
