"""A folder with scripts, a catalogue with tags, and rules made of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from framegate.bus.catalogue import DurableCatalogue
from framegate.contract.frame import Batch, TagId, ValueType
from framegate.contract.ports import Disk
from framegate.mapper.rules.rule import RuleContext
from framegate.mapper.rules.script import Script, make
from framegate.testing.fakes import CollectingLog

NOW_NS = 1_795_000_000_123_456_789


@dataclass
class Stage:
    """Tags a (float64, degC), n (int64), u (uint64), flag (bool), text (string) and raw (bytes)."""

    folder: Path
    log: CollectingLog = field(default_factory=CollectingLog)
    catalogue: DurableCatalogue = field(default_factory=lambda: DurableCatalogue(cast(Disk, None)))

    def __post_init__(self) -> None:
        for name, type_ in (
            ("a", ValueType.FLOAT64),
            ("n", ValueType.INT64),
            ("u", ValueType.UINT64),
            ("flag", ValueType.BOOL),
            ("text", ValueType.STRING),
            ("raw", ValueType.BYTES),
        ):
            self.catalogue.intern(name, "plc", type_, "degC", "R")

    @property
    def context(self) -> RuleContext:
        names = [tag.name for tag in map(self.catalogue.tag, range(1, len(self.catalogue) + 1)) if tag.device == "plc"]
        return RuleContext(self.catalogue, self.folder, self.log, names)

    def id(self, name: str) -> TagId:
        tag = self.catalogue.find(name)
        assert tag is not None
        return tag.id

    def make(self, text: str, inputs: Sequence[str] = ("a",), **options: Any) -> Script:
        """A rule of a script; without a version in its first line it gets one."""
        lines = text if text.startswith("-- version") else f"-- version: 1\n{text}"
        (self.folder / "r.lua").write_bytes(lines.encode())
        return make("r", {"file": "r.lua", "inputs": list(inputs), **options}, self.context)

    def batch(self, name: str, *values: Any, quality: int | Sequence[int] = 0, step_ns: int = 1_000_000) -> Batch:
        """Rows of one tag, one millisecond apart."""
        tag = self.catalogue.find(name)
        assert tag is not None
        column = np.empty(len(values), tag.type.kind.value)
        column[:] = values
        return Batch(
            np.full(len(values), tag.id, np.int32),
            column,
            np.array([quality] if isinstance(quality, int) else quality, np.uint32),
            NOW_NS + np.arange(len(values), dtype=np.int64) * step_ns,
            NOW_NS,
        )

    def rows(self, batches: Sequence[Batch]) -> list[tuple[str, Any, int, int]]:
        """(name, value, quality, source time) of every row."""
        return [
            (self.catalogue.tag(tag).name, value, status, time)
            for batch in batches
            for tag, value, status, time in zip(
                batch.tag.tolist(),
                batch.value.tolist(),
                batch.quality.tolist(),
                np.broadcast_to(batch.source_time, batch.rows).tolist(),
                strict=True,
            )
        ]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)
