"""The way out breaks and comes back: everything arrives, in order, memory stays bounded, other ways are not delayed."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from framegate.cli.demo.uplink import Uplink
from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import Mosquitto
from framegate.testing.ports import free_url
from framegate_plugins.modbus.simulator import Simulator as Plc
from framegate_plugins.mqtt.simulator import Simulator as Broker
from framegate_plugins.mqtt.simulator import start as start_broker

TAGS = 200
RING_ROWS = 2_048
SMALL_RING = f", store: {{ring_rows: {RING_ROWS}}}"
OUTAGE_ROWS = 5 * RING_ROWS
"""Rows of an outage: most of them must come back from the disk."""
RSS_GROWTH_BYTES_MAX = 64 << 20
REPEATS_MAX = 4 * 4096 + 1_000
P99_MS_MAX = 2_000.0
Run = Callable[[Path], subprocess.Popen[bytes]]
Start = Callable[..., Awaitable[Plc]]
Subscribe = Callable[..., Awaitable[Account]]
Drained = Callable[[Account], Awaitable[None]]
Ask = Callable[[Path], Awaitable[GatewayHealth]]
Flood = Callable[[Plc, int], None]


@pytest.fixture
async def uplink(mosquitto: Mosquitto) -> AsyncIterator[Uplink]:
    """A network between gateway and mosquitto that can be cut; the witness is on the broker's side of it."""
    relay = Uplink(mosquitto.port)
    await relay.mend()
    yield relay
    await relay.cut()


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    embedded = await start_broker({"url": free_url()})
    yield embedded
    await embedded.close()


def tables(home: Path, plc: Plc, port: int, qos: int = 1) -> None:
    url = f"tcp://127.0.0.1:{port}"
    plant.write_tables(home, plc=plc.url, broker=url, tags=TAGS, scan="20ms", options=f"qos: {qos}", gateway=SMALL_RING)


async def grown(home: Path, health: Ask, rows: int) -> GatewayHealth:
    """Wait until the log has grown by so many durable rows while the connector knows that it is cut off."""
    start = (await health(home)).wal.durable
    return await plant.eventually(
        lambda: health(home), lambda now: now.wal.durable > start + rows and now.connectors[0].error != "", "a backlog"
    )


def assert_whole(account: Account, through: int) -> None:
    assert account.lost(through) == 0
    assert account.notices == []
    assert (account.out_of_order, account.conflicts) == (0, 0)


@pytest.mark.parametrize("qos", [1, 2])
async def test_uplink_cut_in_a_flood_loses_nothing(
    *, home: Path, modbus: Start, flood: Flood, uplink: Uplink, mosquitto: Mosquitto, subscribe: Subscribe, run: Run,
    health: Ask, qos: int,
) -> None:  # fmt: skip
    plc = await modbus()
    flood(plc, TAGS)
    account = await subscribe(mosquitto.port, qos=2)
    tables(home, plc, uplink.port, qos)
    run(home)
    await plant.until(lambda: account.newest > 2_000, "values")
    before = await health(home)
    await uplink.cut()
    outage = await grown(home, health, OUTAGE_ROWS)
    await uplink.mend()
    await plant.until(lambda: account.newest > outage.wal.durable, "the backlog")
    after = await health(home)
    assert_whole(account, outage.wal.durable)
    assert account.repeats <= (REPEATS_MAX if qos == 1 else 0)
    assert max(outage.rss_bytes, after.rss_bytes) - before.rss_bytes < RSS_GROWTH_BYTES_MAX
    assert after.connectors[0].reconnects == 1
    assert after.connectors[0].error == ""


@pytest.mark.parametrize("qos", [1, 2])
async def test_broker_restarted_without_its_sessions_loses_nothing(
    *, home: Path, modbus: Start, flood: Flood, uplink: Uplink, mosquitto: Mosquitto, subscribe: Subscribe,
    drained: Drained, run: Run, health: Ask, qos: int,
) -> None:  # fmt: skip
    plc = await modbus()
    flood(plc, TAGS)
    account = await subscribe(mosquitto.port, qos=2)
    tables(home, plc, uplink.port, qos)
    run(home)
    await plant.until(lambda: account.newest > 2_000, "values")
    await uplink.cut()
    await drained(account)  # what the broker has acknowledged must reach the witness before the broker forgets it
    mosquitto.stop()
    outage = await grown(home, health, RING_ROWS)
    await asyncio.to_thread(mosquitto.start)
    await drained(account)  # the witness is back
    await uplink.mend()
    await plant.until(lambda: account.newest > outage.wal.durable, "the backlog")
    assert_whole(account, outage.wal.durable)
    assert account.repeats <= REPEATS_MAX


@pytest.mark.parametrize("keeps_session", [True, False], ids=["session_kept", "session_lost"])
@pytest.mark.parametrize("qos", [1, 2])
async def test_broker_stopped_in_a_flood_loses_nothing(
    *, home: Path, modbus: Start, flood: Flood, broker: Broker, run: Run, health: Ask, qos: int, keeps_session: bool
) -> None:
    """The embedded broker tells what it took; the outage comes twice."""
    plc = await modbus()
    flood(plc, TAGS)
    account = Account()
    broker.broker.taken = lambda message: account.take(message.topic, bytes(message.payload))
    tables(home, plc, broker.port, qos)
    run(home)
    for _ in range(2):
        began = account.newest
        await plant.until(lambda began=began: account.newest > began + 1_000, "values")  # type: ignore[misc]
        await broker.stop()
        outage = await grown(home, health, RING_ROWS)
        if not keeps_session:
            broker.broker.sessions.clear()
        await broker.listen()
        wanted = outage.wal.durable
        await plant.until(lambda wanted=wanted: account.newest > wanted, "the backlog")  # type: ignore[misc]
    assert_whole(account, account.newest)
    assert account.repeats <= (0 if qos == 2 and keeps_session else 2 * REPEATS_MAX)


async def test_broker_that_hangs_up_again_and_again_gets_everything_in_order(
    *, home: Path, modbus: Start, flood: Flood, broker: Broker, run: Run
) -> None:
    plc = await modbus()
    flood(plc, TAGS)
    account = Account()
    broker.broker.taken = lambda message: account.take(message.topic, bytes(message.payload))
    broker.broker.faults.cut_every = 40
    tables(home, plc, broker.port)
    run(home)
    await plant.until(lambda: broker.broker.counts.cuts >= 5, "five cuts")
    broker.broker.faults.cut_every = 0
    reached = account.newest
    await plant.until(lambda: account.newest > reached + 5_000, "values after the cuts")
    assert_whole(account, account.newest)


@pytest.mark.parametrize("way", ["refuses", "hangs"])
async def test_dead_connector_does_not_delay_the_other(
    *, home: Path, modbus: Start, flood: Flood, mosquitto: Mosquitto, broker: Broker, subscribe: Subscribe, run: Run,
    health: Ask, way: str,
) -> None:  # fmt: skip
    """Two connectors; one broker is away or takes packets and never answers. Its rows wait, the other's do not."""
    plc = await modbus()
    flood(plc, TAGS)
    account, late = await subscribe(mosquitto.port), Account()
    broker.broker.taken = lambda message: late.take(message.topic, bytes(message.payload))
    if way == "hangs":
        broker.broker.faults.is_silent = True
    else:
        await broker.stop()
    plant.write_config(
        home,
        endpoints={
            "plc": f"url: '{plc.url}'",
            "alive": f"url: 'tcp://127.0.0.1:{mosquitto.port}'",
            "dead": f"url: '{broker.url}'",
        },
        drivers={"plc": "plugin: modbus, endpoint: plc, scan: {default: 20ms}"},
        connectors={
            "dead": "plugin: mqtt, endpoint: dead, options: {qos: 1}",
            "alive": "plugin: mqtt, endpoint: alive, options: {qos: 1}",
        },
        variables=[f"tag: t{i}, source: plc, address: 'hr:{i}', type: int16" for i in range(TAGS)],
        gateway=SMALL_RING,
    )
    run(home)
    await plant.until(lambda: account.newest > OUTAGE_ROWS, "values through the live connector")
    state = await health(home)
    dead, alive = state.connectors
    assert alive.latency_p99_ms <= P99_MS_MAX
    assert alive.lag_rows < RING_ROWS
    assert dead.rows == 0
    assert dead.lag_rows >= OUTAGE_ROWS
    assert_whole(account, account.newest)

    broker.broker.faults.is_silent = False
    if way == "refuses":
        await broker.listen()
    else:
        broker.broker.cut()
    await plant.until(lambda: late.newest > state.wal.durable, "the dead connector's backlog", 2 * plant.WAIT_S_MAX)
    assert_whole(late, late.newest)
    assert_whole(account, account.newest)
