"""Edit a table in place: exactly the characters of one value change, comments and layout stay.

    text = splice(text, ("drivers", "mb1", "scan", "fast"), "100ms")

Values that exist are replaced where they stand; new keys and rows go behind the last one of their container, in its own
style. The result is read again and compared with what was meant, so that no edit can do anything else. Positions come
from libyaml's marks, which count characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from framegate.config.yaml import Path, load_yaml, plain_value
from framegate.contract.errors import Misconfigured

_PLAIN = re.compile(r"[A-Za-z0-9_\u00c0-\ud7ff][\w./+@%°-]*(?: [\w./+@%°-]+)*").fullmatch
_OPENS = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSES = (yaml.MappingEndEvent, yaml.SequenceEndEvent)

# YAML 1.1 reads these as numbers or switches, and editors may, too; the tables do not.
_NUMBER_LIKE = re.compile(r"[0-9._+:e-]+|0x[0-9a-f]+|0o[0-7]+|y|n|yes|no|on|off", re.IGNORECASE).fullmatch


def splice(text: str, path: Path, value: Any) -> str:
    """The table with one value set; equal values leave it untouched.

    text    a whole table without a byte order mark
    path    keys and list indexes; missing keys are made, and an index one behind the last row adds one
    raises  Misconfigured E4037 - the table is not valid YAML; E4038 - the value cannot be set there
    """
    before = _tree(text)
    wanted = _with(before, path, value)
    if wanted == before and _same_types(wanted, before):
        return text
    after = _set(text, path, value)
    if _tree(after, code="E4038") != wanted:
        raise Misconfigured(f"{_dotted(path)}: cannot be set in place; edit the table by hand", code="E4038")
    return after


def flow_text(value: Any) -> str:
    """A value as it is written into a table, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow_text(str(key))}: {flow_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow_text, value)) + "]"
    if isinstance(value, str):
        is_plain = _PLAIN(value) and not _NUMBER_LIKE(value) and isinstance(plain_value(value), str)
        return value if is_plain else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\x7f")
    return json.dumps(value)


@dataclass(slots=True)
class _Node:
    """One node on the way to the value, in characters from the start of the text.

    start, end  of its content, without what follows it; both are behind the key where nothing stands
    column      of its first key or dash
    last_end    end of its last item, or where its first one would go
    """

    start: int
    end: int
    column: int = 0
    is_flow: bool = False
    is_mapping: bool = False
    is_empty: bool = False
    items: int = 0
    last_end: int = 0
    child: _Node | None = field(default=None)


class _Walk:
    """One walk over libyaml's events along a path."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._loader = yaml.CSafeLoader(text)
        self._next: Callable[[], Any] = self._loader.get_event

    def node(self, path: Path) -> _Node:
        """The root, with its child on the path, and so on as far as they exist."""
        try:
            self._next()  # the stream starts
            self._next()  # the document starts
            return self._node(self._next(), path, behind=0)
        finally:
            self._loader.dispose()

    def _node(self, event: Any, path: Path, behind: int) -> _Node:
        start: int = event.start_mark.index
        if not isinstance(event, _OPENS):
            if isinstance(event, yaml.ScalarEvent) and not event.value and not event.style:
                return _Node(behind, behind, is_empty=True)
            return _Node(start, self._content_end(start, event.end_mark.index))
        node = _Node(
            start,
            start,
            column=_mark(event).column,
            is_flow=bool(event.flow_style),
            is_mapping=event.__class__ is yaml.MappingStartEvent,
            last_end=start + 1,
        )
        self._items(node, path)
        return node

    def _items(self, node: _Node, path: Path) -> None:
        while True:
            event = self._next()
            if isinstance(event, _CLOSES):
                node.end = _mark(event).index + 1 if node.is_flow else node.last_end
                return
            step: str | int = node.items
            behind: int = _mark(event).index
            if node.is_mapping:
                key_end = self._node(event, (), behind).end
                step = event.value if event.__class__ is yaml.ScalarEvent else ""
                behind = self._text.find(":", key_end) + 1 or key_end
                event = self._next()
            is_on_path = bool(path) and step == path[0] and node.child is None
            item = self._node(event, path[1:] if is_on_path else (), behind)
            node.items += 1
            node.last_end = max(item.end, behind if item.is_empty else 0)
            if is_on_path:
                node.child = item

    def _content_end(self, start: int, end: int) -> int:
        """Without the line ends and blanks that libyaml counts to a block scalar."""
        return start + len(self._text[start:end].rstrip(" \t\r\n"))


def _mark(event: Any) -> Any:
    return event.start_mark


def _set(text: str, path: Path, value: Any) -> str:
    try:
        node = _Walk(text).node(path)
    except yaml.YAMLError as error:
        raise Misconfigured(f"the table is not valid YAML ({error}); see `edge check`", code="E4037") from error
    depth = 0
    while node.child is not None:
        node, depth = node.child, depth + 1
    rest = path[depth:]
    if not rest and node.is_mapping and not node.is_flow and isinstance(value, Mapping):
        keys = _at(_tree(text), path)
        if keys.keys() <= value.keys():  # key by key, so that comments between them stay
            for key, item in value.items():
                text = splice(text, (*path, key), item)
            return text
    if not rest or node.is_empty:
        return _replaced(text, node, _wrapped(rest, value))
    return _added(text, node, rest, value)


def _replaced(text: str, node: _Node, value: Any) -> str:
    blank = " " if node.is_empty and text[node.start - 1 : node.start] not in {" ", ""} else ""
    return text[: node.start] + blank + flow_text(value) + text[node.end :]


def _added(text: str, node: _Node, rest: Path, value: Any) -> str:
    """A new item behind the last one of a container."""
    step, inner = rest[0], flow_text(_wrapped(rest[1:], value))
    if node.is_mapping == isinstance(step, int) or not (node.is_flow or node.column or node.items):
        raise Misconfigured(f"{_dotted(rest)}: there is no such place in the table", code="E4038")
    item = f"{flow_text(str(step))}: {inner}" if node.is_mapping else inner
    if node.is_flow:
        return text[: node.last_end] + (", " if node.items else "") + item + text[node.last_end :]
    line_end = text.find("\n", node.last_end)
    place = len(text) if line_end < 0 else line_end
    if text[:place].endswith("\r"):
        place -= 1
    newline = "\r\n" if "\r\n" in text else "\n"
    dash = "" if node.is_mapping else "- "
    return f"{text[:place]}{newline}{' ' * node.column}{dash}{item}{text[place:]}"


def _wrapped(path: Path, value: Any) -> Any:
    """A value inside the mappings and lists that are missing around it."""
    for step in reversed(path):
        value = [value] if isinstance(step, int) else {step: value}
    return value


def _tree(text: str, code: str = "E4037") -> Any:
    document = load_yaml(text.encode())
    if document.flaws or not document.is_whole:
        flaw = document.flaws[0]
        said = f"line {flaw.line}, column {flaw.column}: {flaw.text}; see `edge check`"
        raise Misconfigured(f"the table is not valid YAML at {said}", code=code)
    return document.value


def _at(tree: Any, path: Path) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def _with(tree: Any, path: Path, value: Any) -> Any:
    """A copy of a tree with one value set."""
    if not path:
        return value
    step = path[0]
    if isinstance(step, int):
        rows = list(tree) if isinstance(tree, list) else []
        rows[step : step + 1] = [_with(rows[step] if step < len(rows) else None, path[1:], value)]
        return rows
    inner = dict(tree) if isinstance(tree, dict) else {}
    inner[step] = _with(inner.get(step), path[1:], value)
    return inner


def _same_types(one: Any, other: Any) -> bool:
    """1, 1.0 and true are equal to Python, and not to a table."""
    return flow_text(one) == flow_text(other)


def _dotted(path: Path) -> str:
    return "/".join(map(str, path))
