"""What tag rows ask for on the way to the bus, checked: each row by itself, then expressions against the whole table.

The rules are the mapper's own (mapper/wishes.py, mapper/expression.py); here they get their place in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from framegate.config.explain import suggestion
from framegate.config.problems import Problems
from framegate.config.rows import AS_ASKED, VariableRow
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import ValueType
from framegate.mapper.dependencies import circles_of
from framegate.mapper.expression import BOOLEAN, FORM_NAMES, NUMBER, TEXT, Expression, parse_expression
from framegate.mapper.planner import form_of
from framegate.mapper.processing import AS_READ
from framegate.mapper.wishes import Asked, flaws

_RESULTS: Mapping[int, str] = {
    NUMBER: "iif(condition, 1, 0) makes a number of a condition",
    BOOLEAN: "a condition is written like value > 0",
    TEXT: 'a text is written like "on", and .. joins texts and numbers',
}


class _Asking(NamedTuple):
    """A row with an expression."""

    place: int
    row: VariableRow
    expression: Expression


class ProcessingReferences:
    """Takes every valid row in order; `finish` says what only the whole table shows."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._asking: list[_Asking] = []
        self._guards: list[_Asking] = []

    def check(self, index: int, row: VariableRow) -> None:
        """What is wrong with one row by itself; `index` is its place in the list."""
        wish = row.processing
        if row.writing is not AS_ASKED:
            self._check_writing(index, row)
        if wish is AS_READ and row.limits is None:
            return
        asked = Asked(row.type, bool(row.source), row.access, row.scale, row.offset, row.limits, wish)
        for flaw in flaws(asked):
            self._add(index, flaw.key, "E1194", flaw.text)
        if wish.inverse:
            self._check_inverse(index, row)
        if wish.expr:
            expression = self._parse(index, "expr", wish.expr)
            if expression is not None:
                self._asking.append(_Asking(index, row, expression))
            if expression is not None and not (row.source or expression.dependencies or wish.when == "timer"):
                self._add(index, "expr", "E1192", "it reads no tag, so nothing calls for it; add when: timer and every")

    def finish(self, names: Mapping[str, int], rows: list[VariableRow]) -> None:
        """Unknown tags, forms that do not fit, circles.

        names  every tag of the table, valid or not, with its place;  rows  the valid ones
        """
        if not self._asking and not self._guards:
            return
        wanted = {name for asking in (*self._asking, *self._guards) for name in asking.expression.dependencies}
        found = {row.tag: row for row in rows if row.tag in wanted}
        types = {tag: row.type for tag, row in found.items()}
        for asking in self._asking:
            self._check_tags(asking, names, types)
        for asking in self._guards:
            self._check_guard(asking, names, found)
        self._check_circles()

    def _check_writing(self, index: int, row: VariableRow) -> None:
        """Keys for writes: of no use where nothing may be written; an interlock is an expression."""
        wish = row.writing
        if "W" not in row.access:
            asked = (("idempotent", wish.idempotent), ("interlock", wish.interlock), ("select", wish.needs_select))
            key = next((key for key, is_asked in asked if is_asked), "writes_per_s")
            self._add(index, key, "E1194", f"{key} is about writes, and access {row.access} allows none; set RW or W")
        if wish.interlock:
            expression = self._parse(index, "interlock", wish.interlock)
            if expression is not None and not expression.dependencies:
                self._add(index, "interlock", "E1192", 'it reads no tag; name one: tag["pump3.running"]')
            elif expression is not None and "{value}" in expression.shape.template:
                self._add(index, "interlock", "E1191", "it looks at tags only: there is no value before the write")
            elif expression is not None:
                self._guards.append(_Asking(index, row, expression))

    def _check_guard(self, asking: _Asking, names: Mapping[str, int], rows: Mapping[str, VariableRow]) -> None:
        """An interlock reads tags as they go out: one with an enum is a text."""
        types = {tag: ValueType.STRING if row.processing.enum else row.type for tag, row in rows.items()}
        if not self._are_readable(asking, "interlock", names, types):
            return
        try:
            given = asking.expression.form(None, lambda name: form_of(types[name]))
        except Misconfigured as error:
            self._add(asking.place, "interlock", error.stable_code, error.text)
            return
        if given != BOOLEAN:
            text = f"it gives {FORM_NAMES[given]}; {_RESULTS[BOOLEAN]}"
            self._add(asking.place, "interlock", "E1191", text)
        for name in asking.expression.dependencies:
            if rows[name].access == "W":
                self._add(asking.place, "interlock", "E1192", f'tag "{name}" is never read: its access is W')

    def _check_inverse(self, index: int, row: VariableRow) -> None:
        expression = self._parse(index, "inverse", row.processing.inverse)
        if expression is None:
            return
        if expression.dependencies:
            self._add(index, "inverse", "E1191", "it can use value only: other tags may have changed since")
            return
        self._check_form(index, "inverse", row.type, expression, form_of(row.type), _no_tag)

    def _are_readable(
        self, asking: _Asking, key: str, names: Mapping[str, int], types: Mapping[str, ValueType]
    ) -> bool:
        """Whether the tags of an expression exist and can be read; one whose own row is wrong is told there."""
        index, _, expression = asking
        unknown = [name for name in expression.dependencies if name not in names]
        for name in unknown:
            near = "" if self._problems.is_full else suggestion(name, names)
            self._add(index, key, "E1192", f'no tag "{name}" in variables.yml{near}')
        useless = [name for name in expression.dependencies if types.get(name) in {ValueType.BYTES, ValueType.JSON}]
        for name in useless:
            self._add(
                index,
                key,
                "E1191",
                f'tag "{name}" is {types[name].value}; expressions read numbers, texts, true and false',
            )
        return not (unknown or useless or any(name not in types for name in expression.dependencies))

    def _check_tags(self, asking: _Asking, names: Mapping[str, int], types: Mapping[str, ValueType]) -> None:
        index, row, expression = asking
        if not self._are_readable(asking, "expr", names, types):
            return
        value = form_of(row.type) if row.source else None
        self._check_form(index, "expr", row.type, expression, value, lambda name: form_of(types[name]))

    def _check_form(
        self,
        index: int,
        key: str,
        type_: ValueType,
        expression: Expression,
        value: int | None,
        tags: Callable[[str], int],
    ) -> None:
        try:
            given = expression.form(value, tags)
        except Misconfigured as error:
            self._add(index, key, error.stable_code, error.text)
            return
        wanted = form_of(type_)
        if given != wanted:
            text = f"it gives {FORM_NAMES[given]}, and the tag is {type_.value}; {_RESULTS[wanted]}"
            self._add(index, key, "E1191", text)

    def _check_circles(self) -> None:
        reads = {asking.row.tag: asking.expression.dependencies for asking in self._asking}
        places = {asking.row.tag: asking.place for asking in self._asking}
        for circle in circles_of(reads):
            is_beyond = self._problems.is_full
            self._add(places[circle.names[0]], "expr", "E1193", circle.text)
            if is_beyond:  # each costs a walk of the chain that leads to it: one more says that there are more
                return

    def _parse(self, index: int, key: str, text: str) -> Expression | None:
        try:
            return parse_expression(text)
        except Misconfigured as error:
            self._add(index, key, error.stable_code, error.text)
            return None

    def _add(self, index: int, key: str, code: str, text: str) -> None:
        self._problems.add("variables", ("variables", index, key), code, text)


def _no_tag(name: str) -> int:
    raise AssertionError(name)
