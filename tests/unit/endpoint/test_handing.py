from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import trustme

from framegate.contract.errors import Misconfigured, NotConnected
from framegate.contract.ports import Lines
from framegate.endpoint import handing
from framegate.endpoint import pool as pool_module
from framegate.endpoint.endpoint import endpoint_from_row
from framegate.endpoint.tls import server_context
from framegate.testing.fakes import FakeLines

if TYPE_CHECKING:
    from tests.unit.endpoint.conftest import Bench, Recorder

    MakeRecorder = type[Recorder]

LONG = os.urandom(3_000_000)


async def say(handed: socket.socket, data: bytes) -> bytes:
    """What comes back, as many bytes as were sent."""
    loop = asyncio.get_running_loop()
    sending = asyncio.ensure_future(loop.sock_sendall(handed, data))
    heard = bytearray()
    async with asyncio.timeout(10):
        while len(heard) < len(data):
            piece = await loop.sock_recv(handed, 65_536)
            assert piece, "the line ended early"
            heard += piece
        await sending
    return bytes(heard)


async def end_of(handed: socket.socket) -> None:
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):
            while await asyncio.get_running_loop().sock_recv(handed, 65_536):
                pass


@pytest.fixture
def echo_pty() -> Iterator[tuple[int, str]]:
    """The far end of a pseudo terminal, and the device path of the near one."""
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    device = os.ttyname(slave)
    os.close(slave)
    yield master, device
    os.close(master)


@pytest.mark.parametrize("row", [{}, {"rate_limit": "100MiB"}, {"capture": 5}], ids=["plain", "rated", "captured"])
async def test_hand_over_over_tcp_carries_bytes_and_frees_the_line(bench: Bench, row: dict[str, object]) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    pool: Lines = bench.pool(plc={"url": listener.url, **row})
    handed = await pool.hand_over("plc")
    assert handed.type == socket.SOCK_STREAM
    assert handed.family == (socket.AF_UNIX if row else socket.AF_INET)
    assert not handed.getblocking()
    assert await say(handed, b"ping") == b"ping"
    assert bench.value("edge_endpoint_lines", endpoint="plc") == 1
    assert bench.value("edge_endpoint_connects_total", endpoint="plc") == 1
    handed.close()
    await bench.until(lambda: listener.clients == 0)
    assert bench.value("edge_endpoint_lines", endpoint="plc") == 0


async def test_traffic_of_a_socket_that_was_handed_over_is_counted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "SAMPLE_PERIOD_S", 0.01)
    listener = await bench.listen("tcp://127.0.0.1:0")
    handed = await bench.pool(plc={"url": listener.url}).hand_over("plc")
    for size in (5, 7):
        await say(handed, bytes(size))
    await bench.until(lambda: bench.value("edge_endpoint_received_bytes_total", endpoint="plc") == 12)
    await bench.until(lambda: bench.value("edge_endpoint_sent_bytes_total", endpoint="plc") == 12)
    handed.close()


async def test_hand_over_over_udp_keeps_datagrams_apart(bench: Bench) -> None:
    listener = await bench.listen("udp://127.0.0.1:0")
    handed = await bench.pool(plc={"url": listener.url}).hand_over("plc")
    with handed:
        assert handed.type == socket.SOCK_DGRAM
        loop = asyncio.get_running_loop()
        for data in (b"one", b"two"):
            await loop.sock_sendall(handed, data)
        async with asyncio.timeout(10):
            assert [await loop.sock_recv(handed, 100) for _ in range(2)] == [b"one", b"two"]


async def test_hand_over_over_tls_is_relayed_both_ways_at_length(bench: Bench) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(bench.base / "ca.pem")
    issued = ca.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(bench.base / "srv.pem")
    context = server_context(bench.base / "srv.pem", bench.base / "srv.pem")
    listener = await bench.listen("tls+tcp://127.0.0.1:0", context)
    handed = await bench.pool(plc={"url": listener.url, "tls": {"ca": "ca.pem"}}).hand_over("plc")
    assert await say(handed, LONG) == LONG
    handed.close()
    await bench.until(lambda: listener.clients == 0)


async def test_hand_over_over_memory_is_relayed(bench: Bench) -> None:
    listener = await bench.listen("memory://plc")
    handed = await bench.pool(plc={"url": listener.url}).hand_over("plc")
    assert await say(handed, LONG) == LONG
    handed.close()
    await bench.until(lambda: bench.value("edge_endpoint_lines", endpoint="plc") == 0)


async def test_hand_over_over_serial_is_relayed_and_ends_with_the_port(bench: Bench, echo_pty: tuple[int, str]) -> None:
    master, device = echo_pty
    pool = bench.pool(bus={"url": f"serial://{device}?baud=9600"})
    handed = await pool.hand_over("bus")
    loop = asyncio.get_running_loop()
    loop.add_reader(master, lambda: os.write(master, os.read(master, 4096)))
    try:
        assert await say(handed, b"\x01\x03request") == b"\x01\x03request"
    finally:
        loop.remove_reader(master)
    handed.shutdown(socket.SHUT_RDWR)
    handed.close()
    await bench.until(lambda: bench.value("edge_endpoint_lines", endpoint="bus") == 0)
    again = await pool.hand_over("bus")
    again.close()


async def test_hand_over_ends_when_the_remote_goes(bench: Bench) -> None:
    for url in ("tcp://127.0.0.1:0", "memory://gone"):
        listener = await bench.listen(url)
        handed = await bench.pool(plc={"url": listener.url}).hand_over("plc")
        await bench.until(lambda: bench.served and bench.served[-1].made)
        bench.served[-1].line.close()
        await end_of(handed)
        handed.close()


@pytest.mark.parametrize("row", [{}, {"capture": 5}], ids=["plain", "relayed"])
async def test_hand_over_ends_when_its_row_changes_or_the_pool_closes(bench: Bench, row: dict[str, object]) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    pool = bench.pool(plc={"url": listener.url, **row})
    handed = await pool.hand_over("plc")
    assert await say(handed, b"x") == b"x"
    changed = endpoint_from_row("plc", {"url": listener.url, "connect_timeout": "3s", **row}, bench.base)
    pool.update({"plc": changed})
    await end_of(handed)
    handed.close()
    again = await pool.hand_over("plc")
    await pool.close()
    await end_of(again)
    again.close()
    with pytest.raises(NotConnected) as caught:
        await pool.hand_over("plc")
    assert caught.value.stable_code == "E2033"


async def test_hand_over_refused_late_or_unknown_is_told(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    pool = bench.pool(
        gone={"url": f"tcp://127.0.0.1:{port}"},
        nowhere={"url": "tcp://no-such-host.invalid:1"},
        tls={"url": f"tls+tcp://127.0.0.1:{port}"},
    )
    for name, code in (("gone", "E2020"), ("nowhere", "E2022"), ("tls", "E2020")):
        with pytest.raises(NotConnected) as caught:
            await pool.hand_over(name)
        assert (caught.value.stable_code, f"endpoint {name}: " in caught.value.text) == (code, True)
    assert bench.value("edge_endpoint_failures_total", endpoint="gone", reason="refused") == 1
    with pytest.raises(Misconfigured) as unknown:
        await pool.hand_over("nobody")
    assert unknown.value.stable_code == "E2034"


async def test_hand_over_that_is_not_accepted_ends_at_the_deadline(bench: Bench) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:  # a full backlog: the kernel drops what comes next
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(NotConnected) as caught:
            await bench.pool(plc={"url": url, "connect_timeout": "50ms"}).hand_over("plc")
        for filler in fillers:
            filler.close()
    assert caught.value.stable_code == "E2023"


async def test_relay_reads_its_user_only_as_fast_as_the_line_takes_it(
    bench: Bench, make_recorder: MakeRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing, "RELAY_LOOK_S", 0.001)
    listener = await bench.listen("memory://slow", make_session=lambda: silent)
    silent = make_recorder()
    handed = await bench.pool(plc={"url": listener.url, "write_buffer": "64MiB"}).hand_over("plc")
    await bench.until(lambda: silent.made)
    silent.line.pause_reading()  # type: ignore[attr-defined]  # an open line of the listener
    sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(handed, LONG))
    done, _ = await asyncio.wait((sending,), timeout=0.1)
    assert not done, "what nobody takes is not swallowed"
    silent.line.resume_reading()  # type: ignore[attr-defined]  # as above
    await bench.until(lambda: len(silent.data) == len(LONG))
    await sending
    handed.close()
    assert silent.data == LONG


async def test_fake_lines_hand_over_answers_as_scripted() -> None:
    lines: Lines = FakeLines({"plc": lambda data: data.upper()})
    with await lines.hand_over("plc") as handed:
        assert await say(handed, b"ping") == b"PING"
    with pytest.raises(Misconfigured):
        await lines.hand_over("nobody")
    with pytest.raises(NotConnected):
        await FakeLines({"plc": bytes}, is_refusing=True).hand_over("plc")
