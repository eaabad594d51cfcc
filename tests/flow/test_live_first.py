"""backlog: live_first - after an outage new values arrive at once, and what was stored arrives beside them, marked."""

from __future__ import annotations

import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.ports import free_url
from framegate_plugins.modbus.simulator import Simulator as Plc
from framegate_plugins.mqtt.simulator import Simulator as Broker
from framegate_plugins.mqtt.simulator import start as start_broker

TAGS = 100
WINDOW_ROWS, WINDOWS = 256, 4
ROWS_PER_S = TAGS * 50
COMMIT_LAG_S = 1.0
OUTAGE_ROWS = 20_000
ACK_DELAY_S = 0.1  # so that the backlog takes seconds
LIVE_MS_MAX = 2_000.0


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    embedded = await start_broker({"url": free_url()})
    yield embedded
    await embedded.close()


class Witness:
    """An account that also notes how old each live value was when it arrived."""

    def __init__(self, broker: Broker) -> None:
        self.account = Account()
        self.live_ms: list[float] = []
        self.topics: dict[bool, set[str]] = {False: set(), True: set()}
        broker.broker.taken = lambda message: self.take(message.topic, bytes(message.payload))

    def take(self, topic: str, payload: bytes) -> None:
        before = len(self.account.frames)
        self.account.take(topic, payload)
        if len(self.account.frames) == before:
            return
        newest = next(reversed(self.account.frames.values()))
        self.topics[newest.is_backfill].add(topic)
        if not newest.is_backfill:
            self.live_ms.append(time.time_ns() / 1e6 - newest.time)

    @property
    def backfilled(self) -> int:
        return sum(frame.is_backfill for frame in list(self.account.frames.values()))


@pytest.mark.parametrize("is_killed", [False, True])
async def test_live_values_arrive_at_once_while_an_outage_is_backfilled(
    *,
    home: Path,
    modbus: Callable[..., Awaitable[Plc]],
    flood: Callable[[Plc, int], None],
    broker: Broker,
    run: Callable[[Path], subprocess.Popen[bytes]],
    health: Callable[[Path], Awaitable[GatewayHealth]],
    is_killed: bool,
) -> None:
    plc = await modbus()
    flood(plc, TAGS)
    witness = Witness(broker)
    account = witness.account
    plant.write_tables(
        home,
        plc=plc.url,
        broker=broker.url,
        tags=TAGS,
        scan="20ms",
        connector=f"backlog: live_first, window_rows: {WINDOW_ROWS}, windows_in_flight: {WINDOWS}",
        gateway=", store: {ring_rows: 8192}",
    )
    gateway = run(home)
    await plant.until(lambda: account.newest > 2_000, "a flood")
    await broker.stop()
    away = account.newest + OUTAGE_ROWS
    await plant.eventually(lambda: health(home), lambda now: now.wal.durable > away, "a backlog")
    broker.broker.faults.ack_delay_s = ACK_DELAY_S
    witness.live_ms.clear()
    repeats = account.repeats
    await broker.listen()
    await plant.until(lambda: witness.backfilled > 1_000, "back-fill")
    if is_killed:
        gateway.kill()
        gateway.wait()
        gateway = run(home)
        witness.live_ms.clear()
        await plant.until(lambda: bool(witness.live_ms), "a live value after the kill")
    state = (await health(home)).connectors[0]
    assert state.owed_rows > 0, "the backlog drained too fast to prove anything"
    fresh = len(witness.live_ms)
    await plant.until(lambda: len(witness.live_ms) >= fresh + 50, "live values beside it")
    ages = sorted(witness.live_ms)
    print(f"live p50 {ages[len(ages) // 2]:.0f} ms, p99 {ages[int(0.99 * len(ages))]:.0f} ms of {len(ages)}")  # noqa: T201
    assert ages[int(0.99 * len(ages))] <= LIVE_MS_MAX
    broker.broker.faults.ack_delay_s = 0.0
    now = await plant.eventually(lambda: health(home), lambda now: now.connectors[0].owed_rows == 0, "the back-fill")
    durable = now.wal.durable
    await plant.until(lambda: account.lost(durable) == 0, "every durable row")
    plant.stop_gateway(gateway)
    assert (account.out_of_order, account.conflicts, account.notices) == (0, 0, [])
    assert witness.topics == {False: {"flow/gw"}, True: {"flow/gw/backfill"}}
    window_rows = 2 * WINDOW_ROWS * WINDOWS
    assert account.repeats - repeats <= window_rows + is_killed * (window_rows + COMMIT_LAG_S * 4 * ROWS_PER_S)
