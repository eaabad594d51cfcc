"""Makes layouts: looks once at what every tag of an array asks for, so that no batch has to.

Pure: it reads the compiled rows and the slots and places of the state, and changes neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from framegate.contract.frame import Int32Column, Kind, TagId, ValueType
from framegate.mapper.columns import Clamp, Rows, Texts, clamp
from framegate.mapper.expression import BOOLEAN, NUMBER, TEXT
from framegate.mapper.formula import Evaluation, Formula, Step
from framegate.mapper.inputs import Feed
from framegate.mapper.layout import Group, Layout, Output, State, Whole
from framegate.mapper.linear import linear
from framegate.mapper.processing import AS_READ, Processing
from framegate.mapper.report import sieve

NUMBER_KINDS = "dlL"  # numpy characters of the kinds that scale, clamp and most expressions apply to
_FORMS = {"d": NUMBER, "l": NUMBER, "L": NUMBER, "?": BOOLEAN, "O": TEXT}
_FORM_OF_TYPE = {type_: _FORMS[type_.kind.value] for type_ in ValueType}
_Levels: TypeAlias = list[tuple[int, int, Step]]
"""Level, place of the group, step."""


class MappingRow(NamedTuple):
    """What the tag table asks for one tag.

    tag_id      id under which the driver hands in its rows, or which a calculated tag has
    rename_id   id under which the rows go on; None: the same
    name        under which expressions and alarms know the tag
    has_source  False: the tag is calculated by its expr
    """

    tag_id: TagId
    scale: float = 1.0
    offset: float = 0.0
    type: ValueType = ValueType.FLOAT64
    rename_id: TagId | None = None
    processing: Processing = AS_READ
    name: str = ""
    has_source: bool = True

    @property
    def out_id(self) -> TagId:
        return self.tag_id if self.rename_id is None else self.rename_id

    @property
    def is_scaled(self) -> bool:
        return self.scale != 1 or self.offset != 0


def form_of(type_: ValueType) -> int:
    """What a tag of a type is to an expression: NUMBER, TEXT or BOOLEAN."""
    return _FORM_OF_TYPE[type_]


class Planner:
    """Used by one mapping.

    rows        every tag that asks for something or that an expression reads, by id
    formulas    their expressions, by id;  dependents  calculated tags that read a tag, by its id
    """

    def __init__(
        self,
        rows: Mapping[int, MappingRow],
        formulas: Mapping[int, Formula],
        dependents: Mapping[int, Sequence[int]],
        state: State,
    ) -> None:
        self._rows, self.formulas, self._dependents, self._state = rows, formulas, dependents, state
        self._texts: dict[tuple[tuple[int, str], ...], Mapping[int, str]] = {}

    def plan(self, tag: Int32Column, kind: str) -> Layout:
        """The layout for batches of a tag array and a kind; without groups when nothing applies."""
        ids = tag.tolist()
        rows = [self._rows.get(tag_id) for tag_id in ids]
        if not any(row is not None and self._applies(row, kind) for row in rows):
            return Layout(tag, (), ())
        is_moved = np.array([row is not None and self._moves(row, kind) for row in rows], np.bool_)
        groups: list[Group] = []
        levels: _Levels = []
        if kind == "d" or is_moved.all() or not is_moved.any():
            self._add(groups, levels, tag, rows, None, kind, "d" if is_moved.any() else kind)
        else:
            for places, column in ((np.flatnonzero(~is_moved), kind), (np.flatnonzero(is_moved), "d")):
                self._add(groups, levels, tag[places], [rows[place] for place in places], places, kind, column)
        self._add_calculated(groups, levels, self._reached(ids))
        return _layout(tag, groups, levels)

    def timed(self, tags: Iterable[int]) -> Layout:
        """The layout of a tick for calculated tags, and those that depend on them."""
        tags = list(tags)
        groups: list[Group] = []
        levels: _Levels = []
        self._add_calculated(groups, levels, [*tags, *(tag for tag in self._reached(tags) if tag not in tags)])
        return _layout(None, groups, levels)

    def _applies(self, row: MappingRow, kind: str) -> bool:
        wish, tag_id = row.processing, row.tag_id
        is_number = kind in NUMBER_KINDS
        if row.rename_id is not None or tag_id in self.formulas or tag_id in self._state.inputs.slots:
            return True
        return bool(
            (is_number and (row.is_scaled or wish.clamp))
            or (kind != "O" and wish.enum)
            or (kind == "?" and wish.invert)
            or tag_id in self._state.reports.places
        )

    def _moves(self, row: MappingRow, kind: str) -> bool:
        """True for a number that becomes float64."""
        return kind in NUMBER_KINDS and (row.is_scaled or self._fits(row, kind))

    def _fits(self, row: MappingRow, kind: str) -> bool:
        """True when the tag has an expression and rows of this kind are what it is for."""
        formula = self.formulas.get(row.tag_id)
        return formula is not None and formula.has_source and formula.form == _FORMS[kind]

    def _add(
        self,
        groups: list[Group],
        levels: _Levels,
        tag: Int32Column,
        rows: Sequence[MappingRow | None],
        places: Rows | None,
        kind: str,
        column: str,
    ) -> None:
        """A group of rows that came in. kind: of the batch; column: of the group after scale."""
        known = [(at, row) for at, row in enumerate(rows) if row is not None]
        invert = [at for at, row in known if row.processing.invert] if kind == "?" else []
        plain = known
        fitting: list[tuple[int, MappingRow]] = []
        misfits: list[int] = []
        if self.formulas:
            fitting = [entry for entry in known if self._fits(entry[1], kind)]
            misfits = [at for at, row in known if row.tag_id in self.formulas and not self._fits(row, kind)]
            plain = [entry for entry in known if not self._fits(entry[1], kind)]
        pairs = [(1.0, 0.0) if row is None else (row.scale, row.offset) for row in rows]
        levels_of_rows = {self.formulas[row.tag_id].level for _, row in fitting}
        # A number that one expression is put through anyway becomes float64 there.
        is_replaced = len(fitting) == len(rows) and len(levels_of_rows) == 1
        is_moved = column == "d" and ((kind != "d" and not is_replaced) or any(pair != (1.0, 0.0) for pair in pairs))
        number = len(groups)
        groups.append(
            Group(
                rows=places,
                rows_count=len(rows),
                linear=linear(pairs, kind) if is_moved else None,
                invert=np.array(invert, np.intp) if invert else None,
                kind=None,
                whole=None,
                misfits=np.array(misfits, np.intp) if misfits else None,
                outputs=self._outputs(tag, rows, column),
            )
        )
        base = self._step(plain, None, column, _FORMS[kind])
        if base is not None:
            levels.append((0, number, base))
        self._add_formulas(levels, number, fitting, column, len(rows))

    def _add_calculated(self, groups: list[Group], levels: _Levels, tags: Sequence[int]) -> None:
        by_kind: dict[Kind, list[MappingRow]] = {}
        for tag in tags:
            row = self._rows[tag]
            by_kind.setdefault(row.type.kind, []).append(row)
        for kind, rows in by_kind.items():
            column = kind.value if kind in {Kind.BOOL, Kind.OBJECT} else "d"
            whole = _whole(rows) if kind in {Kind.INT, Kind.UINT} else None
            tag_ids = np.array([row.tag_id for row in rows], np.int32)
            outputs = self._outputs(tag_ids, rows, kind.value)
            number = len(groups)
            groups.append(Group(None, len(rows), None, None, kind, whole, None, outputs))
            self._add_formulas(levels, number, list(enumerate(rows)), column, len(rows))

    def _add_formulas(
        self, levels: _Levels, group: int, rows: Sequence[tuple[int, MappingRow]], column: str, count: int
    ) -> None:
        """The steps of the expressions of a group of `count` rows, one per level."""
        by_level: dict[tuple[int, bool], list[tuple[int, MappingRow]]] = {}
        for at, row in rows:
            formula = self.formulas[row.tag_id]
            by_level.setdefault((formula.level, formula.is_timed), []).append((at, row))
        for (level, _), members in by_level.items():
            formulas = [self.formulas[row.tag_id] for _, row in members]
            evaluation = Evaluation(formulas, self._state.inputs)
            step = self._step(members, evaluation, column, formulas[0].form, count)
            assert step is not None
            levels.append((level, group, step))

    def _step(
        self,
        rows: Sequence[tuple[int, MappingRow]],
        evaluation: Evaluation | None,
        column: str,
        form: int,
        count: int = 0,
    ) -> Step | None:
        """The step for rows of a group of `count`, which all have an expression or all have none."""
        limited = [(at, row.processing.clamp) for at, row in rows if row.processing.clamp is not None]
        limits: Clamp | None = None
        if column in NUMBER_KINDS and limited:
            limits = clamp([at for at, _ in limited], [span for _, span in limited], column)
        feeds = tuple(feed for is_fit in (True, False) if (feed := self._feed(rows, form, is_fit=is_fit)))
        if evaluation is None and limits is None and not feeds:
            return None
        places = [at for at, _ in rows]
        is_whole = places == list(range(count))
        return Step(slice(None) if is_whole else np.array(places, np.intp), evaluation, limits, feeds)

    def _feed(self, rows: Sequence[tuple[int, MappingRow]], form: int, *, is_fit: bool) -> Feed | None:
        """For tags of rows that expressions read and whose type is what the rows are, or is not."""
        slots = self._state.inputs.slots
        found = [
            (at, slots[row.tag_id]) for at, row in rows if row.tag_id in slots and (form_of(row.type) == form) is is_fit
        ]
        if not found:
            return None
        places, of_rows = zip(*found, strict=True)
        return self._state.inputs.feed(places, of_rows, is_fit=is_fit)

    def _outputs(self, tag: Int32Column, rows: Sequence[MappingRow | None], column: str) -> Sequence[Output]:
        listed = [at for at, row in enumerate(rows) if row is not None and row.processing.enum and column != "O"]
        if not listed:
            return (self._output(None, tag, rows, has_texts=False),)
        plain = [at for at in range(len(rows)) if at not in set(listed)] if len(listed) < len(rows) else []
        found = [self._output(np.array(listed, np.intp) if plain else None, tag, rows, has_texts=True)]
        if plain:
            found.insert(0, self._output(np.array(plain, np.intp), tag, rows, has_texts=False))
        return tuple(found)

    def _output(
        self, places: Rows | None, tag: Int32Column, rows: Sequence[MappingRow | None], *, has_texts: bool
    ) -> Output:
        if places is not None:
            tag, rows = tag[places], [rows[place] for place in places]
        out = np.array(
            [row.out_id if row is not None else tag_id for row, tag_id in zip(rows, tag.tolist(), strict=True)],
            np.int32,
        )
        texts = Texts([self._enum(row) for row in rows if row is not None]) if has_texts else None
        # The same array stays the same array: others key their own plans by it.
        return Output(places, tag if np.array_equal(out, tag) else out, texts, sieve(tag.tolist(), self._state.reports))

    def _enum(self, row: MappingRow) -> Mapping[int, str]:
        wanted = row.processing.enum
        return self._texts.setdefault(wanted, dict(wanted))

    def _reached(self, tags: Iterable[int]) -> list[int]:
        """Calculated tags that follow from these, directly or by others; those of a timer wait for it."""
        found: dict[int, None] = {}
        waiting = [tag for tag in tags if tag in self._dependents]
        for reader in waiting:  # grows on the way
            for tag in self._dependents.get(reader, ()):
                if tag not in found and not self.formulas[tag].is_timed:
                    found[tag] = None
                    waiting.append(tag)
        return list(found)


def _layout(tag: Int32Column | None, groups: Sequence[Group], levels: _Levels) -> Layout:
    levels.sort(key=lambda entry: entry[:2])
    straight = groups[0].straight if len(groups) == 1 and not levels else None
    work = tuple((group, step) for _, group, step in levels)
    is_exact = not any(
        group.linear is not None or group.whole is not None or any(output.sieve is not None for output in group.outputs)
        for group in groups
    ) and not any(step.clamp is not None for _, step in work)
    return Layout(tag, tuple(groups), work, straight, is_exact)


def _whole(rows: Sequence[MappingRow]) -> Whole:
    limits = [np.iinfo(row.type.value) for row in rows]
    low = np.array([float(limit.min) for limit in limits])
    return Whole(rows[0].type.kind.value, low, np.array([float(int(limit.max) + 1) for limit in limits]))
