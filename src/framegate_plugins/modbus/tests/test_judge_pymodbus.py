"""Judge: pymodbus, as a server for the driver and as a client of the simulator, on every framing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient, AsyncModbusUdpClient
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusTlsServer, ModbusUdpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from framegate.contract.quality import Quality
from framegate_plugins.modbus.trial import Trial, bound_tags, check_every_type, faults_in, values_in

REGISTERS = 200


def device(unit: int = 1) -> SimDevice:
    bits = [SimData(0, values=[False] * 64, datatype=DataType.BITS)]
    odd = [SimData(0, values=[i % 2 == 1 for i in range(64)], datatype=DataType.BITS)]
    hold = [SimData(0, count=REGISTERS, values=0, datatype=DataType.REGISTERS)]
    count_up = [SimData(0, values=list(range(REGISTERS)), datatype=DataType.REGISTERS)]
    return SimDevice(unit, (bits, odd, hold, count_up))


@contextlib.asynccontextmanager
async def serving(server: Any) -> AsyncIterator[int]:
    """Run a pymodbus server; yields its port, 0 on serial lines."""
    await server.serve_forever(background=True)
    try:
        transport = server.transport
        if hasattr(transport, "sockets"):
            yield transport.sockets[0].getsockname()[1]
        else:
            name = transport.get_extra_info("sockname")
            yield name[1] if name else 0
    finally:
        await server.shutdown()


async def _judge(trial: Trial, url: str, options: dict[str, Any], **row: object) -> None:
    driver = await trial.open(url, options, **row)
    await check_every_type(driver)
    plan = driver.plan(
        bound_tags("di:0 bool", "di:1 bool", "ir:7 uint16", "ir:198 uint32", "ir:150 int16", "hr:9999 int16")
    )
    batches = await driver.read(plan)
    assert values_in(batches) == {0: False, 1: True, 2: 7, 3: (198 << 16) + 199, 4: 150}
    assert faults_in(batches) == {5: Quality.BAD_NODE_ID_UNKNOWN}


@pytest.mark.parametrize(
    ("framer", "framing"), [(FramerType.SOCKET, "tcp"), (FramerType.RTU, "rtu"), (FramerType.ASCII, "ascii")], ids=str
)
async def test_driver_agrees_with_pymodbus_server_over_tcp(trial: Trial, framer: FramerType, framing: str) -> None:
    async with serving(ModbusTcpServer(device(), framer=framer, address=("127.0.0.1", 0))) as port:
        await _judge(trial, f"tcp://127.0.0.1:{port}", {"framing": framing})


async def test_driver_agrees_with_pymodbus_server_by_function_23(trial: Trial) -> None:
    async with serving(ModbusTcpServer(device(), address=("127.0.0.1", 0))) as port:
        await _judge(trial, f"tcp://127.0.0.1:{port}", {"writes": "read_write"})


async def test_driver_agrees_with_pymodbus_server_over_udp(trial: Trial) -> None:
    async with serving(ModbusUdpServer(device(), address=("127.0.0.1", 0))) as port:
        await _judge(trial, f"udp://127.0.0.1:{port}", {})


async def test_driver_agrees_with_pymodbus_server_over_tls(trial: Trial, certificates: Any) -> None:
    server = ModbusTlsServer(
        device(), framer=FramerType.SOCKET, address=("127.0.0.1", 0), sslctx=certificates.server
    )  # fmt: skip
    async with serving(server) as port:
        await _judge(trial, f"tls+tcp://127.0.0.1:{port}", {}, tls={"ca": str(certificates.ca_file)})


async def test_driver_agrees_with_pymodbus_server_on_a_serial_cable(trial: Trial, cable: tuple[str, str]) -> None:
    async with serving(ModbusSerialServer(device(), port=cable[0], baudrate=19200)):
        await _judge(trial, f"serial://{cable[1]}?baud=19200", {})


async def test_driver_tells_units_of_a_pymodbus_server_apart(trial: Trial) -> None:
    async with serving(ModbusTcpServer([device(1), device(7)], address=("127.0.0.1", 0))) as port:
        url = f"tcp://127.0.0.1:{port}"
        drivers = [await trial.open(url, {"unit": unit}) for unit in (1, 7)]
        for driver in drivers:
            await check_every_type(driver)


async def _agree(client: Any, trial: Trial) -> None:
    """Every function, asked by pymodbus, answered by the simulator."""
    unit = trial.simulators[0].units[1]
    unit.input[:10] = np.arange(10)
    unit.discrete[:8] = [i % 2 == 1 for i in range(8)]
    assert await client.connect()
    try:
        assert not (await client.write_coil(3, True, device_id=1)).isError()
        assert not (await client.write_coils(10, [True, False, True], device_id=1)).isError()
        assert (await client.read_coils(0, count=16, device_id=1)).bits == [i in {3, 10, 12} for i in range(16)]
        assert (await client.read_discrete_inputs(0, count=8, device_id=1)).bits == [i % 2 == 1 for i in range(8)]
        assert not (await client.write_register(5, 0x1234, device_id=1)).isError()
        assert not (await client.write_registers(20, [1, 2, 65535], device_id=1)).isError()
        assert not (await client.mask_write_register(address=5, and_mask=0xF2, or_mask=0x25, device_id=1)).isError()
        hold = (await client.read_holding_registers(0, count=125, device_id=1)).registers
        assert {i: value for i, value in enumerate(hold) if value} == {5: 0x35, 20: 1, 21: 2, 22: 65535}
        assert (await client.read_input_registers(0, count=10, device_id=1)).registers == list(range(10))
        both = await client.readwrite_registers(
            read_address=20, read_count=3, write_address=30, values=[7, 8], device_id=1
        )  # fmt: skip
        assert both.registers == [1, 2, 65535]
        assert unit.hold[30:32].tolist() == [7, 8]
        refused = await client.read_holding_registers(999, count=2, device_id=1)
        assert refused.exception_code == 2
    finally:
        client.close()


@pytest.mark.parametrize(
    ("framer", "framing"), [(FramerType.SOCKET, "tcp"), (FramerType.RTU, "rtu"), (FramerType.ASCII, "ascii")], ids=str
)
async def test_simulator_agrees_with_pymodbus_client_over_tcp(trial: Trial, framer: FramerType, framing: str) -> None:
    simulator = await trial.simulate(framing=framing, size=1000)
    await _agree(AsyncModbusTcpClient("127.0.0.1", port=simulator.port, framer=framer), trial)


async def test_simulator_agrees_with_pymodbus_client_over_udp(trial: Trial) -> None:
    simulator = await trial.simulate(url="udp://127.0.0.1:0", size=1000)
    await _agree(AsyncModbusUdpClient("127.0.0.1", port=simulator.port), trial)


async def test_simulator_agrees_with_pymodbus_client_on_a_serial_cable(trial: Trial, cable: tuple[str, str]) -> None:
    await trial.simulate(url=f"serial://{cable[0]}?baud=19200", size=1000)
    await _agree(AsyncModbusSerialClient(cable[1], baudrate=19200), trial)
