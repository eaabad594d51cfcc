"""The grammar of expressions: from a text to a tree of nodes and a template of Lua, with every limit on the way.

What the parts of an expression are to each other, numbers, texts or conditions, is in expression.py.
Source: Lua 5.1 Reference Manual, 2.5 (operators and their precedence).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, NamedTuple, NoReturn

from framegate.contract.errors import Misconfigured

TEXT_MAX = 1_024  # characters of one expression
DEPTH_MAX = 16  # brackets, calls, signs and powers inside each other; with ARGUMENTS_MAX it fits LuaJIT's registers
ARGUMENTS_MAX = 8
JOINS_MAX = 32  # `..` in one expression

NUMBER: Final = 1
TEXT: Final = 2
TRUE: Final = 4
FALSE: Final = 8
BOOLEAN: Final = TRUE | FALSE

ANY: Final = NUMBER | TEXT | BOOLEAN  # a form that is not known yet: every use of it is let through
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
    "rshift": (_NUMBERS, 2, NUMBER), "number": ((TEXT,), 1, NUMBER), "iif": ((BOOLEAN, ANY, ANY), 3, 0),
}  # fmt: skip
_REPEATING = frozenset(("min", "max"))
CONSTANTS = {"true": TRUE, "false": FALSE, "pi": NUMBER}
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
LITERAL = re.compile(rf"({_TEXT}|(?<![\w.]){_NUMBER})", re.ASCII)


class Token(NamedTuple):
    kind: str
    text: str
    column: int  # from 1


class Node(NamedTuple):
    """word: value, tag, number, text, true, false, pi, a function's name, an operator; sign: `-` before a number."""

    word: str
    token: Token
    children: tuple[Node, ...] = ()
    literal: int = -1  # place among the literals of the text


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What expressions that differ in names, texts and numbers only have in common.

    template  Lua with {0}, {1}, ... for literals; value and tags as {value} and {tag0}, {tag1}, ...
    tags      places of tag names among the literals;  texts  places of other texts
    """

    root: Node
    template: str
    tags: tuple[int, ...]
    texts: tuple[int, ...]
    uses_value: bool


def refuse(column: int, text: str) -> NoReturn:
    raise Misconfigured(f"column {column} of the expression: {text}", code="E1191")


def _tokens(text: str) -> list[Token]:
    found = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "other"
        token = Token(kind, match[kind], match.start(kind) + 1)
        if kind == "other":
            _refuse_character(token)
        found.append(token)
        if kind == "end":
            break
    return found


def _refuse_character(token: Token) -> NoReturn:
    if token.text in "\"'":
        refuse(token.column, "a text begins here and does not end; texts have no line breaks and no backslashes")
    if token.text == "." or token.text.isdigit():
        refuse(token.column, "this is no number and no operator; a number is written like 12, 0.5, 1e-3 or 0xFF")
    refuse(token.column, f"{token.text!r} is not used in expressions")


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
    def next(self) -> Token:
        return self.tokens[self.place]

    def take(self, lua: str | None = None) -> Token:
        token = self.tokens[self.place]
        self.place += 1
        self.lua.append(token.text if lua is None else lua)
        return token

    def want(self, sign: str, why: str) -> None:
        if self.next.text != sign or self.next.kind != "sign":
            refuse(self.next.column, f"{sign} is missing here {why}")
        self.take()

    def literal(self) -> int:
        self.literals += 1
        return self.literals - 1

    def expression(self, strength: int = 0) -> Node:
        """Precedence climbing; operators that bind weaker than `strength` are the caller's."""
        left = self.operand()
        while (binding := _OPERATORS.get(self.next.text)) and self.next.kind != "text" and binding[0] >= strength:
            self.joins += self.next.text == ".."
            if self.joins > JOINS_MAX:
                refuse(self.next.column, f"more than {JOINS_MAX} texts are joined")
            operator = self.take()
            is_nested = binding[0] > binding[1]  # a ^ b ^ c is a ^ (b ^ c)
            right = self.deeper(operator, binding[1]) if is_nested else self.expression(binding[1])
            left = Node(operator.text, operator, (left, right))
        return left

    def deeper(self, token: Token, strength: int = 0) -> Node:
        self.depth += 1
        if self.depth > DEPTH_MAX + (self.joins if token.text == ".." else 0):
            refuse(token.column, f"nested more than {DEPTH_MAX} deep; make a calculated tag of a part of it")
        node = self.expression(strength)
        self.depth -= 1
        return node

    def operand(self) -> Node:
        token = self.next
        if token.kind == "number":
            return Node("number", self.take(f"{{{self.literals}}}"), literal=self.literal())
        if token.kind == "text":
            self.texts.append(self.literals)
            return Node("text", self.take(f"{{{self.literals}}}"), literal=self.literal())
        if token.text == "(":
            self.take()
            inner = self.deeper(token)
            self.want(")", f"for the ( in column {token.column}")
            return inner
        if token.text in {"-", "not"}:
            word = "negative" if token.text == "-" else "not"
            return Node(word, self.take(), (self.deeper(token, _UNARY),))
        if token.kind == "name":
            return self.name(token)
        if token.text in _FOREIGN:
            refuse(token.column, f"{token.text} is not of this language; write {_FOREIGN[token.text]}")
        what = "the expression ends" if token.kind == "end" else f"{token.text} stands"
        refuse(token.column, f'{what} where a value is wanted: value, tag["name"], a number, a text or a function')

    def name(self, token: Token) -> Node:
        word = token.text
        if word == "value":
            self.uses_value = True
            return Node("value", self.take("{value}"))
        if word == "tag":
            return self.tag()
        if word in CONSTANTS:
            return Node(word, self.take())
        if word in FUNCTIONS:
            return self.call()
        if word in _FORBIDDEN:
            refuse(token.column, f"{word} begins a statement; an expression has none")
        near = get_close_matches(word, (*FUNCTIONS, *CONSTANTS, "value", "tag"), 1)
        hint = f"did you mean {near[0]}?" if near else f'another tag is written tag["{word}"]'
        refuse(token.column, f"{word} is not known here; {hint}")

    def tag(self) -> Node:
        token = self.take(f"{{tag{len(self.tags)}}}")
        start = len(self.lua)
        self.want("[", 'after tag: tag["name"]')
        if self.next.kind != "text":
            refuse(self.next.column, 'the name of a tag is wanted here, in quotes: tag["name"]')
        self.tags.append(self.literals)
        literal = self.literal()
        self.take()
        self.want("]", "after the name of the tag")
        del self.lua[start:]
        return Node("tag", token, literal=literal)

    def call(self) -> Node:
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
            refuse(token.column, f"{token.text} takes {wanted} arguments, not {len(arguments)}")
        return Node(token.text, token, tuple(arguments))


def read(text: str) -> Shape:
    reader = _Reader(text)
    root = reader.expression()
    token = reader.next
    if token.kind != "end":
        hint = f"; write {_FOREIGN[token.text]}" if token.text in _FOREIGN else ""
        refuse(token.column, f"the expression is complete before {token.text}{hint}")
    return Shape(root, " ".join(reader.lua), tuple(reader.tags), tuple(reader.texts), reader.uses_value)
