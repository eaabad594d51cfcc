"""All devices of a plugin get another version of it: in which order, which way, and what is taken back.

The canary goes first: of the devices that answer now the one with the fewest tags, and where it shares its connection
the others that share it. It is watched for some scans; then the others follow, one after another. Each new driver
reads its device before it serves (runtime/swap.py). The first failure ends it: every device is served by the old
version again.

A second connection to the device is opened for that. Where there is none to be had, because the endpoint is a serial
port or because the device refuses one or does not answer on it, the devices of that endpoint change in place: closed
and opened between two scans, the first of them read at once, and all of them watched like the canary. Devices that do
not answer now prove nothing; the new version opens them last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from framegate.contract.errors import GatewayError, Misconfigured, NoReply, NotConnected
from framegate.contract.ports import Clock
from framegate.runtime.lifecycle import State
from framegate.runtime.slot import Service, Slot
from framegate.runtime.swap import Successor, swap_beside, swap_in_place

CANARY_SCANS = 3
"""Answered scans after which the canary has proven the new version."""
CANARY_S = 10.0
"""So long it is watched at most: a device that is scanned once an hour proves less."""
STEP_S = 0.02
DEVICES_TOLD_MAX = 5


@dataclass
class Exchange:
    """One version for another, on some devices. Used once.

    is_single  whether an endpoint takes one connection only
    gap_s      longest time in which a device could not be scanned
    """

    clock: Clock
    is_single: Callable[[str], bool]
    gap_s: float = 0.0
    _undo: list[tuple[Slot, Service]] = field(default_factory=list)

    async def run(self, news: Sequence[Successor]) -> None:
        """Change the drivers of all these devices.

        raises Misconfigured E4653 - what a new one failed with; every device is served by its old version again
        """
        answering = [new for new in news if new.is_proof]
        others = [new for new in news if not new.is_proof]
        try:
            for number, group in enumerate(_groups(answering)):
                await self._change(group)
                if number == 0:
                    await self._watch(group)
        except GatewayError as error:
            await self.take_back()
            raise Misconfigured(f"the new version does not work: {error.text}", code="E4653") from error
        for new in others:
            self._undo.append((new.slot, new.slot.service))
            new.slot.succeed(new.service)

    async def take_back(self) -> None:
        """Have the old version serve every device again, whatever it takes."""
        undo, self._undo = self._undo, []
        olds: list[Successor] = []
        for slot, service in undo:
            with contextlib.suppress(GatewayError):
                olds.append(_again(slot, service))
        for group in _groups([old for old in olds if old.is_proof]):
            with contextlib.suppress(GatewayError):
                await self._change(group)
        for slot, service in undo:
            if slot.service.factory is not service.factory:
                slot.succeed(service)
        self._undo.clear()

    async def _change(self, group: Sequence[Successor]) -> None:
        if self.is_single(group[0].slot.service.context.endpoint):
            await self._in_place(group)
        else:
            await self._beside(group)

    async def _beside(self, group: Sequence[Successor]) -> None:
        for index, new in enumerate(group):
            before = new.slot.service
            try:
                self._note(await swap_beside(new))
            except (NotConnected, NoReply):  # this device may take one connection, or serve one, only
                await self._in_place([_again(left.slot, left.service) for left in group[index:]])
                return
            except GatewayError as error:
                raise _failed(group[index : index + 1], error) from error
            self._undo.append((new.slot, before))

    async def _in_place(self, group: Sequence[Successor]) -> None:
        before = [(new.slot, new.slot.service) for new in group]
        try:
            self._note(await swap_in_place(group))
        except GatewayError as error:
            raise _failed(group, error) from error
        self._undo += before
        await self._watch(group)  # but the first, none of them has read yet

    def _note(self, gap_s: float) -> None:
        self.gap_s = max(self.gap_s, gap_s)

    async def _watch(self, group: Sequence[Successor]) -> None:
        """Return once these have proven the new version; raises Misconfigured E4653 when one gets into trouble."""
        enough = {new.slot.name: new.slot.health.scans_ok + CANARY_SCANS for new in group}
        end = self.clock.monotonic() + CANARY_S
        while self.clock.monotonic() < end:
            for slot in (new.slot for new in group):
                health = slot.health
                if health.last_error or health.state is not State.ACTIVE:
                    reason = f"{health.error_code} {health.last_error}".strip() or health.state.value
                    raise Misconfigured(f"{slot.name}, while it was watched: {reason}", code="E4653")
            if all(new.slot.health.scans_ok >= enough[new.slot.name] for new in group):
                return
            await self.clock.sleep(STEP_S)


def _failed(group: Sequence[Successor], error: GatewayError) -> Misconfigured:
    names = ", ".join(new.slot.name for new in group[:DEVICES_TOLD_MAX])
    more = len(group) - DEVICES_TOLD_MAX
    return Misconfigured(f"{names}{f' and {more} more' if more > 0 else ''}: {error}", code="E4653")


def _groups(news: Sequence[Successor]) -> list[list[Successor]]:
    """Devices by endpoint, since those may have to change together; the canary's first, and in it the canary first."""
    by_endpoint: dict[str, list[Successor]] = {}
    for new in news:
        endpoint = new.slot.service.context.endpoint or f"of {new.slot.name} alone"
        by_endpoint.setdefault(endpoint, []).append(new)
    ordered = [sorted(group, key=_size) for group in by_endpoint.values()]
    return sorted(ordered, key=lambda group: _size(group[0]))


def _size(new: Successor) -> int:
    return new.slot.health.tags


def _again(slot: Slot, service: Service) -> Successor:
    """A fresh driver for a service; raises Misconfigured."""
    assert service.factory is not None, "a gateway's slots have one"
    return Successor(slot, service.factory(), service)
