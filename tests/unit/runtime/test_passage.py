"""Writes that a long read lets in: carried out before it ends, one at a time, and never while tags are read back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import DriverContext, Plan
from framegate.contract.frame import Batch, TagId
from framegate.runtime.lifecycle import State
from framegate.runtime.shift import WRITES_IN_A_ROW_MAX
from framegate.testing.loop import run_virtual
from framegate.testing.scripted import ScriptedDriver, never, scripted_tags

READ_S = 1.0
ONE = [Write(TagId(1), 1.0)]


class Patient(ScriptedDriver):
    """A driver whose reads take READ_S and let writes in; it asserts that no two writes meet."""

    def __init__(self, **steps: Any) -> None:
        super().__init__(**steps)
        self._is_writing = False

    async def open(self, context: DriverContext) -> None:
        self.passage = context.passage
        await super().open(context)

    async def read(self, plan: Plan) -> Sequence[Batch]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.call_later(READ_S, done.set_result, None)
        batches = await super().read(plan)
        await self.passage.end_of(done)
        self.calls.append("read ends")
        return batches

    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        assert not self._is_writing
        self._is_writing = True
        try:
            return await super().write(commands)
        finally:
            self._is_writing = False


def test_write_is_carried_out_before_the_read_ends(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Patient(on_write=[0.05, 0.05])
        slot = plant.slot(driver, [(10.0, scripted_tags(1, 2))])
        await plant.runtime.start([slot])
        await plant.until(lambda: driver.calls == ["open", "read 1"])
        began = plant.clock.monotonic()
        both = await asyncio.gather(*(slot.write(ONE, began + 5) for _ in range(2)))
        assert [result.outcome for results in both for result in results] == [Outcome.CONFIRMED] * 2
        assert plant.clock.monotonic() - began < READ_S / 2
        await plant.until(lambda: slot.health.scans_ok == 1)
        assert driver.calls == ["open", "read 1", "write", "write", "read ends"]
        assert slot.health.state is State.ACTIVE
        await plant.runtime.stop()

    run_virtual(scenario())


def test_writes_without_end_do_not_keep_a_read_from_ending(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Patient(on_write=[0.0] * 64)
        slot = plant.slot(driver, [(10.0, scripted_tags(1, 2))])
        await plant.runtime.start([slot])
        await plant.until(lambda: driver.calls == ["open", "read 1"])
        await asyncio.gather(*(slot.write(ONE, plant.clock.monotonic() + 9) for _ in range(40)))
        assert driver.calls.index("read ends") == 2 + WRITES_IN_A_ROW_MAX
        await plant.runtime.stop()

    run_virtual(scenario())


def test_write_waits_while_tags_are_read_back(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Patient()
        slot = plant.slot(driver, [(60.0, scripted_tags(1, 2))])
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.scans_ok == 1)
        deadline = plant.clock.monotonic() + 20
        back = asyncio.create_task(slot.read_back(scripted_tags(2, 1), deadline))
        await plant.until(lambda: driver.calls[-1] == "read 2")
        await slot.write(ONE, deadline)
        await back
        assert driver.calls[-3:] == ["read 2", "read ends", "write"]
        await plant.runtime.stop()

    run_virtual(scenario())


def test_write_that_hangs_in_a_read_is_unknown_and_the_device_is_opened_again(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Patient(on_write=[never])
        slot = plant.slot(driver, [(10.0, scripted_tags(1, 2))])
        await plant.runtime.start([slot])
        await plant.until(lambda: driver.calls == ["open", "read 1"])
        (result,) = await slot.write(ONE, plant.clock.monotonic() + 120)
        assert result.outcome is Outcome.UNKNOWN
        await plant.until(lambda: slot.health.scans_ok >= 1)
        assert driver.calls.count("open") == 2
        await plant.runtime.stop()

    run_virtual(scenario())


def test_read_that_is_never_asked_to_let_anything_in_ends_as_before(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = Patient()
        slot = plant.slot(driver, [(2.0, scripted_tags(1, 2)), (2.0, scripted_tags(3, 1))])
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.scans_ok == 4)
        assert driver.calls.count("open") == 1
        await plant.runtime.stop()

    run_virtual(scenario())
