"""A small OPC UA server for demo and tests: one folder of doubles, an array, a text, a method.

    simulator = await start({"url": "tcp://127.0.0.1:0", "tags": 100})
    await simulator.write(7, 42.0)
    await simulator.close()

Options: url, tags (doubles `ns=2;s=t0` on), period (seconds between two steps of a ramp through all of them; 0: they
stand still). Anybody may connect without security: it is no server for plants. Made with asyncua.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from asyncua import ua
from asyncua.common.node import Node
from asyncua.server.server import Server

from framegate.testing.ports import free_port

NAMESPACE: Final = "http://framegate.example/simulator"
TAGS_MAX: Final = 100_000
PER_FOLDER: Final = 100  # adding a node costs asyncua a look at all others of its folder


class Simulator:
    """A running server; nodes[i] is `ns=2;s=t{i}`."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        host, _, port = str(options.get("url", "tcp://127.0.0.1:0")).rpartition("://")[2].rpartition(":")
        self._host, self.port = host, int(port) or free_port()
        self._count = min(TAGS_MAX, int(options.get("tags", 10)))
        self._period_s = float(options.get("period", 0.0))
        self._ramp: asyncio.Task[None] | None = None
        self._server: Server | None = None
        self.nodes: list[Node] = []
        self.resets = 0

    @property
    def url(self) -> str:
        return f"tcp://{self._host}:{self.port}"

    async def listen(self) -> None:
        """Begin, or begin again after `stop`, at the same port."""
        server = self._server = Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://{self._host}:{self.port}")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        space = await server.register_namespace(NAMESPACE)
        self.nodes = []
        folder = server.nodes.objects
        for number in range(self._count):
            if number % PER_FOLDER == 0:
                folder = await server.nodes.objects.add_folder(space, f"tags {number}")
            node = await folder.add_variable(_id(f"t{number}", space), f"t{number}", float(number))
            await node.set_writable()
            self.nodes.append(node)
        await self._add_others(server, space)
        await server.start()
        if self._period_s:
            self._ramp = asyncio.create_task(self._step(), name="opcua simulator")

    async def write(self, number: int, value: float) -> None:
        """Set one of the doubles."""
        await self.nodes[number].write_value(value)

    async def stop(self) -> None:
        """Close every connection and listen no more."""
        ramp, self._ramp = self._ramp, None
        if ramp is not None:
            ramp.cancel()
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def close(self) -> None:
        await self.stop()

    async def _add_others(self, server: Server, space: int) -> None:
        objects = server.nodes.objects
        for name, value, type_ in (
            ("array", [1, 2, 3], ua.VariantType.Int32),
            ("text", "ready", ua.VariantType.String),
            ("running", True, ua.VariantType.Boolean),
        ):
            node = await objects.add_variable(_id(name, space), name, value, type_)
            await node.set_writable()
        await objects.add_method(_id("reset", space), "reset", self._reset, [ua.VariantType.Int32], [])

    async def _reset(self, parent: ua.NodeId, steps: ua.Variant) -> list[ua.Variant]:
        self.resets += int(steps.Value)
        return []

    async def _step(self) -> None:
        turn = 0.0
        while True:
            await asyncio.sleep(self._period_s)
            turn += 1.0
            for number, node in enumerate(self.nodes):
                await node.write_value(number + turn % 100.0)


async def start(options: Mapping[str, Any] | None = None) -> Simulator:
    """A simulator that listens."""
    simulator = Simulator(options or {})
    await simulator.listen()
    return simulator


def _id(name: str, space: int) -> ua.NodeId:
    return ua.NodeId(ua.String(name), ua.Int16(space))
