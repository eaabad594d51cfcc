"""The driver mydriver: registers over a line that the gateway opens. README.md describes the protocol.

The calls of driver.wit around registers.py. There is no loop, no reconnecting, no retry here: the gateway calls `poll`
once for each scan, and `connect` again after every loss. An exception that is no Err stops the driver.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from componentize_py_types import Err
from meta import META
from registers import FORMATS, HEAD_BYTES, NO_SUCH_REGISTER, READ, REGISTERS, WRITE, Block, Point, blocks_of, values_of
from registers import request as request_of
from wit_world import exports
from wit_world.imports import host
from wit_world.imports.types import (
    Batch,
    Column,
    Column_Blobs,
    Column_Bools,
    Column_Ints,
    Column_Reals,
    Column_Texts,
    Column_Uints,
    Errc,
)

COLUMN_OF = {
    "bool": Column_Bools,
    "uint64": Column_Uints,
    "float32": Column_Reals,
    "float64": Column_Reals,
    "string": Column_Texts,
    "bytes": Column_Blobs,
}
"""The column for each type of tag, and so what its values are; int8 to int64 and uint8 to uint32 are Column_Ints.

A value in another one than its tag's becomes BadTypeMismatch; a row that is Bad may be in any.
"""
STALE_MAX = 16
"""Late answers that are passed over for one request."""
GOOD = 0
BAD_NODE_ID_UNKNOWN = 0x80340000
BAD_DEVICE_FAILURE = 0x808B0000


class Device:
    """One device; the calls of driver.wit."""

    def __init__(self) -> None:
        self._timeout_ms = 1000
        self._sequence = 0
        self._blocks: dict[int, list[Block]] = {}
        self._columns: dict[int, type[Column]] = {}
        self._writable: dict[int, Point] = {}

    def create(self, options: dict[str, Any]) -> None:
        timeout_ms = options.get("timeout_ms", 1000)
        if not isinstance(timeout_ms, int) or not 10 <= timeout_ms <= 60000:
            raise Err("timeout_ms is not a whole number from 10 to 60000")
        self._timeout_ms = timeout_ms

    def plan(self, group: int, tags: list[dict[str, Any]]) -> None:
        problems = [{"tag": tag["id"], "key": key, "text": text} for tag in tags for key, text in _problems_of(tag)]
        if problems:
            raise Err(json.dumps(problems))
        points = [Point(tag["id"], int(tag["address"]), FORMATS[tag["type"]]) for tag in tags]
        writable = {tag["id"] for tag in tags if tag["access"] != "R"}
        self._blocks[group] = list(blocks_of(points))
        self._columns.update((tag["id"], COLUMN_OF.get(tag["type"], Column_Ints)) for tag in tags)
        self._writable.update((point.id, point) for point in points if point.id in writable)

    def connect(self, channels: int) -> None:
        if channels == 0:
            raise Err("no endpoint: name one in the device's row")

    def poll(self, group: int, budget_ms: int) -> int:
        end_ns = host.now_ns() + budget_ms * 1_000_000
        rows = 0
        for block in self._blocks[group]:
            try:
                status, data = self._ask(READ, block.first, block.count, end_ns)
                values = values_of(block, data) if status == 0 else None
            except ValueError:  # the answer is too short or too long: where the next one begins is lost
                raise Err(Errc.CLOSED) from None
            except Err as error:
                raise (Err(Errc.TIMEOUT) if error.value is Errc.NOT_SENT else error) from None
            self._emit(block, status, values)
            rows += len(block.points)
        return rows

    def write(self, commands: Batch, budget_ms: int) -> bytes:
        end_ns = host.now_ns() + budget_ms * 1_000_000
        values: Sequence[Any] = commands.value.value
        return bytes(self._write(tag, value, end_ns) for tag, value in zip(commands.tag, values, strict=True))

    def _emit(self, block: Block, status: int, values: Sequence[Any] | None) -> None:
        """Hand the rows of one request over, each column of values by itself; without values they are Bad."""
        ids = [point.id for point in block.points]
        if values is None:
            bad = BAD_NODE_ID_UNKNOWN if status == NO_SUCH_REGISTER else BAD_DEVICE_FAILURE
            host.emit(Batch(ids, [0], [bad], Column_Reals([0.0] * len(ids))))
            return
        for column in {self._columns[tag] for tag in ids}:
            chosen = [(tag, value) for tag, value in zip(ids, values, strict=True) if self._columns[tag] is column]
            tags, cells = zip(*chosen, strict=True)
            host.emit(Batch(list(tags), [0], [GOOD], column(bytes(cells) if column is Column_Bools else list(cells))))

    def _write(self, tag: int, value: object, end_ns: int) -> int:
        """0, or 1 + errc."""
        point = self._writable.get(tag)
        if point is None:
            return 1 + Errc.UNSUPPORTED.value
        try:
            (register,) = struct.unpack(">H", struct.pack(point.format, value))
        except struct.error:
            return 1 + Errc.INVALID.value
        try:
            status, _ = self._ask(WRITE, point.register, register, end_ns)
        except Err as error:
            return 1 + error.value.value
        return 0 if status == 0 else 1 + Errc.REFUSED.value

    def _ask(self, function: int, first: int, argument: int, end_ns: int) -> tuple[int, bytes]:
        """Send one request and wait for its answer: what the device says, and the data behind it. Raises Err."""
        limit_ms = self._left_ms(end_ns)
        if limit_ms == 0:
            raise Err(Errc.NOT_SENT)
        deadline_ns = host.now_ns() + limit_ms * 1_000_000
        self._sequence = (self._sequence + 1) % 256
        host.send(0, request_of(function, self._sequence, first, argument))
        for _ in range(STALE_MAX):
            head = self._receive(HEAD_BYTES, deadline_ns)
            if head[0] not in {READ, WRITE}:
                break
            data = self._receive(head[3], deadline_ns)
            if (head[0], head[1]) == (function, self._sequence):  # else: a late answer to an earlier request
                return head[2], data
        raise Err(Errc.CLOSED)  # where an answer begins is lost: a new line tells

    def _receive(self, size: int, deadline_ns: int) -> bytes:
        """Exactly so many bytes. Raises Err."""
        got = b""
        while len(got) < size:
            wait_ms = self._left_ms(deadline_ns)
            if wait_ms == 0:
                raise Err(Errc.TIMEOUT)
            data = host.recv(0, size - len(got), wait_ms)
            if not data:
                raise Err(Errc.CLOSED)
            got += data
        return got

    def _left_ms(self, deadline_ns: int) -> int:
        """Until then, at most the time-out of one answer."""
        return max(0, min(self._timeout_ms, (deadline_ns - host.now_ns()) // 1_000_000))


DEVICE = Device()


class Guest(exports.Guest):
    """What the gateway calls: it makes an object for each call, so nothing is kept here."""

    def meta(self) -> str:
        return META

    def create(self, options_json: str) -> None:
        DEVICE.create(json.loads(options_json))

    def plan(self, group: int, tags_json: str) -> None:
        DEVICE.plan(group, json.loads(tags_json))

    def connect(self, channels: int) -> None:
        DEVICE.connect(channels)

    def poll(self, group: int, budget_ms: int) -> int:
        return DEVICE.poll(group, budget_ms)

    def write(self, commands: Batch, budget_ms: int) -> bytes:
        return DEVICE.write(commands, budget_ms)

    def disconnect(self) -> None:
        pass


def _problems_of(tag: dict[str, Any]) -> list[tuple[str, str]]:
    """(key at fault, what is wrong with it)"""
    problems = []
    if tag["type"] not in FORMATS:
        problems.append(("type", f"the type is none of {', '.join(FORMATS)}"))
    size = 2 if tag["type"].endswith("32") else 1
    if tag["access"] != "R" and size > 1:
        problems.append(("access", "only one register can be written at once: use R"))
    address = tag["address"]
    if not (address.isascii() and address.isdecimal() and int(address) + size <= REGISTERS):
        problems.append(("address", f"the address is no register; write a number from 0 to {REGISTERS - size}"))
    return problems
