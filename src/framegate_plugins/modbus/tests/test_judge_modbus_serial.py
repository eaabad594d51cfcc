"""Judge: npm modbus-serial, as a server for the driver and as a client of the simulator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from framegate_plugins.modbus.trial import EVERY_TYPE, Trial, bound_tags, check_every_type, values_in

NODE = shutil.which("node")
DEADLINE_S = 20.0


@contextlib.asynccontextmanager
async def _node(judges: Path, script: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    assert NODE is not None
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        NODE, str(judges / script), *arguments, stdin=pipe, stdout=pipe, stderr=pipe, cwd=judges
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_driver_agrees_with_modbus_serial_server(trial: Trial, judges: Path) -> None:
    async with _node(judges, "server.js") as process:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), DEADLINE_S))
        for style in ("auto", "multiple"):
            driver = await trial.open(f"tcp://127.0.0.1:{port}", {"writes": style})
            # This server does not speak function 22, which the last four rows need.
            await check_every_type(driver, EVERY_TYPE[:-4])
        plan = driver.plan(bound_tags("di:0 bool", "di:1 bool", "di:99 bool", "ir:60000 uint16", "ir:7 uint32"))
        assert values_in(await driver.read(plan)) == {0: True, 1: False, 2: True, 3: 60000, 4: (7 << 16) + 8}


async def _agree(trial: Trial, judges: Path, kind: str, where: str) -> None:
    device = trial.simulators[0].units[1]
    device.input[:10] = np.arange(10)
    device.discrete[:8] = [i % 2 == 1 for i in range(8)]
    async with _node(judges, "client.js", kind, where) as process:
        out, errors = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode == 0, errors.decode()
    seen = json.loads(out)
    assert seen["coils"] == [i in {3, 10, 12} for i in range(16)]
    assert seen["discrete"] == [i % 2 == 1 for i in range(8)]
    # On RTU this judge cannot read the answers of functions 22 and 23 and does not ask them.
    has_all = kind in {"tcp", "udp"}
    written = {5: 0x35, 20: 1, 21: 2, 22: 65535, 30: 7, 31: 8} if has_all else {5: 0x1234, 20: 1, 21: 2, 22: 65535}
    assert {i: value for i, value in enumerate(seen["hold"]) if value} == written
    assert seen["input"] == list(range(10))
    assert seen["both"] == ([1, 2, 65535] if has_all else None)
    assert seen["refused"] == 2


@pytest.mark.parametrize(
    ("kind", "url", "framing"),
    [("tcp", "tcp://127.0.0.1:0", "tcp"), ("udp", "udp://127.0.0.1:0", "tcp"), ("rtu", "tcp://127.0.0.1:0", "rtu")],
)
async def test_simulator_agrees_with_modbus_serial_client(
    trial: Trial, judges: Path, kind: str, url: str, framing: str
) -> None:
    simulator = await trial.simulate(url=url, framing=framing, size=1000)
    await _agree(trial, judges, kind, str(simulator.port))


async def test_simulator_agrees_with_modbus_serial_client_on_a_serial_cable(
    trial: Trial, judges: Path, cable: tuple[str, str]
) -> None:
    await trial.simulate(url=f"serial://{cable[0]}?baud=19200", size=1000)
    await _agree(trial, judges, "serial", cable[1])
