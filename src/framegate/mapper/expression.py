"""Expressions of the tag table: read, checked and typed here, long before any Lua sees them.

An expression is a Lua expression and nothing more: `value`, `tag["name"]`, numbers, texts, operators and the functions
of FUNCTIONS. There is no statement, no loop, no method, no index but tag[...], so one always ends; length, nesting,
arguments and joined texts are bounded, so that one stays small. Every part has a form (number, text, true or false)
that is known before it runs, and a mistake is told with its column.

Most expressions of a plant are few shapes with other names and numbers: a shape is read once and remembered.
Source: Lua 5.1 Reference Manual, 2.5 (operators and their precedence).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Final, NamedTuple, NoReturn

from framegate.contract.errors import Misconfigured

TEXT_MAX = 1_024  # characters of one expression
DEPTH_MAX = 16  # brackets, calls, signs and powers inside each other; with ARGUMENTS_MAX it fits LuaJIT's registers
ARGUMENTS_MAX = 8
JOINS_MAX = 32  # `..` in one expression
SHAPES_MAX = 16_384  # shapes remembered, each about 1 KiB

NUMBER: Final = 1
TEXT: Final = 2
TRUE: Final = 4
FALSE: Final = 8
BOOLEAN: Final = TRUE | FALSE
FORM_NAMES: Mapping[int, str] = {NUMBER: "a number", TEXT: "text", BOOLEAN: "true or false"}

_ANY: Final = NUMBER | TEXT | BOOLEAN  # a form that is not known yet: every use of it is let through
_NUMBERS = (NUMBER,)
FUNCTIONS: Mapping[str, tuple[tuple[int, ...], int, int]] = {
    # name: forms of its arguments (the last one repeats), fewest arguments, result (0: that of iif's branches)
    "abs": (_NUMBERS, 1, NUMBER), "min": (_NUMBERS, 2, NUMBER), "max": (_NUMBERS, 2, NUMBER),
    "floor": (_NUMBERS, 1, NUMBER), "ceil": (_NUMBERS, 1, NUMBER), "round": (_NUMBERS, 1, NUMBER),
    "sqrt": (_NUMBERS, 1, NUMBER), "exp": (_NUMBERS, 1, NUMBER), "log": (_NUMBERS, 1, NUMBER),
    "log10": (_NUMBERS, 1, NUMBER), "sin": (_NUMBERS, 1, NUMBER), "cos": (_NUMBERS, 1, NUMBER),
    "tan": (_NUMBERS, 1, NUMBER), "asin": (_NUMBERS, 1, NUMBER), "acos": (_NUMBERS, 1, NUMBER),
    "atan": (_NUMBERS, 1, NUMBER), "atan2": (_NUMBERS, 2, NUMBER), "pow": (_NUMBERS, 2, NUMBER),
    "clamp": (_NUMBERS, 3, NUMBER), "bit": (_NUMBERS, 2, BOOLEAN), "band": (_NUMBERS, 2, NUMBER),
    "bor": (_NUMBERS, 2, NUMBER), "bxor": (_NUMBERS, 2, NUMBER), "lshift": (_NUMBERS, 2, NUMBER),
    "rshift": (_NUMBERS, 2, NUMBER), "number": ((TEXT,), 1, NUMBER), "iif": ((BOOLEAN, _ANY, _ANY), 3, 0),
}  # fmt: skip
_REPEATING = frozenset(("min", "max"))
_CONSTANTS = {"true": TRUE, "false": FALSE, "pi": NUMBER}
_OPERATORS = {"or": (1, 2), "and": (3, 4)}
_OPERATORS |= dict.fromkeys(("==", "~=", "<", "<=", ">", ">="), (5, 6))
_OPERATORS |= {"..": (8, 7), "+": (9, 10), "-": (9, 10), "*": (11, 12), "/": (11, 12), "%": (11, 12), "^": (16, 15)}
"""How strongly an operator binds to its left and to its right."""
_UNARY = 13  # `not` and `-` bind weaker than ^ and stronger than *
_FOREIGN = {"=": "==", "!=": "~=", "&&": "and", "||": "or", "!": "not", "?": "iif(condition, a, b)"}
_FORBIDDEN = frozenset(
    [
        "break",
        "do",
        "else",
        "elseif",
        "end",
        "for",
        "function",
        "goto",
        "if",
        "in",
        "local",
        "nil",
        "repeat",
        "return",
        "then",
        "until",
        "while",
    ]
)
_NUMBER = r"(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![\w.])"
_TEXT = r"\"[^\"\\\n]*\"|'[^'\\\n]*'"
_TOKEN = re.compile(
    rf"\s*(?:(?P<text>{_TEXT})|(?P<number>{_NUMBER})|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>\.\.|==|~=|<=|>=|!=|&&|\|\||[-+*/%^<>()\[\],=!?])|(?P<end>\Z)|(?P<other>.))",
    re.ASCII | re.DOTALL,
)
_LITERAL = re.compile(rf"({_TEXT}|(?<![\w.]){_NUMBER})", re.ASCII)


class _Token(NamedTuple):
    kind: str
    text: str
    column: int  # from 1


class _Node(NamedTuple):
    """word: value, tag, number, text, true, false, pi, a function's name, an operator; sign: `-` before a number."""

    word: str
    token: _Token
    children: tuple[_Node, ...] = ()
    literal: int = -1  # place among the literals of the text


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What expressions that differ in names, texts and numbers only have in common.

    template  Lua with {0}, {1}, ... for literals; value and tags as {value} and {tag0}, {tag1}, ...
    tags      places of tag names among the literals;  texts  places of other texts
    """

    root: _Node
    template: str
    tags: tuple[int, ...]
    texts: tuple[int, ...]
    uses_value: bool


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
            _form(_read(self.text).root, value, [tags(name) for name in self.tag_names], [0])
            raise AssertionError(self.text)
        return known


def parse_expression(text: str) -> Expression:
    """Read an expression of the tag table.

    raises  Misconfigured E1191 - it is no expression, or beyond a limit; the text names the column
    """
    if len(text) > TEXT_MAX:
        _refuse(1, f"it has {len(text):,} characters; an expression has at most {TEXT_MAX:,}")
    pieces = _LITERAL.split(text)
    literals = tuple(pieces[1::2])
    key = ("\0".join(pieces[::2]), "".join(["t" if word[0] in "\"'" else "n" for word in literals]))
    shape = _shapes.get(key)
    if shape is None:
        shape = _read(text)
        if len(_shapes) >= SHAPES_MAX:
            _shapes.clear()
        _shapes[key] = shape
    names = tuple([literals[place][1:-1] for place in shape.tags]) if shape.tags else ()
    return Expression(text, shape, literals, names)


def check_expression(text: str) -> tuple[str, ...]:
    """Names of the tags that an expression reads; raises Misconfigured E1191 as parse_expression."""
    expression = parse_expression(text)
    expression.form(_ANY, dict.fromkeys(expression.tag_names, _ANY).__getitem__)
    return expression.dependencies


_shapes: dict[tuple[str, str], Shape] = {}


def _refuse(column: int, text: str) -> NoReturn:
    raise Misconfigured(f"column {column} of the expression: {text}", code="E1191")


# -- reading -------------------------------------------------------------------------------------------------------


def _tokens(text: str) -> list[_Token]:
    found = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "other"
        token = _Token(kind, match[kind], match.start(kind) + 1)
        if kind == "other":
            _refuse_character(token)
        found.append(token)
        if kind == "end":
            break
    return found


def _refuse_character(token: _Token) -> NoReturn:
    if token.text in "\"'":
        _refuse(token.column, "a text begins here and does not end; texts have no line breaks and no backslashes")
    if token.text == "." or token.text.isdigit():
        _refuse(token.column, "this is no number and no operator; a number is written like 12, 0.5, 1e-3 or 0xFF")
    _refuse(token.column, f"{token.text!r} is not used in expressions")


class _Reader:
    """One pass over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.place = self.depth = self.literals = self.joins = 0
        self.tags: list[int] = []
        self.texts: list[int] = []
        self.lua: list[str] = []
        self.uses_value = False

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    def take(self, lua: str | None = None) -> _Token:
        token = self.tokens[self.place]
        self.place += 1
        self.lua.append(token.text if lua is None else lua)
        return token

    def want(self, sign: str, why: str) -> None:
        if self.next.text != sign or self.next.kind != "sign":
            _refuse(self.next.column, f"{sign} is missing here {why}")
        self.take()

    def literal(self) -> int:
        self.literals += 1
        return self.literals - 1

    def expression(self, strength: int = 0) -> _Node:
        """Precedence climbing; operators that bind weaker than `strength` are the caller's."""
        left = self.operand()
        while (binding := _OPERATORS.get(self.next.text)) and self.next.kind != "text" and binding[0] >= strength:
            self.joins += self.next.text == ".."
            if self.joins > JOINS_MAX:
                _refuse(self.next.column, f"more than {JOINS_MAX} texts are joined")
            operator = self.take()
            is_nested = binding[0] > binding[1]  # a ^ b ^ c is a ^ (b ^ c)
            right = self.deeper(operator, binding[1]) if is_nested else self.expression(binding[1])
            left = _Node(operator.text, operator, (left, right))
        return left

    def deeper(self, token: _Token, strength: int = 0) -> _Node:
        self.depth += 1
        if self.depth > DEPTH_MAX + (self.joins if token.text == ".." else 0):
            _refuse(token.column, f"nested more than {DEPTH_MAX} deep; make a calculated tag of a part of it")
        node = self.expression(strength)
        self.depth -= 1
        return node

    def operand(self) -> _Node:
        token = self.next
        if token.kind == "number":
            return _Node("number", self.take(f"{{{self.literals}}}"), literal=self.literal())
        if token.kind == "text":
            self.texts.append(self.literals)
            return _Node("text", self.take(f"{{{self.literals}}}"), literal=self.literal())
        if token.text == "(":
            self.take()
            inner = self.deeper(token)
            self.want(")", f"for the ( in column {token.column}")
            return inner
        if token.text in {"-", "not"}:
            word = "negative" if token.text == "-" else "not"
            return _Node(word, self.take(), (self.deeper(token, _UNARY),))
        if token.kind == "name":
            return self.name(token)
        if token.text in _FOREIGN:
            _refuse(token.column, f"{token.text} is not of this language; write {_FOREIGN[token.text]}")
        what = "the expression ends" if token.kind == "end" else f"{token.text} stands"
        _refuse(token.column, f'{what} where a value is wanted: value, tag["name"], a number, a text or a function')

    def name(self, token: _Token) -> _Node:
        word = token.text
        if word == "value":
            self.uses_value = True
            return _Node("value", self.take("{value}"))
        if word == "tag":
            return self.tag()
        if word in _CONSTANTS:
            return _Node(word, self.take())
        if word in FUNCTIONS:
            return self.call()
        if word in _FORBIDDEN:
            _refuse(token.column, f"{word} begins a statement; an expression has none")
        near = get_close_matches(word, (*FUNCTIONS, *_CONSTANTS, "value", "tag"), 1)
        hint = f"did you mean {near[0]}?" if near else f'another tag is written tag["{word}"]'
        _refuse(token.column, f"{word} is not known here; {hint}")

    def tag(self) -> _Node:
        token = self.take(f"{{tag{len(self.tags)}}}")
        start = len(self.lua)
        self.want("[", 'after tag: tag["name"]')
        if self.next.kind != "text":
            _refuse(self.next.column, 'the name of a tag is wanted here, in quotes: tag["name"]')
        self.tags.append(self.literals)
        literal = self.literal()
        self.take()
        self.want("]", "after the name of the tag")
        del self.lua[start:]
        return _Node("tag", token, literal=literal)

    def call(self) -> _Node:
        token = self.take()
        self.want("(", f"after {token.text}, with its arguments")
        arguments = [self.deeper(token)]
        while self.next.text == "," and self.next.kind == "sign":
            self.take()
            arguments.append(self.deeper(token))
        self.want(")", f"at the end of the arguments of {token.text}")
        _, fewest, _ = FUNCTIONS[token.text]
        most = ARGUMENTS_MAX if token.text in _REPEATING else fewest
        if not fewest <= len(arguments) <= most:
            wanted = f"{fewest}" if most == fewest else f"{fewest} to {most}"
            _refuse(token.column, f"{token.text} takes {wanted} arguments, not {len(arguments)}")
        return _Node(token.text, token, tuple(arguments))


def _read(text: str) -> Shape:
    reader = _Reader(text)
    root = reader.expression()
    token = reader.next
    if token.kind != "end":
        hint = f"; write {_FOREIGN[token.text]}" if token.text in _FOREIGN else ""
        _refuse(token.column, f"the expression is complete before {token.text}{hint}")
    return Shape(root, " ".join(reader.lua), tuple(reader.tags), tuple(reader.texts), reader.uses_value)


# -- forms ---------------------------------------------------------------------------------------------------------


@lru_cache(SHAPES_MAX)
def _shape_form(shape: Shape, value: int | None, tags: tuple[int, ...]) -> int | None:
    """Form of all expressions of a shape; None when it has none."""
    try:
        form = _form(shape.root, value, tags, [0])
    except Misconfigured:
        return None
    return BOOLEAN if form & BOOLEAN == form else form


def _form(node: _Node, value: int | None, tags: Sequence[int], taken: list[int]) -> int:
    """Every form that a part can have. `taken` counts the tags so far: they come in the order of the text."""
    word, token = node.word, node.token
    if word == "value":
        if value is None:
            _refuse(token.column, "there is no value here: the tag has no source; name the tags it is calculated from")
        return value
    if word == "tag":
        taken[0] += 1
        return tags[taken[0] - 1]
    if word in {"number", "text"}:
        return NUMBER if word == "number" else TEXT
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    forms = [_form(child, value, tags, taken) for child in node.children]
    if word in FUNCTIONS:
        return _call_form(node, forms)
    return _operator_form(node, forms)


def _call_form(node: _Node, forms: Sequence[int]) -> int:
    wanted, _, result = FUNCTIONS[node.word]
    for place, form in enumerate(forms):
        _need(form, wanted[min(place, len(wanted) - 1)], node, f"argument {place + 1} of {node.word}")
    return result or _one_form(forms[1] | forms[2], node)


def _operator_form(node: _Node, forms: Sequence[int]) -> int:
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


def _need(form: int, wanted: int, node: _Node, what: str) -> None:
    if form & ~wanted and form != _ANY:
        names = {NUMBER: "numbers", TEXT: "texts", BOOLEAN: "conditions", NUMBER | TEXT: "numbers and texts"}
        hint = "; a condition is written like value > 0" if wanted == BOOLEAN else ""
        _refuse(node.token.column, f"{what} is for {names.get(wanted, 'values')}, and this is {_said(form)}{hint}")


def _one_form(form: int, node: _Node) -> int:
    if form != _ANY and form & _ANY not in {NUMBER, TEXT} and form & ~BOOLEAN:
        _refuse(node.token.column, f"{node.word} joins different things: {_said(form)}")
    return form


def _said(form: int) -> str:
    return " or ".join(name for mask, name in FORM_NAMES.items() if form & mask)
