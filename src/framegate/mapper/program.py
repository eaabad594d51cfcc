"""Expressions that run together: those of numbers and conditions as a sweep, those with texts as lines of Lua.

A sweep cannot fail. Lines are fused into functions of FUSED_MAX, which stay with the interpreter: thousands of distinct
lines that run once a second never earn a compiler's work. When such a call fails, its expressions are called one by
one to find which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from lupa.luajit21 import LuaError

from framegate.mapper.instructions import Code
from framegate.mapper.lua import Machine
from framegate.mapper.sweep import Bound, sweep_of

SWEEP_ROWS_MIN = 8  # fewer are not worth the machine's compiled operators
FUSED_MAX = 125  # expressions in one function: the cost of a call is spread, and a failure repeats few
NONE_FAILED: Mapping[int, str] = MappingProxyType({})
REASON_MAX = 200  # characters of Lua's own words that go on


class Assignment(NamedTuple):
    """One expression as Lua that assigns its result.

    template  with {row} for the row and {0}, {1}, ... for the operands, which are numbers, slots and quoted texts
    slots     of the inputs that it reads, each once;  tag_slots: by place among the tags of its text
    code      the same as instructions; None: it has to do with texts
    """

    template: str
    operands: tuple[str, ...]
    slots: tuple[int, ...]
    tag_slots: tuple[int, ...]
    code: Code | None

    def source(self, row: int) -> str:
        return self.template.format(*self.operands, row=row)


class Program:
    """Assignments that run together.

    value, result   float64[rows]: what the rows bring, and what they become
    texts, results  the same for texts, as Lua tables by row, from 0
    is_finite       True: all results of the last run are known to be finite numbers
    """

    __slots__ = (
        "_assignments", "_calls", "_closures", "_columns", "_machine", "_sweep", "is_finite", "result", "results",
        "texts", "value",
    )  # fmt: skip

    def __init__(self, machine: Machine, assignments: Sequence[Assignment]) -> None:
        self._machine, self._assignments = machine, assignments
        self.texts, self.results = machine.table(), machine.table()
        self._closures: dict[int, Any] = {}
        self._calls: list[tuple[Sequence[int], Any]] = []
        bound = [
            Bound(row, one.code, one.operands, one.tag_slots)
            for row, one in enumerate(assignments)
            if one.code is not None
        ]
        swept = bound if len(bound) >= SWEEP_ROWS_MIN else []
        sweep = sweep_of(len(assignments), swept)
        self._columns = sweep  # what addresses in Lua point into
        self.value, self.result = sweep.value, sweep.result
        self._sweep = machine.sweep(sweep) if swept else None
        self.is_finite = False
        of_sweep = {one.row for one in swept}
        lines = [row for row in range(len(assignments)) if row not in of_sweep]
        for start in range(0, len(lines), FUSED_MAX):
            rows = lines[start : start + FUSED_MAX]
            self._calls.append((rows, self._fuse(rows)[0]))

    def run(self) -> Mapping[int, str]:
        """Run every assignment; returns why, by row, those failed that did."""
        self.is_finite = self._sweep is not None and self._sweep() == 0 and not self._calls
        failed: Mapping[int, str] = NONE_FAILED
        for rows, call in self._calls:
            try:
                if call is not None:
                    call()
                    continue
            except LuaError:
                pass  # of which one it is, and why, is found below
            failed = {**failed, **self._one_by_one(rows)}
        return failed

    def _one_by_one(self, rows: Sequence[int]) -> Mapping[int, str]:
        known = self._closures
        try:
            for row in rows:
                if row not in known:
                    known[row] = self._alone(row)
            problems = self._machine.each(self._machine.list_of([known[row] for row in rows]), len(rows))
        except LuaError as error:  # not of one of them: the machine has no memory left
            return dict.fromkeys(rows, str(error)[:REASON_MAX])
        return {rows[number - 1]: str(problem)[:REASON_MAX] for number, problem in problems.items()}

    def _alone(self, row: int) -> Any:
        """One assignment as a function; one that LuaJIT refuses, as a function that says so."""
        call, problem = self._fuse([row])
        return call if call is not None else self._machine.refusal(str(problem)[:REASON_MAX])

    def _fuse(self, rows: Sequence[int]) -> tuple[Any, Any]:
        """Straight-line code for some assignments, or None and why there is none."""
        machine, assignments = self._machine, [self._assignments[row] for row in rows]
        source = "\n".join([one.source(row) for one, row in zip(assignments, rows, strict=True)])
        slots = sorted({slot for one in assignments for slot in one.slots})
        lua_rows, lua_slots = machine.list_of(rows), machine.list_of(slots)
        found = machine.fuse(
            source,
            lua_rows,
            lua_slots,
            self.value.ctypes.data,
            machine.inputs_address,
            self.result.ctypes.data,
            self.texts,
            machine.input_texts,
            self.results,
        )
        return found if isinstance(found, tuple) else (found, None)
