"""The examiner lets a good driver pass and names the rule that a bad one breaks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from framegate.contract.command import Write, WriteResult
from framegate.contract.driver import BoundTag, DriverContext, Plan
from framegate.contract.errors import NoReply, NotConnected
from framegate.contract.frame import Batch, TagId, ValueType
from framegate.testing.check_driver import check_driver
from framegate.testing.fakes import FakeLines
from framegate.testing.scripted import ScriptedDriver, ScriptedPlan, good_batches, scripted_tags

TAGS = [*scripted_tags(1, 3), *scripted_tags(4, 2, ValueType.INT16), *scripted_tags(6, 1, ValueType.STRING)]
WRITES = [Write(TagId(1), 2.0), Write(TagId(4), 7)]


async def examine(factory: Callable[[], Any], **options: Any) -> None:
    await check_driver(factory, TAGS, FakeLines(), scans=80, **options)


async def test_good_driver_passes() -> None:
    await examine(ScriptedDriver, writes=WRITES)


class Connects(ScriptedDriver):
    def __init__(self) -> None:
        super().__init__()
        socket.socket().close()


class NeedsLoop(ScriptedDriver):
    def __init__(self) -> None:
        super().__init__()
        asyncio.get_running_loop()


class ForgetsTag(ScriptedDriver):
    def plan(self, tags: Sequence[BoundTag]) -> ScriptedPlan:
        return super().plan(tags[1:])


class Shuffles(ScriptedDriver):
    count = 0

    def plan(self, tags: Sequence[BoundTag]) -> ScriptedPlan:
        Shuffles.count += 1
        return super().plan(tags if Shuffles.count % 2 else tags[::-1])


class Changed(ScriptedDriver):
    """Gives each batch to `change` before it hands it out."""

    change: Callable[[Batch], Batch]

    async def read(self, plan: Plan) -> Sequence[Batch]:
        return [type(self).change(batch) for batch in await super().read(plan)]


class CopiesTags(Changed):
    @staticmethod
    def change(batch: Batch) -> Batch:
        tag = batch.tag.copy()
        tag.flags.writeable = False
        return batch._replace(tag=tag)


class Writeable(Changed):
    @staticmethod
    def change(batch: Batch) -> Batch:
        return batch._replace(value=batch.value.copy())


class WrongType(Changed):
    @staticmethod
    def change(batch: Batch) -> Batch:
        return batch._replace(quality=batch.quality.astype(np.int64))


class ShortColumn(Changed):
    @staticmethod
    def change(batch: Batch) -> Batch:
        time = np.zeros(2, dtype=np.int64)
        time.flags.writeable = False
        return batch._replace(source_time=time)


class LosesRows(ScriptedDriver):
    async def read(self, plan: Plan) -> Sequence[Batch]:
        return list(await super().read(plan))[:-1]


class ReusesBuffer(ScriptedDriver):
    def __init__(self) -> None:
        super().__init__()
        self._first: dict[int, Batch] = {}

    async def read(self, plan: Plan) -> Sequence[Batch]:
        return [self._first.setdefault(id(batch.tag), batch) for batch in await super().read(plan)]


class RaisesOnClose(ScriptedDriver):
    async def close(self) -> None:
        if not self.is_open:
            raise ValueError("not open")
        await super().close()


class ReadsClosed(ScriptedDriver):
    async def close(self) -> None:
        pass


class SwallowsCancellation(ScriptedDriver):
    async def read(self, plan: Plan) -> Sequence[Batch]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)
        return await super().read(plan)


class Leaks(ScriptedDriver):
    leaked: list[bytes] = []  # noqa: RUF012 - the leak to be found

    async def read(self, plan: Plan) -> Sequence[Batch]:
        Leaks.leaked.append(bytes(4000))
        return await super().read(plan)


class AnswersTwice(ScriptedDriver):
    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        return [*await super().write(commands)] * 2


class Begun:
    """A scan that has every answer as soon as it lands."""

    def __init__(self, plan: ScriptedPlan, alarms: list[asyncio.TimerHandle]) -> None:
        self.plan, self.alarms = plan, alarms

    def batches(self) -> Sequence[Batch]:
        return good_batches(self.plan, 1)

    async def end(self) -> Sequence[Batch]:
        return self.batches()

    def withdraw(self) -> None:
        for alarm in self.alarms:
            alarm.cancel()


class BeginsScans(ScriptedDriver):
    landings = 1

    def begin(self, plan: Plan, landed: Callable[[], None]) -> Begun | None:
        assert isinstance(plan, ScriptedPlan)
        if not self.is_open:
            return None
        loop = asyncio.get_running_loop()
        return Begun(plan, [loop.call_later(0.0, landed) for _ in range(self.landings)])


class LandsTwice(BeginsScans):
    landings = 2


class LandsWithin(BeginsScans):
    def begin(self, plan: Plan, landed: Callable[[], None]) -> Begun | None:
        landed()
        return super().begin(plan, landed)


class LandsAllTheSame(BeginsScans):
    def begin(self, plan: Plan, landed: Callable[[], None]) -> Begun | None:
        begun = super().begin(plan, landed)
        if begun is not None:
            begun.alarms = []
        return begun


async def test_good_driver_that_begins_scans_passes() -> None:
    await examine(BeginsScans, writes=WRITES)


@pytest.mark.parametrize(
    ("driver", "rule"),
    [
        (LandsTwice, "lands once"),
        (LandsWithin, "never called from within begin"),
        (LandsAllTheSame, "what was withdrawn never lands"),
        (Connects, "a constructor does no I/O"),
        (ForgetsTag, "a plan covers every tag exactly once"),
        (Shuffles, "equal tags give equal plans"),
        (CopiesTags, "same tag array objects"),
        (Writeable, "Batch.value is read-only"),
        (WrongType, "Batch.quality of FLOAT tags is"),
        (ShortColumn, "Batch.source_time has 2 entries for 3 rows"),
        (LosesRows, "answers every tag of its plan exactly once"),
        (ReusesBuffer, "value columns of its own"),
        (RaisesOnClose, "close never raises"),
        (ReadsClosed, "read after close raises"),
        (SwallowsCancellation, "cancellation passes through read"),
        (Leaks, "memory stays flat"),
        (AnswersTwice, "one result each, in order"),
    ],
)
async def test_bad_driver_is_told_the_rule(driver: type[ScriptedDriver], rule: str) -> None:
    with pytest.raises(AssertionError, match=f"driver contract: .*{rule}"):
        await examine(driver, writes=WRITES)


async def test_constructor_that_needs_a_loop_fails() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        await examine(NeedsLoop)


async def test_task_left_by_cancelled_read_is_named() -> None:
    ends: list[asyncio.Task[None]] = []

    class Leaves(ScriptedDriver):
        async def read(self, plan: Plan) -> Sequence[Batch]:
            ends.append(asyncio.create_task(asyncio.sleep(3600), name="left here"))
            await asyncio.sleep(0.005)
            ends[-1].cancel()
            return await super().read(plan)

    with pytest.raises(AssertionError, match=r"leaves no task behind, but did: \['left here'\]"):
        await examine(Leaves)
    for task in ends:
        task.cancel()
    await asyncio.gather(*ends, return_exceptions=True)


async def test_silence_is_asked_when_it_can_be_made() -> None:
    is_silent = False

    @contextlib.asynccontextmanager
    async def silence() -> AsyncIterator[None]:
        nonlocal is_silent
        is_silent = True
        yield
        is_silent = False

    class Honest(ScriptedDriver):
        async def read(self, plan: Plan) -> Sequence[Batch]:
            if is_silent:
                raise NoReply("no answer within 1 s")
            return await super().read(plan)

    await examine(Honest, silence=silence)
    with pytest.raises(AssertionError, match="silent device raises NoReply"):
        await examine(ScriptedDriver, silence=silence)


async def test_driver_that_never_comes_back_after_trouble_is_told() -> None:
    class OpensOnce(ScriptedDriver):
        opened = 0

        async def open(self, context: DriverContext) -> None:
            self.opened += 1
            await super().open(context)

        async def read(self, plan: Plan) -> Sequence[Batch]:
            try:
                await asyncio.sleep(0)
                if self.opened < 0:
                    raise NotConnected("for ever")
                return await super().read(plan)
            except asyncio.CancelledError:
                self.opened = -100
                raise

    with pytest.raises(AssertionError, match="reads again after trouble"):
        await examine(OpensOnce)
