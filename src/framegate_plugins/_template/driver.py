"""A driver without a device: a ramp from low to high, computed from the clock.

To begin a plugin, copy this folder, rename it and replace what `read` does. A driver that talks over a line leases
it in `open` with `await context.lines.acquire(context.endpoint, make_session)` and releases it in `close`.
Reconnect, back-off, deadlines and Bad rows are the runtime's: raise NotConnected or NoReply and say why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag, DriverContext, Plan
from framegate.contract.errors import Misconfigured, NotConnected, TagProblem
from framegate.contract.frame import Batch, Float64Column, Int32Column, Kind, uniform_quality, uniform_time
from framegate.contract.quality import Quality

ADDRESS = "ramp"


@dataclass(frozen=True, slots=True)
class RampPlan:
    """One scan; phase[i] belongs to tag[i]."""

    tag: Int32Column
    phase: Float64Column


class RampDriver:
    """Computes every tag from the clock."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._low = float(options.get("low", 0))
        self._span = float(options.get("high", 100)) - self._low
        self._period_ns = round(float(options.get("period", 60)) * 1e9)
        if self._span <= 0 or self._period_ns <= 0:
            raise Misconfigured("options: high must be above low, and period above 0; correct drivers.yml")
        self._context: DriverContext | None = None

    def plan(self, tags: Sequence[BoundTag]) -> RampPlan:
        problems = [problem for tag in tags for problem in _problems_of(tag)]
        if problems:
            raise Misconfigured(f"{len(problems)} tags cannot be read", tag_problems=problems)
        ids = np.array([tag.id for tag in tags], dtype=np.int32)
        ids.flags.writeable = False
        return RampPlan(ids, np.array([float(tag.options.get("phase", 0)) for tag in tags]))

    async def open(self, context: DriverContext) -> None:
        self._context = context

    async def read(self, plan: Plan) -> Sequence[Batch]:
        assert isinstance(plan, RampPlan)
        if self._context is None:
            raise NotConnected("ramp: the driver is closed")
        now_ns = self._context.clock.now_ns()
        part = (now_ns % self._period_ns / self._period_ns + plan.phase) % 1.0
        value = self._low + self._span * part
        value.flags.writeable = False  # whoever publishes a column freezes it
        return [Batch(plan.tag, value, uniform_quality(Quality.GOOD), uniform_time(now_ns), now_ns)]

    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        return [WriteResult(write.tag, Outcome.REJECTED, "a ramp cannot be written") for write in commands]

    async def close(self) -> None:
        self._context = None


def _problems_of(tag: BoundTag) -> list[TagProblem]:
    problems = []
    if tag.address != ADDRESS:
        text = f'"{tag.address}" is no address of a ramp; write "{ADDRESS}"'
        problems.append(TagProblem(tag.name, "address", "E1000", text))
    if tag.type.kind is not Kind.FLOAT:
        text = f"a ramp is float32 or float64, not {tag.type.value}"
        problems.append(TagProblem(tag.name, "type", "E1000", text))
    return problems
