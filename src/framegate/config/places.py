"""Where a value stands in its table: from a path of keys and indexes to line and column, many paths in one walk.

Validators know paths, editors want lines. The walk reads libyaml's events, skips what nobody asked for and builds
nothing. Lines and columns count from 1; a column counts characters, as editors do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import yaml

from framegate.config.yaml import NESTING_MAX, Path

Place: TypeAlias = tuple[int, int]
"""Line and column."""


class Span(NamedTuple):
    """Places of one path. A list item has no key: `key` is then its value's place.

    first  key of the first occurrence, where a key stands twice
    key    key of the last occurrence
    value  value of the last occurrence
    """

    first: Place
    key: Place
    value: Place


class _Want:
    """One step of the paths asked for; a tree of them follows the walk."""

    __slots__ = ("path", "span", "steps")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps: dict[str | int, _Want] = {}
        self.span: Span | None = None


def find_places(data: bytes, paths: Iterable[Path]) -> dict[Path, Span]:
    """Places of every path and of all its parents, as far as they exist in the text.

    data  the table's bytes, as load_yaml took them; a text that ends in a syntax error is walked up to there
    """
    root = _Want(())
    for path in paths:
        want = root
        for depth, step in enumerate(path, 1):
            want = want.steps.setdefault(step, _Want(path[:depth]))
    loader = yaml.CSafeLoader(data)
    try:
        _walk(loader, root)
    except yaml.YAMLError:
        pass  # what was found before the syntax error still counts
    finally:
        loader.dispose()
    found: dict[Path, Span] = {}
    pending = [root]
    while pending:
        want = pending.pop()
        if want.span is not None:
            found[want.path] = want.span
            pending.extend(want.steps.values())
    return found


def nearest(places: dict[Path, Span], path: Path) -> tuple[Span | None, bool]:
    """Span of the path or of its nearest parent that exists; True where it is the path itself."""
    for length in range(len(path), -1, -1):
        span = places.get(path[:length])
        if span is not None:
            return span, length == len(path)
    return None, False


class _Level:
    """One open container of the walk."""

    __slots__ = ("index", "is_mapping", "key", "key_place", "want")

    def __init__(self, want: _Want | None, *, is_mapping: bool) -> None:
        self.want = want
        self.is_mapping = is_mapping
        self.index = 0
        self.key: str | None = None
        self.key_place: Place = (1, 1)


_OPENS = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSES = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def _walk(loader: Any, root: _Want) -> None:
    levels: list[_Level] = []
    skipped = 0  # open containers below one that nobody asked for
    while True:
        event = loader.get_event()
        kind = event.__class__
        if skipped:
            skipped += (kind in _OPENS) - (kind in _CLOSES)
            continue
        if kind in _CLOSES:
            levels.pop()
            if not levels:
                return
        elif kind is yaml.ScalarEvent or kind is yaml.AliasEvent or kind in _OPENS:
            want, is_key = _arrive(levels, root, event)
            if kind in _OPENS and not is_key:
                if want is None or not want.steps or len(levels) >= NESTING_MAX:
                    skipped = 1
                else:
                    levels.append(_Level(want, is_mapping=kind is yaml.MappingStartEvent))
            if not levels and not skipped:
                return
        elif kind is yaml.StreamEndEvent:
            return


def _arrive(levels: list[_Level], root: _Want, event: Any) -> tuple[_Want | None, bool]:
    """Book one node: which path it is, and whether it is only a key."""
    place = (event.start_mark.line + 1, event.start_mark.column + 1)
    if not levels:
        root.span = Span(place, place, place)
        return root, False
    level = levels[-1]
    if level.is_mapping and level.key is None:
        level.key = event.value if event.__class__ is yaml.ScalarEvent else ""
        level.key_place = place
        return None, True
    assert level.want is not None
    step: str | int = level.index if level.key is None else level.key
    want = level.want.steps.get(step)
    if want is not None:
        key_place = place if level.key is None else level.key_place
        # An empty value has no place of its own: libyaml reports where the next token begins.
        is_empty = event.__class__ is yaml.ScalarEvent and event.value == "" and not event.style
        first = key_place if want.span is None else want.span.first
        want.span = Span(first, key_place, key_place if is_empty else place)
    level.index += 1
    level.key = None
    return want, False
