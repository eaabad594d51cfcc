"""Mapping: what the tag table asks for, compiled into plans over whole columns and fused expressions.

A mapping is replaced whole between two batches, and what is in the log is what was true then. A batch that nothing
applies to passes through as the same object. A scaled integer becomes float64, so one batch of integers may leave as
two: the untouched rows, then the scaled ones; a tag is always in one of them, so its order is kept. Calculated tags
follow as batches of their own. Rows of the clock come from `tick`.

Compiling may run in any thread and takes no state of what maps now. `take_over` does: it belongs to the thread that
maps, right before the swap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as ReadOnlyMapping
from math import isfinite

import numpy as np

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, ValueType
from framegate.mapper.alarms import Alarms
from framegate.mapper.dependencies import Circle, levels_of
from framegate.mapper.expression import FORM_NAMES, TEXT, Expression, parse_expression
from framegate.mapper.formula import Formula, assignment_of
from framegate.mapper.inputs import Inputs
from framegate.mapper.layout import Layout, State
from framegate.mapper.planner import MappingRow, Planner, form_of
from framegate.mapper.report import NS, Reports, Wish, is_reported

LAYOUTS_MAX = 4096  # tag arrays whose plan is remembered; the oldest goes first
WHOLE_KINDS = "lL"  # numpy characters of int64 and uint64
NOT_NUMBERS = frozenset((ValueType.BOOL, ValueType.STRING, ValueType.BYTES, ValueType.JSON))
__all__ = ["Mapping", "MappingRow", "compile_mapping"]


class Mapping:
    """Maps batches. Called on the loop for each batch; plans are remembered by the identity of `batch.tag`."""

    __slots__ = ("_alarms", "_layouts", "_planner", "_state", "_timer_moments", "_timers", "_timers_of_reports")

    def __init__(
        self, rows: ReadOnlyMapping[int, MappingRow], formulas: ReadOnlyMapping[int, Formula], state: State
    ) -> None:
        self._state, self._alarms = state, state.alarms
        dependents: dict[int, list[int]] = {}
        tag_of = {slot: tag for tag, slot in state.inputs.slots.items()}
        for formula in formulas.values():
            for slot in () if formula.has_source else formula.assignment.slots:
                dependents.setdefault(tag_of[slot], []).append(formula.tag_id)
        self._planner = Planner(rows, formulas, dependents, state)
        self._layouts: dict[tuple[int, str], Layout] = {}
        timed = [row for row in rows.values() if row.processing.when == "timer"]
        self._timers: dict[int, Layout] = {}
        self._timers_of_reports: dict[int, np.ndarray[tuple[int], np.dtype[np.intp]]] = {}
        for every in {int(row.processing.every * NS) for row in timed}:
            mine = [row for row in timed if int(row.processing.every * NS) == every]
            self._timers[every] = self._planner.timed([row.tag_id for row in mine if not row.has_source])
            places = [state.reports.places[row.tag_id] for row in mine if row.has_source]
            self._timers_of_reports[every] = np.array(places, np.intp)
        self._timer_moments: dict[int, int] = {}

    def __call__(self, batch: Batch) -> Sequence[Batch]:
        """The batch in engineering values: itself when nothing applies, else the batches that take its place."""
        layout = self._layouts.get((id(batch.tag), batch.value.dtype.char))
        if layout is None:
            layout = self._learn(batch)
        if not layout.groups:
            return (batch,)
        if layout.straight is not None and batch.value.dtype.char in WHOLE_KINDS:
            return (layout.straight.apply(batch),)  # whole numbers scaled are finite: there is nothing to silence
        if layout.is_exact:
            left = layout.run(batch, self._state, batch.gateway_time)
        else:
            # NaN and infinity are legal inputs and outcomes; numpy must not warn about them.
            with np.errstate(all="ignore"):
                left = layout.run(batch, self._state, batch.gateway_time)
        if self._alarms is not None:
            left += self._alarms.take(batch.gateway_time)
        return left

    @property
    def is_timed(self) -> bool:
        """Whether `tick` may bring rows."""
        if self._timers or self._planner.formulas or self._state.reports.has_heartbeats:
            return True
        return self._alarms is not None and self._alarms.has_waiting

    def tick(self, now_ns: int) -> Sequence[Batch]:
        """Rows that time asks for: timers, heartbeats, alarms that had to wait. To be called every 100 ms.

        Timers are due at multiples of their period since 1970, so that tags of one period share a moment.
        """
        left: list[Batch] = []
        with np.errstate(all="ignore"):
            for every, layout in self._timers.items():
                moment = now_ns // every
                before = self._timer_moments.get(every)
                self._timer_moments[every] = moment
                if before is not None and before != moment:
                    left += layout.run(None, self._state, now_ns)
                    left += self._state.reports.timed(self._timers_of_reports[every], now_ns)
            left += self._state.reports.beat(now_ns)
        if self._alarms is not None:
            left += self._alarms.take(now_ns)
        return left

    def release(self, now_ns: int) -> Sequence[Batch]:
        """The values that swinging doors hold; asked for once, at the end."""
        return self._state.reports.release(now_ns)

    def foresee(self, previous: Mapping) -> None:
        """Plan for what another mapping has seen, so that the loop need not when it comes. May run in any thread."""
        if not self._planner.formulas:
            return  # quickly planned
        for (_, kind), layout in previous._layouts.copy().items():
            if layout.source is not None:
                self._layouts[id(layout.source), kind] = self._planner.plan(layout.source, kind)

    def take_over(self, previous: Mapping) -> None:
        """Go on where another mapping stood: inputs, reports and timers, tag by tag. Called by the thread that maps."""
        self._state.inputs.take_over(previous._state.inputs)
        self._state.reports.take_over(previous._state.reports)
        self._timer_moments = {
            every: moment for every, moment in previous._timer_moments.items() if every in self._timers
        }
        if self._alarms is not None:
            self._alarms.keep(self._planner.formulas.keys())

    def _learn(self, batch: Batch) -> Layout:
        layouts = self._layouts
        if len(layouts) >= LAYOUTS_MAX:
            del layouts[next(iter(layouts))]
        kind = batch.value.dtype.char
        layout = layouts[id(batch.tag), kind] = self._planner.plan(batch.tag, kind)
        return layout


def compile_mapping(
    rows: Iterable[MappingRow], alarms: Alarms | None = None, previous: Mapping | None = None
) -> Mapping:
    """A mapping for the rows of the tag table.

    rows      whose wishes fit (wishes.py); those that ask for nothing may be left out, unless an expression reads them
    alarms    where failing expressions are told; None: nowhere
    previous  taken over at once; only where no other thread uses it
    raises    Misconfigured E1190 - a tag twice, or a scale that cannot work; E1191 - no expression
              E1192 - an expression reads a tag that is not there; E1193 - expressions read each other in a circle
    """
    table: dict[int, MappingRow] = {}
    for row in rows:
        if row.tag_id in table:
            raise Misconfigured(f"tag id {row.tag_id} is mapped twice; keep one row per tag", code="E1190")
        _check(row)
        table[row.tag_id] = row
    expressions: dict[int, Expression] = {row.tag_id: _expression(row) for row in table.values() if row.processing.expr}
    inputs = _inputs(table, expressions)
    formulas = _formulas(table, expressions, inputs)
    wishes = [wish for row in table.values() if is_reported(row.processing) and (wish := _wish(row)) is not None]
    mapping = Mapping(table, formulas, State(inputs, Reports(wishes), alarms))
    if previous is not None:
        mapping.take_over(previous)
    return mapping


def _expression(row: MappingRow) -> Expression:
    try:
        return parse_expression(row.processing.expr)
    except Misconfigured as error:
        raise Misconfigured(f"tag {row.name or row.tag_id}: {error.text}", code=error.stable_code) from error


def _inputs(table: ReadOnlyMapping[int, MappingRow], expressions: ReadOnlyMapping[int, Expression]) -> Inputs:
    """Slots for every tag that an expression reads, by its place in the table: what arrives together lies together."""
    wanted = {name for expression in expressions.values() for name in expression.dependencies}
    read = [(slot, row) for slot, row in enumerate(table.values(), 1) if row.name in wanted] if wanted else []
    slots: dict[int, int] = {row.tag_id: slot for slot, row in read}
    return Inputs(slots, [row.tag_id for _, row in read if form_of(row.type) == TEXT])


def _formulas(
    table: ReadOnlyMapping[int, MappingRow], expressions: ReadOnlyMapping[int, Expression], inputs: Inputs
) -> ReadOnlyMapping[int, Formula]:
    by_name = {table[tag].name: tag for tag in inputs.slots}
    slots = {name: inputs.slots[tag] for name, tag in by_name.items()}
    forms = {name: form_of(table[tag].type) for name, tag in by_name.items()}
    reads = {table[tag].name or str(tag): expression.dependencies for tag, expression in expressions.items()}
    try:
        levels = levels_of(reads)
    except Circle as circle:
        raise Misconfigured(circle.text, code="E1193") from circle
    return {
        tag: _formula(table[tag], expression, slots, forms, levels[table[tag].name or str(tag)])
        for tag, expression in expressions.items()
    }


def _formula(
    row: MappingRow,
    expression: Expression,
    slots: ReadOnlyMapping[str, int],
    forms: ReadOnlyMapping[str, int],
    level: int,
) -> Formula:
    name, form, is_timed = row.name or str(row.tag_id), form_of(row.type), row.processing.when == "timer"
    reads = expression.dependencies
    for other in reads:
        if other not in slots:
            raise Misconfigured(f'tag {name}: its expr reads tag["{other}"], and there is no such tag', code="E1192")
    try:
        given = expression.form(form if row.has_source else None, forms.__getitem__)
    except Misconfigured as error:
        raise Misconfigured(f"tag {name}: {error.text}", code=error.stable_code) from error
    if given != form:
        text = f"tag {name}: its expr gives {FORM_NAMES[given]}, and its type is {row.type.value}"
        raise Misconfigured(text, code="E1191")
    if not (row.has_source or is_timed or reads):
        text = f"tag {name}: its expr reads no tag, so nothing calls for it; add when: timer"
        raise Misconfigured(text, code="E1192")
    of_tags = tuple([forms[other] for other in expression.tag_names]) if reads else ()
    return Formula(
        row.tag_id,
        name,
        form,
        assignment_of(expression, form, of_tags, slots),
        level,
        row.has_source,
        is_timed and not row.has_source,
    )


def _wish(row: MappingRow) -> Wish | None:
    """What its report is asked for. A calculated tag with a timer needs none: what the timer evaluates goes on."""
    if not row.has_source and row.processing.when == "timer":
        return None
    return Wish(row.tag_id, row.out_id, row.processing)


def _check(row: MappingRow) -> None:
    if not (isfinite(row.scale) and isfinite(row.offset)) or row.scale == 0:
        text = f"tag id {row.tag_id}: scale {row.scale}, offset {row.offset}; both must be finite, and scale not 0"
        raise Misconfigured(text, code="E1190")
    if row.is_scaled and row.type in NOT_NUMBERS:
        text = f"tag id {row.tag_id}: scale and offset apply to numbers, its type is {row.type.value}; remove them"
        raise Misconfigured(text, code="E1190")
