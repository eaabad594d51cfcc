"""A driver without a protocol whose every answer a test decides: good rows unless a hook says otherwise.

driver = ScriptedDriver(on_read=[NoReply("silent"), None])     one entry per call, then good for ever
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag, DriverContext, Plan
from framegate.contract.errors import NotConnected
from framegate.contract.frame import Batch, Int32Column, Kind, TagId, ValueType, uniform_quality, uniform_time
from framegate.contract.quality import Quality

Step: TypeAlias = BaseException | float | Callable[[], Awaitable[None]] | None
"""Raise it, sleep so many seconds, do nothing, or await it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Tags of one kind, as they appear in every scan."""

    tag: Int32Column
    kind: Kind


@dataclass(frozen=True, slots=True)
class ScriptedPlan:
    tag: Int32Column
    layouts: tuple[Layout, ...]


class ScriptedDriver:
    """Keeps the contract, apart from what its script makes it do.

    calls   verbs in the order they were called, "read <first tag>" for reads
    """

    def __init__(
        self,
        *,
        on_open: Iterable[Step] = (),
        on_read: Iterable[Step] = (),
        on_write: Iterable[Step] = (),
        on_close: Iterable[Step] = (),
    ) -> None:
        self.calls: list[str] = []
        self.is_open = False
        self._steps: dict[str, Iterator[Step]] = {
            "open": iter(on_open),
            "read": iter(on_read),
            "write": iter(on_write),
            "close": iter(on_close),
        }
        self._context: DriverContext | None = None

    def plan(self, tags: Sequence[BoundTag]) -> ScriptedPlan:
        layouts = []
        for kind in Kind:
            ids = [tag.id for tag in tags if tag.type.kind is kind]
            if ids:
                layouts.append(Layout(_frozen(ids), kind))
        return ScriptedPlan(_frozen([tag.id for tag in tags]), tuple(layouts))

    async def open(self, context: DriverContext) -> None:
        self._context = context
        await self._step("open", "open")
        self.is_open = True

    async def read(self, plan: Plan) -> Sequence[Batch]:
        assert isinstance(plan, ScriptedPlan)
        if not self.is_open or self._context is None:
            raise NotConnected("scripted driver: not open")
        await self._step("read", f"read {plan.tag[0]}")
        return good_batches(plan, self._context.clock.now_ns())

    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        await self._step("write", "write")
        return [WriteResult(command.tag, Outcome.CONFIRMED) for command in commands]

    async def close(self) -> None:
        self.is_open = False
        await self._step("close", "close")

    async def _step(self, verb: str, call: str) -> None:
        self.calls.append(call)
        step = next(self._steps[verb], None)
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, (int, float)):
            await asyncio.sleep(step)
        elif step is not None:
            await step()


def good_batches(plan: ScriptedPlan, now_ns: int) -> list[Batch]:
    """A fresh, good row for every tag of the plan."""
    batches = []
    for layout in plan.layouts:
        value = np.ones(len(layout.tag), dtype=layout.kind.value)
        value.flags.writeable = False
        batches.append(Batch(layout.tag, value, uniform_quality(Quality.GOOD), uniform_time(now_ns), now_ns))
    return batches


def scripted_tags(first: int, count: int, type_: ValueType = ValueType.FLOAT64) -> list[BoundTag]:
    """Tags with the ids first, first + 1, ..."""
    return [BoundTag(TagId(id_), f"t{id_}", str(id_), type_, "RW", {}) for id_ in range(first, first + count)]


async def never() -> None:
    """A step that hangs until it is cancelled."""
    await asyncio.get_running_loop().create_future()


class Stubborn:
    """A step that hangs and swallows every cancellation, until the test releases it."""

    def __init__(self) -> None:
        self._is_released = False
        self._wait: asyncio.Future[None] | None = None

    async def __call__(self) -> None:
        while not self._is_released:
            self._wait = asyncio.get_running_loop().create_future()
            with contextlib.suppress(asyncio.CancelledError):
                await self._wait

    def release(self) -> None:
        self._is_released = True
        if self._wait is not None and not self._wait.done():
            self._wait.set_result(None)


def _frozen(ids: Sequence[int]) -> Int32Column:
    column = np.array(ids, dtype=np.int32)
    column.flags.writeable = False
    return column
