"""A bridge at work without a gateway around it: for tests and measurements.

async with BridgeTrial(["speed float32 RW", "running bool R"], home=folder) as trial:
    trial.show(speed=1.5, running=True)
    ...  a master talks to trial.bridge.url
    assert trial.desk.written == [("speed", 2.5)]
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from framegate.contract.bridge import BridgeContext, BridgeTag, ServerTls
from framegate.contract.command import Command, CommandRecord, Outcome, Stage
from framegate.contract.errors import GatewayError
from framegate.contract.frame import Access, Batch, Kind, TagId, Value, ValueType, uniform_quality, uniform_time
from framegate.contract.quality import Quality
from framegate.endpoint.clock import SystemClock
from framegate.observe.log import make_log
from framegate_plugins.modbus.bridge import ModbusBridge
from framegate_plugins.modbus.bridge_options import parse_bridge_options
from framegate_plugins.modbus.register_map import RegisterMap, register_map
from framegate_plugins.modbus.trial import parsed

ANSWER_S = 5.0
HUNG_UP_S = 20.0
SHOWN_NS = 1_795_000_000_000_000_000
_DTYPE = {Kind.FLOAT: "f8", Kind.INT: "i8", Kind.UINT: "u8", Kind.BOOL: "?", Kind.OBJECT: "O"}


@dataclass
class TrialDesk:
    """Takes commands and settles them: confirmed, if nothing else is said of a tag.

    outcomes  by tag: outcome and code
    held      tags whose commands get no outcome until `release`
    failure   raised by `submit`
    echo      told what is confirmed, as the device's next scan would
    """

    outcomes: dict[str, tuple[Outcome, str]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    failure: GatewayError | None = None
    echo: Callable[[Mapping[str, Value]], None] | None = None
    submissions: list[Sequence[Command]] = field(default_factory=list)
    submitted: asyncio.Event = field(default_factory=asyncio.Event)
    _records: dict[str, CommandRecord] = field(default_factory=dict)
    _moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def written(self) -> list[tuple[str, Value]]:
        """What was asked for, in order."""
        return [(command.tag, command.value) for commands in self.submissions for command in commands]

    async def submit(self, commands: Sequence[Command], by: str = "") -> Sequence[CommandRecord]:
        if self.failure is not None:
            raise self.failure
        assert not self._records.keys() & {command.id for command in commands}, "an id names one command"
        self.submissions.append(commands)
        self.submitted.set()
        records = [self._record(command) for command in commands]
        self._records.update({record.command.id: record for record in records})
        if self.echo is not None:
            self.echo({one.command.tag: one.command.value for one in records if one.outcome is Outcome.CONFIRMED})
        return records

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - as in contract.command
        try:
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(lambda: self._records[id].outcome is not None)
        except TimeoutError:
            pass
        return self._records.get(id)

    def forget(self) -> None:
        """Drop what was asked for, where there is a lot of it."""
        self.submissions.clear()
        self._records.clear()

    async def release(self, tag: str) -> None:
        """Settle what was held of a tag."""
        async with self._moved:
            self.held.discard(tag)
            for id_, record in self._records.items():
                if record.command.tag == tag:
                    self._records[id_] = self._record(record.command)
            self._moved.notify_all()

    def _record(self, command: Command) -> CommandRecord:
        if command.tag in self.held:
            return CommandRecord(command, "bridge:trial", Stage.DISPATCHED, None, "", "", SHOWN_NS, 0)
        outcome, code = self.outcomes.get(command.tag, (Outcome.CONFIRMED, ""))
        return CommandRecord(command, "bridge:trial", Stage.DISPATCHED, outcome, code, "", SHOWN_NS, SHOWN_NS)


class Master:
    """A client over MBAP that knows nothing of functions: PDUs out, PDUs in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._number = 0

    def say(self, pdu: bytes, unit: int = 1) -> int:
        """Send a request; returns its transaction id."""
        self._number += 1
        self.writer.write(struct.pack(">HHHB", self._number, 0, len(pdu) + 1, unit) + pdu)
        return self._number

    async def hear(self) -> tuple[int, int, bytes]:
        """Transaction, unit and PDU of the next answer."""
        async with asyncio.timeout(ANSWER_S):
            transaction, _, size, unit = struct.unpack(">HHHB", await self.reader.readexactly(7))
            return transaction, unit, await self.reader.readexactly(size - 1)

    async def ask(self, pdu: bytes, unit: int = 1) -> bytes:
        """PDU of the answer to one request."""
        number = self.say(pdu, unit)
        transaction, answered, answer = await self.hear()
        assert (transaction, answered) == (number, unit)
        return answer

    async def hung_up(self) -> bytes:
        """What comes until the bridge has closed the connection."""
        async with asyncio.timeout(HUNG_UP_S):
            try:
                return await self.reader.read()
            except OSError:  # reset, or refused by TLS
                return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class BridgeTrial:
    """One bridge, its tags and a desk; the tags' ids count from 100."""

    def __init__(
        self,
        rows: Sequence[str | BridgeTag],
        options: Mapping[str, Any] | None = None,
        *,
        home: Path,
        url: str = "tcp://127.0.0.1:0",
        tls: ServerTls | None = None,
        may_write: bool = True,
    ) -> None:
        self.tags = [bridge_tag(number, row) if isinstance(row, str) else row for number, row in enumerate(rows)]
        self.desk = TrialDesk()
        self.bridge = ModbusBridge(options or {})
        self._options = parse_bridge_options(options or {})
        self._masters: list[Master] = []
        self.log = io.StringIO()
        self._context = BridgeContext(
            "trial", "gateway", url, tls, home, home, self.tags, SystemClock(), make_log(self.log),
            self.desk if may_write else None,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        await self.bridge.open(self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for master in self._masters:
            await master.close()
        await self.bridge.close()

    @property
    def map(self) -> RegisterMap:
        """Where the tags are."""
        return register_map(self.tags, self._options)

    async def connect(self) -> Master:
        """A client of the bridge, which listens on tcp."""
        master = Master(*await asyncio.open_connection("127.0.0.1", self.port))
        self._masters.append(master)
        return master

    @property
    def port(self) -> int:
        return int(self.bridge.url.rpartition(":")[2])

    def show(self, values: Mapping[str, Value] | None = None, /, quality: int = Quality.GOOD, **more: Value) -> None:
        """Rows of these tags, one batch per kind."""
        self.bridge.update(batches_of(self.tags, {**(values or {}), **more}, quality))


def bridge_tag(number: int, row: str) -> BridgeTag:
    """A tag from `name type access [key=value ...]`."""
    name, type_, access, *pairs = row.split()
    options = {key: parsed(value) for key, _, value in (pair.partition("=") for pair in pairs)}
    return BridgeTag(TagId(100 + number), name, ValueType(type_), cast(Access, access), "plc", options=options)


def batches_of(tags: Sequence[BridgeTag], values: Mapping[str, Value], quality: int) -> list[Batch]:
    """Rows of tags by name, one batch per kind."""
    batches = []
    for kind, dtype in _DTYPE.items():
        rows = [(tag.id, values[tag.name]) for tag in tags if tag.name in values and tag.type.kind is kind]
        if rows:
            value = np.empty(len(rows), dtype)
            value[:] = [one for _, one in rows]
            ids = np.array([id_ for id_, _ in rows], np.int32)
            batches.append(Batch(ids, value, uniform_quality(quality), uniform_time(SHOWN_NS), SHOWN_NS))
    return batches
