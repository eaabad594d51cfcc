"""Faults in random order on one gateway: kills, stops, cuts, brokers and PLCs that come and go. The promises hold.

Each step breaks or mends one thing; at the end everything is mended and the account is closed at a position that the
gateway called durable.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from framegate.cli.demo.uplink import Uplink
from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import Mosquitto
from framegate_plugins.modbus.simulator import Simulator as Plc

TAGS = 100
STEP_S_MAX = 0.8
WINDOW_ROWS, WINDOWS = 256, 2
COMMIT_LAG_S = 1.0
"""Acknowledged rows whose cursor may not be durable yet: promised is a second of them."""
ROWS_PER_S = TAGS * 50
FAULTS = ("kill", "stop", "cut", "mend", "plc_off", "plc_on", "broker", "wait")


class Chaos:
    """One plant whose parts fail in turn."""

    def __init__(
        self, start: Callable[[], subprocess.Popen[bytes]], uplink: Uplink, plc: Plc, broker: Mosquitto
    ) -> None:
        self.start, self.uplink, self.plc, self.broker = start, uplink, plc, broker
        self.gateway = start()
        self.is_cut = self.is_plc_off = False
        self.losses = 0

    async def step(self, fault: str, drained: Callable[[], Awaitable[None]]) -> None:
        match fault:
            case "kill":
                self.gateway.kill()
                self.gateway.wait()
                self.gateway, self.losses = self.start(), self.losses + 1
            case "stop":
                self.gateway.terminate()
                code = await asyncio.to_thread(self.gateway.wait, plant.WAIT_S_MAX)
                assert code in {0, -15}, code  # -15: it had not come as far as to listen for signals
                self.gateway, self.losses = self.start(), self.losses + 1
            case "cut" if not self.is_cut:
                await self.uplink.cut()
                self.is_cut, self.losses = True, self.losses + 1
            case "broker" if self.is_cut:
                await drained()
                self.broker.stop()
                await asyncio.to_thread(self.broker.start)
                await drained()
            case "mend":
                await self.mend()
            case "plc_off" if not self.is_plc_off:
                await self.plc.stop()
                self.is_plc_off = True
            case "plc_on":
                await self.switch_on()

    async def mend(self) -> None:
        if self.is_cut:
            await self.uplink.mend()
            self.is_cut = False

    async def switch_on(self) -> None:
        if self.is_plc_off:
            await self.plc.listen()
            self.is_plc_off = False


@pytest.mark.parametrize(
    ("steps", "encoding", "qos"),
    [
        (12, "json-batch", 1),
        pytest.param(30, "json-batch", 2, marks=pytest.mark.campaign),
        pytest.param(30, "protobuf", 1, marks=pytest.mark.campaign),
        pytest.param(30, "json", 1, marks=pytest.mark.campaign),
    ],
)
async def test_faults_in_random_order_lose_nothing(
    *,
    home: Path,
    modbus: Callable[..., Awaitable[Plc]],
    flood: Callable[[Plc, int], None],
    mosquitto: Mosquitto,
    subscribe: Callable[..., Awaitable[Account]],
    drained: Callable[[Account], Awaitable[None]],
    run: Callable[[Path], subprocess.Popen[bytes]],
    health: Callable[[Path], Awaitable[GatewayHealth]],
    steps: int,
    encoding: str,
    qos: int,
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it
    dice = random.Random(seed)
    plc = await modbus()
    flood(plc, TAGS)
    account = await subscribe(mosquitto.port, encoding=encoding, qos=2)
    uplink = Uplink(mosquitto.port)
    await uplink.mend()
    plant.write_tables(
        home,
        plc=plc.url,
        broker=f"tcp://127.0.0.1:{uplink.port}",
        tags=TAGS,
        scan="20ms",
        connector=f"encoding: {encoding}, window_rows: {WINDOW_ROWS}, windows_in_flight: {WINDOWS}",
        options=f"qos: {qos}",
        gateway=", store: {ring_rows: 2048}",
    )
    chaos = Chaos(lambda: run(home), uplink, plc, mosquitto)
    try:
        for _ in range(steps):
            await asyncio.sleep(dice.random() * STEP_S_MAX)
            await chaos.step(dice.choice(FAULTS), lambda: drained(account))
        await chaos.mend()
        await chaos.switch_on()
        durable = (await health(home)).wal.durable
        await plant.until(lambda: account.newest > durable + 10 * TAGS, "everything durable, and more", 90)
    finally:
        await uplink.cut()
    assert account.lost(durable) == 0
    assert account.notices == []
    assert (account.out_of_order, account.conflicts) == (0, 0)
    assert account.repeats <= chaos.losses * (WINDOW_ROWS * WINDOWS + COMMIT_LAG_S * ROWS_PER_S)
