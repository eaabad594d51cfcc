"""Rows that say a read failed: Bad quality with its reason, for exactly the tags that were not read.

Values are meaningless where quality is Bad (NaN, 0, false, nothing), so the columns are made once per plan and
shared by every batch. Tag arrays keep their identity from failure to failure: caches downstream are keyed by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from framegate.contract.frame import (
    Batch,
    Int32Column,
    Kind,
    ValueColumn,
    uniform_quality,
    uniform_time,
)

REMAINDERS_MAX = 16  # partial failures whose tag arrays are remembered per plan; the oldest goes first
_EMPTY_VALUE = {Kind.FLOAT: np.nan, Kind.INT: 0, Kind.UINT: 0, Kind.BOOL: False, Kind.OBJECT: None}


class _Block(NamedTuple):
    """Tags of one kind, with the values they have while Bad."""

    tag: Int32Column
    value: ValueColumn


class BadRows:
    """Bad batches for the tags of one plan.

    tag    int32[rows], every tag of the plan
    kinds  tag id -> kind; a tag that is missing here counts as FLOAT
    """

    __slots__ = ("_all", "_kind", "_remainders", "_tag")

    def __init__(self, tag: Int32Column, kinds: Mapping[int, Kind]) -> None:
        self._tag = np.unique(tag)
        order = {kind: number for number, kind in enumerate(Kind)}
        self._kind = np.array([order[kinds.get(int(id_), Kind.FLOAT)] for id_ in self._tag], dtype=np.uint8)
        self._all = self._blocks(np.ones(len(self._tag), dtype=np.bool_))
        self._remainders: dict[bytes, tuple[_Block, ...]] = {}

    @property
    def rows(self) -> int:
        return len(self._tag)

    def all(self, quality: int, now_ns: int) -> list[Batch]:
        """Every tag of the plan, Bad."""
        return _batches(self._all, quality, now_ns)

    def missing(self, covered: Sequence[Batch], quality: int, now_ns: int) -> list[Batch]:
        """Every tag of the plan that no row of `covered` names, Bad."""
        if not covered:
            return self.all(quality, now_ns)
        mask = np.isin(self._tag, np.concatenate([batch.tag for batch in covered]), invert=True)
        key = mask.tobytes()
        blocks = self._remainders.get(key)
        if blocks is None:
            while len(self._remainders) >= REMAINDERS_MAX:
                del self._remainders[next(iter(self._remainders))]
            blocks = self._remainders[key] = self._blocks(mask)
        return _batches(blocks, quality, now_ns)

    def _blocks(self, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[_Block, ...]:
        blocks = []
        for number, kind in enumerate(Kind):
            tag = self._tag[mask & (self._kind == number)]
            if len(tag):
                value: ValueColumn = np.full(len(tag), _EMPTY_VALUE[kind], dtype=kind.value)
                tag.flags.writeable = False
                value.flags.writeable = False
                blocks.append(_Block(tag, value))
        return tuple(blocks)


def _batches(blocks: Sequence[_Block], quality: int, now_ns: int) -> list[Batch]:
    status = uniform_quality(quality)
    time = uniform_time(now_ns)
    return [Batch(block.tag, block.value, status, time, now_ns) for block in blocks]
