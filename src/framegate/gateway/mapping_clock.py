"""The mapping that runs now, and its clock: timers, heartbeats and late alarms become rows ten times a second."""

from __future__ import annotations

import asyncio

from framegate.bus.bus import Bus
from framegate.contract.errors import StoreFailed
from framegate.contract.ports import Clock, Log
from framegate.mapper.mapping import Mapping

TICK_S = 0.1


class MappingClock:
    """Owner of the mapping of one bus. Used from the loop thread."""

    def __init__(self, mapping: Mapping, bus: Bus, clock: Clock, log: Log) -> None:
        self.mapping = mapping
        self._bus, self._clock, self._log = bus, clock, log
        self._is_refused = False
        self._has_changed = asyncio.Event()

    def use(self, mapping: Mapping) -> None:
        """Map by another mapping from the next batch on; it goes on where this one stood."""
        mapping.take_over(self.mapping)
        self.mapping = mapping
        self._bus.swap_mapping(mapping)
        self._has_changed.set()

    async def run(self) -> None:
        """Until it is cancelled. A mapping that asks nothing of time does not wake the gateway."""
        while True:
            if self.mapping.is_timed:
                await self._clock.sleep(TICK_S)
                self.tick()
            else:
                self._has_changed.clear()
                await self._has_changed.wait()

    def tick(self) -> None:
        """Place what is due now. Rows that the log refuses are in a gap, which the log tells; said here once."""
        batches = self.mapping.tick(self._clock.now_ns())
        if not batches:
            return
        try:
            self._bus.place(batches)
            self._is_refused = False
        except StoreFailed as error:
            if not self._is_refused:
                self._log.error("mapping_rows_refused", reason=error.text)
            self._is_refused = True

    def release(self) -> None:
        """At the end: place what swinging doors hold, because no later value will."""
        try:
            self._bus.place(self.mapping.release(self._clock.now_ns()))
        except StoreFailed as error:
            self._log.error("mapping_rows_refused", reason=error.text)
