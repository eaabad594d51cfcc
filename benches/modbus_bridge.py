"""What the Modbus bridge costs, as one JSON line.

    python benches/modbus_bridge.py [--seconds 5] [--tags 10000] [--peer]

update_us: CPU per row of `update`, batches of 5,000 rows, least of many passes: all of one type, in table order and
shuffled with a tenth of them Bad. read: 100 holding registers over loopback, by a client in a process of its own whose
connections ask again as soon as they are answered: requests per second, latency, CPU of the bridge's process per
request, while 20,000 rows a second are shown. rss_mb: the process with all tags shown, before any client. --peer: the
same client against pymodbus's server, to which nothing is written meanwhile, in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop

from framegate.contract.frame import Batch, uniform_quality, uniform_time
from framegate_plugins.modbus.bridge_trial import BridgeTrial

BATCH_ROWS = 5_000
BATCHES = 20  # of one pass: reading the clock may cost as much as a batch
PASSES = 20
FEED_S = 0.1
FEED_ROWS = 2_000
REGISTERS = 100
REQUEST = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 0, REGISTERS)
ANSWER_BYTES = 9 + 2 * REGISTERS
CONNECTIONS = (1, 16)


# -- the client's process ----------------------------------------------------------------------------------------


class Asking(asyncio.Protocol):
    """One connection: asks, waits for the whole answer, asks again."""

    def __init__(self, latencies: list[float]) -> None:
        self._latencies = latencies
        self._left = 0
        self._asked = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left == 0:
            self._latencies.append(time.perf_counter() - self._asked)
            self._ask()

    def _ask(self) -> None:
        self._left = ANSWER_BYTES
        self._asked = time.perf_counter()
        self._transport.write(REQUEST)


async def ask(port: int, connections: int, seconds: float) -> None:
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: Asking(latencies), "127.0.0.1", port)
    await asyncio.sleep(seconds / 5)  # warm
    latencies.clear()
    await asyncio.sleep(seconds)
    ordered = np.array(latencies) * 1e3
    p50, p99 = np.quantile(ordered, (0.5, 0.99))
    print(json.dumps({"per_s": len(latencies) / seconds, "p50_ms": p50, "p99_ms": p99}))


# -- the bridge's process ----------------------------------------------------------------------------------------


def batch(trial: BridgeTrial, rows: Sequence[int], dtype: str, bad: float = 0.0) -> Batch:
    ids = np.array([trial.tags[row].id for row in rows], np.int32)
    quality = uniform_quality(0)
    if bad:
        quality = np.where(np.arange(len(rows)) % round(1 / bad) == 0, 0x80310000, 0).astype(np.uint32)
    return Batch(ids, (np.arange(len(rows)) % 100).astype(dtype), quality, uniform_time(0), 0)


def update_us(trial: BridgeTrial, one: Batch) -> float:
    trial.bridge.update([one])
    least = float("inf")
    for _ in range(PASSES):
        began = time.process_time_ns()
        trial.bridge.update([one] * BATCHES)
        least = min(least, time.process_time_ns() - began)
    return round(least / 1e3 / one.rows / BATCHES, 4)


async def updates(folder: Path) -> dict[str, float]:
    figures = {}
    order = np.random.default_rng(7).permutation(BATCH_ROWS).tolist()
    for type_, dtype in (("int16", "i8"), ("float32", "f8"), ("float64", "f8"), ("bool", "?")):
        trial = BridgeTrial([f"t{row} {type_} RW" for row in range(BATCH_ROWS)], home=folder)
        async with trial:
            figures[type_] = update_us(trial, batch(trial, range(BATCH_ROWS), dtype))
            figures[f"{type_} shuffled, a tenth bad"] = update_us(trial, batch(trial, order, dtype, 0.1))
    return figures


async def feed(trial: BridgeTrial) -> None:
    """Rows of int16 tags, ten times a second."""
    one = batch(trial, range(0, 2 * FEED_ROWS, 2), "i8")
    while True:
        trial.bridge.update([one])
        await asyncio.sleep(FEED_S)


async def reads(port: int, seconds: float) -> dict[str, dict[str, float]]:
    figures = {}
    for connections in CONNECTIONS:
        command = [sys.executable, __file__, "--client", str(port), str(connections), str(seconds)]
        began_cpu, began = time.process_time(), time.perf_counter()
        client = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        out, _ = await client.communicate()
        share = (time.process_time() - began_cpu) / (time.perf_counter() - began)
        figure = json.loads(out)
        figure["cpu_us"] = share / figure["per_s"] * 1e6
        figures[f"{connections} connections"] = {key: round(value, 3) for key, value in figure.items()}
    return figures


@contextlib.asynccontextmanager
async def pymodbus_server() -> AsyncIterator[int]:
    from pymodbus.server import ModbusTcpServer  # noqa: PLC0415
    from pymodbus.simulator import DataType, SimData, SimDevice  # noqa: PLC0415

    logging.disable()  # it tells everything that was under way when a client leaves
    device = SimDevice(1, [SimData(0, count=1000, values=0, datatype=DataType.REGISTERS)])
    server: Any = ModbusTcpServer(device, address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    yield server.transport.sockets[0].getsockname()[1]
    await server.shutdown()


async def main(options: argparse.Namespace) -> None:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        types = [("int16", "float32")[row % 2] for row in range(options.tags)]
        before = psutil.Process().memory_info().rss
        trial = BridgeTrial(
            [f"t{row} {type_} RW" for row, type_ in enumerate(types)], {"requests_per_s": 1_000_000}, home=home
        )
        async with trial:
            trial.show({tag.name: 1 for tag in trial.tags})
            figures["rss_mb"] = round(psutil.Process().memory_info().rss / 2**20, 1)
            figures["rss_of_tags_mb"] = round((psutil.Process().memory_info().rss - before) / 2**20, 1)
            feeding = asyncio.create_task(feed(trial))
            figures["read"] = await reads(trial.port, options.seconds)
            feeding.cancel()
        if options.peer:
            async with pymodbus_server() as port:
                figures["read_pymodbus"] = await reads(port, options.seconds)
        figures["update_us"] = await updates(home)
    figures["update_us_median"] = statistics.median(figures["update_us"].values())
    print(json.dumps(figures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--tags", type=int, default=10_000)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--client", nargs=3, metavar=("PORT", "CONNECTIONS", "SECONDS"))
    arguments = parser.parse_args()
    if arguments.client:
        port, connections, seconds = arguments.client
        uvloop.run(ask(int(port), int(connections), float(seconds)))
    else:
        uvloop.run(main(arguments))
