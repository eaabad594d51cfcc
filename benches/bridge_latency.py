"""How late a SCADA system learns of a change in a PLC: from the register to the call-back of an OPC UA client.

Method. A simulated Modbus PLC and an OPC UA client (asyncua's) in this process, `edge run` between them with the
durable log on; 100 tags at 100 ms, shown by the OPC UA bridge, all of them subscribed. A register is changed at a
random moment, so that the wait for the next scan (50 ms on average) is part of it; wall time until the client is called
with that value. The client asks for a publishing interval of 10 ms.

    python -m benches.bridge_latency
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncua

from framegate.testing import plant
from framegate.testing.ports import free_port
from framegate_plugins.modbus.simulator import start as start_plc

TAGS = 100
CHANGES = 500
PUBLISHING_MS = 10
PAUSE_S = (0.15, 0.25)
WAIT_S = 10.0
Client: Any = vars(asyncua)["Client"]


class Taker:
    """Gives the time at which a value was notified to whoever waits for it."""

    def __init__(self) -> None:
        self.wanted = 0
        self.arrived: asyncio.Future[float] | None = None

    def datachange_notification(self, _node: object, value: object, _data: object) -> None:
        if self.arrived is not None and not self.arrived.done() and value == self.wanted:
            self.arrived.set_result(time.perf_counter())


def write_tables(home: Path, plc: str, port: int) -> None:
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc}'", "scada": f"url: 'tcp://127.0.0.1:{port}'"},
        drivers={"plc": "plugin: modbus, endpoint: plc, options: {unit: 1}, scan: {default: 100ms}"},
        connectors={},
        variables=[f"tag: t{number}, source: plc, address: 'hr:{number}', type: int16" for number in range(TAGS)],
    )
    path = home / "config" / "drivers.yml"
    row = "{plugin: opcua, endpoint: scada, options: {security: [none], anonymous: viewer}}"
    path.write_text(f"{path.read_text()}bridges:\n  scada: {row}\n")


async def measure(home: Path, changes: int) -> list[float]:
    """Seconds from change to call-back."""
    plc = await start_plc({})
    port = free_port()
    write_tables(home, plc.url, port)
    gateway = plant.start_gateway(home)
    try:
        await reachable(port)
        async with Client(f"opc.tcp://127.0.0.1:{port}", timeout=20) as client:
            taker = Taker()
            subscription = await client.create_subscription(PUBLISHING_MS, taker)
            await subscription.subscribe_data_change([client.get_node(f"ns=2;s=t{number}") for number in range(TAGS)])
            await asyncio.sleep(2.0)
            found = []
            for value in range(1, changes + 1):
                await asyncio.sleep(random.uniform(*PAUSE_S))
                taker.wanted, taker.arrived = value, asyncio.get_running_loop().create_future()
                began = time.perf_counter()
                plc.units[1].hold[value % TAGS] = value
                found.append(await asyncio.wait_for(taker.arrived, WAIT_S) - began)
            return found
    finally:
        await asyncio.to_thread(plant.stop_gateway, gateway)
        await plc.close()


async def reachable(port: int) -> None:
    async with asyncio.timeout(WAIT_S * 3):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=CHANGES)
    with tempfile.TemporaryDirectory() as folder:
        found = sorted(asyncio.run(measure(Path(folder), parser.parse_args().changes)))
    figures = {
        "changes": len(found),
        "p50_ms": round(1e3 * statistics.median(found), 1),
        "p99_ms": round(1e3 * found[min(len(found) - 1, int(0.99 * len(found)))], 1),
        "max_ms": round(1e3 * found[-1], 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
