"""Messages between the gateway and the process of a bridge: length, then MessagePack.

The bridge's side is not trusted: it parses what clients send. The gateway takes MESSAGE_BYTES_MAX of it at once, of the
types in FromBridge, and nothing else. Columns of tag ids cross once and are known by a number from then on.
"""

from __future__ import annotations

from asyncio import StreamReader
from typing import Any, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from framegate.contract.bridge import BridgeHealth, BridgeTag, ServerTls
from framegate.contract.command import Command, CommandRecord, Outcome, Stage
from framegate.contract.errors import FrameBroken
from framegate.contract.frame import Batch, Int32Column, Kind

MESSAGE_BYTES_MAX = 4 << 20
"""Of a bridge: a write of BATCH_MAX long texts."""
START_BYTES_MAX = 256 << 20
"""Of the gateway: the tags of the largest plant."""
LENGTH_BYTES = 4
T = TypeVar("T")


class Start(Struct, frozen=True, tag="start"):
    """The first message: what the bridge is and shows; see contract.bridge.BridgeContext.

    entry    module and class, `package.module:Class`
    folder   of the plugin, for plugins that are not installed distributions
    sealed   whether its modules come as a sealed file beside the line, and nothing of the folder is loaded
    """

    entry: str
    folder: str
    options: dict[str, Any]
    name: str
    gateway: str
    url: str
    tls: ServerTls | None
    base: str
    home: str
    tags: list[BridgeTag]
    may_write: bool
    memory_max: int
    sealed: bool = False


class PackedBatch(Struct, frozen=True, array_like=True):
    """A batch; columns as bytes in the order of this machine.

    column  number of its tag column
    tag     that column, where its number is new; else b""
    value   bytes, or a list of objects
    """

    column: int
    tag: bytes
    kind: str
    value: Any
    quality: bytes
    source_time: bytes
    gateway_time: int


class Rows(Struct, frozen=True, tag="rows"):
    """New rows. forget: the columns told before are forgotten first."""

    batches: list[PackedBatch]
    forget: bool


class PackedRecord(Struct, frozen=True, array_like=True):
    """A CommandRecord."""

    id: str
    tag: str
    value: Any
    issued: int
    origin: str
    stage: str
    outcome: int
    code: str
    reason: str
    received: int
    ended: int


class Answer(Struct, frozen=True, tag="answer"):
    """What became of a call. code, text: of the error; wait_s: of a Busy one."""

    call: int
    records: list[PackedRecord]
    code: str = ""
    text: str = ""
    wait_s: float = 0.0


class Stop(Struct, frozen=True, tag="stop"):
    """Hang up on every client and end."""


class PackedCommand(Struct, frozen=True, array_like=True):
    """A Command."""

    id: str
    tag: str
    value: Any
    issued: int
    ttl_s: float
    verify: bool


class Submit(Struct, frozen=True, tag="submit"):
    """Commands; by: the client's user who asks, "" where nobody logged in."""

    call: int
    commands: list[PackedCommand]
    by: str


class Wait(Struct, frozen=True, tag="wait"):
    call: int
    id: str
    seconds: float


class Ready(Struct, frozen=True, tag="ready"):
    """Clients can connect."""


class Refused(Struct, frozen=True, tag="refused"):
    """The bridge cannot serve as it is told to."""

    code: str
    text: str


class Report(Struct, frozen=True, tag="report"):
    """A sign of life."""

    health: BridgeHealth
    rss_bytes: int


class Line(Struct, frozen=True, tag="line"):
    """A line for the log."""

    level: str
    event: str
    values: dict[str, Any]


ToBridge: TypeAlias = Start | Rows | Answer | Stop
FromBridge: TypeAlias = Ready | Refused | Report | Line | Submit | Wait

_encoder = msgspec.msgpack.Encoder()
to_bridge = msgspec.msgpack.Decoder(ToBridge)
from_bridge = msgspec.msgpack.Decoder(FromBridge)


def message(content: ToBridge | FromBridge) -> bytes:
    """One message, ready to be sent."""
    data = _encoder.encode(content)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


async def read_message(reader: StreamReader, decoder: msgspec.msgpack.Decoder[T], bytes_max: int) -> T:
    """The next message.

    raises FrameBroken - no message of these types; asyncio.IncompleteReadError - the other side has gone
    """
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if length > bytes_max:
        raise FrameBroken(f"bridge: a message of {length:,} bytes; {bytes_max:,} are allowed")
    data = await reader.readexactly(length)
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FrameBroken(f"bridge: a message that is none ({error})") from error


def pack_batch(batch: Batch, column: int, tag: Int32Column | None) -> PackedBatch:
    """A batch whose tag column has that number. tag: the column itself, where the other side does not know it."""
    value = batch.value
    return PackedBatch(
        column,
        b"" if tag is None else tag.tobytes(),
        value.dtype.char,
        value.tolist() if value.dtype.char == Kind.OBJECT.value else value.tobytes(),
        batch.quality.tobytes(),
        batch.source_time.tobytes(),
        batch.gateway_time,
    )


class Unpacker:
    """Batches as the gateway packed them; a tag column is the same array object each time."""

    def __init__(self) -> None:
        self._columns: dict[int, Int32Column] = {}

    def batches(self, rows: Rows) -> list[Batch]:
        if rows.forget:
            self._columns.clear()
        return [self._batch(packed) for packed in rows.batches]

    def _batch(self, packed: PackedBatch) -> Batch:
        if packed.tag:
            self._columns[packed.column] = np.frombuffer(packed.tag, np.int32)
        tag = self._columns[packed.column]
        if packed.kind == Kind.OBJECT.value:
            value = np.empty(len(tag), np.object_)
            value[:] = packed.value
        else:
            value = np.frombuffer(packed.value, packed.kind)
        quality = np.frombuffer(packed.quality, np.uint32)
        return Batch(tag, value, quality, np.frombuffer(packed.source_time, np.int64), packed.gateway_time)


def pack_record(record: CommandRecord) -> PackedRecord:
    command = record.command
    outcome = 0 if record.outcome is None else record.outcome.value
    return PackedRecord(
        command.id, command.tag, command.value, command.issued, record.origin, record.stage.value, outcome,
        record.code, record.reason, record.received, record.ended,
    )  # fmt: skip


def unpack_record(packed: PackedRecord) -> CommandRecord:
    return CommandRecord(
        Command(packed.id, packed.tag, packed.value, packed.issued),
        packed.origin,
        Stage(packed.stage),
        Outcome(packed.outcome) if packed.outcome else None,
        packed.code,
        packed.reason,
        packed.received,
        packed.ended,
    )
