"""YAML 1.2 as the tables use it: one document of mappings, lists and scalars, built event by event from libyaml.

Plain scalars follow the core schema (YAML 1.2.2, 10.3) with one caution: a number is decimal, finite and without
leading zeros; all else stays text. `0123`, `0x00012`, `1:20`, `NO`, `on`, `1_000`, `.inf` are text: as an address
0x00012 is a coil, never eighteen. Keys are always text. Refused: tags other than `!!str`, a second document, keys
that are lists. Every bound has a name below.

Rows of one long list can be handed out as they end: a table of 100,000 tags never exists as raw rows. Positions
are not kept; places.py walks the text again, and only when something is wrong.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

TABLE_BYTES_MAX = 64 << 20
"""Bytes of one table; 100,000 rich tag rows are about 25 MiB."""
NESTING_MAX = 32
"""Levels of mappings and lists inside each other."""
ALIAS_NODES_MAX = 100_000
"""Nodes that all aliases of a table may stand for, once expanded."""
FLAWS_MAX = 1_000
"""Duplicate keys after which reading ends."""

Path: TypeAlias = tuple[str | int, ...]

WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER_STARTS = frozenset("-+.0123456789")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,19})").fullmatch
_EXPONENT = r"[eE][-+]?[0-9]+"
_NUMBER = re.compile(
    rf"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*(?:{_EXPONENT})?|{_EXPONENT})|\.[0-9]+(?:{_EXPONENT})?)"
).fullmatch
_TEXT_TAGS = (None, "!", "tag:yaml.org,2002:str")
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Flaw:
    """One mistake in the text itself. `first` leads to the place that a duplicate key repeats."""

    line: int
    column: int
    code: str
    text: str
    first: Path | None = None


@dataclass(slots=True)
class Document:
    """What a table holds. `is_whole` is False when reading ended early, at the last flaw."""

    value: Any = None
    flaws: list[Flaw] = field(default_factory=list)
    is_whole: bool = True


class _Stop(Exception):
    """Reading cannot go on, and the flaw says why. Never leaves this module."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.text)
        self.flaw = flaw


class _Sink(list[Any]):
    """A list that stays empty: each item goes on as it ends."""

    def __init__(self, take: Callable[[int, Any], None]) -> None:
        super().__init__()
        self.taken = 0
        self._take = take

    def append(self, item: Any, /) -> None:
        self._take(self.taken, item)
        self.taken += 1


def load_yaml(data: bytes, *, rows_key: str = "", take_row: Callable[[int, Any], None] | None = None) -> Document:
    """Read one table; whatever the bytes hold, this returns.

    data      UTF-8, with or without a byte order mark
    rows_key  top-level key of the list whose items go to `take_row(index, item)`; the tree then holds an empty list
    """
    document = Document(is_whole=False)
    wide = data.startswith(_WIDE_MARKS) or b"\0" in data[:64]
    if wide:
        document.flaws.append(Flaw(1, 1, "E1102", "the file is UTF-16; save it as UTF-8"))
        return document
    loader = yaml.CSafeLoader(data)
    builder = _Builder(document, rows_key, take_row)
    try:
        builder.run(loader.get_event)
    except _Stop as stop:
        document.flaws.append(stop.flaw)
    except yaml.MarkedYAMLError as error:
        document.flaws.append(_flaw_of(error, data))
    except yaml.reader.ReaderError as error:
        document.flaws.append(_unreadable(error, data))
    else:
        document.is_whole = True
    finally:
        loader.dispose()
    return document


def plain_value(text: str) -> Any:
    """What a plain scalar stands for."""
    if text[:1] in _NUMBER_STARTS:
        if _INTEGER(text):
            return int(text)
        if _NUMBER(text):
            number = float(text)
            return number if math.isfinite(number) else text
        return text
    return WORDS.get(text, text)


class _Builder:
    """Containers under construction. `current` is the innermost one; `keyed` says that it is a mapping."""

    __slots__ = ("anchors", "current", "document", "expanded", "key", "keyed", "nodes", "rows_key", "stack", "take_row")

    def __init__(self, document: Document, rows_key: str, take_row: Callable[[int, Any], None] | None) -> None:
        self.document = document
        self.rows_key = rows_key
        self.take_row = take_row
        self.current: Any = []
        self.keyed = False
        self.key: str | None = None
        self.stack: list[tuple[Any, bool, str | None, str | None, int]] = []
        self.anchors: dict[str, tuple[Any, int] | None] = {}
        self.nodes = 0
        self.expanded = 0

    def run(self, next_event: Callable[[], Any]) -> None:
        """Read events to the end of the stream."""
        documents = 0
        handlers: dict[type, Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._mapping,
            yaml.SequenceStartEvent: self._sequence,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
        }
        while True:
            event = next_event()
            handler = handlers.get(event.__class__)
            if handler is not None:
                handler(event)
            elif event.__class__ is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise _stop(event, "a second document starts here; a table is one document: remove the `---`")
            elif event.__class__ is yaml.StreamEndEvent:
                self.document.value = self.current[0] if self.current else None
                return

    def _scalar(self, event: Any) -> None:
        self.nodes += 1
        if event.tag not in _TEXT_TAGS:
            raise _stop(event, f"the tag {_tag_name(event.tag)} is not used in tables; remove it")
        if self.keyed and self.key is None:
            self._take_key(event)
            return
        value = event.value if event.style or event.tag else plain_value(event.value)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1)
        self._attach(value)

    def _take_key(self, event: Any) -> None:
        key = event.value
        if key in self.current:
            path = (*self._path(), key)
            text = f"{key} stands twice; keep one of them"
            self.document.flaws.append(Flaw(*_place(event), "E1105", text, path))
            if len(self.document.flaws) == FLAWS_MAX:
                raise _stop(event, f"{FLAWS_MAX:,} keys stand twice; the rest of the table was not read")
        elif key == "<<" and not event.style:
            self.document.flaws.append(Flaw(*_place(event), "E1103", "YAML 1.2 has no merge keys; write the keys out"))
        if event.anchor is not None:
            self.anchors[event.anchor] = (key, 1)
        self.key = key

    def _mapping(self, event: Any) -> None:
        self._open(event, {})
        self.keyed = True

    def _sequence(self, event: Any) -> None:
        rows: list[Any] = []
        if self.take_row is not None and len(self.stack) == 1 and self.keyed and self.key == self.rows_key:
            rows = _Sink(self.take_row)
        self._open(event, rows)
        self.keyed = False

    def _open(self, event: Any, container: Any) -> None:
        self.nodes += 1
        if self.keyed and self.key is None:
            raise _stop(event, "a list or mapping cannot be a key; a key is text")
        if event.tag not in (None, "!"):
            raise _stop(event, f"the tag {_tag_name(event.tag)} is not used in tables; remove it")
        if len(self.stack) >= NESTING_MAX:
            raise _stop(event, f"nested deeper than {NESTING_MAX} levels; no table needs that")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.stack.append((self.current, self.keyed, self.key, event.anchor, self.nodes))
        self.current = container
        self.key = None

    def _end(self, event: Any) -> None:
        container = self.current
        self.current, self.keyed, self.key, anchor, nodes_before = self.stack.pop()
        if anchor is not None:
            self.anchors[anchor] = (container, self.nodes - nodes_before + 1)
        self._attach(container)

    def _alias(self, event: Any) -> None:
        known = self.anchors.get(event.anchor)
        if known is None:
            reason = "stands inside itself" if event.anchor in self.anchors else "is not defined above"
            raise _stop(event, f"*{event.anchor} {reason}; write the value out")
        value, nodes = known
        self.nodes += nodes
        self.expanded += nodes
        if self.expanded > ALIAS_NODES_MAX:
            raise _stop(event, f"aliases expand to more than {ALIAS_NODES_MAX:,} values; write them out")
        if self.keyed and self.key is None:
            raise _stop(event, f"the alias *{event.anchor} cannot be a key; write the key out")
        self._attach(value)

    def _attach(self, value: Any) -> None:
        if self.keyed:
            self.current[self.key] = value
            self.key = None
        else:
            self.current.append(value)

    def _path(self) -> Path:
        """Keys and indexes that lead to the current container."""
        steps: list[str | int] = []
        for container, keyed, key, _, _ in self.stack[1:]:
            if keyed:
                assert key is not None
                steps.append(key)
            else:
                steps.append(container.taken if isinstance(container, _Sink) else len(container))
        return tuple(steps)


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _stop(event: Any, text: str) -> _Stop:
    return _Stop(Flaw(*_place(event), "E1103", text))


def _tag_name(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _flaw_of(error: yaml.MarkedYAMLError, data: bytes) -> Flaw:
    """A syntax error of libyaml in words an operator can act on."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    lines = data.splitlines()
    rest = lines[line].decode("utf-8", "replace")[column:] if line < len(lines) else ""
    said = f"{error.problem or error.context}"
    if rest.startswith("\t"):
        said = "a tab indents this line; YAML wants spaces"
    elif "mapping values are not allowed" in said:
        said = "a second `: ` in one value, or a line indented too far; put quotes around a text that holds `: `"
    elif "escape character" in said:
        said = "a backslash in double quotes begins an escape; double it, or use single quotes"
    elif "cannot start any token" in said:
        said = f"a value cannot start with {rest[:1]}; put quotes around it"
    elif error.context and error.context_mark is not None and error.context_mark.line != line:
        said = f"{said}, {error.context} that begins at line {error.context_mark.line + 1}"
    return Flaw(line + 1, column + 1, "E1103", said)


def _unreadable(error: yaml.reader.ReaderError, data: bytes) -> Flaw:
    """A byte that is no UTF-8, or a character that no text file should hold."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as broken:
        before, text = data[: broken.start], f"byte 0x{data[broken.start]:02X} is not UTF-8; save the file as UTF-8"
        code = "E1102"
    else:
        before, text, code = data[: max(error.position, 0)], f"{error.reason}; remove this character", "E1103"
    line_start = before.rfind(b"\n") + 1
    column = len(before[line_start:].decode("utf-8", "replace")) + 1
    return Flaw(before.count(b"\n") + 1, column, code, text)
