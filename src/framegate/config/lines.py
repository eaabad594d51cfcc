"""A short way through long tables: rows that stand on one line each, read without libyaml's events.

    variables:
      - {tag: pump3.flow, source: mb1, address: 4x00012, type: float32, scale: 0.1}

A line is taken this way only when it is one whole flow mapping of plain, plainly quoted or [low, high] values. Lines in
between are parsed by libyaml on their own, and are taken when they are whole rows of the same list; whatever else
there is, the table is read by libyaml from its first byte. Rows, flaws and their places are therefore those of
load_yaml, at a fifth of the time: libyaml's events cost 35 us a row, and would be most of a reload.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from string import ascii_letters
from typing import Any, TypeAlias

from framegate.config.yaml import WORDS, Document, load_yaml, plain_value

SHAPES_MAX = 64
"""Different sequences of keys that are remembered; a table has a handful."""
VALUES_MAX = 65_536
"""Different texts of values that are remembered at a time."""
LINE_BYTES_MAX = 16_384
"""Bytes of a line that is read the short way."""

CHUNK_LINES = 512
"""Lines that are read at once where all have the keys of the one before."""

Take: TypeAlias = Callable[[int, Sequence[Any]], None]
"""Takes rows and the index of the first."""
Match: TypeAlias = Callable[[str], Any]

# Printable as YAML 1.2.2, 5.1 has it, without the line breaks of YAML 1.1 that libyaml knows too (85, 2028, 2029).
_WIDE = r"\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff"
_PRINTABLE = rf"\x20-\x7e{_WIDE}"
_INNER = r"[\w./+\-=;%@()~^*°]"
_PLAIN = rf"(?:\w|[-+.](?=[\w.])){_INNER}*(?: {_INNER}+)*"
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_QUOTED = r"""(?:"[^"\\\n]*"|'[^'\n]*')"""  # of a line that is printable as a whole: wide sets take long to compile
_VALUE = rf"(?:{_PLAIN}|{_QUOTED}|\[{_NUMBER}, {_NUMBER}\])"
_KEY = r"[A-Za-z_][A-Za-z0-9_]*"
_LINE_END = r"\} *(?: #[^\r\n]*)?"
_END = rf"{_LINE_END}\r?\n?"
_ROW = re.compile(rf"( *)- \{{{_KEY}: {_VALUE}(?:, {_KEY}: {_VALUE})*{_END}").fullmatch
_PAIR = re.compile(rf"({_KEY}): {_VALUE}").findall
_IS_PRINTABLE = re.compile(rf"[{_PRINTABLE}]*").fullmatch
_EMPTY = re.compile(rf" *(?:#[{_PRINTABLE}\t]*)?\r?\n?").fullmatch
_LETTERS = frozenset(ascii_letters)
_MARKS = (b"%", b"---", b"...")
"""What begins a directive, a document or its end at the start of a line."""


def load_rows(data: bytes, key: str, take: Take) -> Document:
    """Read a table whose rows are the list under `key`; they go to `take(index, rows)`, in order.

    returns  what load_yaml returns: the tree without the rows, and every flaw
    """
    taken = 0

    def take_next(rows: Sequence[Any]) -> None:
        nonlocal taken
        take(taken, rows)
        taken += len(rows)

    if _Lines(data, key).read(take_next):
        return Document({key: []}, is_whole=True)
    done = taken
    return load_yaml(data, rows_key=key, take_row=lambda index, row: take(index, (row,)) if index >= done else None)


class _Lines:
    """One walk over the lines of a table."""

    def __init__(self, data: bytes, key: str) -> None:
        self._lines: Iterator[bytes] = iter(io.BytesIO(data))
        self._key = key
        self._shapes: list[tuple[tuple[str, ...], Match, Match]] = []  # keys; a line's match; all of a chunk's lines
        self._value = _Values().__getitem__
        self._indent = ""

    def read(self, take: Callable[[Sequence[Any]], None]) -> bool:
        """Hand out rows; False at the first line that is beyond this way, with the rows before it handed out."""
        try:
            return self._passes_head() and self._read_rows(take)
        except UnicodeDecodeError:
            return False

    def _passes_head(self) -> bool:
        for line in self._lines:
            text = line.decode()
            if not _EMPTY(text):
                head = text.removeprefix(f"{self._key}:")
                return head != text and head[:1] in {" ", "\r", "\n"} and bool(_EMPTY(head))
        return False

    def _read_rows(self, take: Callable[[Sequence[Any]], None]) -> bool:
        pending: list[bytes] = []  # lines since the last row that was read the short way
        has_rows = False
        while chunk := list(islice(self._lines, CHUNK_LINES)):
            alike = () if pending else self._rows_alike(chunk)
            if alike:
                take(alike)
                continue
            for line in chunk:
                row = self._row(line)
                if row is not None:
                    if pending and not self._take_pending(pending, take):
                        return False
                    take((row,))
                    has_rows = True
                elif pending or not _EMPTY(line.decode()):
                    if not has_rows:
                        return False  # the rows' indent is not known yet
                    pending.append(line)
        return has_rows and (not pending or self._take_pending(pending, take))

    def _rows_alike(self, lines: Sequence[bytes]) -> Sequence[dict[str, Any]]:
        """The rows of lines that all have the keys of the newest row; none if one of them has others."""
        if not self._shapes or max(map(len, lines)) > LINE_BYTES_MAX:
            return ()
        text = b"".join(lines).decode()
        keys, _, find = self._shapes[0]
        if len(keys) == 1 or not (text.isascii() and text.replace("\n", "").isprintable()):
            return ()
        found = find(text)
        if len(found) != len(lines):  # a match never goes beyond its line
            return ()
        columns = [list(map(self._value, column)) for column in zip(*found, strict=True)]
        return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]

    def _row(self, line: bytes) -> dict[str, Any] | None:
        """The row of a line, or None."""
        if len(line) > LINE_BYTES_MAX:
            return None
        text = line.decode()
        if not _is_printable(text):
            return None
        for place, (keys, match, _) in enumerate(self._shapes):
            found = match(text)
            if found is not None:
                if place:
                    self._shapes.insert(0, self._shapes.pop(place))
                return dict(zip(keys, map(self._value, found.groups()), strict=True))
        return self._row_of_new_shape(text)

    def _row_of_new_shape(self, text: str) -> dict[str, Any] | None:
        found = _ROW(text)
        if found is None:
            return None
        if not self._shapes:
            self._indent = found[1]
        elif found[1] != self._indent or len(self._shapes) >= SHAPES_MAX:
            return None
        keys = tuple(_PAIR(text[: found.end()]))
        body = ", ".join(f"{key}: ({_VALUE})" for key in keys)
        row = rf"{self._indent}- \{{{body}"
        match = re.compile(row + _END).fullmatch
        again = match(text)
        if again is None or len(set(keys)) != len(keys):
            return None
        self._shapes.insert(0, (keys, match, re.compile(rf"^{row}{_LINE_END}$", re.MULTILINE).findall))
        return dict(zip(keys, map(self._value, again.groups()), strict=True))

    def _take_pending(self, pending: list[bytes], take: Callable[[Sequence[Any]], None]) -> bool:
        """Have libyaml read lines that stand between rows; True when they are whole rows of the same list.

        A text, list or mapping that goes on in the next line of the table is not whole here, and ends in a flaw.
        """
        if not pending[0].startswith(self._indent.encode() + b"- ") or any(_is_beyond(line) for line in pending):
            return False
        document = load_yaml(f"{self._key}:\n".encode() + b"".join(pending))
        pending.clear()
        rows = document.value.get(self._key) if document.is_whole and isinstance(document.value, dict) else None
        if document.flaws or not isinstance(rows, list) or len(document.value) != 1:
            return False
        take(rows)
        return True


def _is_printable(text: str) -> bool:
    """Whether a line holds nothing that could break it, up to its own end."""
    inner = text.removesuffix("\n").removesuffix("\r")
    return inner.isprintable() if inner.isascii() else _IS_PRINTABLE(inner) is not None


def _is_beyond(line: bytes) -> bool:
    """Whether a line may say something about other lines: documents, directives, anchors and aliases."""
    return line.startswith(_MARKS) or b"&" in line or b"*" in line


class _Values(dict[str, Any]):
    """What the texts of values stand for; most stand in many rows."""

    def __missing__(self, text: str) -> Any:
        if len(self) >= VALUES_MAX:
            self.clear()
        value: Any
        if text[0] in _LETTERS:
            value = WORDS.get(text, text)
        elif text[0] in "\"'":
            value = text[1:-1]
        elif text[0] == "[":
            value = [plain_value(number) for number in text[1:-1].split(", ")]
        else:
            value = plain_value(text)
        self[text] = value
        return value
