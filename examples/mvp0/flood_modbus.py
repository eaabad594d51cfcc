"""A Modbus TCP device with as many changing points as asked, from the plugin's simulator.

python examples/mvp0/flood_modbus.py --port 15020 --points 1000 --pps 500
"""

from __future__ import annotations

import argparse
import asyncio

from framegate.package.discover import discover, load_role

STEPS_PER_S = 10


async def flood(port: int, points: int, pps: int) -> None:
    """Serve `points` holding registers of unit 1 and change `pps` of them every second."""
    simulator = await load_role(discover()["modbus"], "simulator")({"url": f"tcp://127.0.0.1:{port}"})
    unit, at = simulator.units[1], 0
    print(f"serving {points} points on 127.0.0.1:{simulator.port}", flush=True)  # noqa: T201 - a script talks
    while True:
        for _ in range(max(1, pps // STEPS_PER_S)):
            unit.hold[at] = (int(unit.hold[at]) + 1) % 30_000
            at = (at + 1) % points
        await asyncio.sleep(1 / STEPS_PER_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=15020)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--pps", type=int, default=500)
    arguments = parser.parse_args()
    asyncio.run(flood(arguments.port, arguments.points, arguments.pps))
