"""Dispatch: per device in order of acceptance, one driver call at a time; what waits for the same device goes together.

A batch holds each tag once, so that two values for one tag are never in one call. Before the driver is asked everything
that can have changed since acceptance is asked again (C8, C4), and that the batch is about to be sent is durable. The
device's answer becomes the outcome; with no conclusive answer that is UNKNOWN, and nothing is sent again - but for a
command that asks for it and whose tag's row says that repeating does no harm (C1).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from framegate.command.entry import Entry, staged
from framegate.command.gate import Refusal, interlocked
from framegate.command.ledger import Ledger, Verdict
from framegate.command.readback import Readings, is_equal, readings_of
from framegate.command.route import Devices, Route, Routes
from framegate.contract.command import Outcome, Stage, Write, WriteResult
from framegate.contract.errors import DeviceRefused, GatewayError, StoreFailed
from framegate.contract.frame import Value
from framegate.contract.ports import Clock, Log

BATCH_WRITES_MAX = 64
"""Commands of one driver call; a slow serial line carries them within the runtime's patience with one call."""
CLAIMED_MAX = 2 * BATCH_WRITES_MAX
"""Commands of one submission that are written as DISPATCHED at once, for a device that has nothing to do."""
TOGETHER_S_MIN = 10.0
"""A command that has less time left is sent by itself: its deadline would cut off the others."""
PER_DEVICE_MAX = 5_000
"""Commands waiting for one device."""
RETRIES_MAX = 3
RETRY_PAUSE_S = 1.0
READ_BACK_WAIT_S = 5.0
READ_BACKS_MAX = 3
"""Looks at a value that is not yet the one that was written."""
READ_BACK_PAUSE_S = 0.2
STOP_WAIT_S = 0.5
_CODE_CHARACTERS = 5


class Sending(NamedTuple):
    """A command on its way, with what its device is given."""

    entry: Entry
    route: Route
    raw: Value


class Dispatcher:
    """Queues of all devices. Used on the loop.

    may     whether the asker of a command may still write its tag
    routes  of the tables in force
    """

    def __init__(
        self, devices: Devices, ledger: Ledger, may: Callable[[Entry, str], bool], clock: Clock, log: Log
    ) -> None:
        self.routes = Routes()
        self._devices, self._ledger, self._may, self._clock, self._log = devices, ledger, may, clock, log
        self._queues: dict[str, deque[Entry]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._claimed: set[str] = set()
        self._is_stopping = False

    def has_room(self, device: str, count: int) -> bool:
        """Whether so many more may wait for a device."""
        return len(self._queues.get(device, ())) + count <= PER_DEVICE_MAX

    def claim(self, entries: Sequence[Entry]) -> None:
        """Commands for a device that has nothing to do go out as soon as they are durable.

        They are written as DISPATCHED at once, which saves a wait for the disk before each call of the driver. Every
        claim ends with `release`.
        """
        free: dict[str, set[str]] = {}
        for entry in entries:
            device, command = entry.device, entry.command
            if entry.is_decided or device in self._queues or (device in self._claimed and device not in free):
                continue
            tags = free.setdefault(device, set())
            self._claimed.add(device)
            is_alone = command.ttl_s < TOGETHER_S_MIN
            if command.tag in tags or len(tags) == CLAIMED_MAX or (is_alone and tags):
                continue
            tags.add(command.tag)
            entry.record = entry.last = staged(entry.last, Stage.DISPATCHED)

    def release(self, entries: Sequence[Entry]) -> None:
        """They are durable, or will never be sent."""
        self._claimed.difference_update(entry.device for entry in entries)

    def put(self, entry: Entry) -> None:
        """Send a command as soon as it is its turn."""
        self._queues.setdefault(entry.device, deque()).append(entry)
        if entry.device not in self._tasks and not self._is_stopping:
            task = asyncio.create_task(self._serve(entry.device), name=f"commands {entry.device}")
            self._tasks[entry.device] = task

    async def stop(self) -> None:
        """Send nothing more; what is under way has a moment to end. What waits is taken up again by the next run.

        But for what is written as DISPATCHED already: the next run could not know that nothing of it has left.
        """
        self._is_stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=STOP_WAIT_S)
        for task in self._tasks.values():
            task.cancel()
        unsent = (entry for queue in self._queues.values() for entry in queue if not entry.tries)
        self._ledger.end(
            Verdict(entry, Outcome.NOT_SENT, "E4213", f"tag {entry.command.tag}: the gateway stops; nothing was sent")
            for entry in unsent
            if entry.record.stage is Stage.DISPATCHED
        )

    async def _serve(self, device: str) -> None:
        queue = self._queues[device]
        try:
            while queue and not self._is_stopping:
                await self._devices.settled(device, queue[0].deadline)
                await self._serve_next(device, queue)
        finally:
            del self._tasks[device]
            if not queue:
                del self._queues[device]

    async def _serve_next(self, device: str, queue: deque[Entry]) -> None:
        if self._is_stopping or not queue:
            return
        first = queue[0]
        batch: list[Sending] = []
        try:
            batch = self._next(queue)
            if batch:
                await self._send(device, queue, batch)
        except Exception as error:  # noqa: BLE001 - a supervisor's edge: the next commands go on
            text = f"{type(error).__name__}: {error}; please report this"
            self._log.error("command_bug", driver_id=device, reason=text)
            for entry in [sending.entry for sending in batch] or [first]:
                if entry in queue:
                    queue.remove(entry)
                self._ledger.end([Verdict(entry, Outcome.UNKNOWN, "E4212", f"tag {entry.command.tag}: {text}")])

    # -- before it leaves ---------------------------------------------------------------------------------------

    def _next(self, queue: deque[Entry]) -> list[Sending]:
        """Take what may go together; what may not go at all is ended."""
        batch: list[Sending] = []
        tags: set[int] = set()
        ends: list[Verdict] = []
        now = self._clock.monotonic()
        while queue and len(batch) < BATCH_WRITES_MAX:
            entry = queue[0]
            sending = self._ready(entry, now)
            if isinstance(sending, Verdict):
                ends.append(sending)
                queue.popleft()
                continue
            is_urgent = entry.deadline - now < TOGETHER_S_MIN
            if sending.route.bound.id in tags or (is_urgent and batch):
                break
            batch.append(sending)
            tags.add(sending.route.bound.id)
            queue.popleft()
            if is_urgent:
                break
        self._ledger.end(ends)
        return batch

    def _ready(self, entry: Entry, now: float) -> Sending | Verdict:
        """The command with its raw value, or why it is not sent."""
        name = entry.command.tag
        if now >= entry.deadline:
            return Verdict(entry, Outcome.NOT_SENT, "E2600", f"tag {name}: its time ran out before anything was sent")
        route = self.routes.by_name.get(name)
        if route is None or route.device != entry.device:
            text = f"tag {name}: the tables have changed, and it is not written there any more; nothing was sent"
            return Verdict(entry, Outcome.NOT_SENT, "E4217", text)
        if not self._may(entry, route.name):
            text = f"tag {name}: {entry.record.origin} may no longer write it; nothing was sent"
            return Verdict(entry, Outcome.REJECTED, "E4205", text)
        refusal = interlocked(route)
        try:
            raw = route.raw(entry.command.value)
        except DeviceRefused as error:
            refusal = Refusal(error.stable_code, error.text)
        if refusal is not None:
            return Verdict(entry, Outcome.REJECTED, *refusal)
        return Sending(entry, route, raw)

    async def _send(self, device: str, queue: deque[Entry], batch: Sequence[Sending]) -> None:
        deadline = min(sending.entry.deadline for sending in batch)
        entries = [sending.entry for sending in batch]
        if waiting := [entry for entry in entries if entry.record.stage is not Stage.DISPATCHED]:
            try:
                await self._ledger.dispatch(waiting, deadline)
            except StoreFailed as error:
                self._ledger.end([Verdict(entry, Outcome.NOT_SENT, error.stable_code, error.text) for entry in entries])
                return
            now = self._clock.monotonic()
            checked = [self._ready(entry, now) for entry in entries]  # the log may have taken its time
            batch = [sending for sending in checked if isinstance(sending, Sending)]
            self._ledger.end([verdict for verdict in checked if isinstance(verdict, Verdict)])
        if batch:
            await self._write(device, queue, batch, deadline)

    # -- asking the device --------------------------------------------------------------------------------------

    async def _write(self, device: str, queue: deque[Entry], batch: Sequence[Sending], deadline: float) -> None:
        writes = [Write(sending.route.bound.id, sending.raw, sending.entry.deadline) for sending in batch]
        results = await self._devices.write(device, writes, deadline, [sending.route.bound for sending in batch])
        ends: list[Verdict] = []
        again: list[Entry] = []
        held: list[Sending] = []
        for sending, result in zip(batch, results, strict=True):
            if result.outcome is Outcome.CONFIRMED and sending.entry.command.verify:
                held.append(sending)
            elif result.outcome is Outcome.UNKNOWN and self._may_repeat(sending):
                again.append(sending.entry)
            else:
                ends.append(_verdict(sending.entry, result))
        self._ledger.end(ends)
        if held:
            await self._verify(device, held)
        if again:
            queue.extendleft(reversed(again))
            await self._clock.sleep(RETRY_PAUSE_S)

    def _may_repeat(self, sending: Sending) -> bool:
        """Whether the same absolute value may go out again; counts the tries."""
        entry = sending.entry
        if not (entry.command.retry and sending.route.is_idempotent) or self._is_stopping:
            return False
        entry.tries += 1
        return entry.tries <= RETRIES_MAX and self._clock.monotonic() + RETRY_PAUSE_S < entry.deadline

    async def _verify(self, device: str, batch: Sequence[Sending]) -> None:
        """The device has accepted these; look whether it holds them."""
        deadline = self._clock.monotonic() + READ_BACK_WAIT_S
        readings: Readings = {}
        why = "it could not be read"
        waiting = list(batch)
        for look in range(READ_BACKS_MAX):
            if look:
                await self._clock.sleep(READ_BACK_PAUSE_S)
            try:
                batches = await self._devices.read_back(device, [one.route.bound for one in waiting], deadline)
            except GatewayError as error:
                why = str(error)
                break
            readings = readings_of(batches)
            waiting = [one for one in waiting if not _holds(one, readings)]
            if not waiting:
                break
        failed = {one.entry.command.id for one in waiting}
        self._ledger.end(
            _unverified(one, readings, why) if one.entry.command.id in failed else Verdict(one.entry, Outcome.CONFIRMED)
            for one in batch
        )


def _holds(sending: Sending, readings: Readings) -> bool:
    bound = sending.route.bound
    return bound.id in readings and is_equal(bound.type, sending.raw, readings[bound.id])


def _unverified(sending: Sending, readings: Readings, why: str) -> Verdict:
    tag = sending.route.bound.id
    if tag in readings:
        why = f"it reads {readings[tag]!r}, and {sending.raw!r} was written (raw values)"
    text = f"tag {sending.route.name}: the device accepted the write and was read back: {why}"
    return Verdict(sending.entry, Outcome.UNKNOWN, "E4214", text)


_CODE_OF = {Outcome.REJECTED: "E4211", Outcome.NOT_SENT: "E4213", Outcome.UNKNOWN: "E4212"}


def _verdict(entry: Entry, result: WriteResult) -> Verdict:
    """A device's answer; a code at the beginning of its reason is the verdict's."""
    if result.outcome is Outcome.CONFIRMED:
        return Verdict(entry, Outcome.CONFIRMED)
    code, _, text = result.reason.partition(" ")
    if len(code) == _CODE_CHARACTERS and code[0] == "E" and code[1:].isdecimal():
        return Verdict(entry, result.outcome, code, f"tag {entry.command.tag}: {text}")
    return Verdict(entry, result.outcome, _CODE_OF[result.outcome], f"tag {entry.command.tag}: {result.reason}")
