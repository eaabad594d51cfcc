"""Interlocks: conditions over newest values under which a tag may be written. All of a gateway in one LuaJIT.

Values are those that went out last: after scale, enum and report. A tag that is Bad or was never read forbids writing:
an interlock that cannot be judged does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from framegate.config import Tables, VariableRow
from framegate.contract.frame import Value
from framegate.contract.ports import Catalogue
from framegate.contract.quality import describe, is_bad
from framegate.gateway.binding import out_id
from framegate.mapper.expression import BOOLEAN, TEXT, parse_expression
from framegate.mapper.formula import assignment_of
from framegate.mapper.inputs import lua_text
from framegate.mapper.lua import Machine
from framegate.mapper.planner import form_of
from framegate.mapper.program import Program

Reading: TypeAlias = tuple[Value, int, int, int]
"""Value, quality, source time, gateway time; as bus.latest gives it."""
Latest: TypeAlias = Callable[[int], Reading | None]


class Interlocks:
    """Compiled conditions by the tag that they guard."""

    def __init__(self, texts: Mapping[str, str], tables: Tables, catalogue: Catalogue) -> None:
        """texts: expressions by tag; the tables' check has passed them."""
        self._texts = texts
        if not texts:
            return
        expressions = {tag: parse_expression(text) for tag, text in texts.items()}
        wanted = {name for expression in expressions.values() for name in expression.dependencies}
        rows = {row.tag: row for row in tables.variables if row.tag in wanted}
        self._slots = {name: slot for slot, name in enumerate(sorted(wanted), 1)}
        self._ids = {name: out_id(rows[name], catalogue) for name in wanted}
        self._machine = Machine(np.zeros(len(wanted) + 1))
        self._needs = {tag: expression.dependencies for tag, expression in expressions.items()}
        self._programs: dict[str, Program] = {}
        for tag, expression in expressions.items():
            forms = tuple(_form_out(rows[name]) for name in expression.tag_names)
            assignment = assignment_of(expression, BOOLEAN, forms, self._slots)
            self._programs[tag] = Program(self._machine, [assignment])

    def of(self, tag: str, latest: Latest) -> Callable[[], str]:
        """Why a tag may not be written now, as a function; it gives "" while it may."""
        if tag not in self._texts:
            return _always_open
        return lambda: self._why(tag, latest)

    def _why(self, tag: str, latest: Latest) -> str:
        for name in self._needs[tag]:
            reading = latest(self._ids[name])
            if reading is None:
                return f"{name} was never read"
            value, quality, _, _ = reading
            if is_bad(quality):
                return f"{name} is {describe(quality)}"
            if not self._given(self._slots[name], value):
                return f"{name} is {value!r:.60}, which an expression cannot read"
        program = self._programs[tag]
        failed = program.run()
        if failed:
            return f"it failed: {failed[0]}"
        return "" if program.result[0] else f"{self._texts[tag]} does not hold"

    def _given(self, slot: int, value: Value) -> bool:
        if isinstance(value, int | float):
            self._machine.inputs[slot] = value
            return True
        text = lua_text(value)
        self._machine.input_texts[slot] = text or b""
        return text is not None


def _always_open() -> str:
    return ""


def _form_out(row: VariableRow) -> int:
    """Form of a tag as it goes out."""
    return TEXT if row.processing.enum else form_of(row.type)
