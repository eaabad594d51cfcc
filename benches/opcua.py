"""What watching an OPC UA server costs: CPU of the driver and its slot per row, memory, latency of writes under load.

    python -m benches.opcua --tags 10000 --scan 1.0

The server is a process of its own, outside of the figure, and steps every tag once per scan. It is the plugin's
bridge, because no other server at hand changes so many values a second; with --server asyncua it is the plugin's
simulator. CPU is user and system time of this process between two looks after a warm-up, divided by the rows that the
slot published meanwhile; bus, log and connectors are not part of it (`benches.gateway` has those). The bridge's is
taken in the same way: what a row costs it, from the gateway to one client. The last figure takes notifications of so
many floats, as bytes, through the decoder alone, beside asyncua's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import from_binary

from framegate.contract.bridge import BridgeContext, BridgeTag
from framegate.contract.command import Command, CommandRecord, Outcome, Stage, Write
from framegate.contract.driver import BoundTag, DriverContext
from framegate.contract.frame import Batch, TagId, ValueType, uniform_quality, uniform_time
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.endpoint import endpoint_from_row
from framegate.endpoint.pool import EndpointPool
from framegate.observe.metrics import Metrics
from framegate.runtime.runtime import Runtime
from framegate.runtime.slot import ScanPlan, Slot
from framegate.testing.fakes import CollectingLog
from framegate_plugins.opcua.bridge import OpcUaBridge
from framegate_plugins.opcua.columns import Columns
from framegate_plugins.opcua.driver import OpcuaDriver
from framegate_plugins.opcua.points import points_from
from framegate_plugins.opcua.simulator import NAMESPACE, start
from framegate_plugins.opcua.wire import Reader

WRITES = 100
WRITE_S = 10.0
WRITES_S = 20.0
ROUNDS = 20
START_S = 600.0


class CountingSink:
    """Counts rows and forgets them."""

    is_paused = False

    def __init__(self) -> None:
        self.rows = 0

    def publish(self, batches: Sequence[Batch]) -> None:
        self.rows += sum(batch.rows for batch in batches)


def bound(count: int, server: str) -> list[BoundTag]:
    space, type_ = (NAMESPACE, ValueType.FLOAT64) if server == "asyncua" else ("urn:framegate:bench", ValueType.FLOAT32)
    return [
        BoundTag(TagId(number), f"t{number}", f"nsu={space};s=t{number}", type_, "RW", {}) for number in range(count)
    ]


class Confirming:
    """A desk that carries everything out at once."""

    async def submit(self, commands: Sequence[Command], by: str = "") -> Sequence[CommandRecord]:
        now = time.time_ns()
        return [CommandRecord(each, by, Stage.DISPATCHED, Outcome.CONFIRMED, "", "", now, now) for each in commands]

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - the contract's word
        return None


async def serve_bridge(tags: int, period_s: float) -> None:
    """Be a bridge whose tags all change once per period, until stdin ends; a line there asks what it has cost."""
    shown = [BridgeTag(TagId(n), f"t{n}", ValueType.FLOAT32, "RW") for n in range(tags)]
    bridge = OpcUaBridge({"security": ["none"], "anonymous": "operator", "items_max": max(tags, 1_000)})
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        log = CollectingLog()
        await bridge.open(
            BridgeContext(
                "bench", "bench", "tcp://127.0.0.1:0", None, home, home, shown, SystemClock(), log, Confirming()
            )
        )
        print(bridge.port, flush=True)
        stepping = asyncio.create_task(step(bridge, tags, period_s))
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while await reader.readline():
            print(time.process_time(), flush=True)
        stepping.cancel()
        await bridge.close()


async def step(bridge: OpcUaBridge, tags: int, period_s: float) -> None:
    """Change all tags once per period, until cancelled."""
    ids, turn = np.arange(tags, dtype=np.int32), 0.0
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        turn, due, now = turn + 1.0, due + period_s, time.time_ns()
        values = (np.arange(tags) % 1_000 + turn).astype(np.float64)
        bridge.update([Batch(ids, values, uniform_quality(0), uniform_time(now), now)])
        await asyncio.sleep(max(0.0, due - loop.time()))


async def serve(tags: int, period_s: float) -> None:
    simulator = await start({"tags": tags, "period": period_s})
    print(simulator.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await simulator.close()


async def measure(tags: int, scan_s: float, seconds: float, kind: str) -> dict[str, float]:
    words = ("--serve", "--server", kind, "--tags", str(tags), "--scan", str(scan_s))
    command = (sys.executable, "-m", "benches.opcua", *words)
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        assert server.stdout is not None
        assert server.stdin is not None
        port, told = int(await asyncio.wait_for(server.stdout.readline(), START_S)), server.stdout
        line = server.stdin

        async def cpu() -> float:
            """Seconds that the server has used."""
            if kind == "asyncua":
                return 0.0
            line.write(b"cpu\n")
            return float(await asyncio.wait_for(told.readline(), START_S))

        return await watch(port, bound(tags, kind), scan_s, seconds, cpu)
    finally:
        server.kill()
        await server.wait()


async def watch(
    port: int, rows: list[BoundTag], scan_s: float, seconds: float, server_cpu: Callable[[], Awaitable[float]]
) -> dict[str, float]:
    log, clock, sink, metrics = CollectingLog(), SystemClock(), CountingSink(), Metrics()
    row = {"url": f"tcp://127.0.0.1:{port}"}
    pool = EndpointPool({"line": endpoint_from_row("line", row, Path())}, clock, log, metrics)
    runtime = Runtime(pool, sink, clock, random.Random(1), log, metrics)
    driver = OpcuaDriver({"security": "none", "timeout": "60s"})
    plans = [ScanPlan("default", scan_s, driver.plan(rows), rows)]
    context = DriverContext("plc", "line", pool, clock, log)
    slot = Slot("plc", driver, plans, context, sink, clock, random.Random(1), log, metrics)
    await runtime.start([slot])
    while slot.health.scans_ok < 3:  # noqa: ASYNC110 - the first scan takes as long as the server needs
        await asyncio.sleep(0.1)
    await asyncio.sleep(3 * scan_s)
    served = await server_cpu()
    cpu, taken, began = time.process_time(), sink.rows, time.monotonic()
    await asyncio.sleep(seconds)
    cpu, taken, took_s = time.process_time() - cpu, sink.rows - taken, time.monotonic() - began
    served = await server_cpu() - served
    latencies = []
    until = time.monotonic() + WRITES_S
    for number in range(WRITES):
        asked = time.monotonic()
        if asked > until:
            break  # the server has more to do than it can
        (result,) = await slot.write([Write(TagId(number), 1.0)], asked + WRITE_S)
        if result.outcome is Outcome.CONFIRMED:
            latencies.append((time.monotonic() - asked) * 1000)
    await runtime.stop()
    await pool.close()
    return {
        "rows_per_s": round(taken / took_s),
        "cpu_us_per_row": round(cpu / max(1, taken) * 1e6, 3),
        "server_us_per_row": round(served / max(1, taken) * 1e6, 3),
        "rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "writes": len(latencies),
        "write_ms_mean": round(statistics.mean(latencies), 2) if latencies else -1.0,
        "write_ms_p99": round(sorted(latencies)[int(0.98 * len(latencies))], 2) if latencies else -1.0,
    }


def decode(tags: int) -> dict[str, float]:
    """CPU of decoding one notification of so many floats, ours and asyncua's."""
    items = [struct.pack("<IBBfqq", number, 0x0D, 10, float(number), 10**17 + number, 10**17) for number in range(tags)]
    body = struct.pack("<i", tags) + b"".join(items)
    columns = Columns(points_from(bound(tags, "bridge")), "source")
    columns.changes(Reader(body), 1)
    began = time.process_time()
    for _ in range(ROUNDS):
        columns.changes(Reader(body), 1)
    ours = (time.process_time() - began) / ROUNDS
    began = time.process_time()
    from_binary(ua.DataChangeNotification, Buffer(body + b"\xff\xff\xff\xff"))
    theirs = time.process_time() - began
    return {"decode_us_per_row": round(ours / tags * 1e6, 3), "asyncua_us_per_row": round(theirs / tags * 1e6, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tags", type=int, default=10_000)
    parser.add_argument("--scan", type=float, default=1.0, help="seconds")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--server", choices=("bridge", "asyncua"), default="bridge")
    parser.add_argument("--serve", action="store_true", help="be the server")
    options = parser.parse_args()
    if options.serve:
        asyncio.run((serve if options.server == "asyncua" else serve_bridge)(options.tags, options.scan))
        return
    figures = asyncio.run(measure(options.tags, options.scan, options.seconds, options.server))
    print(json.dumps({"tags": options.tags, "scan_s": options.scan, **figures, **decode(options.tags)}))


if __name__ == "__main__":
    main()
