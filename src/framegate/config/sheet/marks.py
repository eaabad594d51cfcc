"""Where the rows of variables.yml stand in its text: characters, found in one walk over libyaml's events.

Only rows that are asked for are taken apart. Nothing is built; values are yaml.py's business.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

_OPENS = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSES = (yaml.MappingEndEvent, yaml.SequenceEndEvent)
_BLOCKS = ("|", ">")


class EntryMark(NamedTuple):
    """One key of a row. `is_simple`: its value can be replaced where it stands."""

    key: str
    key_start: int
    start: int
    end: int
    is_simple: bool


@dataclass(slots=True)
class RowMark:
    """One row: from its first character to behind its last one. `entries` of rows that were asked for."""

    start: int
    end: int
    is_flow: bool
    entries: list[EntryMark] = field(default_factory=list)


@dataclass(slots=True)
class ListMark:
    """The list `variables`.

    key_end  behind the key; -1: there is none
    is_flow  the list stands in brackets
    rows     those asked for, and the first and the last
    """

    key_end: int = -1
    start: int = 0
    end: int = 0
    is_flow: bool = False
    rows: dict[int, RowMark] = field(default_factory=dict)


def find_rows(text: str, wanted: Collection[int], count: int) -> ListMark:
    """Marks of the wanted rows of `count`; `text` is a table that load_yaml took, without a byte order mark."""
    loader = yaml.CSafeLoader(text.encode())
    try:
        return _Walk(loader, text, {*wanted, 0, count - 1}).run()
    finally:
        loader.dispose()


class _Walk:
    def __init__(self, loader: Any, text: str, wanted: Collection[int]) -> None:
        self._next: Callable[[], Any] = loader.get_event
        self._text = text
        self._wanted = wanted
        self._end = 0

    def run(self) -> ListMark:
        found = ListMark()
        for _ in range(3):  # stream, document, mapping
            self._next()
        while (key := self._next()).__class__ is yaml.ScalarEvent:
            value = self._next()
            if key.value == "variables":
                found.key_end = _end(key)
                if value.__class__ is yaml.SequenceStartEvent:
                    self._rows(value, found)
                    return found
            self._skip(value)
        return found

    def _skip(self, event: Any) -> None:
        """To behind the value that this event begins; `_end` is then behind its last character."""
        depth = 0
        while True:
            kind = event.__class__
            depth += (kind in _OPENS) - (kind in _CLOSES)
            if kind is yaml.ScalarEvent:
                if event.value or event.style:  # the mark of nothing is where the next token begins
                    self._end = _end(event)
            elif kind is yaml.AliasEvent or _end(event) > _start(event):
                self._end = _end(event)
            if depth == 0:
                return
            event = self._next()

    def _rows(self, opening: Any, found: ListMark) -> None:
        found.start, found.is_flow = _start(opening), bool(opening.flow_style)
        index = 0
        while (event := self._next()).__class__ is not yaml.SequenceEndEvent:
            start, is_flow = _start(event), bool(getattr(event, "flow_style", False))
            self._end = start
            if index in self._wanted and event.__class__ is yaml.MappingStartEvent:
                entries = self._entries()
                found.rows[index] = RowMark(start, self._trimmed(), is_flow, entries)
            else:
                self._skip(event)
                if index in self._wanted:
                    found.rows[index] = RowMark(start, self._trimmed(), is_flow)
            index += 1
        found.end = _end(event)

    def _entries(self) -> list[EntryMark]:
        entries: list[EntryMark] = []
        while (key := self._next()).__class__ is not yaml.MappingEndEvent:
            self._end = _end(key)
            value = self._next()
            is_inline = (
                value.__class__ is yaml.ScalarEvent and (value.value or value.style) and value.style not in _BLOCKS
            )
            is_simple = (
                bool(is_inline or getattr(value, "flow_style", False)) and getattr(value, "anchor", None) is None
            )
            start = _start(value)
            self._skip(value)
            name = key.value if key.__class__ is yaml.ScalarEvent else ""
            entries.append(EntryMark(name, _start(key), start, self._trimmed(), is_simple))
        if _end(key) > _start(key):  # a brace; the end of a block has no character of its own
            self._end = _end(key)
        return entries

    def _trimmed(self) -> int:
        """The end without the blank lines that a block text reaches over."""
        return len(self._text[: self._end].rstrip()) if self._text[self._end - 1 : self._end].isspace() else self._end


def _start(event: Any) -> int:
    index: int = event.start_mark.index
    return index


def _end(event: Any) -> int:
    index: int = event.end_mark.index
    return index
