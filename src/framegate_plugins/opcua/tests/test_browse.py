"""Browsing: types, access, units, depth, cycles; and `edge browse` with what it writes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from asyncua import ua
from asyncua.server.server import Server

from framegate.cli.main import main
from framegate.contract.driver import Browses, Found
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import ValueType
from framegate_plugins.opcua.tests.stage import Stage

URI = "http://plant.example/"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server in a thread of its own, so that `edge browse` can have the loop."""
    ready, stop, ports = threading.Event(), threading.Event(), list[int]()

    async def serve() -> None:
        server = Server()
        await server.init()
        ports.append(_free_port())
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


@pytest.fixture
def home(tmp_path: Path, port: int) -> Path:
    config = tmp_path / "config"
    config.mkdir()
    (config / "endpoints.yml").write_text(f'endpoints:\n  e: {{url: "tcp://127.0.0.1:{port}"}}\n')
    (config / "drivers.yml").write_text(
        "drivers:\n  plc: {plugin: opcua, endpoint: e, options: {security: none}, scan: {default: 1s}}\n"
    )
    (config / "variables.yml").write_text(
        'variables:\n  - {tag: plc.first, source: plc, address: "i=2258", type: int64}\n'
    )
    return tmp_path


def test_browse_verb_shows_and_writes_tags(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["browse", "plc", "--filter", "*Speed", "-o", "csv", "--home", str(home)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "tag,address,type,access,unit,path",
        f"plc.Pump_1.Speed,nsu={URI};s=speed,float64,RW,m/s,Pump 1/Speed",
    ]
    assert main(["browse", "plc", "--filter", "Pump*", "--to", "variables.yml", "--home", str(home)]) == 0
    text = (home / "config" / "variables.yml").read_text()
    assert "plc.first" in text
    assert all(name in text for name in ("plc.Pump_1.Speed", "plc.Pump_1.Counts", "plc.Pump_1.Mode"))
    assert main(["check", "--home", str(home)]) == 0
    sheet = home / "tags.csv"
    assert main(["browse", "plc", "--filter", "Pump*", "--to", str(sheet), "--home", str(home)]) == 0
    assert sheet.read_text().startswith("tag,source,address,type,access,unit\n")


def test_browse_verb_without_such_a_device_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["browse", "nobody", "--home", str(home)]) != 0
    assert "E2755" in capsys.readouterr().err
