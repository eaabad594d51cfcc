"""The driver contract: four verbs, and capabilities a driver may add.

The runtime owns scan classes, reconnect, back-off, deadlines between calls and lifecycle; a driver speaks its
protocol and names the reason when something fails. Calls on one driver never overlap, but for writes that its own
read lets in (Passage) and those that come while a scan that was begun is under way (Begins).

    driver = Plugin.Driver(options)      checks options, no I/O; raises Misconfigured
    plan = driver.plan(tags)             pure; raises Misconfigured with tag_problems; once per scan class
    await driver.open(context)           raises NotConnected, Misconfigured
    batches = await driver.read(plan)    repeated; raises NoReply, NotConnected, FrameBroken
    results = await driver.write([...])  overtakes waiting reads, and one under way that lets it in
    await driver.close()                 always called after open, also after a failed one; never raises
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from framegate.contract.command import Write, WriteResult
from framegate.contract.frame import Access, Batch, Int32Column, TagId, ValueType
from framegate.contract.ports import Clock, Lines, Log


class BoundTag(NamedTuple):
    """One row of variables.yml as its driver sees it.

    options  keys that the plugin's schema adds to a tag row (e.g. byte_order, bit, length)
    """

    id: TagId
    name: str
    address: str
    type: ValueType
    access: Access
    options: Mapping[str, Any]


class Plan(Protocol):
    """Merged reads for the tags of one scan class; made once, used on every scan."""

    @property
    def tag(self) -> Int32Column:
        """int32[rows], every tag the plan reads."""


def _nobody(plan: Plan) -> None:
    """There is no runtime that could read early."""


class Passage(Protocol):
    """Where a long read lets writes in: between two of its requests, when a write would have to wait for its end.

    A driver that does not use it is asked to write between reads only.
    """

    async def end_of(self, done: asyncio.Future[None]) -> None:
        """Wait until `done` is; meanwhile every write that comes is carried out: `write` is called, one at a time."""


class NoPassage:
    """Nobody waits; satisfies Passage."""

    async def end_of(self, done: asyncio.Future[None]) -> None:
        await done


@dataclass(frozen=True, slots=True)
class DriverContext:
    """Everything a driver may reach for while it is open.

    name      row of drivers.yml
    endpoint  row of endpoints.yml that the driver's row names ("" if the plugin needs none)
    home      folder of the plugin's own, shared by its devices, private and kept: certificates, trust lists. It may
              not exist yet; None: there is none
    ready     for a driver that Subscribes: something has come for a plan, read it now; called on the loop
    passage   for a read that can let writes in
    """

    name: str
    endpoint: str
    lines: Lines
    clock: Clock
    log: Log
    home: Path | None = None
    ready: Callable[[Plan], None] = _nobody
    passage: Passage = field(default_factory=NoPassage)


class Driver(Protocol):
    """A protocol's client. One driver serves one device."""

    def plan(self, tags: Sequence[BoundTag]) -> Plan:
        """Merge tags into reads. Pure: `edge check` calls it too.

        raises Misconfigured - with one TagProblem for each tag that cannot be read this way
        """

    async def open(self, context: DriverContext) -> None:
        """Make the device ready to be read. Called again after every loss.

        raises NotConnected - try later; Misconfigured - do not try before the tables change
        """

    async def read(self, plan: Plan) -> Sequence[Batch]:
        """One scan: a row for each tag of the plan, in batches of one kind each.

        A refusal or a broken reply for some of the tags gives those rows Bad quality; the others are read on. What
        ends a scan early is raised, with the rows that were read before as its `partial`: the tags without one are Bad
        for that reason. Tags that are left out without an error are BadNoData, and the operator is told of the driver.
        raises NoReply - the device fell silent; NotConnected - the line broke; DeviceRefused, FrameBroken, Busy
        """

    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        """One result per command, in order. Never raises for a device's refusal or silence."""

    async def close(self) -> None:
        """Give every resource back. Never raises; must finish within 1 s."""


class Area(NamedTuple):
    """What one tag covers of its device: from `first` to `last` of one space, both included.

    space  areas of different spaces never touch; people read the name
    """

    space: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What the tags of one scan class cover, and what one scan of them costs.

    areas      one per tag, in their order
    exchanges  bytes sent and received for each request of one scan, framing included
    at_once    requests that may be under way at once
    """

    areas: Sequence[Area]
    exchanges: Sequence[tuple[int, int]]
    at_once: int = 1


@runtime_checkable
class Surveys(Protocol):
    """A capability: a driver that can say offline what its tags cover and cost. `edge check` asks."""

    def survey(self, tags: Sequence[BoundTag]) -> Survey:
        """Pure, like `plan`.

        raises Misconfigured - with one TagProblem for each tag that cannot be read this way
        """


@runtime_checkable
class Subscribes(Protocol):
    """A capability: a driver whose device tells of changes by itself.

    `read` of a plan that is followed brings what has come since its last read, in order; the first one after `open`,
    or after the plan was named, brings every tag. A tag without a row keeps its last one, so the driver owes a Bad row
    or an error as soon as it can no longer vouch for that. Every other plan is read whole, once.
    """

    def follow(self, scans: Sequence[tuple[Plan, float]]) -> None:
        """These plans are read at these periods (seconds) from now on, and no others; before `open`, and when tables
        change. Pure.
        """


class Begun(Protocol):
    """A scan that was begun and goes on by itself."""

    def batches(self) -> Sequence[Batch] | None:
        """What `read` would have brought, once it has landed; None: not all is well, and `end` tells."""

    async def end(self) -> Sequence[Batch]:
        """The same, and as `read` raises; asked where `batches` brought None."""

    def withdraw(self) -> None:
        """Nobody waits for it any more: nothing more of it is sent, and it never lands."""


@runtime_checkable
class Begins(Protocol):
    """A capability: a driver whose scans need no task of their own while all is well. What many small devices cost is
    mostly tasks that wait and wake; `read` stays for the first scan, and for whatever is not as usual.
    """

    def begin(self, plan: Plan, landed: Callable[[], None]) -> Begun | None:
        """Ask for a scan, like `read`; None: not this way now. Never raises for a device or a line.

        landed  called once on the loop when no more answers are waited for, never from within this call. Until then
                `write` may be called, and goes before what was not asked yet; `read` is not
        """


class Found(NamedTuple):
    """One thing in a device's own directory.

    address    as a tag row has it; "" for what only holds others
    path       names from the root on
    type       of a tag that reads it; None: it cannot be read as a tag
    is_folder  others may be below it
    """

    address: str
    path: tuple[str, ...]
    type: ValueType | None
    access: Access = "R"
    unit: str = ""
    description: str = ""
    is_folder: bool = False


@runtime_checkable
class Browses(Protocol):
    """A capability: a driver whose device has a directory of what it holds."""

    def browse(self, start: str, depth: int) -> AsyncIterator[Found]:
        """What is below an address ("": the device's usual place to start), lazily, parents before children.

        depth   levels below the start
        raises  NotConnected, NoReply; Misconfigured - the start is no address
        """
