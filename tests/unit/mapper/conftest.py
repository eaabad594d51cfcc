"""What tests of rules share: a catalogue in memory, a context, batches, and a way to play rows through one rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.contract.frame import Batch, Tag, TagId, ValueType
from framegate.mapper.rules.kinds import maker_of
from framegate.mapper.rules.rule import Rule, RuleContext

START_NS = 1_700_000_040_000_000_000
"""A whole minute."""
SECOND = 1_000_000_000


class QuietLog:
    def __init__(self) -> None:
        self.events: list[str] = []

    def _note(self, event: str, **values: Any) -> None:
        self.events.append(event)

    debug = info = warning = error = _note


class Names:
    """A catalogue in memory; ids count from 1."""

    def __init__(self) -> None:
        self.tags: list[Tag] = []
        self.ids: dict[str, int] = {}

    def intern(self, name: str, device: str, type_: ValueType, unit: str, access: str) -> TagId:
        known = self.find(name)
        if known is not None:
            return known.id
        self.tags.append(Tag(TagId(len(self.tags) + 1), name, device, type_, unit, "R"))
        self.ids[name] = len(self.tags)
        return self.tags[-1].id

    def tag(self, tag_id: int) -> Tag:
        return self.tags[tag_id - 1]

    def find(self, name: str) -> Tag | None:
        return self.tags[self.ids[name] - 1] if name in self.ids else None


Row = tuple[str, int, Any, int]
"""Name, time in ns, value, quality."""


class Stage:
    """One rule and the rows that it derives."""

    def __init__(self, tags: Mapping[str, ValueType]) -> None:
        self.names, self.log = Names(), QuietLog()
        for name, type_ in tags.items():
            self.names.intern(name, "plc", type_, "", "R")
        self.inputs = list(tags)

    def context(self) -> RuleContext:
        return RuleContext(self.names, Path(), self.log, self.inputs)

    def rule(self, kind: str, name: str = "r", **options: Any) -> Rule:
        return maker_of(kind)(name, options, self.context())

    def batch(self, rows: Sequence[tuple[str, Any, int]], now: int, times: Sequence[int] | None = None) -> Batch:
        tag = np.array([self.names.intern(name, "plc", ValueType.FLOAT64, "", "R") for name, _, _ in rows], np.int32)
        given = [value for _, value, _ in rows]
        kind = object if any(isinstance(value, str) or value is None for value in given) else np.float64
        if all(isinstance(value, bool) for value in given):
            kind = np.bool_
        value = np.empty(len(given), kind)
        value[:] = given
        time = np.array([now] if times is None else times, np.int64)
        return Batch(tag, value, np.array([quality for _, _, quality in rows], np.uint32), time, now)

    def rows(self, batches: Sequence[Batch]) -> list[Row]:
        """Derived rows as plain Python, sorted as they came."""
        found: list[Row] = []
        for batch in batches:
            count = len(batch.tag)
            quality = np.broadcast_to(batch.quality, count).tolist()
            time = np.broadcast_to(batch.source_time, count).tolist()
            names = [self.names.tag(tag).name for tag in batch.tag.tolist()]
            found += list(zip(names, time, batch.value.tolist(), quality, strict=True))
        return found


@pytest.fixture
def stage() -> Callable[..., Stage]:
    """`stage(a=ValueType.FLOAT64)`."""
    return lambda **tags: Stage(tags)
