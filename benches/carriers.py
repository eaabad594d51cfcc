"""What a scan costs the gateway when its driver runs somewhere else, as one JSON line.

    python benches/carriers.py [--devices 8] [--passes 7] [--scans 300] [--case native] [--case inside] ...

One scan of 125 registers of each device, a Modbus server in a process of its own, each driver an own child where it has
one; devices are scanned at once, as those of a scan class are. `gateway_us`: CPU of this process per device and scan,
which is what the gateway pays; `scan_us`: wall time of all. Cases take turns, and the least of all passes counts.
built-in: the Python driver in the gateway. native: examples/plugins/modbus-c in a process. inside: the same library in
a thread of the gateway. process: the Python driver in a process. `ratio` is gateway_us over the built-in driver's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import uvloop

from framegate.carrier.native import NativeDriver
from framegate.carrier.python import ProcessDriver
from framegate.contract.driver import BoundTag, Driver
from framegate.contract.frame import TagId, ValueType
from framegate.contract.plugin import Artifact, Permissions
from framegate.package.manifest import read_manifest
from framegate_plugins.modbus.driver import ModbusDriver
from framegate_plugins.modbus.trial import Trial

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "examples" / "plugins" / "modbus-c"
ROWS = 125
WARM = 50
SERVER = """
import asyncio, sys
from framegate_plugins.modbus.simulator import start
async def serve():
    simulator = await start({"size": 200})
    print(simulator.url, flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(serve())
"""


def library(folder: Path) -> bytes:
    target = folder / "plugin.so"
    command = [
        "cc",
        "-O2",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-s",
        f"-I{ROOT / 'contract'}",
        "-o",
        str(target),
    ]
    subprocess.run([*command, str(SAMPLE / "driver.c")], check=True)
    return target.read_bytes()


def cases(data: bytes) -> dict[str, Callable[[], Driver]]:
    manifest = read_manifest(SAMPLE / "driver.toml")
    built_in = read_manifest(ROOT / "src" / "framegate_plugins" / "modbus" / "plugin.toml")
    trusted = replace(manifest, permissions=Permissions(in_process=True))
    sha256 = hashlib.sha256(data).hexdigest()

    def artifact() -> Artifact:
        fd = os.memfd_create("plugin.so")
        os.write(fd, data)
        return Artifact("plugin.so", fd, sha256, len(data))

    return {
        "built-in": lambda: ModbusDriver({}),
        "native": lambda: NativeDriver(manifest, {}, artifact),
        "process": lambda: ProcessDriver(built_in, {}),
        "inside": lambda: NativeDriver(trusted, {}, artifact, isolation="none"),
    }


@contextlib.asynccontextmanager
async def opened(drivers: Sequence[Driver], trial: Trial, url: str) -> AsyncIterator[Sequence[Driver]]:
    for driver in drivers:
        await driver.open(trial.context(url))
    yield drivers
    for driver in drivers:
        await driver.close()


async def measure(drivers: Sequence[Driver], scans: int) -> tuple[float, float]:
    """CPU per device and scan, and wall time per scan of all, us."""
    tags = [BoundTag(TagId(number), f"t{number}", f"hr:{number}", ValueType.INT16, "R", {}) for number in range(ROWS)]
    plans = [driver.plan(tags) for driver in drivers]

    async def scan() -> None:
        if len(drivers) == 1:  # nothing to gather, and gathering costs
            await drivers[0].read(plans[0])
        else:
            await asyncio.gather(*(driver.read(plan) for driver, plan in zip(drivers, plans, strict=True)))

    for _ in range(WARM):
        await scan()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(scans):
        await scan()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu / scans / len(drivers) * 1e6, wall / scans * 1e6


async def run(
    url: str, made: dict[str, Callable[[], Driver]], passes: int, scans: int, devices: int
) -> dict[str, dict[str, float]]:
    least: dict[str, tuple[float, float]] = {}
    async with Trial() as trial:
        for _ in range(passes):
            for name, make in made.items():
                async with opened([make() for _ in range(devices)], trial, url) as drivers:
                    cpu, wall = await measure(drivers, scans)
                before = least.get(name, (cpu, wall))
                least[name] = min(before[0], cpu), min(before[1], wall)
    base = least["built-in"][0] if "built-in" in least else 0.0
    return {
        name: {"gateway_us": round(cpu, 1), "scan_us": round(wall, 1), "ratio": round(cpu / base, 2) if base else 0.0}
        for name, (cpu, wall) in least.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--scans", type=int, default=300)
    parser.add_argument("--case", action="append", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = cases(library(Path(folder)))
    wanted = {name: make for name, make in made.items() if not arguments.case or name in arguments.case}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        print(json.dumps(uvloop.run(run(url, wanted, arguments.passes, arguments.scans, arguments.devices))))
        server.stdin.close()


if __name__ == "__main__":
    main()
