"""All slots of one gateway: one scheduler, one group of tasks, started and stopped together.

A slot may join or leave while the others run; what one does never reaches the others. What to run is decided by the
wiring; nothing here reads tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from framegate.contract.driver import DriverContext
from framegate.contract.ports import Clock, Dice, FrameSink, Lines, Log
from framegate.observe.metrics import Metrics
from framegate.runtime.failure import traceback_text
from framegate.runtime.health import SlotHealth
from framegate.runtime.schedule import GRID_S, Scheduler
from framegate.runtime.slot import Slot

STOP_DEADLINE_S = 1.0
SLOTS_MAX = 10_000


class Runtime:
    """The drivers' side of a gateway.

    Slots are made with the same lines, sink, clock, dice, log and metrics; `context` gives each its view of them.
    """

    def __init__(
        self,
        lines: Lines,
        sink: FrameSink,
        clock: Clock,
        dice: Dice,
        log: Log,
        metrics: Metrics,
        *,
        grid_s: float = GRID_S,
    ) -> None:
        self.lines = lines
        self.sink = sink
        self.clock = clock
        self.dice = dice
        self.log = log
        self.metrics = metrics
        self.scheduler = Scheduler(clock, metrics, is_paused=lambda: sink.is_paused, grid_s=grid_s)
        self._slots: dict[str, Slot] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._owner: asyncio.Task[None] | None = None
        self._end: asyncio.Future[None] | None = None

    def context(self, name: str, endpoint: str) -> DriverContext:
        """What the driver of that row may reach for."""
        return DriverContext(name, endpoint, self.lines, self.clock, self.log)

    async def start(self, slots: Sequence[Slot] = ()) -> None:
        """Begin to run these slots; returns as soon as they are under way, not when they are connected."""
        assert self._owner is None, "a Runtime starts once"
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        self._end = loop.create_future()
        self._owner = asyncio.create_task(self._own(ready, self._end), name="runtime")
        await ready
        for slot in slots:
            self.add(slot)

    def add(self, slot: Slot) -> None:
        """Run one more slot."""
        assert self._group is not None, "the Runtime is not started"
        assert slot.name not in self._slots, f"two slots named {slot.name}"
        assert len(self._slots) < SLOTS_MAX
        self._slots[slot.name] = slot
        self._tasks[slot.name] = self._group.create_task(self._guard(slot), name=f"slot {slot.name}")

    async def remove(self, name: str, deadline_s: float = STOP_DEADLINE_S) -> None:
        """Stop one slot and forget its metrics; the others never notice.

        raises KeyError - no such slot
        """
        task = self._tasks.pop(name)
        del self._slots[name]
        task.cancel()
        await asyncio.wait((task,), timeout=deadline_s)
        if name not in self._slots:  # else its successor has joined meanwhile and counts on
            self.metrics.forget(device=name)

    async def stop(self, deadline_s: float = STOP_DEADLINE_S) -> None:
        """Close every driver, within the deadline even if some hang. Idempotent."""
        owner, self._owner = self._owner, None
        if owner is None or self._end is None:
            return
        self._group = None
        self._end.set_result(None)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.wait((owner,), timeout=deadline_s)
        self.scheduler.stop()
        if not owner.done():
            late = [name for name, task in self._tasks.items() if not task.done()]
            self.log.error("runtime_stop_late", devices=late, deadline_s=deadline_s)
            owner.cancel()
        self._tasks.clear()

    def slot(self, name: str) -> Slot | None:
        return self._slots.get(name)

    def health(self) -> Sequence[SlotHealth]:
        """One live record per slot, in the order they joined."""
        return [slot.health for slot in self._slots.values()]

    async def _own(self, ready: asyncio.Future[None], end: asyncio.Future[None]) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            ready.set_result(None)
            await end

    async def _guard(self, slot: Slot) -> None:
        """A bug in the supervision of one slot must not cancel the group."""
        try:
            await slot.run(self.scheduler)
        except Exception as error:  # noqa: BLE001 - the slot supervisor's edge
            self.log.error(  # noqa: TRY400 - the port's method, with the traceback as a key
                "slot_lost",
                driver_id=slot.name,
                code="E4100",
                reason=f"{type(error).__name__}: {error}",
                traceback=traceback_text(error),
            )
