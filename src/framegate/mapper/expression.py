"""Expressions of the tag table: read, checked and typed here, long before any Lua sees them.

An expression is a Lua expression and nothing more: `value`, `tag["name"]`, numbers, texts, operators and the functions
of FUNCTIONS. There is no statement, no loop, no method, no index but tag[...], so one always ends; length, nesting,
arguments and joined texts are bounded, so that one stays small. Every part has a form (number, text, true or false)
that is known before it runs, and a mistake is told with its column.

Most expressions of a plant are few shapes with other names and numbers: a shape is read once and remembered.
Source: Lua 5.1 Reference Manual, 2.5 (operators and their precedence).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from framegate.contract.errors import Misconfigured
from framegate.mapper.grammar import (
    ANY,
    BOOLEAN,
    CONSTANTS,
    FALSE,
    FUNCTIONS,
    LITERAL,
    NUMBER,
    TEXT,
    TEXT_MAX,
    Node,
    Shape,
    read,
    refuse,
)

__all__ = ["BOOLEAN", "FORM_NAMES", "NUMBER", "TEXT", "Expression", "check_expression", "parse_expression"]
SHAPES_MAX = 16_384  # shapes remembered, each about 1 KiB
FORM_NAMES: Mapping[int, str] = {NUMBER: "a number", TEXT: "text", BOOLEAN: "true or false"}


class Expression(NamedTuple):
    """A checked expression.

    literals   its texts (with quotes) and numbers, as written
    tag_names  of the tags it reads, as they come, repeats included
    """

    text: str
    shape: Shape
    literals: tuple[str, ...]
    tag_names: tuple[str, ...]

    @property
    def dependencies(self) -> tuple[str, ...]:
        """Names of the tags it reads, each once."""
        return tuple(dict.fromkeys(self.tag_names)) if self.tag_names else ()

    def form(self, value: int | None, tags: Callable[[str], int]) -> int:
        """NUMBER, TEXT or BOOLEAN: what the expression gives.

        value   form of `value`; None: there is none, the tag has no source
        tags    form of a tag by its name
        raises  Misconfigured E1191 - an operator or a function gets what it cannot use
        """
        known = _shape_form(self.shape, value, tuple([tags(name) for name in self.tag_names]) if self.tag_names else ())
        if known is None:
            # The remembered shape has the columns of another text: this one is read anew for its own.
            _form(read(self.text).root, value, [tags(name) for name in self.tag_names], [0])
            raise AssertionError(self.text)
        return known


def parse_expression(text: str) -> Expression:
    """Read an expression of the tag table.

    raises  Misconfigured E1191 - it is no expression, or beyond a limit; the text names the column
    """
    if len(text) > TEXT_MAX:
        refuse(1, f"it has {len(text):,} characters; an expression has at most {TEXT_MAX:,}")
    pieces = LITERAL.split(text)
    literals = tuple(pieces[1::2])
    key = ("\0".join(pieces[::2]), "".join(["t" if word[0] in "\"'" else "n" for word in literals]))
    shape = _shapes.get(key)
    if shape is None:
        shape = read(text)
        if len(_shapes) >= SHAPES_MAX:
            _shapes.clear()
        _shapes[key] = shape
    names = tuple([literals[place][1:-1] for place in shape.tags]) if shape.tags else ()
    return Expression(text, shape, literals, names)


def check_expression(text: str) -> tuple[str, ...]:
    """Names of the tags that an expression reads; raises Misconfigured E1191 as parse_expression."""
    expression = parse_expression(text)
    expression.form(ANY, dict.fromkeys(expression.tag_names, ANY).__getitem__)
    return expression.dependencies


_shapes: dict[tuple[str, str], Shape] = {}


@lru_cache(SHAPES_MAX)
def _shape_form(shape: Shape, value: int | None, tags: tuple[int, ...]) -> int | None:
    """Form of all expressions of a shape; None when it has none."""
    try:
        form = _form(shape.root, value, tags, [0])
    except Misconfigured:
        return None
    return BOOLEAN if form & BOOLEAN == form else form


def _form(node: Node, value: int | None, tags: Sequence[int], taken: list[int]) -> int:
    """Every form that a part can have. `taken` counts the tags so far: they come in the order of the text."""
    word, token = node.word, node.token
    if word == "value":
        if value is None:
            refuse(token.column, "there is no value here: the tag has no source; name the tags it is calculated from")
        return value
    if word == "tag":
        taken[0] += 1
        return tags[taken[0] - 1]
    if word in {"number", "text"}:
        return NUMBER if word == "number" else TEXT
    if word in CONSTANTS:
        return CONSTANTS[word]
    forms = [_form(child, value, tags, taken) for child in node.children]
    if word in FUNCTIONS:
        return _call_form(node, forms)
    return _operator_form(node, forms)


def _call_form(node: Node, forms: Sequence[int]) -> int:
    wanted, _, result = FUNCTIONS[node.word]
    for place, form in enumerate(forms):
        _need(form, wanted[min(place, len(wanted) - 1)], node, f"argument {place + 1} of {node.word}")
    return result or _one_form(forms[1] | forms[2], node)


def _operator_form(node: Node, forms: Sequence[int]) -> int:
    word = node.word
    if word == "not":
        _need(forms[0], BOOLEAN, node, "not")
        return BOOLEAN
    if word == "and":  # only a false left side goes on; numbers and texts are always true
        return (forms[0] & FALSE) | (forms[1] if forms[0] & ~FALSE else 0)
    if word == "or":
        return (forms[0] & ~FALSE) | (forms[1] if forms[0] & FALSE else 0)
    if word in {"==", "~="}:
        _one_form(forms[0] | forms[1], node)
        return BOOLEAN
    if word in {"<", "<=", ">", ">="}:
        _need(_one_form(forms[0] | forms[1], node), NUMBER | TEXT, node, word)
        return BOOLEAN
    wanted = NUMBER | TEXT if word == ".." else NUMBER
    for form in forms:
        _need(form, wanted, node, "-" if word == "negative" else word)
    return TEXT if word == ".." else NUMBER


def _need(form: int, wanted: int, node: Node, what: str) -> None:
    if form & ~wanted and form != ANY:
        names = {NUMBER: "numbers", TEXT: "texts", BOOLEAN: "conditions", NUMBER | TEXT: "numbers and texts"}
        hint = "; a condition is written like value > 0" if wanted == BOOLEAN else ""
        refuse(node.token.column, f"{what} is for {names.get(wanted, 'values')}, and this is {_said(form)}{hint}")


def _one_form(form: int, node: Node) -> int:
    if form != ANY and form & ANY not in {NUMBER, TEXT} and form & ~BOOLEAN:
        refuse(node.token.column, f"{node.word} joins different things: {_said(form)}")
    return form


def _said(form: int) -> str:
    return " or ".join(name for mask, name in FORM_NAMES.items() if form & mask)
