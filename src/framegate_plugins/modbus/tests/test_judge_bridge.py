"""Judges of the bridge: libmodbus (C, through mbpoll), pymodbus and npm modbus-serial as its masters."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient, AsyncModbusUdpClient

from framegate.contract.frame import Value
from framegate_plugins.modbus.bridge_trial import BridgeTrial

DEADLINE_S = 20.0
FAST = {"requests_per_s": 1_000_000}
SPECIMENS: dict[str, Sequence[Value]] = {
    "int16": (-32768, -1, 32767), "uint16": (0, 65535), "int32": (-(2**31), 70_000), "uint32": (2**32 - 1, 1),
    "int64": (-(2**63), 2**40), "uint64": (2**64 - 1, 2**63), "float32": (1.5, -2.0**100), "float64": (0.1, -1e300),
    "string": ("Pumpe 37", "Kessel 1"),
}  # fmt: skip


# -- pymodbus ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(client: Any) -> AsyncIterator[Any]:
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


@pytest.mark.parametrize("byte_order", ["big", "little"])
@pytest.mark.parametrize("word_order", ["big", "little"])
async def test_pymodbus_reads_and_writes_every_type(word_order: str, byte_order: str, tmp_path: Path) -> None:
    options = {"word_order": word_order, "byte_order": byte_order}
    rows = [f"{type_} {type_} RW{' length=8' if type_ == 'string' else ''}" for type_ in SPECIMENS]
    async with BridgeTrial(rows, options, home=tmp_path) as trial:
        trial.desk.echo = trial.show
        starts = {entry.tag.name: entry.offsets for entry in trial.map.entries}
        async with connected(AsyncModbusTcpClient("127.0.0.1", port=trial.port)) as client:
            for type_, values in SPECIMENS.items():
                kind = client.DATATYPE[type_.upper()]
                for shown, written in zip(values, values[::-1], strict=True):
                    trial.show({type_: shown})
                    offsets = starts[type_]
                    answer = await client.read_holding_registers(offsets.start, count=len(offsets))
                    registers = swapped(answer.registers, byte_order)
                    assert client.convert_from_registers(registers, kind, word_order=word_order) == shown
                    registers = client.convert_to_registers(written, kind, word_order=word_order)
                    answer = await client.write_registers(offsets.start, swapped(registers, byte_order))
                    assert not answer.isError()
                    assert trial.desk.written[-1] == (type_, written)


def swapped(registers: list[int], byte_order: str) -> list[int]:
    """pymodbus knows big-endian registers only."""
    return registers if byte_order == "big" else np.array(registers, "<u2").byteswap().tolist()


BITS = [f"c{number} bool RW" for number in range(20)] + [f"d{number} bool R" for number in range(20)]
WORDS = [f"h{number} uint16 RW" for number in range(40)] + [f"i{number} uint16 R" for number in range(10)]


@asynccontextmanager
async def plant(tmp_path: Path, **options: Any) -> AsyncIterator[BridgeTrial]:
    """A bridge with coils, discrete inputs and registers of both kinds, whose writes show at once."""
    url = options.pop("url", "tcp://127.0.0.1:0")
    async with BridgeTrial([*BITS, *WORDS], {**FAST, **options}, home=tmp_path, url=url) as trial:
        trial.desk.echo = trial.show
        trial.show({tag.name: False for tag in trial.tags if tag.type.value == "bool"})
        trial.show({f"d{number}": number % 3 == 0 for number in range(20)})
        trial.show({tag.name: 0 for tag in trial.tags if tag.type.value != "bool"})
        trial.show({f"i{number}": 60_000 + number for number in range(10)})
        yield trial


async def _every_function(client: Any) -> None:
    assert not (await client.write_coil(3, True)).isError()
    assert not (await client.write_coils(10, [True, False, True])).isError()
    assert (await client.read_coils(0, count=16)).bits == [number in {3, 10, 12} for number in range(16)]
    assert (await client.read_discrete_inputs(0, count=8)).bits == [number % 3 == 0 for number in range(8)]
    assert not (await client.write_register(5, 0x1234)).isError()
    assert not (await client.write_registers(20, [1, 2, 65535])).isError()
    assert not (await client.mask_write_register(address=5, and_mask=0xF2, or_mask=0x25)).isError()
    hold = (await client.read_holding_registers(0, count=40)).registers
    assert {number: value for number, value in enumerate(hold) if value} == {5: 0x35, 20: 1, 21: 2, 22: 65535}
    assert (await client.read_input_registers(0, count=10)).registers == list(range(60_000, 60_010))
    both = await client.readwrite_registers(read_address=20, read_count=3, write_address=30, values=[7, 8])
    assert both.registers == [1, 2, 65535]
    assert (await client.read_holding_registers(30, count=2)).registers == [7, 8]
    assert (await client.read_holding_registers(39, count=2)).exception_code == 2
    assert (await client.write_register(40, 1)).exception_code == 2
    assert (await client.report_device_id()).exception_code == 1
    identity = await client.read_device_information(read_code=2)
    assert identity.information[0] == b"Framegate"
    assert identity.information[5] == b"trial"


@pytest.mark.parametrize(
    ("framer", "framing"), [(FramerType.SOCKET, "tcp"), (FramerType.RTU, "rtu"), (FramerType.ASCII, "ascii")], ids=str
)
async def test_pymodbus_uses_every_function_over_tcp(framer: FramerType, framing: str, tmp_path: Path) -> None:
    async with (
        plant(tmp_path, framing=framing) as trial,
        connected(AsyncModbusTcpClient("127.0.0.1", port=trial.port, framer=framer)) as client,
    ):
        await _every_function(client)


async def test_pymodbus_uses_every_function_over_udp(tmp_path: Path) -> None:
    async with (
        plant(tmp_path, url="udp://127.0.0.1:0") as trial,
        connected(AsyncModbusUdpClient("127.0.0.1", port=trial.port)) as client,
    ):
        await _every_function(client)


async def test_pymodbus_uses_every_function_on_a_serial_cable(cable: tuple[str, str], tmp_path: Path) -> None:
    async with (
        plant(tmp_path, url=f"serial://{cable[0]}?baud=115200"),
        connected(AsyncModbusSerialClient(cable[1], baudrate=115200)) as client,
    ):
        await _every_function(client)


# -- libmodbus ---------------------------------------------------------------------------------------------------

MBPOLL = shutil.which("mbpoll")
needs_mbpoll = pytest.mark.skipif(MBPOLL is None, reason="mbpoll (Debian package mbpoll) is not installed")


async def run(*command: str, folder: Path | None = None) -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT, cwd=folder)
    try:
        out, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    finally:
        if process.returncode is None:
            process.kill()
    return out.decode()


async def mbpoll(*arguments: str) -> str:
    assert MBPOLL is not None
    return await run(MBPOLL, "-1", *arguments)


async def polled(*arguments: str) -> dict[int, str]:
    """Reference -> value as mbpoll prints it."""
    return {int(m[1]): m[2] for m in re.finditer(r"^\[(\d+)\]:\s+(\S+)", await mbpoll(*arguments), re.MULTILINE)}


async def _libmodbus(trial: BridgeTrial, place: list[str]) -> None:
    assert await polled("-t", "3", "-r", "1", "-c", "3", *place) == {1: "60000", 2: "60001", 3: "60002"}
    assert await polled("-t", "1", "-r", "1", "-c", "4", *place) == {1: "1", 2: "0", 3: "0", 4: "1"}
    for table, values in (("4", ["77"]), ("4", ["5", "6", "7"]), ("0", ["1"]), ("0", ["1", "0", "1"])):
        assert "Written" in await mbpoll("-t", table, "-r", "11", *place, *values)
    assert trial.desk.written == [
        ("h10", 77), ("h10", 5), ("h11", 6), ("h12", 7), ("c10", True), ("c10", True), ("c11", False), ("c12", True),
    ]  # fmt: skip
    assert await polled("-t", "4:hex", "-r", "11", "-c", "3", *place) == {11: "0x0005", 12: "0x0006", 13: "0x0007"}
    assert await polled("-t", "0", "-r", "11", "-c", "3", *place) == {11: "1", 12: "0", 13: "1"}
    assert "Illegal data address" in await mbpoll("-t", "4", "-r", "1000", "-c", "2", *place)
    assert "Illegal data address" in await mbpoll("-t", "4", "-r", "41", *place, "1")


@needs_mbpoll
async def test_libmodbus_reads_and_writes_over_tcp(tmp_path: Path) -> None:
    async with plant(tmp_path) as trial:
        await _libmodbus(trial, ["-m", "tcp", "-p", str(trial.port), "127.0.0.1"])


@needs_mbpoll
async def test_libmodbus_reads_and_writes_on_a_serial_cable(cable: tuple[str, str], tmp_path: Path) -> None:
    async with plant(tmp_path, url=f"serial://{cable[0]}?baud=19200&parity=N") as trial:
        await _libmodbus(trial, ["-m", "rtu", "-b", "19200", "-P", "none", cable[1]])


@needs_mbpoll
@pytest.mark.parametrize(("word_order", "option"), [("big", ["-B"]), ("little", [])])
async def test_libmodbus_reads_and_writes_wide_values(word_order: str, option: list[str], tmp_path: Path) -> None:
    async with BridgeTrial(["f float32 RW", "i int32 RW"], {"word_order": word_order}, home=tmp_path) as trial:
        trial.show(f=-1.5, i=-70_000)
        place = ["-m", "tcp", "-p", str(trial.port), *option, "127.0.0.1"]
        assert await polled("-t", "4:float", "-r", "1", *place) == {1: "-1.5"}
        assert await polled("-t", "4:int", "-r", "3", *place) == {3: "-70000"}
        assert "Written" in await mbpoll("-t", "4:float", "-r", "1", *place, "2.25")
        assert "Written" in await mbpoll("-t", "4:int", "-r", "3", *place, "123456789")
        assert trial.desk.written == [("f", 2.25), ("i", 123_456_789)]


# -- modbus-serial -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "url", "framing"),
    [("tcp", "tcp://127.0.0.1:0", "tcp"), ("udp", "udp://127.0.0.1:0", "tcp"), ("rtu", "tcp://127.0.0.1:0", "rtu")],
)
async def test_modbus_serial_uses_every_function(
    kind: str, url: str, framing: str, judges: Path, tmp_path: Path
) -> None:
    rows = [f"h{number} uint16 RW" for number in range(125)] + [f"i{number} uint16 R" for number in range(10)]
    async with BridgeTrial([*rows, *BITS], {"framing": framing}, home=tmp_path, url=url) as trial:
        trial.desk.echo = trial.show
        trial.show({tag.name: False if tag.type.value == "bool" else 0 for tag in trial.tags})
        trial.show({f"i{number}": number for number in range(10)})
        out = await run("node", str(judges / "client.js"), kind, str(trial.port), folder=judges)
    seen = json.loads(out)
    assert seen["coils"] == [number in {3, 10, 12} for number in range(16)]
    # On RTU this judge cannot read the answers of functions 22 and 23 and does not ask them.
    has_all = kind in {"tcp", "udp"}
    written = {5: 0x35, 20: 1, 21: 2, 22: 65535, 30: 7, 31: 8} if has_all else {5: 0x1234, 20: 1, 21: 2, 22: 65535}
    assert {number: value for number, value in enumerate(seen["hold"]) if value} == written
    assert seen["input"] == list(range(10))
    assert seen["both"] == ([1, 2, 65535] if has_all else None)
    assert seen["refused"] == 2
