"""The driver: the four verbs of the gateway's contract around registers.py.

There is no loop, no reconnecting, no retry here: the gateway calls `read` once for each scan, and `open` again after
every loss.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag, DriverContext, Plan
from framegate.contract.errors import FrameBroken, Misconfigured, NoReply, NotConnected, TagProblem
from framegate.contract.frame import Batch, Int32Column, Kind, ValueType, uniform_time
from framegate.contract.ports import Lease
from framegate.contract.quality import Quality

from mydriver.line import RegisterLine
from mydriver.registers import (
    FORMATS,
    NO_SUCH_REGISTER,
    READ,
    REGISTERS,
    WRITE,
    Block,
    Point,
    blocks_of,
    values_of,
)


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """What one scan reads.

    tag     every tag of the plan
    blocks  the requests
    parts   for each block, its rows by kind: places among the block's points, and their tags, the same array each scan
    """

    tag: Int32Column
    blocks: tuple[Block, ...]
    parts: tuple[tuple[tuple[Kind, list[int], Int32Column], ...], ...]


class RegisterDriver:
    """Reads and writes one device."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._timeout_s = int(options.get("timeout_ms", 1000)) / 1000
        self._points: dict[int, Point] = {}
        self._context: DriverContext | None = None
        self._lease: Lease[RegisterLine] | None = None

    def plan(self, tags: Sequence[BoundTag]) -> ScanPlan:
        problems = [problem for tag in tags for problem in _problems_of(tag)]
        if problems:
            raise Misconfigured(f"{len(problems)} tags cannot be read", tag_problems=problems)
        kinds = {int(tag.id): tag.type.kind for tag in tags}
        points = [Point(int(tag.id), int(tag.address), FORMATS[tag.type.value]) for tag in tags]
        self._points.update((point.id, point) for point in points)
        blocks = tuple(blocks_of(points))
        return ScanPlan(_column([tag.id for tag in tags]), blocks, tuple(_parts(block, kinds) for block in blocks))

    async def open(self, context: DriverContext) -> None:
        await self.close()
        self._lease = await context.lines.acquire(context.endpoint, RegisterLine)
        self._context = context

    async def read(self, plan: Plan) -> Sequence[Batch]:
        assert isinstance(plan, ScanPlan)
        context, line = self._opened()
        batches: list[Batch] = []
        for block, parts in zip(plan.blocks, plan.parts, strict=True):
            try:
                status, data = await line.ask(READ, block.first, block.count, self._timeout_s)
                values = values_of(block, data) if status == 0 else None
            except NoReply as error:
                raise NoReply(f"device {context.name}: {error.text}", partial=batches) from error
            except ValueError as error:
                raise FrameBroken(f"device {context.name}: {error}") from error
            batches += _batches(parts, values, status, context.clock.now_ns())
        return batches

    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        return [await self._write(command) for command in commands]

    async def close(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    async def _write(self, command: Write) -> WriteResult:
        point = self._points.get(int(command.tag))
        if point is None or point.registers != 1:
            return WriteResult(command.tag, Outcome.REJECTED, "no register of this driver that can be written")
        try:
            (value,) = struct.unpack(">H", struct.pack(point.format, command.value))
        except struct.error as error:
            return WriteResult(command.tag, Outcome.REJECTED, f"{command.value!r} does not fit: {error}")
        is_late = asyncio.get_running_loop().time() >= command.expires
        if self._lease is None or self._lease.session.is_lost or is_late:
            return WriteResult(command.tag, Outcome.NOT_SENT, "no line, or it had expired before it could be sent")
        return await self._send(self._lease.session, command, point.register, value)

    async def _send(self, line: RegisterLine, command: Write, register: int, value: int) -> WriteResult:
        """From here on bytes may leave: without an answer nobody knows."""
        try:
            status, _ = await line.ask(WRITE, register, value, self._timeout_s)
        except (NoReply, NotConnected, FrameBroken) as error:
            return WriteResult(command.tag, Outcome.UNKNOWN, error.text)
        if status != 0:
            return WriteResult(command.tag, Outcome.REJECTED, f"the device answers with status {status}")
        return WriteResult(command.tag, Outcome.CONFIRMED)

    def _opened(self) -> tuple[DriverContext, RegisterLine]:
        if self._context is None or self._lease is None:
            raise NotConnected("the driver is not open")
        return self._context, self._lease.session


def _problems_of(tag: BoundTag) -> list[TagProblem]:
    problems = []
    if tag.type.value not in FORMATS:
        text = f"{tag.type.value} is none of {', '.join(FORMATS)}"
        problems.append(TagProblem(tag.name, "type", "E1000", text))
    elif "W" in tag.access and tag.type not in {ValueType.UINT16, ValueType.INT16}:
        problems.append(TagProblem(tag.name, "access", "E1000", "only one register can be written at once: use R"))
    size = 2 if tag.type.value.endswith("32") else 1
    if not (tag.address.isascii() and tag.address.isdecimal() and int(tag.address) + size <= REGISTERS):
        text = f'"{tag.address}" is no register; write a number from 0 to {REGISTERS - size}'
        problems.append(TagProblem(tag.name, "address", "E1000", text))
    return problems


def _parts(block: Block, kinds: Mapping[int, Kind]) -> tuple[tuple[Kind, list[int], Int32Column], ...]:
    places: dict[Kind, list[int]] = {}
    for place, point in enumerate(block.points):
        places.setdefault(kinds[point.id], []).append(place)
    return tuple(
        (kind, chosen, _column([block.points[place].id for place in chosen])) for kind, chosen in places.items()
    )


def _batches(
    parts: tuple[tuple[Kind, list[int], Int32Column], ...], values: list[float | int] | None, status: int, now_ns: int
) -> list[Batch]:
    """Rows of one request; without values they are Bad, and their quality says why.

    A value is what its tag's type says: bool; int for int8 to uint64; float; str for string; bytes.
    """
    quality = Quality.GOOD
    if values is None:
        quality = Quality.BAD_NODE_ID_UNKNOWN if status == NO_SUCH_REGISTER else Quality.BAD_DEVICE_FAILURE
    batches = []
    for kind, places, tag in parts:
        value = np.array([values[place] if values else 0 for place in places], dtype=kind.value)
        column = np.full(len(places), quality, dtype=np.uint32)
        for array in (value, column):
            array.flags.writeable = False  # whoever publishes a column freezes it
        batches.append(Batch(tag, value, column, uniform_time(now_ns), now_ns))
    return batches


def _column(ids: Sequence[int]) -> Int32Column:
    column = np.array(ids, dtype=np.int32)
    column.flags.writeable = False
    return column
