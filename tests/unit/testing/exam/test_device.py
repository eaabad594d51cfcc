"""The scripted device: what it answers, how each fault looks to a client, and how a connection ends after one."""

from __future__ import annotations

import asyncio
import socket
from random import Random

import pytest

from framegate.testing.exam.device import FLOOD_BYTES, Fault, ScriptedDevice
from framegate.testing.exam.vectors import Exchange, patterns

ANSWER = bytes.fromhex("01 07 aa bb cc dd".replace(" ", ""))

ENDING = [fault for fault in Fault if fault not in {Fault.SILENT, Fault.TWICE, Fault.FLOOD}]


def speaking(device: ScriptedDevice) -> ScriptedDevice:
    device.exchanges = patterns([Exchange("01 ??", "01 ?? aabb ccdd"), Exchange("0202", "")])
    return device


async def talk(device: ScriptedDevice, *requests: bytes, wanted: int = 1 << 20) -> bytes | None:
    """What comes until the end, or until so many bytes are there; None: the connection was reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", device.port)
    try:
        for request in requests:
            writer.write(request)
            await writer.drain()
            await asyncio.sleep(0.001)  # as pieces of their own
        async with asyncio.timeout(2):
            return await reader.readexactly(wanted)
    except asyncio.IncompleteReadError as error:
        return error.partial
    except ConnectionResetError:
        return None
    finally:
        writer.transport.abort()


async def test_answers_requests_that_come_in_pieces_and_together() -> None:
    async with speaking(ScriptedDevice()) as device:
        assert await talk(device, b"\1", b"\7", wanted=6) == ANSWER
        assert await talk(device, b"\1\7\1\7", wanted=12) == ANSWER * 2
        assert (device.connects, device.strange) == (2, [])


async def test_strange_request_ends_the_connection_and_is_kept() -> None:
    async with speaking(ScriptedDevice()) as device:
        assert await talk(device, b"\x09\x09") == b""
        assert device.strange == ["09 09"]


@pytest.mark.parametrize(
    "fault", [Fault.CLOSED, Fault.RESET, Fault.TRUNCATED, Fault.FLIPPED, Fault.RANDOM, Fault.LONGER]
)
async def test_fault_damages_one_answer_and_ends_the_connection(fault: Fault) -> None:
    async with speaking(ScriptedDevice()) as device:
        device.upset(fault, 1, Random(5))
        got = await talk(device, b"\1\7", b"\1\7")
        if fault is Fault.RESET:
            assert got is None or got == ANSWER
        else:
            assert got is not None
            assert got.startswith(ANSWER), "the first answer is whole"
            rest = got[len(ANSWER) :]
            assert rest != ANSWER
            assert {
                Fault.CLOSED: rest == b"",
                Fault.TRUNCATED: ANSWER.startswith(rest) and rest != ANSWER,
                Fault.FLIPPED: len(rest) == len(ANSWER),
                Fault.RANDOM: len(rest) > 0,
                Fault.LONGER: rest.startswith(ANSWER),
            }[fault]
        assert await talk(device, b"\1\7", wanted=6) == ANSWER, "one answer only"


async def test_answer_that_comes_twice_leaves_the_connection_open() -> None:
    async with speaking(ScriptedDevice()) as device:
        device.upset(Fault.TWICE, 0, Random(5))
        assert await talk(device, b"\1\7", b"\1\7", wanted=18) == ANSWER * 3


async def test_flood_is_a_flood() -> None:
    async with speaking(ScriptedDevice()) as device:
        device.upset(Fault.FLOOD, 0, Random(5))
        assert await talk(device, b"\1\7", wanted=FLOOD_BYTES // 2) is not None


async def test_silent_device_is_silent_until_it_is_calmed() -> None:
    async with speaking(ScriptedDevice()) as device:
        device.upset(Fault.SILENT, 0, Random(5))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await talk(device, b"\1\7", wanted=6)
        device.calm()
        assert await talk(device, b"\1\7", wanted=6) == ANSWER


async def test_datagrams_are_answered_one_by_one() -> None:
    async with speaking(ScriptedDevice(is_datagram=True)) as device:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", device.port))
            await loop.sock_sendall(client, b"\1\7")
            assert await loop.sock_recv(client, 100) == ANSWER
            device.upset(Fault.TRUNCATED, 0, Random(5))
            await loop.sock_sendall(client, b"\1\7")
            assert ANSWER.startswith(await loop.sock_recv(client, 100))
