"""The fault proxy: bytes pass unchanged until they are told not to, and a reset is a reset."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from framegate.testing.fault_proxy import Direction, FaultProxy
from framegate.testing.plant import until

DATA = bytes(range(256)) * 40


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A port that answers with what it is told."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def proxy(echo: int) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(echo)
    await proxy.listen()
    yield proxy
    await proxy.close()


async def call(proxy: FaultProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def test_proxy_without_faults_passes_everything(proxy: FaultProxy) -> None:
    reader, writer = await call(proxy)
    writer.write(DATA)
    assert await reader.readexactly(len(DATA)) == DATA
    assert (proxy.connects, proxy.resets) == (1, 0)
    writer.close()


async def test_slices_keep_bytes_and_order(proxy: FaultProxy) -> None:
    proxy.slice_bytes = 1
    reader, writer = await call(proxy)
    writer.write(DATA[:1_000])
    assert await reader.readexactly(1_000) == DATA[:1_000]
    writer.close()


async def test_reset_reaches_the_caller_as_a_reset_and_is_counted(proxy: FaultProxy) -> None:
    reader, writer = await call(proxy)
    writer.write(b"x")
    await reader.readexactly(1)
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    assert proxy.resets == 1
    writer.close()


async def test_judge_cuts_at_its_byte(proxy: FaultProxy) -> None:
    seen: list[tuple[Direction, int]] = []

    def judge(direction: Direction, data: bytes) -> int | None:
        seen.append((direction, len(data)))
        return 3 if direction is Direction.BACK else None

    proxy.make_judge = lambda: judge
    reader, writer = await call(proxy)
    writer.write(b"hello")
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await reader.readexactly(4)
    assert seen == [(Direction.OUT, 5), (Direction.BACK, 5)]
    assert proxy.resets == 1
    writer.close()


async def test_black_hole_swallows_and_the_connection_stands(proxy: FaultProxy) -> None:
    proxy.is_black_hole = True
    reader, writer = await call(proxy)
    writer.write(b"gone")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(1), 0.2)
    proxy.is_black_hole = False
    writer.write(b"here")
    assert await reader.readexactly(4) == b"here"
    writer.close()


async def test_thin_line_takes_its_time(proxy: FaultProxy) -> None:
    proxy.bytes_per_s = 4_000
    reader, writer = await call(proxy)
    began = time.monotonic()
    writer.write(DATA[:1_200])
    assert await reader.readexactly(1_200) == DATA[:1_200]
    assert time.monotonic() - began > 0.15
    writer.close()


async def test_closed_proxy_refuses_and_comes_back_on_its_port(proxy: FaultProxy) -> None:
    reader, writer = await call(proxy)
    await until(lambda: proxy.connects == 1, "a connection")
    port = proxy.port
    await proxy.close()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await call(proxy)
    await proxy.listen()
    assert proxy.port == port
    reader, writer = await call(proxy)
    writer.write(b"again")
    assert await reader.readexactly(5) == b"again"
    writer.close()
