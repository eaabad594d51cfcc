"""Expressions evaluated operator by operator over columns, not expression by expression.

Instructions that share an operator run as one compiled loop over the rows that have them, so the cost is one loop per
change of operator, and next to nothing per row, however many expressions differ. Operands are places in one column of
float64:

    values of the rows | results of the rows | literals and constants | results of instructions, loop by loop

Loops are few because the longest ways go first: an operator waits until all that can join it have come.

Sources: the vectorised interpreter of P. Boncz et al., "MonetDB/X100: Hyper-Pipelining Query Execution", CIDR 2005;
list scheduling by critical path, T. C. Hu, "Parallel Sequencing and Assembly Line Problems", 1961.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple, TypeAlias

import numpy as np

from framegate.contract.frame import Float64Column, Int32Column
from framegate.mapper.instructions import OPERATORS, Code, Operand, Source

OPERANDS_MAX = 3
STEP_WORDS = 3 + OPERANDS_MAX
_LOOPS: Mapping[str, str] = {
    name: text.format(a="s[a[i]]", b="s[b[i]]", c="s[c[i]]", tag="x[a[i]]") for name, text in OPERATORS.items()
}
_TO_RESULTS = ""
_SIGNS = {Source.LITERAL: 1.0, Source.MINUS_LITERAL: -1.0}


class Bound(NamedTuple):
    """The instructions of one row's expression, and what their operands are here.

    literals  as written, by place among the literals of the text;  slots: of inputs, by place among the tags of it
    """

    row: int
    code: Code
    literals: Sequence[str]
    slots: Sequence[int]


class Sweep(NamedTuple):
    """A column and the loops that run over it, in their order.

    value, result  float64[rows], parts of the column
    operands       places of all operands of all loops
    steps          STEP_WORDS per loop: its Lua, its count of rows, the place of its first result, and where each of its
                   OPERANDS_MAX operands begins among `operands`; the last one only gathers the results
    """

    column: Float64Column
    value: Float64Column
    result: Float64Column
    operands: Int32Column
    steps: Sequence[str | int]


def sweep_of(rows: int, members: Sequence[Bound]) -> Sweep:
    """The sweep over some expressions of `rows`; results of other rows are left alone."""
    return _Layout(rows, members).sweep()


class _Alike:
    """Expressions with the same instructions; their rows lie side by side in every loop but the last.

    waits    by instruction, how many of those it needs have no place yet
    first    place of the first row's result, by instruction
    numbers  place of the first row's, by operand that is a literal or constant, and the step to the next row's: 0 or 1
    """

    __slots__ = ("code", "first", "members", "numbers", "rows", "waits")

    def __init__(self, code: Code) -> None:
        self.code = code
        self.members: list[Bound] = []
        self.rows: list[int] = []
        self.waits = list(code.waits)
        self.first = [0] * len(code.instructions)
        self.numbers: dict[Operand, tuple[int, int]] = {}


_Part: TypeAlias = tuple[_Alike, int]
"""One instruction of theirs, by its place."""


class _Ready:
    """Instructions whose operands are all there, by operator; tallest: the greatest height among them."""

    def __init__(self) -> None:
        self.parts: dict[str, list[_Part]] = {}
        self.tallest: dict[str, int] = {}

    def add(self, alike: _Alike, at: int) -> None:
        operator, _, height = alike.code.instructions[at]
        self.parts.setdefault(operator, []).append((alike, at))
        if height > self.tallest.get(operator, 0):
            self.tallest[operator] = height

    def take(self) -> tuple[str, Sequence[_Part]]:
        """All of the operator that stands before the longest way; among equals, of the one that most are ready for."""
        operator = max(self.parts, key=lambda each: (self.tallest[each], len(self.parts[each]), each))
        del self.tallest[operator]
        return operator, self.parts.pop(operator)


class _Layout:
    """Gives everything its place."""

    def __init__(self, rows: int, members: Sequence[Bound]) -> None:
        self._rows = rows
        self._numbers: list[float] = []
        self._operands: list[int] = []
        self._steps: list[str | int] = []
        found: dict[Code, _Alike] = {}
        for bound in members:
            alike = found.get(bound.code)
            if alike is None:
                alike = found[bound.code] = _Alike(bound.code)
            alike.members.append(bound)
            alike.rows.append(bound.row)
        self._all = tuple(found.values())

    def sweep(self) -> Sweep:
        rows = self._rows
        for alike in self._all:
            for operand in alike.code.numbers:
                self._place_number(alike, operand)
        end = 2 * rows + len(self._numbers)
        for operator, parts in self._loops():
            end = self._add_loop(_LOOPS[operator], end, parts)
        self._add_results()
        column = np.zeros(end)
        column[2 * rows : 2 * rows + len(self._numbers)] = self._numbers
        operands = np.array(self._operands, np.int32)
        return Sweep(column, column[:rows], column[rows : 2 * rows], operands, self._steps)

    def _loops(self) -> Iterator[tuple[str, Sequence[_Part]]]:
        """Operators in an order in which every operand is there when it is needed."""
        ready = _Ready()
        for alike in self._all:
            for at, count in enumerate(alike.waits):
                if not count:
                    ready.add(alike, at)
        while ready.parts:
            operator, parts = ready.take()
            yield operator, parts
            for alike, at in parts:
                for reader in alike.code.readers[at]:
                    alike.waits[reader] -= 1
                    if not alike.waits[reader]:
                        ready.add(alike, reader)

    def _place_number(self, alike: _Alike, operand: Operand) -> None:
        """The literals of all rows side by side; what is the same for all of them once."""
        source, place = operand
        first = 2 * self._rows + len(self._numbers)
        if source is Source.CONSTANT:
            alike.numbers[operand] = (first, 0)
            self._numbers.append(place)
            return
        sign, words = _SIGNS[source], [bound.literals[int(place)] for bound in alike.members]
        is_same = len(set(words)) == 1
        alike.numbers[operand] = (first, 0 if is_same else 1)
        self._numbers += [sign * number_of(word) for word in (words[:1] if is_same else words)]

    def _add_loop(self, source: str, first: int, parts: Sequence[_Part]) -> int:
        """A loop whose results begin at `first`; returns where they end."""
        end = first
        for alike, at in parts:
            alike.first[at] = end
            end += len(alike.rows)
        alike, at = parts[0]
        starts = []
        for number in range(len(alike.code.instructions[at].operands)):
            starts.append(len(self._operands))
            for alike, at in parts:
                self._operands += self._places(alike, alike.code.instructions[at].operands[number])
        self._steps += [source, end - first, first, *starts, *[0] * (OPERANDS_MAX - len(starts))]
        return end

    def _add_results(self) -> None:
        """The last loop puts each row's result where it is looked for."""
        places = list(range(self._rows, 2 * self._rows))
        for alike in self._all:
            for row, place in zip(alike.rows, self._places(alike, alike.code.result), strict=True):
                places[row] = place
        self._steps += [_TO_RESULTS, self._rows, self._rows, len(self._operands), *[0] * (OPERANDS_MAX - 1)]
        self._operands += places

    def _places(self, alike: _Alike, operand: Operand) -> Iterable[int]:
        """Of one operand, row by row."""
        source, place = operand
        if source is Source.VALUE:
            return alike.rows
        if source is Source.TAG:
            return [bound.slots[int(place)] for bound in alike.members]
        first, step = (alike.first[int(place)], 1) if source is Source.RESULT else alike.numbers[operand]
        return range(first, first + len(alike.rows)) if step else [first] * len(alike.rows)


def number_of(word: str) -> float:
    """A number as Lua reads it."""
    if word[:2] not in {"0x", "0X"}:
        return float(word)
    try:
        return float(int(word, 16))
    except OverflowError:
        return inf
