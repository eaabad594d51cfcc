"""A bridge on loopback with tags, rows and a desk in memory, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from framegate.contract.bridge import BridgeContext, BridgeTag
from framegate.contract.command import Command, CommandRecord, Outcome, Stage
from framegate.contract.frame import Access, Batch, TagId, Value, ValueType, uniform_quality, uniform_time
from framegate.endpoint.clock import SystemClock
from framegate.testing.fakes import CollectingLog
from framegate_plugins.opcua.bridge import OpcUaBridge

OPEN: Mapping[str, Any] = {"security": ["none"], "anonymous": "operator"}
"""Anybody may do anything: for tests of what comes after the door."""
NOW_NS = 1_795_000_000_123_456_700


class MemoryDesk:
    """A CommandDoor in memory.

    outcomes  by tag: (outcome, code, reason); a tag that is not in it is confirmed
    held      tags whose commands wait until `release` is called
    sent      commands that have reached their device, as far as anybody knows
    """

    def __init__(self) -> None:
        self.outcomes: dict[str, tuple[Outcome, str, str]] = {}
        self.held: set[str] = set()
        self.records: dict[str, CommandRecord] = {}
        self.sent: list[Command] = []
        self.failure: Exception | None = None
        self._moved = asyncio.Condition()

    async def submit(self, commands: Sequence[Command], by: str = "") -> Sequence[CommandRecord]:
        if self.failure is not None:
            raise self.failure
        async with self._moved:
            for command in commands:
                record = CommandRecord(command, f"bridge:scada/{by}", Stage.ACCEPTED, None, "", "", NOW_NS, 0)
                self.records[command.id] = record if command.tag in self.held else self._ended(record)
            self._moved.notify_all()
        return [self.records[command.id] for command in commands]

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - as in the contract
        try:
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(lambda: self.records[id].outcome is not None)
        except TimeoutError:
            pass
        return self.records.get(id)

    async def waiting(self, commands: int) -> None:
        """Until so many commands are known."""
        async with asyncio.timeout(5), self._moved:
            await self._moved.wait_for(lambda: len(self.records) >= commands)

    async def release(self, tag: str) -> None:
        """Let what is held go on."""
        self.held.discard(tag)
        async with self._moved:
            waiting = {id_: each for id_, each in self.records.items() if each.command.tag == tag and not each.outcome}
            self.records |= {id_: self._ended(each) for id_, each in waiting.items()}
            self._moved.notify_all()

    def _ended(self, record: CommandRecord) -> CommandRecord:
        outcome, code, reason = self.outcomes.get(record.command.tag, (Outcome.CONFIRMED, "", ""))
        if outcome in {Outcome.CONFIRMED, Outcome.UNKNOWN}:
            self.sent.append(record.command)
        return replace(record, stage=Stage.DISPATCHED, outcome=outcome, code=code, reason=reason, ended=NOW_NS)


class Place:
    """An open bridge."""

    def __init__(self, bridge: OpcUaBridge, desk: MemoryDesk, log: CollectingLog, home: Path) -> None:
        self.bridge, self.desk, self.log, self.home = bridge, desk, log, home

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.bridge.port}/"

    def refusals(self) -> list[str]:
        """Reasons why clients were turned away."""
        return [str(values["reason"]) for _, event, values in self.log.lines if event == "opcua_client_refused"]


@contextlib.asynccontextmanager
async def stage(
    home: Path, tags: Sequence[BridgeTag], options: Mapping[str, Any] = OPEN, gateway: str = "plant"
) -> AsyncIterator[Place]:
    """A bridge that listens on loopback until the block ends."""
    desk, log, bridge = MemoryDesk(), CollectingLog(), OpcUaBridge(options)
    context = BridgeContext(
        "scada", gateway, "tcp://127.0.0.1:0", None, home, home / "scada", tags, SystemClock(), log, desk
    )
    await bridge.open(context)
    try:
        yield Place(bridge, desk, log, home)
    finally:
        await bridge.close()


def tag(number: int, name: str, type_: ValueType = ValueType.FLOAT64, access: Access = "RW", **more: Any) -> BridgeTag:
    return BridgeTag(TagId(number), name, type_, access, **more)


def batch(
    rows: Mapping[int, Value],
    kind: type = np.float64,
    status: int = 0,
    source_ns: int = NOW_NS,
    server_ns: int = NOW_NS,
) -> Batch:
    """One value for each tag id. kind: of the column."""
    ids = np.array(list(rows), np.int32)
    values: Any = np.empty(len(rows), kind)
    values[:] = list(rows.values())
    return Batch(ids, values, uniform_quality(status), uniform_time(source_ns), server_ns)


async def until(is_so: Any, seconds: float = 5.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
