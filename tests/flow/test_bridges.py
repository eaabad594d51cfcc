"""Bridges of a whole gateway: a client of a bridge reads what a device says, writes to it, and outlives changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from framegate.observe.face import BridgeRecord, GatewayHealth
from framegate.testing import plant
from framegate.testing.ports import free_port
from framegate_plugins.modbus.simulator import Simulator as Plc

Run = Callable[[Path], subprocess.Popen[bytes]]
PLUGIN = Path(__file__).parents[1] / "unit" / "bridge" / "plugins" / "talk"


@pytest.fixture
async def plc(modbus: Callable[..., Awaitable[Plc]]) -> Plc:
    return await modbus(units=[1])


class Hmi:
    """A client of the bridge `talk`."""

    def __init__(self) -> None:
        self.port, self.metrics = free_port(), free_port()

    async def ask(self, line: str) -> Any:
        """Its answer; None where it hangs up or is not there."""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            with contextlib.closing(writer):
                writer.write(line.encode() + b"\n")
                return json.loads(await asyncio.wait_for(reader.readline(), 10) or "null")
        return None


def tables(home: Path, plc: Plc, hmi: Hmi, unit: str = "rpm", more: str = "") -> None:
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc.url}'", "hmi": f"url: 'tcp://127.0.0.1:{hmi.port}'"},
        drivers={"plc": "plugin: modbus, endpoint: plc, options: {unit: 1}, scan: {default: 50ms}"},
        connectors={},
        variables=[
            f"tag: speed, source: plc, address: 'hr:0', type: int16, access: RW, scale: 0.5, unit: {unit}",
            "tag: level, source: plc, address: 'hr:1', type: int16, access: RW",
            *([more] if more else []),
        ],
        metrics=hmi.metrics,
    )
    drivers = home / "config" / "drivers.yml"
    row = "plugin: talk, endpoint: hmi, tags: ['speed', 'level'], commands: {tags: [speed]}"
    drivers.write_text(drivers.read_text() + f"bridges:\n  panel: {{{row}}}\n")


@pytest.fixture(autouse=True)
def unsigned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin of these tests is one under development."""
    monkeypatch.setenv("EDGE_UNSIGNED_PLUGINS", str(PLUGIN))


Ask = Callable[[Path], Awaitable[GatewayHealth]]


async def bridge_of(health: Ask, home: Path) -> BridgeRecord:
    return (await health(home)).bridges[0]


async def test_a_client_reads_and_writes_through_a_bridge(tmp_path: Path, plc: Plc, run: Run, health: Ask) -> None:
    hmi = Hmi()
    tables(tmp_path, plc, hmi)
    plc.units[1].hold[0] = 40
    run(tmp_path)
    await plant.eventually(lambda: hmi.ask("get speed"), lambda row: bool(row) and row[0] == 20.0, "the value is shown")
    assert await hmi.ask("set speed 21.5") == {"outcome": "CONFIRMED", "code": "", "origin": "bridge:panel/anna"}
    assert plc.units[1].hold[0] == 43
    await plant.eventually(lambda: hmi.ask("get speed"), lambda row: row[0] == 21.5, "what was written is shown")
    refused = await hmi.ask("set level 5")
    assert (refused["outcome"], refused["code"]) == ("REJECTED", "E4205")
    assert plc.units[1].hold[1] == 0
    audited = plant.edge("audit", "ls", "--home", str(tmp_path), "-o", "json").stdout
    assert "bridge:panel" in audited
    record = await bridge_of(health, tmp_path)
    assert (record.state, record.tags, record.error) == ("serving", 2, "")


async def test_a_bridge_that_dies_comes_back_and_the_gateway_goes_on(
    tmp_path: Path, plc: Plc, run: Run, health: Ask
) -> None:
    hmi = Hmi()
    tables(tmp_path, plc, hmi)
    run(tmp_path)
    await plant.eventually(lambda: hmi.ask("get speed"), bool, "the value is shown")
    await hmi.ask("die")
    await plant.eventually(lambda: hmi.ask("get speed"), bool, "the value is shown again")
    record = await bridge_of(health, tmp_path)
    assert record.restarts == 1


async def test_a_change_restarts_a_bridge_only_where_it_shows_it(
    tmp_path: Path, plc: Plc, run: Run, health: Ask
) -> None:
    hmi = Hmi()
    tables(tmp_path, plc, hmi)
    run(tmp_path)
    await plant.eventually(lambda: hmi.ask("get speed"), bool, "the value is shown")
    first = await bridge_of(health, tmp_path)
    tables(tmp_path, plc, hmi, more="tag: other, source: plc, address: 'hr:2', type: int16")
    assert plant.edge("cfg", "apply", "--home", str(tmp_path)).returncode == 0
    same = await bridge_of(health, tmp_path)
    assert same.pid == first.pid
    tables(tmp_path, plc, hmi, unit="Hz")
    assert plant.edge("cfg", "apply", "--home", str(tmp_path)).returncode == 0
    await plant.eventually(lambda: hmi.ask("show speed"), lambda told: bool(told) and told[3] == "Hz", "the new unit")
    other = await bridge_of(health, tmp_path)
    assert other.pid != first.pid


async def test_a_gateway_with_a_bridge_stops_in_time_and_takes_it_along(
    tmp_path: Path, plc: Plc, run: Run, health: Ask
) -> None:
    hmi = Hmi()
    tables(tmp_path, plc, hmi)
    gateway = run(tmp_path)
    await plant.eventually(lambda: hmi.ask("get speed"), bool, "the value is shown")
    code, seconds = await asyncio.to_thread(plant.stop_gateway, gateway)
    assert code == 0
    assert seconds < 2.5
    assert await hmi.ask("get speed") is None
