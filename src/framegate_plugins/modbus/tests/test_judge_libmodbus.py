"""Judge: libmodbus (C), through Debian's mbpoll, as a client of the simulator over TCP and RTU."""

from __future__ import annotations

import asyncio
import re
import shutil

import numpy as np
import pytest

from framegate_plugins.modbus.memory_image import Device
from framegate_plugins.modbus.trial import Trial

MBPOLL = shutil.which("mbpoll")
pytestmark = pytest.mark.skipif(MBPOLL is None, reason="mbpoll (Debian package mbpoll) is not installed")
DEADLINE_S = 20.0


async def mbpoll(*arguments: str) -> str:
    assert MBPOLL is not None
    process = await asyncio.create_subprocess_exec(
        MBPOLL, "-1", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    return out.decode()


async def read(*arguments: str) -> dict[int, str]:
    """Reference -> value as mbpoll prints it; "-32768" comes with its unsigned form in brackets, which is cut."""
    return {int(m[1]): m[2] for m in re.finditer(r"^\[(\d+)\]:\s+(\S+)", await mbpoll(*arguments), re.MULTILINE)}


async def _agree(device: Device, place: list[str]) -> None:
    device.hold[:4] = (1, 2, 40000, 65535)
    device.input[:2] = np.array([1.5], ">f4").view(">u2")
    device.input[2:4] = np.array([-70000], ">i4").view(">u2")
    device.discrete[:4] = (True, False, True, True)
    assert await read("-t", "4:hex", "-r", "1", "-c", "4", *place) == {
        1: "0x0001",
        2: "0x0002",
        3: "0x9C40",
        4: "0xFFFF",
    }
    assert await read("-t", "3:float", "-B", "-r", "1", *place) == {1: "1.5"}
    assert await read("-t", "3:int", "-B", "-r", "3", *place) == {3: "-70000"}
    assert await read("-t", "1", "-r", "1", "-c", "4", *place) == {1: "1", 2: "0", 3: "1", 4: "1"}
    assert len(await read("-t", "4", "-r", "1", "-c", "125", *place)) == 125
    for row, values in (("4", ["77"]), ("4", ["5", "6", "7"]), ("0", ["1"]), ("0", ["1", "0", "1"])):
        assert "Written" in await mbpoll("-t", row, "-r", "11", *place, *values)
    assert [(function, first) for function, first, _ in device.written] == [(6, 10), (16, 10), (5, 10), (15, 10)]
    assert device.hold[10:13].tolist() == [5, 6, 7]
    assert device.coils[10:13].tolist() == [True, False, True]
    assert "Illegal data address" in await mbpoll("-t", "4", "-r", "1000", "-c", "2", *place)


async def test_simulator_agrees_with_libmodbus_over_tcp(trial: Trial) -> None:
    simulator = await trial.simulate(size=1000)
    await _agree(simulator.units[1], ["-m", "tcp", "-p", str(simulator.port), "127.0.0.1"])


async def test_simulator_agrees_with_libmodbus_on_a_serial_cable(trial: Trial, cable: tuple[str, str]) -> None:
    simulator = await trial.simulate(url=f"serial://{cable[0]}?baud=19200&parity=N", size=1000)
    await _agree(simulator.units[1], ["-m", "rtu", "-b", "19200", "-P", "none", cable[1]])
