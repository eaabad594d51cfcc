"""The sample of a native driver, judged by servers that are no code of ours and by the Python driver."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from framegate.carrier.native import NativeDriver
from framegate.contract.command import Outcome, Write
from framegate.contract.errors import NoReply
from framegate.contract.plugin import Artifact
from framegate.contract.quality import Quality
from framegate.package.manifest import read_manifest
from framegate.testing.check_driver import check_driver
from framegate_plugins.modbus.driver import ModbusDriver
from framegate_plugins.modbus.trial import EVERY_TYPE, Trial, bound_tags, check_every_type, faults_in, values_in
from tests.flow.device import Device, Server, why_not
from tests.unit.carrier.native.conftest import childless

SAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plugins" / "modbus-c"
ROWS = [(row, value) for row, value in EVERY_TYPE if not row.startswith("hr:2") or row[3:5] in {"2 ", "22", "27"}]
"""Without the single bytes and bits of registers, which take function 22 to write."""
REGISTER_ROWS = [(row, value) for row, value in ROWS if row.startswith("hr")]

Open = Callable[..., Awaitable[NativeDriver]]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    if shutil.which("make") is None or shutil.which("cc") is None:
        pytest.skip("make or cc is not installed")
    folder = tmp_path_factory.mktemp("modbus-c")
    shutil.copytree(SAMPLE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so"))
    law = SAMPLE.parents[2] / "contract"
    subprocess.run(["make", "-s", "-C", str(folder), f"LAW={law}", "CFLAGS=-O2 -Wall -Wextra -Werror"], check=True)
    return (folder / "plugin.so").read_bytes()


@pytest.fixture
async def trial() -> AsyncIterator[Trial]:
    async with Trial() as trial:
        yield trial


@pytest.fixture
async def make(library: bytes) -> AsyncIterator[Callable[..., NativeDriver]]:
    made: list[NativeDriver] = []
    manifest = read_manifest(SAMPLE / "driver.toml")

    def artifact() -> Artifact:
        fd = os.memfd_create("plugin.so")
        os.write(fd, library)
        return Artifact("plugin.so", fd, "", len(library))

    def make(options: Mapping[str, Any] | None = None) -> NativeDriver:
        made.append(NativeDriver(manifest, options or {}, artifact))
        return made[-1]

    yield make
    for driver in made:
        await driver.close()
    await childless()


@pytest.fixture
def opened(make: Callable[..., NativeDriver], trial: Trial) -> Open:
    async def opened(url: str, options: Mapping[str, Any] | None = None) -> NativeDriver:
        driver = make(options)
        await driver.open(trial.context(url))
        return driver

    return opened


@pytest.mark.parametrize("server", ["libmodbus", "pymodbus"])
async def test_sample_agrees_with_a_foreign_server(opened: Open, tmp_path: Path, server: Server) -> None:
    if why_not(server):
        pytest.skip(why_not(server))
    device = Device(server, tmp_path)
    try:
        driver = await opened(f"tcp://127.0.0.1:{device.port}")
        rows = REGISTER_ROWS if server == "libmodbus" else ROWS
        await check_every_type(cast(ModbusDriver, driver), rows)  # four verbs are all it uses
        plan = driver.plan(bound_tags("hr:9999 int16", "hr:0 int16", "hr:1 uint16"))
        batches = await driver.read(plan)
        assert values_in(batches) == {1: -5, 2: 65000}
        assert faults_in(batches) == {0: Quality.BAD_NODE_ID_UNKNOWN}
    finally:
        await driver.close()
        device.close()


async def test_sample_reads_what_the_python_driver_reads(opened: Open, trial: Trial) -> None:
    simulator = await trial.simulate(size=1_000)
    unit, dice = simulator.units[1], np.random.default_rng(7)
    for registers in (unit.hold, unit.input):
        registers[:] = dice.integers(0, 1 << 16, len(registers))
    for bits in (unit.coils, unit.discrete):
        bits[:] = dice.integers(0, 2, len(bits)) == 1
    types = ("int16", "uint16", "int32", "uint32", "int64", "uint64", "float64", "bool")
    orders = ("", " word_order=little", " byte_order=little", " word_order=little byte_order=little")
    rows = [
        f"{'hr' if dice.integers(2) else 'ir'}:{dice.integers(900)} {types[number % 8]}{orders[number % 4]}"
        for number in range(150)
    ]
    rows += [f"{('coil', 'di')[number % 2]}:{dice.integers(1_000)} bool" for number in range(60)]
    rows += ["4x00017.3 bool", "3x00900.15 bool", "hr:12 bytes length=7", "hr:1500 int16"]
    tags = bound_tags(*rows)
    ours, sample = await trial.open(simulator.url), await opened(simulator.url)
    read, by_sample = await ours.read(ours.plan(tags)), await sample.read(sample.plan(tags))
    np.testing.assert_equal(values_in(by_sample), values_in(read))
    assert faults_in(by_sample) == faults_in(read)
    assert len(values_in(read)) == len(rows) - 1


async def test_sample_keeps_the_contract(make: Callable[..., NativeDriver], trial: Trial) -> None:
    simulator = await trial.simulate(size=100)
    tags = bound_tags("hr:0 int16", "hr:10 float64", "coil:3 bool", "hr:20 string length=4", "di:7 bool")
    endpoint = trial.endpoint(simulator.url)
    writes = [Write(tags[0].id, 7), Write(tags[1].id, 2.5), Write(tags[2].id, value=True)]
    await check_driver(make, tags, trial.pool, endpoint=endpoint, scans=60, writes=writes)


async def test_sample_of_a_silent_device_says_so_and_writes_stay_unknown(opened: Open, trial: Trial) -> None:
    simulator = await trial.simulate(size=100)
    driver = await opened(simulator.url, {"timeout_ms": 100})
    tags = bound_tags("hr:0 int16", "hr:50 int16", "coil:1 bool")
    plan = driver.plan(tags)
    assert len(values_in(await driver.read(plan))) == 3
    simulator.units[1].misbehave(silent=True)
    with pytest.raises(NoReply):
        await driver.read(plan)
    results = await driver.write([Write(tags[0].id, 1), Write(tags[1].id, 2)])
    assert [result.outcome for result in results] == [Outcome.UNKNOWN, Outcome.NOT_SENT]
    simulator.units[1].misbehave()
    assert len(values_in(await driver.read(plan))) == 3


async def test_write_goes_where_a_tag_is_now_and_not_where_it_was(opened: Open, trial: Trial) -> None:
    simulator = await trial.simulate(size=100)
    driver = await opened(simulator.url)
    (before,), (after,) = bound_tags("hr:10 int16"), bound_tags("hr:20 int16")
    await driver.read(driver.plan([before]))
    plan = driver.plan([after])  # the row has another address since the tables changed
    for value in (7, 8):
        assert [result.outcome for result in await driver.write([Write(after.id, value)])] == [Outcome.CONFIRMED]
        assert (simulator.units[1].hold[10], simulator.units[1].hold[20]) == (0, value)
    assert values_in(await driver.read(plan)) == {0: 8}


async def test_sample_merges_neighbours_and_refuses_what_it_cannot_read(opened: Open, trial: Trial) -> None:
    simulator = await trial.simulate(size=1_000)
    driver = await opened(simulator.url)
    tags = bound_tags(*(f"hr:{offset} int16" for offset in range(250)), "xx:1 int16", "hr:70000 int16", "hr:3 int8")
    asked = simulator.units[1].requests
    batches = await driver.read(driver.plan(tags))
    assert simulator.units[1].requests - asked == 2
    assert faults_in(batches) == dict.fromkeys((250, 251, 252), Quality.BAD_CONFIGURATION_ERROR)
    assert len(values_in(batches)) == 250
