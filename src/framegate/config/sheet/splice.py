"""Edits of variables.yml by character: what is not edited stays byte for byte, comments and line ends included.

A changed row keeps its form where its values can be replaced where they stand; otherwise it becomes one line. New
rows are lines behind the last one. Whatever the text looks like, the result is read again and must hold exactly the
rows that were meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from framegate.config.sheet.flow import flow_row, flow_scalar, flow_value
from framegate.config.sheet.marks import ListMark, RowMark, find_rows
from framegate.config.yaml import load_yaml
from framegate.contract.errors import Misconfigured

MARK = "\N{BYTE ORDER MARK}"
_INDENT = "  "

Row = Mapping[str, Any]


@dataclass(slots=True)
class Edits:
    """What shall become of a list of rows: by index those that change and those that go, then those that are new."""

    changed: dict[int, Row] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    added: list[Row] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.changed or self.removed or self.added)

    def applied(self, rows: Sequence[Row]) -> list[Row]:
        """The rows afterwards."""
        kept = [self.changed.get(index, row) for index, row in enumerate(rows) if index not in self.removed]
        return [*kept, *self.added]


class _Cut(NamedTuple):
    start: int
    end: int
    text: str


def splice(data: bytes, rows: Sequence[Row], edits: Edits) -> bytes:
    """The table with its rows edited.

    data    bytes of variables.yml, which load_yaml took
    rows    its rows
    raises  Misconfigured E1148 - the text has a form that cannot be edited safely
    """
    text = data.decode("utf-8-sig")
    cuts = _Splice(text, find_rows(text, {*edits.changed, *edits.removed}, len(rows)), len(rows)).cuts(rows, edits)
    pieces: list[str] = []
    at = 0
    for cut in sorted(cuts, key=lambda cut: (cut.start, cut.end)):
        if cut.start < at:
            raise _uneditable()
        pieces += text[at : cut.start], cut.text
        at = cut.end
    edited = "".join((*pieces, text[at:]))
    result = (MARK if data.startswith(MARK.encode()) else "").encode() + edited.encode()
    again = load_yaml(result)
    if again.flaws or not isinstance(again.value, dict) or again.value.get("variables") != edits.applied(rows):
        raise _uneditable()
    return result


def _uneditable() -> Misconfigured:
    text = "variables.yml is written in a way that cannot be edited safely (anchors, or rows that share lines)"
    return Misconfigured(f"{text}; nothing was changed. Write each tag as a line of its own", code="E1148")


class _Splice:
    def __init__(self, text: str, marks: ListMark, count: int) -> None:
        self._text = text
        self._marks = marks
        self._count = count
        self._newline = "\r\n" if "\r\n" in text[: text.find("\n") + 1] else "\n"

    def cuts(self, rows: Sequence[Row], edits: Edits) -> list[_Cut]:
        marks, left = self._marks, self._count - len(edits.removed)
        if marks.key_end < 0:
            raise _uneditable()
        if marks.is_flow:
            return [_Cut(self._before(marks.start), marks.end, self._lines(edits.applied(rows), _INDENT))]
        if self._count == 0:
            raise _uneditable()
        cuts = [
            cut for index, row in edits.changed.items() for cut in self._changed(marks.rows[index], rows[index], row)
        ]
        cuts += [self._removed(marks.rows[index]) for index in edits.removed]
        if edits.added:
            cuts.append(self._appended(edits.added))
        elif not left:
            colon = self._text.index(":", marks.key_end) + 1
            cuts.append(_Cut(colon, colon, " []"))
        return cuts

    def _before(self, place: int) -> int:
        """`place` without the blanks before it."""
        return len(self._text[:place].rstrip(" "))

    def _lines(self, rows: Sequence[Row], indent: str) -> str:
        return "".join(f"{self._newline}{indent}- {flow_row(row)}" for row in rows) if rows else " []"

    def _line_start(self, place: int) -> int:
        return self._text.rfind("\n", 0, place) + 1

    def _line_end(self, place: int) -> int:
        """Behind the last character of a line, its end not included."""
        end = self._text.find("\n", place)
        end = len(self._text) if end < 0 else end
        return end - 1 if self._text[end - 1 : end] == "\r" else end

    def _next_line(self, place: int) -> int:
        end = self._text.find("\n", place)
        return len(self._text) if end < 0 else end + 1

    def _dash(self, mark: RowMark) -> int:
        """Where the row's dash stands, first on its line."""
        before = self._text[: mark.start].rstrip()
        dash = len(before) - 1
        if not before.endswith("-") or before[self._line_start(dash) : dash].strip():
            raise _uneditable()
        return dash

    def _appended(self, rows: Sequence[Row]) -> _Cut:
        last = self._marks.rows[self._count - 1]
        dash = self._dash(last)
        place = self._next_line(last.end)
        text = self._lines(rows, self._text[self._line_start(dash) : dash]).removeprefix(self._newline)
        if self._text[place - 1 : place] != "\n":
            return _Cut(place, place, self._newline + text)
        return _Cut(place, place, text + self._newline)

    def _removed(self, mark: RowMark) -> _Cut:
        if self._text[mark.end : self._line_end(mark.end)].split("#")[0].strip():
            raise _uneditable()
        return _Cut(self._line_start(self._dash(mark)), self._next_line(mark.end), "")

    def _changed(self, mark: RowMark, old: Row, new: Row) -> list[_Cut]:
        entries = mark.entries
        if not entries or [entry.key for entry in entries] != list(old):
            return self._whole(mark, new)
        cuts: list[_Cut] = []
        for number, entry in enumerate(entries):
            if entry.key not in new:
                if number == 0 or not entry.is_simple or not entries[number - 1].is_simple:
                    return self._whole(mark, new)
                cuts.append(self._without(mark, entries[number - 1].end, entry.key_start, entry.end))
            elif old[entry.key] is not new[entry.key]:
                if not entry.is_simple:
                    return self._whole(mark, new)
                cuts.append(_Cut(entry.start, entry.end, flow_value(new[entry.key], entry.key)))
        added = [f"{flow_scalar(key)}: {flow_value(value, key)}" for key, value in new.items() if key not in old]
        if added and not entries[-1].is_simple:
            return self._whole(mark, new)
        if added and mark.is_flow:
            cuts.append(_Cut(entries[-1].end, entries[-1].end, "".join(f", {item}" for item in added)))
        elif added:
            first, end = entries[0].key_start, self._line_end(entries[-1].end)
            indent = self._newline + " " * (first - self._line_start(first))
            cuts.append(_Cut(end, end, "".join(indent + item for item in added)))
        return cuts

    def _whole(self, mark: RowMark, new: Row) -> list[_Cut]:
        return [_Cut(mark.start, mark.end, flow_row(new))]

    def _without(self, mark: RowMark, before: int, start: int, end: int) -> _Cut:
        """One key less: in a flow row the comma in front goes with it, in a block row its line."""
        if mark.is_flow:
            return _Cut(before, end, "")
        return _Cut(self._line_end(before), self._line_end(end), "")
