"""kill -9 in the middle of a flood: what was durable arrives, in order, with bounded repeats."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import Mosquitto
from framegate.testing.ports import free_url
from framegate_plugins.modbus.simulator import Simulator as Plc
from framegate_plugins.mqtt.simulator import start as start_broker

TAGS = 200
WINDOW_ROWS, WINDOWS = 256, 2
ROWS_PER_S = TAGS * 50
COMMIT_LAG_S = 1.0
"""Acknowledged rows whose cursor may not be durable yet: promised are a thousand rows or a second of them."""
ROWS_PER_ROUND = 1_500


@pytest.mark.parametrize(
    ("rounds", "qos", "commit_interval"),
    [
        (3, 1, "10ms"),
        (3, 1, "200ms"),  # much is accepted and not yet durable when the kill comes
        pytest.param(8, 1, "50ms", marks=pytest.mark.campaign),
        pytest.param(8, 2, "10ms", marks=pytest.mark.campaign),
    ],
)
async def test_kill_in_a_flood_loses_nothing_durable(
    *,
    home: Path,
    modbus: Callable[..., Awaitable[Plc]],
    flood: Callable[[Plc, int], None],
    mosquitto: Mosquitto,
    subscribe: Callable[..., Awaitable[Account]],
    run: Callable[[Path], subprocess.Popen[bytes]],
    health: Callable[[Path], Awaitable[GatewayHealth]],
    rounds: int,
    qos: int,
    commit_interval: str,
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it
    dice = random.Random(seed)
    plc = await modbus()
    flood(plc, TAGS)
    account = await subscribe(mosquitto.port, qos=2)
    plant.write_tables(
        home,
        plc=plc.url,
        broker=f"tcp://127.0.0.1:{mosquitto.port}",
        tags=TAGS,
        scan="20ms",
        connector=f"encoding: json-batch, window_rows: {WINDOW_ROWS}, windows_in_flight: {WINDOWS}",
        options=f"qos: {qos}",
        gateway=f", store: {{commit_interval: {commit_interval}}}",
    )
    durable = 0
    for _ in range(rounds):
        gateway = run(home)
        wanted = account.newest + ROWS_PER_ROUND + dice.randrange(ROWS_PER_ROUND)
        await plant.until(lambda wanted=wanted: account.newest > wanted, "a flood")  # type: ignore[misc]
        now = (await health(home)).wal.durable
        assert now > durable
        durable = now
        gateway.kill()
        gateway.wait()
    gateway = run(home)
    await plant.until(lambda: account.newest > durable + TAGS and account.lost(durable) == 0, "every durable row")
    plant.stop_gateway(gateway)
    assert account.lost(account.newest) == 0
    assert account.notices == []
    assert (account.out_of_order, account.conflicts) == (0, 0)
    assert account.repeats <= rounds * (WINDOW_ROWS * WINDOWS + COMMIT_LAG_S * ROWS_PER_S)
    for tag in ("t0", f"t{TAGS - 1}"):
        values = [frame.value for frame in account.of(tag)]
        assert values == sorted(values), f"{tag}: values went back in time"


@pytest.mark.parametrize("fault", ["cut", "hung"])
async def test_kill_while_the_broker_is_away_loses_nothing_durable(
    *,
    home: Path,
    modbus: Callable[..., Awaitable[Plc]],
    flood: Callable[[Plc, int], None],
    run: Callable[[Path], subprocess.Popen[bytes]],
    health: Callable[[Path], Awaitable[GatewayHealth]],
    fault: str,
) -> None:
    """What was handed to a connection and never acknowledged counts as not sent, also after a crash."""
    plc = await modbus()
    flood(plc, TAGS)
    broker = await start_broker({"url": free_url()})
    account = Account()
    broker.broker.taken = lambda message: account.take(message.topic, bytes(message.payload))
    plant.write_tables(home, plc=plc.url, broker=broker.url, tags=TAGS, scan="20ms")
    try:
        gateway = run(home)
        await plant.until(lambda: account.newest > ROWS_PER_ROUND, "a flood")
        if fault == "hung":
            broker.broker.taken = None  # takes packets in, forgets them, acknowledges nothing
            broker.broker.faults.is_silent = True
        else:
            await broker.stop()
        reached = account.newest + 2 * ROWS_PER_ROUND
        away = await plant.eventually(lambda: health(home), lambda now: now.wal.durable > reached, "a backlog")
        gateway.kill()
        gateway.wait()
        await broker.stop()
        broker.broker.sessions.clear()
        broker.broker.faults.is_silent = False
        broker.broker.taken = lambda message: account.take(message.topic, bytes(message.payload))
        await broker.listen()
        run(home)
        await plant.until(lambda: account.newest > away.wal.durable + TAGS, "the backlog")
    finally:
        await broker.close()
    assert account.lost(account.newest) == 0
    assert (account.out_of_order, account.conflicts) == (0, 0)
