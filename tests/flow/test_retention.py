"""When more waits than may be kept: the oldest rows go, every one of them is announced, the rest arrives in order."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import Mosquitto
from framegate.testing.ports import free_port
from framegate_plugins.modbus.simulator import Simulator as Plc

TAGS, TAG_BYTES = 100, 250
RETENTION_BYTES = 1 << 20


async def test_retention_gives_up_the_oldest_and_announces_each(
    home: Path,
    modbus: Callable[..., Awaitable[Plc]],
    mosquitto: Mosquitto,
    subscribe: Callable[..., Awaitable[Account]],
    run: Callable[[Path], subprocess.Popen[bytes]],
    health: Callable[[Path], Awaitable[GatewayHealth]],
) -> None:
    """One connector is away from the beginning and for good; the other one has everything."""
    plc = await modbus()
    registers = TAGS * TAG_BYTES // 2
    plc.units[1].hold[:registers] = np.random.default_rng(1).integers(0, 1 << 16, registers)  # cannot be compressed
    account = await subscribe(mosquitto.port, topics="late/#")
    every = await subscribe(mosquitto.port, topics="live/#")
    away, broker = f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{mosquitto.port}"

    def tables(late: str) -> None:
        plant.write_config(
            home,
            endpoints={"plc": f"url: '{plc.url}'", "late": f"url: '{late}'", "live": f"url: '{broker}'"},
            drivers={"plc": "plugin: modbus, endpoint: plc, scan: {default: 20ms}"},
            connectors={
                "late": "plugin: mqtt, endpoint: late, topic: late",
                "live": "plugin: mqtt, endpoint: live, topic: live",
            },
            variables=[
                f"tag: t{i}, source: plc, address: 'hr:{i * TAG_BYTES // 2}', type: bytes, length: {TAG_BYTES}"
                for i in range(TAGS)
            ],
            gateway=f", store: {{ring_rows: 1024, retention_bytes: {RETENTION_BYTES}B, keep_acked_bytes: 64kB}}",
        )

    tables(away)
    gateway = run(home)
    full = await plant.eventually(lambda: health(home), lambda now: now.wal.rows_dropped > 10 * TAGS, "trimmed rows")
    assert full.problem == "", "retention is no problem of the gateway"
    assert full.wal.bytes < 16 * RETENTION_BYTES
    await plant.until(lambda: every.newest > full.wal.durable, "the live connector")
    assert every.lost(every.newest) == 0
    assert every.notices == [], "a connector that has its rows is told of no loss"
    plant.stop_gateway(gateway)

    tables(broker)
    run(home)
    await plant.until(lambda: account.newest > every.newest - TAGS and account.newest > full.wal.durable, "the rest")
    assert {notice.reason for notice in account.notices} == {"retention"}
    assert account.lost(account.newest) == 0, "every position arrived or was announced"
    positions = list(account.frames)
    assert not any(first <= position <= last for first, last, _ in account.notices for position in positions)
    assert (account.out_of_order, account.conflicts) == (0, 0)
