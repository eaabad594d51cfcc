"""An expression as instructions: one operator each, whose operands are what the expression is given or other results.

Expressions of one shape have the same instructions; what differs, literals and tags, stays a place among the operands.
A part that is true or false is 1 or 0 here. `and` and `or` of Lua may give false or a number (`value > 5 and 1 or 0`),
so such a part is a pair: whether it is true, and its number if it is. Both sides are evaluated always: nothing that
numbers are put through here can fail or be noticed. Texts are not for this: they stay with Lua.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from framegate.mapper.grammar import BOOLEAN, CONSTANTS, FALSE, FUNCTIONS, NUMBER, Node, Shape

CODES_MAX = 16_384  # shapes whose instructions are remembered

_TWO_SIDED = ("+", "-", "*", "/", "%", "^")
_COMPARING = ("==", "~=", "<", "<=")
_MIRRORED = {">": "<", ">=": "<="}  # with their operands the other way round: fewer operators are fewer loops
_CONDITIONS = (*_COMPARING, "bit", "not")
_FOLDED = ("min", "max")  # from left to right, two at a time
OPERATORS: Mapping[str, str] = {
    **{sign: f"{{a}} {sign} {{b}}" for sign in _TWO_SIDED},
    **{sign: f"{{a}} {sign} {{b}} and 1 or 0" for sign in _COMPARING},
    **{
        name: f"{name}({', '.join(['{a}', '{b}', '{c}'][:fewest])})"
        for name, (_, fewest, _) in FUNCTIONS.items()
        if name not in {"bit", "iif", "number"}
    },
    "negative": "-{a}",
    "bit": "bit({a}, {b}) and 1 or 0",
    "not": "{a} == 0 and 1 or 0",
    "and": "{a} ~= 0 and {b} or 0",
    "or": "{a} ~= 0 and 1 or {b}",
    "iif": "{a} ~= 0 and {b} or {c}",
    "number of tag": "{tag}",
    "truth of tag": "{tag} ~= 0 and 1 or 0",
}
"""What an operator gives for its operands a, b, c, as Lua; {tag}: the newest value of the tag whose slot is a."""


class Source(IntEnum):
    """Where an operand comes from; `place` of the operand says which."""

    VALUE = 0
    TAG = 1  # place among the tags of the text
    RESULT = 2  # place of an instruction
    LITERAL = 3  # place among the literals of the text
    MINUS_LITERAL = 4
    CONSTANT = 5  # the number itself

    @property
    def is_number(self) -> bool:
        """True for what never changes."""
        return self >= Source.LITERAL


class Operand(NamedTuple):
    source: Source
    place: float = 0


class Instruction(NamedTuple):
    """height: how many instructions, this one included, lie on the longest way from here to what the code gives."""

    operator: str
    operands: tuple[Operand, ...]
    height: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """Instructions, each behind those it needs, and what the expression gives in the end.

    waits    by instruction, how many others it needs the results of
    readers  by instruction, those that need its result
    numbers  operands that are literals or constants, each once
    """

    instructions: tuple[Instruction, ...]
    waits: tuple[int, ...]
    readers: tuple[tuple[int, ...], ...]
    numbers: tuple[Operand, ...]
    result: Operand


_OPPOSITE = {Source.LITERAL: Source.MINUS_LITERAL, Source.MINUS_LITERAL: Source.LITERAL}
_VALUE = Operand(Source.VALUE)
_ALWAYS = Operand(Source.CONSTANT, 1.0)
_CONSTANTS: Mapping[str, Operand] = {
    "true": _ALWAYS,
    "false": Operand(Source.CONSTANT, 0.0),
    "pi": Operand(Source.CONSTANT, math.pi),
}


class _Part(NamedTuple):
    """form: every form that it can have;  truth: 1 or 0;  number: None where it is never a number."""

    form: int
    truth: Operand
    number: Operand | None


@lru_cache(CODES_MAX)
def code_of(shape: Shape, form: int, tags: tuple[int, ...]) -> Code:
    """Instructions for expressions of a shape without texts.

    form  NUMBER or BOOLEAN: of `value` and of the result;  tags  the same of the tags, as they come
    """
    writer = _Writer(form, tags)
    result = _only(writer.part(shape.root))
    return _code(writer.instructions, result)


def _code(instructions: Sequence[Instruction], result: Operand) -> Code:
    needs = [
        {int(operand.place) for operand in one.operands if operand.source is Source.RESULT} for one in instructions
    ]
    readers: list[list[int]] = [[] for _ in instructions]
    heights = [1] * len(instructions)
    for at in reversed(range(len(instructions))):  # those that read it lie behind it
        for needed in needs[at]:
            readers[needed].append(at)
            heights[needed] = max(heights[needed], heights[at] + 1)
    operands = [operand for one in instructions for operand in one.operands]
    return Code(
        tuple([one._replace(height=height) for one, height in zip(instructions, heights, strict=True)]),
        tuple(map(len, needs)),
        tuple(map(tuple, readers)),
        tuple(dict.fromkeys(operand for operand in (*operands, result) if operand.source.is_number)),
        result,
    )


def _part(form: int, operand: Operand) -> _Part:
    """What is a number, or a condition, whatever happens."""
    return _Part(form, _ALWAYS, operand) if form & NUMBER else _Part(form, operand, None)


def _only(part: _Part) -> Operand:
    """The operand of a part that is always a number or always a condition."""
    return part.truth if part.number is None else part.number


class _Writer:
    """Writes the instructions of one shape."""

    def __init__(self, form: int, tags: Sequence[int]) -> None:
        self.instructions: list[Instruction] = []
        self._form, self._tags, self._tags_taken = form, tags, 0

    def part(self, node: Node) -> _Part:
        given = self._given(node)
        if given is not None:
            return given
        parts = [self.part(child) for child in node.children]
        if node.word == "and":
            return self._and(*parts)
        if node.word == "or":
            return self._or(*parts)
        if node.word == "iif":
            _, left, right = parts
            return _part(left.form | right.form, self._write("iif", *map(_only, parts)))
        return self._operator(node.word, [_only(part) for part in parts])

    def _given(self, node: Node) -> _Part | None:
        """A part that needs nothing evaluated, but a tag fetched; None: it is another."""
        word = node.word
        if word == "value":
            return _part(self._form, _VALUE)
        if word == "number":
            return _part(NUMBER, Operand(Source.LITERAL, node.literal))
        if word == "negative" and node.children[0].word == "number":
            return _part(NUMBER, Operand(Source.MINUS_LITERAL, node.children[0].literal))
        if word in _CONSTANTS:
            return _part(CONSTANTS[word], _CONSTANTS[word])
        return self._tag() if word == "tag" else None

    def _operator(self, word: str, operands: Sequence[Operand]) -> _Part:
        """An operator or function whose operands are all numbers or all conditions."""
        result = operands[0]
        if word in _MIRRORED:
            word, operands = _MIRRORED[word], operands[::-1]
        if word == "-" and operands[1].source in _OPPOSITE:  # x - 3 is x + -3, to the last bit
            word, operands = "+", [operands[0], operands[1]._replace(source=_OPPOSITE[operands[1].source])]
        if word in _FOLDED:
            for operand in operands[1:]:
                result = self._write(word, result, operand)
        else:
            result = self._write(word, *operands)
        return _part(BOOLEAN if word in _CONDITIONS else NUMBER, result)

    def _and(self, left: _Part, right: _Part) -> _Part:
        form = (left.form & FALSE) | (right.form if left.form & ~FALSE else 0)
        number = right.number if form & NUMBER else None
        return _Part(form, self._both("and", left.truth, right.truth), number)

    def _or(self, left: _Part, right: _Part) -> _Part:
        form = (left.form & ~FALSE) | (right.form if left.form & FALSE else 0)
        number: Operand | None = None
        if form & NUMBER:
            number = left.number or right.number
            if left.form & FALSE and left.number is not None and right.number is not None:
                number = self._write("iif", left.truth, left.number, right.number)
        return _Part(form, self._both("or", left.truth, right.truth), number)

    def _both(self, word: str, left: Operand, right: Operand) -> Operand:
        """Conditions joined; one that always holds needs no instruction."""
        if _ALWAYS in {left, right}:
            return _ALWAYS if word == "or" else right if left == _ALWAYS else left
        return self._write(word, left, right)

    def _tag(self) -> _Part:
        place = self._tags_taken
        self._tags_taken += 1
        form = self._tags[place]
        operator = "truth of tag" if form == BOOLEAN else "number of tag"
        return _part(form, self._write(operator, Operand(Source.TAG, place)))

    def _write(self, operator: str, *operands: Operand) -> Operand:
        self.instructions.append(Instruction(operator, operands))
        return Operand(Source.RESULT, len(self.instructions) - 1)
