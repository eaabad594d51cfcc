"""Devices and SCADA systems that are not ours, with a whole gateway between them: nothing may differ on the way."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncua
import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from framegate.contract.bridge import BridgeTag
from framegate.contract.frame import TagId, Value, ValueType
from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.ports import free_port
from framegate_plugins.opcua.tests import judging
from framegate_plugins.opcua.tests.bridge_trial import TYPES, Wanted, make_wanted

Run = Callable[[Path], subprocess.Popen[bytes]]
Health = Callable[[Path], Awaitable[GatewayHealth]]
ua: Any = vars(asyncua)["ua"]
JUDGES = Path(judging.__file__).parent
EVERY_TYPE = 1_000
MODBUS_TAGS = 100
UNITS = {"": "", "kPa": "kPa", "degC": "degC", "m3/h": "m3/h"}
SETTLE_S = 40.0


@pytest.fixture(scope="module")
def node_opcua(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the node-opcua client."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node-opcua")
    for file in (JUDGES / "bridge_judges").iterdir():
        shutil.copy(file, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"node-opcua cannot be installed: {done.stderr[-200:]}")
    return folder


def tables(
    home: Path, device: str, driver: str, rows: Sequence[str], bridges: Mapping[str, tuple[int, str]], scan: str
) -> None:
    """A gateway between one device and servers for SCADA; bridges: port and insides of the row by name."""
    plant.write_config(
        home,
        endpoints={
            "device": f"url: '{device}'",
            **{name: f"url: 'tcp://127.0.0.1:{port}'" for name, (port, _) in bridges.items()},
        },
        drivers={"device": f"{driver}, endpoint: device, scan: {{default: {scan}}}"},
        connectors={},
        variables=rows,
    )
    served = "".join(f"  {name}: {{{row}, endpoint: {name}}}\n" for name, (_, row) in bridges.items())
    path = home / "config" / "drivers.yml"
    path.write_text(path.read_text() + f"bridges:\n{served}")


OPCUA = "plugin: opcua, commands: {tags: ['*']}, options: {security: [none], anonymous: operator}"


async def served(health: Health, home: Path) -> None:
    """Until every bridge serves and the device was read."""

    async def is_up() -> bool:
        told = await health(home)
        return all(each.state == "serving" for each in told.bridges) and all(each.scans_ok for each in told.devices)

    await plant.eventually(is_up, bool, "bridges and device to be up")


# -- every type, from an OPC UA device to an OPC UA client -----------------------------------------------------------


class UaDevice:
    """A server of asyncua with a node for each tag, whose value, status and time are as wanted."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self.wanted = wanted
        self.port = free_port()
        self.server: Any = vars(asyncua)["Server"]()
        self.nodes: dict[str, Any] = {}

    async def start(self) -> None:
        await self.server.init()
        self.server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}")
        self.server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        space = await self.server.register_namespace("http://example.org/device")
        folder = None
        for number, each in enumerate(self.wanted):
            if number % 50 == 0:
                folder = await self.server.nodes.objects.add_folder(space, f"folder {number}")
            kind = getattr(ua.VariantType, TYPES[each.tag.type])
            assert folder is not None
            node_id = ua.NodeId(each.tag.name, space)
            node = self.nodes[each.tag.name] = await folder.add_variable(
                node_id, f"v{number}", ua.Variant(each.value, kind)
            )
            await node.set_writable()
            time = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=each.source_ns // 1_000)
            value = ua.Variant(each.value, kind)
            status = ua.StatusCode(ua.UInt32(each.status))
            await node.write_attribute(ua.AttributeIds.Value, ua.DataValue(value, status, time, time))
        await self.server.start()

    async def held(self) -> dict[str, Value]:
        """Values as they are now; none where the status still is another than Good."""
        read = {name: await node.read_data_value(raise_on_bad_status=False) for name, node in self.nodes.items()}
        return {name: found.Value.Value for name, found in read.items() if found.StatusCode.is_good()}

    def rows(self) -> list[str]:
        return [
            f"tag: {each.tag.name}, source: device, address: 'ns=2;s={each.tag.name}', type: {each.tag.type.value}, "
            "access: RW"
            for each in self.wanted
        ]


@pytest.fixture
async def device() -> AsyncIterator[UaDevice]:
    made = UaDevice(make_wanted(EVERY_TYPE))
    await made.start()
    yield made
    await made.server.stop()


@pytest.mark.parametrize("judge", ["open62541", "node-opcua"])
async def test_nothing_differs_between_an_opcua_device_and_an_opcua_client(
    tmp_path: Path, device: UaDevice, run: Run, health: Health, judge: str, request: pytest.FixtureRequest
) -> None:
    if judge == "open62541":
        if importlib.util.find_spec("o6") is None:
            pytest.skip("o6 is not installed")
        command, folder = [sys.executable, str(JUDGES / "o6_client.py")], tmp_path
    else:
        folder = request.getfixturevalue("node_opcua")
        command = ["node", "client.js"]
    port = free_port()
    options = "plugin: opcua, options: {security: none}"
    tables(tmp_path, f"tcp://127.0.0.1:{device.port}", options, device.rows(), {"scada": (port, OPCUA)}, "200ms")
    run(tmp_path)
    await served(health, tmp_path)
    await settled(port, device.wanted)
    found = await judging.ask(command, folder, f"opc.tcp://127.0.0.1:{port}", device.wanted)
    assert judging.differences(found, device.wanted, await device.held()) == []


async def settled(port: int, wanted: Sequence[Wanted]) -> None:
    """Until the bridge shows something of every tag."""
    async with vars(asyncua)["Client"](f"opc.tcp://127.0.0.1:{port}", timeout=20) as client:
        nodes = [client.get_node(f"ns=2;s={each.tag.name}") for each in wanted]
        async with asyncio.timeout(SETTLE_S):
            while True:
                values = await client.read_attributes(nodes)
                if not any(value.StatusCode.value == ua.StatusCodes.BadWaitingForInitialData for value in values):
                    return
                await asyncio.sleep(0.1)


# -- a hundred registers, from a Modbus device to an OPC UA client ---------------------------------------------------


def modbus_wanted() -> list[Wanted]:
    """int16 and float32 in turn; values count up, what is written is another value."""
    found = []
    for number in range(MODBUS_TAGS):
        is_float = number % 2 == 1
        type_ = ValueType.FLOAT32 if is_float else ValueType.INT16
        unit = list(UNITS)[number % len(UNITS)]
        tag = BridgeTag(TagId(number + 1), f"line{number // 10}.t{number}", type_, "RW", "device", unit)
        value: Value = number + 0.5 if is_float else number - 50
        written: Value = number * 2 + 0.25 if is_float else number * 3
        found.append(Wanted(tag, value, 0, 0, 0, written))
    return found


def register_of(number: int) -> int:
    return number // 2 * 3 + number % 2


@pytest.fixture
async def plc() -> AsyncIterator[ModbusTcpServer]:
    bits = [SimData(0, values=[False] * 64, datatype=DataType.BITS)]
    hold = [SimData(0, count=200, values=0, datatype=DataType.REGISTERS)]
    server: Any = ModbusTcpServer(SimDevice(1, (bits, bits, hold, hold)), address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    yield server
    await server.shutdown()


async def test_a_hundred_modbus_tags_are_mapped_by_themselves_and_a_hundred_writes_are_confirmed(
    tmp_path: Path, plc: Any, run: Run, health: Health
) -> None:
    if importlib.util.find_spec("o6") is None:
        pytest.skip("o6 is not installed")
    wanted = modbus_wanted()
    port, plc_port = free_port(), plc.transport.sockets[0].getsockname()[1]
    master = AsyncModbusTcpClient("127.0.0.1", port=plc_port)
    await master.connect()
    for number, each in enumerate(wanted):
        await master.write_registers(register_of(number), words(each.value), device_id=1)
    rows = [
        f"tag: {each.tag.name}, source: device, address: 'hr:{register_of(number)}', type: {each.tag.type.value}, "
        f"access: RW, unit: '{each.tag.unit}'"
        for number, each in enumerate(wanted)
    ]
    driver = "plugin: modbus, options: {unit: 1}"
    tables(tmp_path, f"tcp://127.0.0.1:{plc_port}", driver, rows, {"scada": (port, OPCUA)}, "100ms")
    run(tmp_path)
    await served(health, tmp_path)
    await settled(port, wanted)
    url = f"opc.tcp://127.0.0.1:{port}"
    assert await units(url, wanted) == [each.tag.unit for each in wanted]
    found = await judging.ask([sys.executable, str(JUDGES / "o6_client.py")], tmp_path, url, wanted)
    held = {each.tag.name: await value_of(master, number, each) for number, each in enumerate(wanted)}
    master.close()
    for value in (*found["values"], *found["notified"].values()):
        value["source"] = "1970-01-01T00:00:00.000"  # a register has no time of its own
    assert judging.differences(found, wanted, held) == []
    commands = plant.edge("commands", "ls", "-n", "200", "--home", str(tmp_path), "-o", "json").stdout
    assert commands.count('"confirmed"') == MODBUS_TAGS


async def test_the_demo_of_bridging_finds_no_difference() -> None:
    played = await asyncio.to_thread(plant.edge, "demo", "--bridging", "--record", "3s", timeout=150)
    assert played.returncode == 0, played.stderr
    assert json.loads(played.stdout)["verdict"] == "ok"


def words(value: Value) -> list[int]:
    data = struct.pack(">f", value) if isinstance(value, float) else struct.pack(">h", value)
    return list(struct.unpack(f">{len(data) // 2}H", data))


async def value_of(master: AsyncModbusTcpClient, number: int, wanted: Wanted) -> Value:
    is_float = wanted.tag.type is ValueType.FLOAT32
    answer = await master.read_holding_registers(register_of(number), count=2 if is_float else 1, device_id=1)
    data = struct.pack(f">{len(answer.registers)}H", *answer.registers)
    found: Value = struct.unpack(">f" if is_float else ">h", data)[0]
    return found


async def units(url: str, wanted: Sequence[Wanted]) -> list[str]:
    """Engineering units as asyncua's client reads them."""
    found = []
    async with vars(asyncua)["Client"](url, timeout=20) as client:
        for each in wanted:
            properties = await client.get_node(f"ns=2;s={each.tag.name}").get_properties()
            names = {(await node.read_browse_name()).Name: node for node in properties}
            unit = names.get("EngineeringUnits")
            found.append("" if unit is None else (await unit.read_value()).DisplayName.Text)
    return found
