"""A bridge on loopback with tags, rows and a desk in memory, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framegate.contract.bridge import BridgeContext, BridgeTag
from framegate.contract.command import Asker, Command, CommandRecord
from framegate.contract.frame import Access, Batch, TagId, Value, ValueType, uniform_quality, uniform_time
from framegate.endpoint.clock import SystemClock
from framegate.testing.doors import MemoryDesk
from framegate.testing.fakes import CollectingLog
from framegate_plugins.opcua.bridge import OpcUaBridge

OPEN: Mapping[str, Any] = {"security": ["none"], "anonymous": "operator"}
"""Anybody may do anything: for tests of what comes after the door."""
NOW_NS = 1_795_000_000_123_456_700


class Door:
    """The desk as the host of bridges shows it to one of them."""

    def __init__(self, desk: MemoryDesk) -> None:
        self._desk = desk

    async def submit(self, commands: Sequence[Command], by: str = "") -> Sequence[CommandRecord]:
        return await self._desk.submit(commands, Asker(f"bridge:scada/{by}", lambda _: True))

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - as in the contract
        return await self._desk.wait(id, seconds)


class Stage:
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
) -> AsyncIterator[Stage]:
    """A bridge that listens on loopback until the block ends."""
    desk, log, bridge = MemoryDesk(), CollectingLog(), OpcUaBridge(options)
    context = BridgeContext(
        "scada", gateway, "tcp://127.0.0.1:0", None, home, home / "scada", tags, SystemClock(), log, Door(desk)
    )
    await bridge.open(context)
    try:
        yield Stage(bridge, desk, log, home)
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
