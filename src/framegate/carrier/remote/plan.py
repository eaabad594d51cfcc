"""Plans of drivers that run somewhere else: tags as the driver is told them, and rows of theirs made batches.

A plan belongs to the options, not to a process: it is made without one, and told to each process that reads it. Rows of
tags that it does not have are no rows of it; what becomes of the others is in columns.py.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence

import numpy as np

from framegate.carrier.child.wire import CELL_BYTES, ROWS_MAX
from framegate.carrier.mismatch import Mismatches
from framegate.carrier.remote.columns import Layout, wanted_of
from framegate.contract.driver import BoundTag
from framegate.contract.errors import FrameBroken, Misconfigured, TagProblem
from framegate.contract.frame import Batch, Int32Column, Kind, ValueType

LAYOUTS_MAX = 16
"""Orders of rows that are remembered per plan; a driver uses one, or a few."""


class RemotePlan:
    """The tags of one scan class; those that can only be written are left to `introduction`.

    tag       int32[rows]
    rows      how many a scan may bring
    tags      those that the driver is told of; ids: of the same
    has_text  some of them have no fixed size
    mismatches  rows of another kind than their tags
    """

    def __init__(self, tags: Sequence[BoundTag]) -> None:
        self.tags = tuple(tag for tag in tags if "R" in tag.access)
        self._readable = {int(tag.id): tag for tag in self.tags}
        self.tag: Int32Column = np.array(list(self._readable), np.int32)
        self.tag.flags.writeable = False
        self.rows = len(self._readable)
        self.ids = frozenset(self._readable)
        self.has_text = any(tag.type.kind is Kind.OBJECT for tag in self.tags)
        self.mismatches = Mismatches(wanted_of)
        self._layouts: dict[bytes, Layout] = {}
        self._last: Layout | None = None

    @staticmethod
    def introduction(tags: Sequence[BoundTag]) -> RemotePlan:
        """Tags that are about to be written and are in no other plan. It is told, and never read."""
        plan = RemotePlan(())
        plan.tags = tuple(tags)
        plan.ids = frozenset(int(tag.id) for tag in tags)
        return plan

    def without(self, ids: Container[int]) -> RemotePlan:
        """The same, but for these tags."""
        left = [tag for tag in self.tags if tag.id not in ids]
        return RemotePlan(left) if self.rows else RemotePlan.introduction(left)

    def batches(self, rows: int, body: bytes, now_ns: int) -> list[Batch]:
        """Rows as a process packed them, as batches of one kind each.

        raises FrameBroken E4512 - they cannot be rows of this plan
        """
        if rows > self.rows or len(body) < rows * CELL_BYTES:
            raise FrameBroken(f"{rows} rows in {len(body)} bytes, of a plan of {self.rows}", code="E4512")
        if not rows:
            return []
        last = self._last
        if last is not None:
            usual = last.usual_batches(rows, body, now_ns)
            if usual is not None:
                return usual
        tag = body[16 * rows : 20 * rows]
        layout = self._last = self._layouts.get(tag) or self._laid_out(tag)
        return layout.batches(body, now_ns)

    def _laid_out(self, tag: bytes) -> Layout:
        ids = np.frombuffer(tag, np.uint32).tolist()
        if len(set(ids)) < len(ids) or not self.ids.issuperset(ids):
            raise FrameBroken("rows of tags that the plan does not have, or twice", code="E4512")
        if len(self._layouts) >= LAYOUTS_MAX:
            self._layouts.clear()
        layout = self._layouts[tag] = Layout([self._readable[each] for each in ids], self.mismatches)
        return layout


def tags_json(tags: Sequence[BoundTag]) -> bytes:
    """Tags as contract/driver.h has them."""
    rows = [
        {
            "id": tag.id, "name": tag.name, "address": tag.address, "type": tag.type.value, "access": tag.access,
            "options": tag.options,
        }
        for tag in tags
    ]  # fmt: skip
    return json_of(rows)


def json_of(value: object) -> bytes:
    """As JSON; tables hand out mappings that nobody can change."""
    return json.dumps(value, ensure_ascii=False, default=_plain).encode()


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


def check_tags(tags: Sequence[BoundTag], *, takes_json: bool) -> None:
    """raises Misconfigured E4515 - more than a plan can hold; with a TagProblem each: of a type that has no column."""
    if len(tags) > ROWS_MAX:
        text = f"a scan class of {len(tags):,} tags; such a driver takes {ROWS_MAX:,}, divide it"
        raise Misconfigured(text, code="E4515")
    if takes_json:
        return
    text = "type json is none that a native driver knows; use string"
    problems = [TagProblem(tag.name, "type", "E4515", text) for tag in tags if tag.type is ValueType.JSON]
    if problems:
        raise Misconfigured(f"tag {problems[0].tag}: {text}", code="E4515", tag_problems=problems)
