"""One step of a batch's way: the expressions of some of its rows, then their limits, then what others read of them.

An input that is Bad makes the result Bad with the input's own code, because that says what is to be repaired; one that
was never read is BadWaitingForInitialData. An expression that fails, or gives no finite number, is
BadConfigurationError: the tables are what must change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import UInt32Column, ValueColumn
from framegate.contract.quality import Quality
from framegate.mapper.alarms import Alarms
from framegate.mapper.columns import BAD, SEVERITY, Clamp, Columns, Rows
from framegate.mapper.expression import BOOLEAN, NUMBER, TEXT, Expression
from framegate.mapper.inputs import TEXT_BYTES_MAX, Feed, Inputs, lua_text
from framegate.mapper.instructions import code_of
from framegate.mapper.lua import quoted
from framegate.mapper.program import NONE_FAILED, Assignment, Program

NOT_FINITE = "the result is not a finite number"
TEXT_UNUSABLE = f"its value is no text of at most {TEXT_BYTES_MAX:,} bytes"


class Formula(NamedTuple):
    """An expression bound to the inputs of one mapping.

    form      NUMBER, TEXT or BOOLEAN: of the tag, and of `value` when it has a source
    level     1 above the highest level of the formulas it reads
    is_timed  evaluated by the clock, not by the arrival of its inputs
    """

    tag_id: int
    name: str
    form: int
    assignment: Assignment
    level: int
    has_source: bool
    is_timed: bool


_OF_VALUE = {NUMBER: "v[{row}]", BOOLEAN: "(v[{row}]~=0)", TEXT: "text(t[{row}])"}
_OF_TAG = {NUMBER: "x[{%d}]", BOOLEAN: "(x[{%d}]~=0)", TEXT: "text(y[{%d}])"}
_RESULT = {NUMBER: "r[{row}] = %s", BOOLEAN: "r[{row}] = (%s) and 1 or 0", TEXT: "s[{row}] = %s"}
_templates: dict[tuple[str, int, tuple[int, ...]], str] = {}
TEMPLATES_MAX = 16_384


def assignment_of(expression: Expression, form: int, tags: tuple[int, ...], slots: Mapping[str, int]) -> Assignment:
    """An expression as Lua. form: of its tag;  tags: forms of the tags it reads, as they come;  slots: by name."""
    shape = expression.shape
    key = (shape.template, form, tags)
    template = _templates.get(key)
    if template is None:
        template = _template(expression, form, tags)
        if len(_templates) >= TEMPLATES_MAX:
            _templates.clear()
        _templates[key] = template
    code = None if form == TEXT or TEXT in tags or shape.texts else code_of(shape, form, tags)
    if not shape.tags and not shape.texts:
        return Assignment(template, expression.literals, (), (), code)
    words = list(expression.literals)
    for place in shape.texts:
        words[place] = quoted(words[place][1:-1])
    tag_slots = tuple([slots[name] for name in expression.tag_names])
    for place, slot in zip(shape.tags, tag_slots, strict=True):
        words[place] = str(slot)
    return Assignment(template, tuple(words), tuple(dict.fromkeys(tag_slots)), tag_slots, code)


def _template(expression: Expression, form: int, tags: tuple[int, ...]) -> str:
    shape = expression.shape
    words = {
        f"tag{number}": _OF_TAG[tag] % place for number, (tag, place) in enumerate(zip(tags, shape.tags, strict=True))
    }
    literals = [f"{{{place}}}" for place in range(len(expression.literals))]
    line = _RESULT[form] % shape.template.format(*literals, value=_OF_VALUE[form], **words)
    return f"begin() {line}" if TEXT in {form, *tags} else line


class Evaluation:
    """Formulas of one form and one level, as one program over the rows of a group."""

    __slots__ = (
        "_failing",
        "_form",
        "_has_source",
        "_ids",
        "_is_timed",
        "_names",
        "_program",
        "_result",
        "_table",
        "_value",
    )

    def __init__(self, formulas: Sequence[Formula], inputs: Inputs) -> None:
        first = formulas[0]
        self._form, self._has_source, self._is_timed = first.form, first.has_source, first.is_timed
        self._ids = [formula.tag_id for formula in formulas]
        self._names = {formula.tag_id: formula.name for formula in formulas}
        self._table = inputs.table([formula.assignment.slots for formula in formulas])
        self._program = Program(inputs.machine, [formula.assignment for formula in formulas])
        self._value, self._result = self._program.value, self._program.result

    def run(self, columns: Columns, rows: Rows | slice, inputs: Inputs, alarms: Alarms | None, now_ns: int) -> None:
        """Put results, their quality and, for rows without a source, their time in place."""
        value, before, _ = columns.at(rows)
        unusable = self._take(value) if self._has_source else NONE_FAILED
        failed = self._program.run()
        if unusable:
            failed = {**failed, **unusable}
        failing = self._judge(failed)
        if not self._has_source:
            self._set_time(columns, rows, inputs, now_ns)
        worst = None if self._table is None else inputs.worst(self._table)
        quality = before if worst is None else worse(before, worst)
        if failing is not None or (alarms is not None and alarms.failing):
            quality = self._tell(quality, failing, failed, alarms)
        if quality is not before:
            columns.own_quality()[rows] = quality
        results = self._results(failing, columns.value.dtype.char)
        if isinstance(rows, slice) and results is self._result:
            columns.take_value(results.copy())
        else:
            columns.own_value()[rows] = results

    def _set_time(self, columns: Columns, rows: Rows | slice, inputs: Inputs, now_ns: int) -> None:
        """Of calculated rows: that of their newest input, or now."""
        if self._is_timed or self._table is None:
            columns.time[rows] = now_ns
        elif isinstance(rows, slice):
            columns.time = inputs.newest(self._table)
        else:
            columns.time[rows] = inputs.newest(self._table)

    def _take(self, value: ValueColumn) -> Mapping[int, str]:
        """Hand the rows' own values to the program; returns those that it cannot use."""
        if self._form != TEXT:
            self._value[:] = value
            return NONE_FAILED
        texts, given = self._program.texts, [lua_text(text) for text in value.tolist()]
        for row, text in enumerate(given):
            texts[row] = text or b""
        return {row: TEXT_UNUSABLE for row, text in enumerate(given) if text is None}

    def _judge(self, failed: Mapping[int, str]) -> npt.NDArray[np.bool_] | None:
        """Which rows have no usable result; None: all have."""
        if self._program.is_finite:
            return None
        result = self._result
        if failed:
            result[list(failed)] = np.nan if self._form != TEXT else 0.0
        if self._form == TEXT:
            failing = np.zeros(len(result), np.bool_)
            failing[list(failed)] = True
            return failing if failed else None
        fine = np.isfinite(result)
        return None if np.count_nonzero(fine) == len(fine) else ~fine

    def _tell(
        self,
        quality: UInt32Column,
        failing: npt.NDArray[np.bool_] | None,
        failed: Mapping[int, str],
        alarms: Alarms | None,
    ) -> UInt32Column:
        """Mark failing rows, unless they are Bad anyway: then it is the input that is at fault."""
        count = len(self._ids)
        usable = np.broadcast_to(quality & np.uint32(BAD) == 0, count)
        marked = usable & failing if failing is not None else np.zeros(count, np.bool_)
        if alarms is not None:
            reasons = {self._ids[row]: failed.get(row, NOT_FINITE) for row in np.flatnonzero(marked).tolist()}
            fine = {self._ids[row] for row in np.flatnonzero(usable & ~marked).tolist()}
            alarms.look(reasons, fine, self._names)
        if not marked.any():
            return quality
        return np.where(marked, np.uint32(Quality.BAD_CONFIGURATION_ERROR), quality)

    def _results(self, failing: npt.NDArray[np.bool_] | None, kind: str) -> Any:
        result = self._result
        if failing is not None:
            result[failing] = 0.0
        if self._form == TEXT:
            texts: npt.NDArray[np.object_] = np.empty(len(result), np.object_)
            found = self._program.results
            texts[:] = [found[row] or "" for row in range(len(result))]
            if failing is not None:
                texts[failing] = ""
            return texts
        return result != 0.0 if kind == "?" else result


def worse(quality: UInt32Column, other: UInt32Column) -> UInt32Column:
    """Per row the quality of the higher severity; the first among equals, and itself where it always wins."""
    is_worse = (other & np.uint32(SEVERITY)) > (quality & np.uint32(SEVERITY))
    return np.where(is_worse, other, quality) if is_worse.any() else quality


class Step(NamedTuple):
    """rows: places in the group's columns, as a slice where they are all."""

    rows: Rows | slice
    evaluation: Evaluation | None
    clamp: Clamp | None
    feeds: tuple[Feed, ...]

    def apply(self, columns: Columns, inputs: Inputs, alarms: Alarms | None, now_ns: int) -> None:
        if self.evaluation is not None:
            self.evaluation.run(columns, self.rows, inputs, alarms, now_ns)
        if self.clamp is not None:
            self.clamp.apply(columns)
        for feed in self.feeds:
            feed.apply(columns, inputs)
