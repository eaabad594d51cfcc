"""What a sheet would do to variables.yml: added, changed, removed and rejected rows, each with its reason.

A tag's name is what a row is known by. A column that the sheet does not have leaves its key alone; an empty cell
takes the key away. Rows that templates made stay theirs: unchanged ones are passed over, changed ones rejected.
Nothing is written, and values are judged by whoever judges tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from framegate.config.explain import listed, suggestion
from framegate.config.sheet.cells import decode, encode, is_same
from framegate.config.sheet.columns import TEMPLATE, Column
from framegate.config.sheet.sheet import Cell, DateCell, Sheet
from framegate.config.sheet.splice import Edits
from framegate.config.sheet.table import RawVariables, Row
from framegate.contract.errors import Misconfigured

Policy: TypeAlias = Literal["merge", "abort", "overwrite", "replace-device"]
"""merge: add and change. abort: add only; a tag that exists and differs is rejected. overwrite: the table becomes the
sheet. replace-device: the tags of each source that the sheet names become those of the sheet."""
Action: TypeAlias = Literal["added", "changed", "removed", "rejected"]


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the report. `row` is the spreadsheet's, 0 where the sheet has none; a column is a key."""

    action: Action
    tag: str
    row: int = 0
    column: str = ""
    before: str = ""
    after: str = ""
    reason: str = ""


@dataclass(slots=True)
class Changes:
    """The report, and the edits that would do it. `row_of` finds the sheet's row by tag."""

    report: list[Change] = field(default_factory=list)
    edits: Edits = field(default_factory=Edits)
    row_of: dict[str, int] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        return sum(change.action == "rejected" for change in self.report)

    def reject(self, tag: str, row: int, column: str, reason: str) -> None:
        self.report.append(Change("rejected", tag, row, column, reason=reason))


def find_changes(table: RawVariables, columns: Sequence[Column], sheet: Sheet, policy: Policy) -> Changes:
    """Compare a sheet with a table.

    columns  those of the table, TEMPLATE not among them
    raises   Misconfigured E1146 - the sheet's header names no column `tag`, one twice, or one that does not exist
    """
    return _Comparison(table, columns, sheet, policy).run()


def checked_header(sheet: Sheet, columns: Sequence[Column]) -> list[Column | None]:
    """The column of each place in the header; None for one that is empty or TEMPLATE.

    raises Misconfigured E1146
    """
    known = {column.name: column for column in columns}
    names = [name.strip() for name in sheet.header]
    wrong = [name for name in names if name and name not in known and name != TEMPLATE]
    if wrong:
        near = suggestion(wrong[0], known)
        text = f"the first row names the column {wrong[0]}, which no tag has{near}; columns are {listed(list(known))}"
        raise Misconfigured(text, code="E1146")
    twice = next((name for name in names if name and names.count(name) > 1), "")
    if twice:
        raise Misconfigured(f"the first row names the column {twice} twice; remove one of them", code="E1146")
    if "tag" not in names:
        text = "the first row names no column tag; it holds the names of the columns, as `edge export` writes them"
        raise Misconfigured(text, code="E1146")
    return [known.get(name) for name in names]


class _Comparison:
    def __init__(self, table: RawVariables, columns: Sequence[Column], sheet: Sheet, policy: Policy) -> None:
        self._sheet = sheet
        self._policy = policy
        self._header = checked_header(sheet, columns)
        self._named = {column.name: column for column in self._header if column is not None}
        self._label_at = next((at for at, name in enumerate(sheet.header) if name.strip() == TEMPLATE), -1)
        self._rows = table.rows
        self._index = {row.get("tag"): index for index, row in reversed(list(enumerate(table.rows)))}
        self._made = {made.row.get("tag"): made for made in table.made}
        self._changes = Changes()
        self._sources: set[Any] = set()

    def run(self) -> Changes:
        for number, cells in enumerate(self._sheet.rows, 2):
            if any(cells):
                self._row(number, cells)
        if self._policy in {"overwrite", "replace-device"}:
            for index, row in enumerate(self._rows):
                is_meant = self._policy == "overwrite" or row.get("source") in self._sources
                if is_meant and row.get("tag") not in self._changes.row_of:
                    self._changes.edits.removed.add(index)
                    self._changes.report.append(Change("removed", str(row.get("tag", ""))))
        return self._changes

    def _row(self, number: int, cells: Sequence[Cell]) -> None:
        tag, old = self._tag(number, cells)
        if tag is None:
            return
        if DateCell in map(type, cells):
            self._dates(number, tag, cells)
            return
        if any(cells[len(self._header) :]):
            self._changes.reject(tag, number, "", "a cell stands beyond the last column that the first row names")
            return
        if tag in self._made:
            self._made_row(number, tag, cells)
            return
        label = cells[self._label_at] if 0 <= self._label_at < len(cells) else ""
        if old is None and label:
            text = f"{label} does not make this tag any more; clear the cell to add the tag as a row of its own"
            self._changes.reject(tag, number, TEMPLATE, text)
            return
        new, differing = self._compared(cells, old or {})
        self._sources.add(new.get("source"))
        if old is None:
            self._changes.edits.added.append(new)
            self._changes.report.append(Change("added", tag, number))
        elif differing and self._policy == "abort":
            text = "the tag exists and differs; choose another --policy to change it"
            self._changes.reject(tag, number, differing[0].name, text)
        elif differing:
            self._changes.edits.changed[self._index[tag]] = new
            self._changes.report += [_changed(tag, number, column, old, new) for column in differing]

    def _tag(self, number: int, cells: Sequence[Cell]) -> tuple[str | None, Row | None]:
        """Name of the row's tag, and the table's row of that name."""
        at = next(at for at, column in enumerate(self._header) if column is not None and column.name == "tag")
        cell = cells[at] if at < len(cells) else ""
        if isinstance(cell, DateCell):
            self._dates(number, cell.shown, cells)
            return None, None
        tag = str(decode(cell, "text")) if cell else ""
        if not tag:
            self._changes.reject("", number, "tag", "the name of the tag is missing")
            return None, None
        first = self._changes.row_of.setdefault(tag, number)
        if first != number:
            self._changes.reject(tag, number, "tag", f"the tag stands already in row {first}")
            return None, None
        return tag, self._rows[self._index[tag]] if tag in self._index else None

    def _dates(self, number: int, tag: str, cells: Sequence[Cell]) -> None:
        for at, cell in enumerate(cells):
            if isinstance(cell, DateCell):
                name = self._sheet.header[at] if at < len(self._sheet.header) else ""
                text = f"the spreadsheet has made the date {cell.shown} of it; format the column as text, type it again"
                self._changes.reject(tag, number, name, text)

    def _made_row(self, number: int, tag: str, cells: Sequence[Cell]) -> None:
        made = self._made[tag]
        _, differing = self._compared(cells, made.row)
        if differing:
            text = f"{made.label} makes this tag; change the template or its instance in variables.yml"
            self._changes.reject(tag, number, differing[0].name, text)

    def _compared(self, cells: Sequence[Cell], old: Row) -> tuple[Row, list[Column]]:
        """The row as the sheet wants it, old values and their order kept; and the columns that differ."""
        new: Row = dict(old)
        differing: list[Column] = []
        given: set[str] = set()
        for column, cell in zip(self._header, cells, strict=False):
            if not cell or column is None:
                continue
            assert isinstance(cell, str)
            name = column.name
            given.add(name)
            if name in old and cell == encode(old[name], column.kind):
                continue
            value = decode(cell, column.kind, decimal_comma=self._sheet.decimal_comma)
            if name in old and (is_same(value, old[name]) or (name == "address" and value == str(old[name]))):
                continue
            new[name] = value
            differing.append(column)
        for name in old:
            if name in self._named and name not in given:
                del new[name]
                differing.append(self._named[name])
        return new, differing


def _changed(tag: str, number: int, column: Column, old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    before, after = (encode(row[column.name], column.kind) if column.name in row else "" for row in (old, new))
    return Change("changed", tag, number, column.name, before, after)


def rows_of_sheet(changes: Changes, rows: Sequence[Row]) -> Iterator[int]:
    """Per row of the table to be, the sheet's row that it came from; 0 for one that the sheet leaves alone."""
    touched = {rows[index].get("tag") for index in changes.edits.changed}
    touched.update(row.get("tag") for row in changes.edits.added)
    for row in changes.edits.applied(rows):
        yield changes.row_of[row["tag"]] if row.get("tag") in touched else 0
