"""Every reason for which rows can go, end to end: announced, shown, counted, and all of them the same number."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from framegate.contract._generated import frame_pb2
from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.ports import free_port, free_url
from framegate_plugins.modbus.simulator import Simulator as Plc
from framegate_plugins.mqtt.simulator import Simulator as Broker
from framegate_plugins.mqtt.simulator import start as start_broker

TAGS, TAG_BYTES = 100, 250
RETENTION_BYTES = 1 << 20
EARLY_ROWS_MAX = 4 * RETENTION_BYTES // TAG_BYTES
"""What the store may hold at one look at its size: on a busy machine deletions lag behind what comes in."""
GAP_TOPIC = "flow/gap"
REASONS = {1: "retention", 2: "disk_full", 3: "damage"}


class Shown(NamedTuple):
    """A gap as one of its readers sees it."""

    first: int
    last: int
    reason: str
    connector: str


class Receiver:
    """A broker that keeps rows and gaps apart; with protobuf a gap is another message on a topic of its own."""

    def __init__(self, encoding: str) -> None:
        self.account = Account(encoding)
        self.gaps: list[Shown] = []
        self._is_protobuf = encoding == "protobuf"

    def take(self, message: Any) -> None:
        payload = bytes(message.payload)
        if message.topic != GAP_TOPIC:
            self.account.take(message.topic, payload)
        elif self._is_protobuf:
            frame = frame_pb2.GapFrame.FromString(payload)
            assert frame.gateway == "gw"
            self.gaps.append(Shown(frame.first_pos, frame.last_pos, REASONS[frame.reason], frame.connector))
        else:
            gap = json.loads(payload)["gap"]
            self.gaps.append(Shown(gap["first"], gap["last"], gap["reason"], gap.get("connector", "")))

    def missing(self, through: int) -> set[int]:
        """Positions that did not arrive."""
        return set(range(1, through + 1)) - set(self.account.frames)


def told(gaps: list[Shown]) -> set[int]:
    return {position for gap in gaps for position in range(gap.first, gap.last + 1)}


async def shown_by_edge(home: Path) -> list[Shown]:
    done = await asyncio.to_thread(plant.edge, "wal", "ls", "-n", "10000", "--home", str(home), "-o", "jsonl")
    assert done.returncode == 0, done.stderr
    rows = map(json.loads, done.stdout.splitlines())
    return [Shown(row["first"], row["last"], row["gap"], row["connector"] or "") for row in rows if row["gap"]]


def write_tables(home: Path, plc: str, late: str, live: str, *, encoding: str, store: str, metrics: int) -> None:
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc}'", "late": f"url: '{late}'", "live": f"url: '{live}'"},
        drivers={"plc": "plugin: modbus, endpoint: plc, scan: {default: 20ms}"},
        connectors={
            name: f"plugin: mqtt, endpoint: {name}, encoding: {encoding}, topic: '{{tenant}}/{{device}}'"
            for name in ("late", "live")
        },
        variables=[
            f"tag: t{i}, source: plc, address: 'hr:{i * TAG_BYTES // 2}', type: bytes, length: {TAG_BYTES}"
            for i in range(TAGS)
        ],
        gateway=f", store: {{ring_rows: 1024, {store}}}",
        metrics=metrics,
    )


@pytest.mark.parametrize("encoding", ["json-batch", "protobuf"])
async def test_retention_names_the_connector_that_lost_rows_and_every_view_agrees(
    *,
    home: Path,
    modbus: Callable[..., Awaitable[Plc]],
    run: Callable[[Path], subprocess.Popen[bytes]],
    health: Callable[[Path], Awaitable[GatewayHealth]],
    counted: Callable[[int, str], Awaitable[dict[str, float]]],
    encoding: str,
) -> None:
    plc = await modbus()
    registers = TAGS * TAG_BYTES // 2
    plc.units[1].hold[:registers] = np.random.default_rng(1).integers(0, 1 << 16, registers)  # cannot be compressed
    late, live = Receiver(encoding), Receiver(encoding)
    brokers: list[Broker] = [await start_broker({"url": free_url()}), await start_broker({"url": free_url()})]
    for broker, receiver in zip(brokers, (late, live), strict=True):
        broker.broker.taken = receiver.take
    store = f"retention_bytes: {RETENTION_BYTES}B, keep_acked_bytes: 64kB"
    port = free_port()
    write_tables(home, plc.url, brokers[0].url, brokers[1].url, encoding=encoding, store=store, metrics=port)
    try:
        await brokers[0].stop()
        run(home)
        full = await plant.eventually(lambda: health(home), lambda now: now.wal.rows_dropped > 20 * TAGS, "lost rows")
        await brokers[0].listen()
        await plant.until(lambda: late.account.newest > full.wal.durable, "the late connector", 60)
        through = late.account.newest
        assert late.gaps
        assert told(late.gaps) == late.missing(through), "what did not arrive was announced, and nothing else"
        assert {(gap.reason, gap.connector) for gap in late.gaps} == {("retention", "late")}
        assert (live.gaps, live.missing(through)) == ([], set()), "the other one lost nothing and is told nothing"
        shown, lost = told(await shown_by_edge(home)), len(late.missing(through))
        # Rows may arrive in the moment before the gap over them is durable: they are counted as lost all the same.
        assert shown >= told(late.gaps)
        assert len(shown) - lost <= EARLY_ROWS_MAX
        assert {gap.connector for gap in await shown_by_edge(home)} == {"late"}
        assert (await counted(port, "edge_wal_gap_rows_total"))["retention"] == len(shown)
        assert await counted(port, "edge_outbox_missing_rows_total") == {"late": lost, "live": 0}
        assert (await health(home)).wal.rows_dropped == len(shown)
    finally:
        for broker in brokers:
            await broker.close()
