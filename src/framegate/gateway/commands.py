"""What the desk for commands needs of a gateway: routes made from tag rows, and devices behind their slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from framegate.command.route import Route, Routes
from framegate.config import Tables, VariableRow
from framegate.contract.command import ACK_TAG, Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag
from framegate.contract.errors import NotConnected
from framegate.contract.frame import Batch, ValueType
from framegate.contract.ports import Catalogue, Clock
from framegate.gateway.binding import Binding
from framegate.gateway.interlocks import Interlocks, Reading
from framegate.mapper.alarms import ALARM_DEVICE
from framegate.mapper.inverse import Inverse
from framegate.runtime.runtime import Runtime

START_WAIT_S = 10.0
"""A device that is being opened is waited for so long before a command for it is answered with NOT_SENT."""
START_LOOK_S = 0.05


def routes_of(
    tables: Tables, binding: Binding, catalogue: Catalogue, latest: Callable[[int], Reading | None]
) -> Routes:
    """A route for every tag that a device reads and that may be written. May run in a thread.

    catalogue  gives an id to the tag of acknowledgements, where there is a route
    latest     newest row of a tag; asked on the loop, whenever an interlock is
    """
    writable = {row.tag: row for row in tables.variables if row.source and "W" in row.access}
    if not writable:
        return Routes()
    bound = _writable_tags(binding)
    interlocks = Interlocks(
        {row.tag: row.writing.interlock for row in writable.values() if row.writing.interlock}, tables, catalogue
    )
    routes: dict[str, Route] = {}
    for row in writable.values():
        interlock = interlocks.of(row.tag, latest)
        routes[row.name] = _route(row, bound[row.tag], interlock)
    ack = catalogue.intern(ACK_TAG, ALARM_DEVICE, ValueType.STRING, "", "R")
    return Routes(routes, ack)


def _route(row: VariableRow, bound: BoundTag, interlock: Callable[[], str]) -> Route:
    inverse = Inverse(row.name, row.type, row.scale, row.offset, row.limits, row.processing)
    return Route(
        row.name,
        row.source,
        bound,
        inverse.raw,
        is_idempotent=row.writing.idempotent,
        needs_select=row.writing.needs_select,
        writes_per_s=row.writing.writes_per_s,
        interlock=interlock,
    )


def _writable_tags(binding: Binding) -> dict[str, BoundTag]:
    """The tags as their drivers are told of them, by name: the same objects, not others."""
    return {
        tag.name: tag
        for classes in binding.tags.values()
        for tags in classes.values()
        for tag in tags
        if "W" in tag.access
    }


class SlotDevices:
    """Satisfies command.route.Devices."""

    def __init__(self, runtime: Runtime, clock: Clock) -> None:
        self._runtime, self._clock = runtime, clock

    async def write(
        self, device: str, writes: Sequence[Write], deadline: float, tags: Sequence[BoundTag]
    ) -> Sequence[WriteResult]:
        slot = self._runtime.slot(device)
        if slot is None:
            reason = f"E4105 device {device} does not run now: it is disabled, or being restarted; nothing was sent"
            return [WriteResult(write.tag, Outcome.NOT_SENT, reason) for write in writes]
        return await slot.write(writes, deadline, tags)

    async def read_back(self, device: str, tags: Sequence[BoundTag], deadline: float) -> Sequence[Batch]:
        slot = self._runtime.slot(device)
        if slot is None:
            raise NotConnected(f"device {device} does not run now", code="E4105")
        return await slot.read_back(tags, deadline)

    async def settled(self, device: str, deadline: float) -> None:
        until = min(deadline, self._clock.monotonic() + START_WAIT_S)
        while (slot := self._runtime.slot(device)) is not None and slot.is_starting:
            if self._clock.monotonic() >= until:
                return
            await self._clock.sleep(START_LOOK_S)
