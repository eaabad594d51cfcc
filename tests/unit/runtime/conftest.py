"""A gateway's drivers' side in virtual time, for tests of slots and runtime."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from framegate.contract.driver import BoundTag, Driver
from framegate.observe.metrics import Metrics
from framegate.runtime.runtime import Runtime
from framegate.runtime.slot import ScanPlan, Slot
from framegate.testing.fakes import CollectingLog, CollectingSink, FakeLines
from framegate.testing.loop import LoopClock
from framegate.testing.scripted import ScriptedDriver, scripted_tags

SEED = 20_261_123


@dataclass
class Plant:
    """A Runtime on fakes; must be made and used on a running loop."""

    sink: CollectingSink = field(default_factory=CollectingSink)
    log: CollectingLog = field(default_factory=CollectingLog)
    metrics: Metrics = field(default_factory=Metrics)
    clock: LoopClock = field(default_factory=LoopClock)

    def __post_init__(self) -> None:
        print(f"seed {SEED}")  # noqa: T201 - so that a failure can be replayed
        self.dice = random.Random(SEED)
        self.runtime = Runtime(FakeLines(), self.sink, self.clock, self.dice, self.log, self.metrics)

    def slot(
        self,
        driver: ScriptedDriver,
        scans: Sequence[tuple[float, Sequence[BoundTag]]] = ((0.1, tuple(scripted_tags(1, 2))),),
        *,
        name: str = "plc1",
        factory: Callable[[], Driver] | None = None,
    ) -> Slot:
        plans = [ScanPlan(f"scan{i}", period, driver.plan(tags), tags) for i, (period, tags) in enumerate(scans)]
        return Slot(
            name,
            driver,
            plans,
            self.runtime.context(name, ""),
            self.sink,
            self.clock,
            self.dice,
            self.log,
            self.metrics,
            factory=factory,
        )

    async def until(self, condition: Callable[[], bool], limit_s: float = 600.0, step_s: float = 0.01) -> None:
        """Let virtual time pass until the condition holds."""
        end = self.clock.monotonic() + limit_s
        while not condition():
            assert self.clock.monotonic() < end, f"not within {limit_s} s"
            await asyncio.sleep(step_s)


@pytest.fixture
def make_plant() -> Callable[[], Plant]:
    return Plant
