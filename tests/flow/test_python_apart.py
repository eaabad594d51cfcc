"""Drivers of our own in a process each: over TCP, over a line that the gateway relays, and with datagrams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from framegate.carrier.python import ProcessDriver
from framegate.contract.command import Write
from framegate.contract.errors import NoReply, NotConnected
from framegate.package.manifest import read_manifest
from framegate.testing.check_driver import check_driver
from framegate_plugins.modbus.driver import ModbusDriver
from framegate_plugins.modbus.trial import Trial, bound_tags, check_every_type, values_in
from tests.unit.carrier.native.conftest import childless

MODBUS = Path(__file__).resolve().parents[2] / "src" / "framegate_plugins" / "modbus"


@pytest.fixture
async def trial() -> AsyncIterator[Trial]:
    async with Trial() as trial:
        yield trial


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., ProcessDriver]]:
    made: list[ProcessDriver] = []
    manifest = read_manifest(MODBUS / "plugin.toml")

    def make(options: Any = None) -> ProcessDriver:
        made.append(ProcessDriver(manifest, options or {}))
        return made[-1]

    yield make
    for driver in made:
        await driver.close()
    await childless()


Make = Callable[..., ProcessDriver]


async def test_modbus_apart_keeps_the_contract(make: Make, trial: Trial) -> None:
    simulator = await trial.simulate(size=100)
    tags = bound_tags("hr:0 int16", "hr:10 float64", "coil:3 bool", "hr:20 string length=4")
    endpoint = trial.endpoint(simulator.url)
    await check_driver(make, tags, trial.pool, endpoint=endpoint, scans=60, writes=[Write(tags[0].id, 7)])


@pytest.mark.parametrize(
    ("url", "options"),
    [("tcp://127.0.0.1:0", {}), ("udp://127.0.0.1:0", {}), ("memory://apart", {"framing": "rtu"})],
)
async def test_modbus_apart_writes_and_reads_every_type(
    make: Make, trial: Trial, url: str, options: dict[str, Any]
) -> None:
    simulator = await trial.simulate(url=url, size=100, **({"framing": "rtu"} if options else {}))
    driver = make(options)
    await driver.open(trial.context(simulator.url))
    await check_every_type(cast(ModbusDriver, driver))  # four verbs are all it uses


async def test_silence_and_loss_are_told_as_in_the_gateway(make: Make, trial: Trial) -> None:
    simulator = await trial.simulate(size=100)
    driver = make({"timeout": 0.1, "retries": 0})
    context = trial.context(simulator.url)
    await driver.open(context)
    plan = driver.plan(bound_tags("hr:0 int16"))
    simulator.units[1].misbehave(silent=True)
    with pytest.raises(NoReply) as silent:
        await driver.read(plan)
    assert silent.value.stable_code == "E5012"
    simulator.units[1].misbehave(reset=True)
    with pytest.raises(NotConnected):
        await driver.read(plan)
    simulator.units[1].misbehave()
    await driver.open(context)
    assert values_in(await driver.read(plan)) == {0: 0}
