"""The OPC UA bridge by itself: how soon it listens, what a row costs, how late a client learns of it, memory.

Method. The bridge runs in a process of its own, as it does in a gateway, without one around it. The start is measured
from the call of `open` to its return, in a process that has imported everything. A row's cost is the CPU time of
`update` with batches of all tags, every value new, while so many items of one session are monitored (queue of one,
reported each 100 ms to a client that reads as fast as it can). Latency is from `update` to the client's call-back: the
value is the time at which it was given, rows come at 50 Hz, and the publishing interval of 50 ms is part of it.
The client is asyncua's; where many values come it is the slower side, so that latency is measured with ten items.

    python -m benches.opcua_bridge                       all of it
    python -m benches.opcua_bridge --tags 10000 --items 0 1000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncua
import numpy as np

from framegate.contract.bridge import BridgeContext, BridgeTag
from framegate.contract.frame import Batch, TagId, ValueType, uniform_quality, uniform_time
from framegate.endpoint.clock import SystemClock
from framegate.testing.fakes import CollectingLog
from framegate_plugins.opcua.bridge import OpcUaBridge

ua: Any = vars(asyncua)["ua"]
Client: Any = vars(asyncua)["Client"]
ROUNDS = 20
ROUND_S = 0.1
LATENCY_HZ = 50
LATENCY_S = 10.0
LATENCY_ITEMS = 10
ITEMS_AT_ONCE = 1_000


async def serve(tags: int) -> None:
    """The child: opens a bridge, then does what lines on stdin ask for."""
    shown = [BridgeTag(TagId(n), f"line{n // 100}.tag{n % 100}", ValueType.INT64, "R") for n in range(tags)]
    bridge = OpcUaBridge({"security": ["none"], "anonymous": "viewer"})
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        args = ("bench", "bench", "tcp://127.0.0.1:0", None, home, home, shown, SystemClock(), CollectingLog())
        began, cpu = time.perf_counter(), time.process_time()
        await bridge.open(BridgeContext(*args))
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        tell(start_s=took, start_cpu_s=cpu, port=bridge.port, rss_mb=rss_mb())
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            if line == b"cost\n":
                tell(rows_per_s=await cost(bridge, tags), rss_mb=rss_mb())
            else:
                await tick(bridge, tags)
        await bridge.close()


async def cost(bridge: OpcUaBridge, tags: int) -> float:
    """Rows per CPU second of `update`; the median of rounds."""
    found, ids = [], np.arange(tags, dtype=np.int32)
    for number in range(ROUNDS):
        now = time.time_ns()
        made = Batch(ids, np.full(tags, number, np.int64), uniform_quality(0), uniform_time(now), now)
        began = time.thread_time()
        bridge.update([made])
        found.append(tags / (time.thread_time() - began))
        await asyncio.sleep(ROUND_S)
    return statistics.median(found)


async def tick(bridge: OpcUaBridge, tags: int) -> None:
    """Rows that hold the time, at LATENCY_HZ."""
    ids = np.arange(min(tags, LATENCY_ITEMS), dtype=np.int32)
    for _ in range(int(LATENCY_S * LATENCY_HZ)):
        now = time.monotonic_ns()
        wall = time.time_ns()
        bridge.update([Batch(ids, np.full(len(ids), now, np.int64), uniform_quality(0), uniform_time(wall), wall)])
        await asyncio.sleep(1 / LATENCY_HZ)


async def measure(tags: int, monitored: Sequence[int]) -> None:
    """One child, asked step by step."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "benches.opcua_bridge", "--serve", "--tags", str(tags))
    child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert child.stdin is not None
    try:
        started = await told(child)
        start = {key: round(started[key], 3) for key in ("start_s", "start_cpu_s")}
        show(tags=tags, **start, rss_mb=started["rss_mb"])
        for items in (each for each in monitored if each <= tags):
            async with Client(f"opc.tcp://127.0.0.1:{started['port']}/", timeout=60) as client:
                await monitor(client, items, 100, Nobody())
                child.stdin.write(b"cost\n")
                found = await told(child)
            show(tags=tags, monitored=items, rows_per_cpu_s=round(found["rows_per_s"]), rss_mb=found["rss_mb"])
        async with Client(f"opc.tcp://127.0.0.1:{started['port']}/", timeout=60) as client:
            taker = Latency()
            await monitor(client, LATENCY_ITEMS, 50, taker)
            child.stdin.write(b"tick\n")
            await asyncio.sleep(LATENCY_S + 1)
        ordered = sorted(taker.ms)
        p50, p99 = (ordered[int(len(ordered) * part)] for part in (0.5, 0.99))
        show(tags=tags, notified=len(ordered), latency_ms_p50=round(p50, 1), latency_ms_p99=round(p99, 1))
    finally:
        child.stdin.close()
        await child.wait()


async def monitor(client: Any, items: int, interval_ms: int, taker: Any) -> None:
    subscription = await client.create_subscription(interval_ms, taker, queue_maxsize=1_000_000)
    nodes = [client.get_node(ua.NodeId(f"line{n // 100}.tag{n % 100}", 2)) for n in range(items)]
    for start in range(0, items, ITEMS_AT_ONCE):
        await subscription.subscribe_data_change(nodes[start : start + ITEMS_AT_ONCE], sampling_interval=0)


class Nobody:
    def datachange_notification(self, node: Any, value: int, data: Any) -> None: ...


class Latency:
    def __init__(self) -> None:
        self.ms: list[float] = []

    def datachange_notification(self, node: Any, value: int | None, data: Any) -> None:
        if value is not None and value > 1_000_000:  # a time, not the number of a round
            self.ms.append((time.monotonic_ns() - value) / 1e6)


def rss_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def tell(**values: float) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


async def told(child: asyncio.subprocess.Process) -> dict[str, Any]:
    assert child.stdout is not None
    found: dict[str, Any] = json.loads(await child.stdout.readline())
    return found


def show(**values: object) -> None:
    print(json.dumps({"bench": "opcua_bridge", **values}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--items", type=int, nargs="*", default=[0, 1_000, 10_000])
    parser.add_argument("--serve", action="store_true", help="be the child that is measured")
    a = parser.parse_args()
    if a.serve:
        asyncio.run(serve(a.tags[0]))
        return
    for tags in a.tags:
        asyncio.run(measure(tags, a.items))


if __name__ == "__main__":
    main()
