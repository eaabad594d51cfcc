"""Another driver for devices in service, between two of their scans: a new version of a plugin, or the old one back.

Beside: the new driver is opened and reads once while the old one goes on; then they change places while none is
called, and the old one is closed. No scan is missed. In place, for a device or a port that takes one connection only:
its drivers stand still, the old ones are closed, the new ones opened. Where a new driver fails the old one goes on,
or is opened again. Devices that are not in service have nothing to lose: they are opened anew, by the new driver.

Which way, and in which order devices go, is the gateway's business (gateway/plugins/exchange.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, TypeVar

from framegate.contract.driver import Driver, Plan, Subscribes
from framegate.contract.errors import GatewayError, Misconfigured, NoReply
from framegate.contract.quality import Quality, describe, is_bad
from framegate.runtime.failure import failure_of
from framegate.runtime.lifecycle import State
from framegate.runtime.shift import Shift
from framegate.runtime.slot import Service, Slot

OPEN_S = 20.0
"""For a new driver to open: a child to start, a line to be made."""
HOLD_S = 125.0
"""For the call under way to end; the longest has 120 s (scan.py)."""
STUCK_GRACE_S = 0.5
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Successor:
    """A driver that is to serve a device: made and planned, not opened."""

    slot: Slot
    driver: Driver
    service: Service

    @property
    def is_proof(self) -> bool:
        """Whether this device can show that the driver works: it answers now, and is in no trouble of its own."""
        health = self.slot.health
        return health.state is State.ACTIVE and not health.last_error and bool(self.service.scans)


class _Berth:
    """Where a driver waits to serve: until it does, nobody hears it, and its reads let no write in."""

    def __init__(self) -> None:
        self.shift: Shift | None = None

    def ready(self, plan: Plan) -> None:
        if self.shift is not None:
            self.shift.ready(plan)

    async def end_of(self, done: asyncio.Future[None]) -> None:
        await (done if self.shift is None else self.shift.end_of(done))


async def swap_beside(new: Successor) -> float:
    """Change the driver of a device while the old one goes on until the new one has read.

    returns  seconds during which no driver could be called
    raises   GatewayError - what the new driver failed with; the old one never noticed
    """
    slot, berth = new.slot, _Berth()
    try:
        await _open(new, berth)
        await _probe(new)
        shift = await _held(slot)
        if shift is None or slot.shift is not shift:  # lost meanwhile: whoever opens it next is the new driver
            slot.succeed(new.service)
            await slot.dismiss(new.driver)
            return 0.0
        began, old = perf_counter(), slot.driver
        slot.replace(new.driver, new.service)
        berth.shift = shift
        shift.release()
        gap_s = perf_counter() - began
    except BaseException:
        await slot.dismiss(new.driver)
        raise
    await slot.dismiss(old)
    return gap_s


async def swap_in_place(group: Sequence[Successor]) -> float:
    """Change the drivers of devices that share one connection: all of them, or none.

    The first one reads before the others open.
    returns  seconds during which no driver could be called
    raises   GatewayError - what a new driver failed with; the old ones are in service again, or on their way
    """
    standing: list[tuple[Successor, Shift]] = []
    try:
        for new in group:
            shift = await _held(new.slot)
            if shift is not None:
                standing.append((new, shift))
        began = perf_counter()
        await _change(standing)
        gap_s = perf_counter() - began
    finally:
        for _, shift in standing:
            shift.release()
    for new in group:
        if new.slot.driver is not new.driver:
            new.slot.succeed(new.service)
    return gap_s


async def _change(standing: Sequence[tuple[Successor, Shift]]) -> None:
    """Old ones closed, new ones opened and put in their places; else the old ones opened again."""
    berths = [_Berth() for _ in standing]
    opened: list[Successor] = []
    for new, _ in standing:
        await new.slot.set_down()
    try:
        for (new, _), berth in zip(standing, berths, strict=True):
            opened.append(new)
            await _open(new, berth)
            if len(opened) == 1:
                await _probe(new)
    except BaseException:
        for new in opened:
            await new.slot.dismiss(new.driver)
        for new, shift in standing:
            await _resume(new.slot, shift)
        raise
    for (new, shift), berth in zip(standing, berths, strict=True):
        if new.slot.shift is shift:
            new.slot.replace(new.driver, new.service)
            berth.shift = shift
        else:  # restarted or stopped meanwhile
            await new.slot.dismiss(new.driver)


async def _resume(slot: Slot, shift: Shift) -> None:
    """Open the old driver again; where it cannot be, its slot brings it back as after any loss."""
    if slot.shift is not shift:
        return
    berth, old = _Berth(), slot.driver
    try:
        await _within(OPEN_S, old.open(replace(slot.service.context, ready=berth.ready, passage=berth)), slot, "open")
    except GatewayError:  # whatever it is, the supervisor meets it again and tells it
        slot.restart()
    else:
        slot.replace(old, slot.service)
        berth.shift = shift


async def _held(slot: Slot) -> Shift | None:
    shift = slot.shift
    if shift is None:
        return None
    try:
        async with asyncio.timeout(HOLD_S):
            return shift if await shift.hold() else None
    except TimeoutError as error:
        text = f"device {slot.name}: its driver was not done with a call within {HOLD_S:g} s"
        raise NoReply(text, code="E4651") from error


async def _open(new: Successor, berth: _Berth) -> None:
    slot = new.slot
    if isinstance(new.driver, Subscribes):
        new.driver.follow([(scan.plan, scan.period_s) for scan in new.service.scans])
    await _within(OPEN_S, new.driver.open(replace(new.service.context, ready=berth.ready, passage=berth)), slot, "open")


async def _probe(new: Successor) -> None:
    """Read the smallest scan: every tag answered. Where every one is Bad, which it may have been before, the next."""
    bad = ""
    for scan in sorted(new.service.scans, key=lambda each: each.rows):
        where = f"device {new.slot.name}: scan {scan.name}"
        batches = await _within(scan.patience_s, new.driver.read(scan.plan), new.slot, "read")
        missing = sum(len(batch.tag) for batch in scan.bad.missing(batches, Quality.BAD_NO_DATA, 0))
        if missing:
            text = f"{where}: {missing} of {scan.rows} tags were not answered by the new version"
            raise Misconfigured(text, code="E4650")
        quality = [status for batch in batches for status in batch.quality.tolist()]
        if not all(map(is_bad, quality)):
            return
        bad = bad or (f"{where}: {describe(quality[0])}" if quality else "")
    if bad:
        raise Misconfigured(f"{bad}; under the new version every tag of the device is Bad", code="E4650")


async def _within(limit_s: float, call: Coroutine[Any, Any, T], slot: Slot, verb: str) -> T:
    """The result of a driver's verb; one that ignores deadline and cancellation is left behind.

    raises GatewayError - also in place of what is none, a bug
    """
    task = asyncio.create_task(call, name=f"{verb} {slot.name}")
    try:
        await asyncio.wait((task,), timeout=limit_s)
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=STUCK_GRACE_S)
            text = f"device {slot.name}: `{verb}` of the new version was not done within {limit_s:g} s"
            raise NoReply(text, code="E4651")
        if task.cancelled():
            raise Misconfigured(f"device {slot.name}: `{verb}` of the new version cancelled itself", code="E4652")
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, GatewayError):
            raise error
        raise Misconfigured(f"device {slot.name}: `{verb}`: {failure_of(error).text}", code="E4652") from error
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_taken)


def _taken(task: asyncio.Task[Any]) -> None:
    """So that the loop does not report an exception as never retrieved."""
    if not task.cancelled():
        task.exception()
