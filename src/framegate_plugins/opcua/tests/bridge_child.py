"""A bridge in a process of its own, as a gateway runs it, for tests that measure or attack one.

python bridge_child.py HOME TAGS OPTIONS      prints its port; ends when stdin does
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from framegate.contract.frame import Value
from framegate_plugins.opcua.tests.bridge_stage import batch, stage, tag


async def main() -> None:
    home, count, options = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    tags = [tag(number, f"line{number // 100}.tag{number}") for number in range(count)]
    async with stage(home, tags, options) as place:
        values: dict[int, Value] = {each.id: float(each.id) for each in tags}
        place.bridge.update([batch(values)])
        sys.stdout.write(f"{place.bridge.port}\n")
        sys.stdout.flush()
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
        health = place.bridge.health()
        counts = {"refused": health.refused_total, "requests": health.requests_total, "clients": health.clients}
        sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
