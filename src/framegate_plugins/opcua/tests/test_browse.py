"""Browsing: types, access, units, depth, nodes that two ways lead to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from asyncua import ua
from asyncua.server.server import Server

from framegate.contract.driver import Browses, Found
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import ValueType
from framegate.testing.ports import free_port
from framegate_plugins.opcua.tests.stage import Stage

URI = "http://plant.example/"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server for all tests here, in a thread with a loop of its own."""
    ready, stop, ports = threading.Event(), threading.Event(), list[int]()

    async def serve() -> None:
        server = Server()
        await server.init()
        ports.append(free_port())
        server.set_endpoint(f"opc.tcp://127.0.0.1:{ports[0]}")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        space = await server.register_namespace(URI)
        pump = await server.nodes.objects.add_object(ua.NodeId(ua.String("pump"), ua.Int16(space)), "Pump 1")
        speed = await pump.add_variable(ua.NodeId(ua.String("speed"), ua.Int16(space)), "Speed", 1.5)
        await speed.set_writable()
        unit = ua.EUInformation(DisplayName=ua.LocalizedText("m/s"))
        await speed.add_property(space, "EngineeringUnits", unit)
        await pump.add_variable(
            ua.NodeId(ua.String("counts"), ua.Int16(space)), "Counts", [1, 2], ua.VariantType.UInt16
        )
        await pump.add_variable(ua.NodeId(ua.String("mode"), ua.Int16(space)), "Mode", 2, ua.VariantType.Byte)
        await pump.add_reference(speed, ua.NodeId(ua.Int32(35)))  # a second way to the same node
        async with server:
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(100)
    yield ports[0]
    stop.set()
    thread.join(20)


async def browsed(stage: Stage, port: int, start: str = "", depth: int = 10) -> dict[str, Found]:
    driver = await stage.open(f"tcp://127.0.0.1:{port}")
    assert isinstance(driver, Browses)
    return {"/".join(found.path): found async for found in driver.browse(start, depth)}


async def test_browse_tells_address_type_access_and_unit(stage: Stage, port: int) -> None:
    found = await browsed(stage, port)
    speed = found["Pump 1/Speed"]
    assert (speed.address, speed.type, speed.access, speed.unit) == (
        f"nsu={URI};s=speed", ValueType.FLOAT64, "RW", "m/s"
    )  # fmt: skip
    assert (found["Pump 1/Counts"].type, found["Pump 1/Counts"].access) == (ValueType.JSON, "R")
    assert found["Pump 1/Mode"].type is ValueType.UINT8
    assert found["Pump 1"].is_folder
    assert found["Pump 1"].type is None
    assert not any(path.startswith("Server") for path in found)


async def test_browse_keeps_start_and_depth(stage: Stage, port: int) -> None:
    assert set(await browsed(stage, port, depth=1)) >= {"Pump 1"}
    assert "Pump 1/Speed" not in await browsed(stage, port, depth=1)
    assert "Speed" in await browsed(stage, port, start=f"nsu={URI};s=pump", depth=1)


@pytest.mark.parametrize("start", ["nonsense", "nsu=http://nowhere;s=x"])
async def test_browse_from_no_address_is_refused(stage: Stage, port: int, start: str) -> None:
    with pytest.raises(Misconfigured):
        await browsed(stage, port, start=start)
