"""Datagrams, the null modem, listeners, hostile remotes, and the decorators."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from framegate.contract.errors import Misconfigured, NotConnected
from framegate.endpoint.capture import CHUNK_BYTES_MAX
from framegate.endpoint.line import OpenLine
from framegate.endpoint.listen import listen
from framegate.endpoint.memory import memory_listen
from framegate.endpoint.tcp import GATHER_BYTES_MAX, UNACKNOWLEDGED_MS_MAX, StreamLine

if TYPE_CHECKING:
    from tests.unit.endpoint.conftest import Bench, Recorder

    MakeRecorder = type[Recorder]

LOOP_LAG_S_MAX = 0.1


async def test_udp_datagrams_stay_apart_and_know_their_remote(bench: Bench, make_recorder: MakeRecorder) -> None:
    chunks: list[bytes] = []
    listener = await bench.listen("udp://127.0.0.1:0")
    pool = bench.pool(plc={"url": listener.url})
    one = (await pool.acquire("plc", make_recorder, is_shared=False)).session
    two = (await pool.acquire("plc", make_recorder, is_shared=False)).session
    one.line.write(b"first")
    await bench.until(lambda: len(bench.served) == 1)
    server = bench.served[0]
    server.data_received = chunks.append  # type: ignore[method-assign, assignment]
    two.line.write(b"from two")
    await bench.until(lambda: two.data == b"from two")
    assert one.data == b"first"
    assert listener.clients == 2


async def test_udp_without_listener_is_lost_as_refused(bench: Bench, make_recorder: MakeRecorder) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    lease = await bench.pool(plc={"url": f"udp://127.0.0.1:{port}"}).acquire("plc", make_recorder)
    lease.session.line.write(b"anybody?")
    await bench.until(lambda: lease.session.lost)
    assert [error.stable_code for error in lease.session.lost] == ["E2020"]


async def test_udp_listener_full_drops_the_longest_silent(bench: Bench, make_recorder: MakeRecorder) -> None:
    listener = await bench.listen("udp://127.0.0.1:0", clients_max=2)
    pool = bench.pool(plc={"url": listener.url})
    sessions = {name: (await pool.acquire("plc", make_recorder, is_shared=False)).session for name in "abc"}
    for name in ("a", "b", "a", "c"):
        wanted = len(sessions[name].data) + 1
        sessions[name].line.write(name.encode())
        await bench.until(lambda name=name, wanted=wanted: len(sessions[name].data) == wanted)  # type: ignore[misc]
    await bench.until(lambda: listener.clients == 2)
    assert [bool(served.lost) for served in bench.served] == [False, True, False]


async def test_memory_writes_of_one_turn_arrive_together(bench: Bench, make_recorder: MakeRecorder) -> None:
    await bench.listen("memory://plc")
    lease = await bench.pool(plc={"url": "memory://plc"}).acquire("plc", make_recorder)
    lease.session.line.write(b"ab")
    lease.session.line.write(b"cd")
    assert lease.session.data == b""
    assert lease.session.line.write_pending() == 4
    await bench.until(lambda: lease.session.data == b"abcd")


async def test_memory_close_tells_both_ends_after_the_last_bytes(bench: Bench, make_recorder: MakeRecorder) -> None:
    await bench.listen("memory://plc")
    lease = await bench.pool(plc={"url": "memory://plc"}).acquire("plc", make_recorder)
    served = bench.served[0]
    lease.session.line.write(b"bye")
    lease.session.line.close()
    await bench.until(lambda: lease.session.lost and served.lost)
    assert served.data == b"bye"
    assert [error.stable_code for error in (*lease.session.lost, *served.lost)] == ["E2031", "E2028"]


async def test_memory_without_listener_is_refused(bench: Bench, make_recorder: MakeRecorder) -> None:
    pool = bench.pool(plc={"url": "memory://nobody"})
    with pytest.raises(NotConnected, match="nothing listens") as caught:
        await pool.acquire("plc", make_recorder)
    assert caught.value.stable_code == "E2032"
    listener = await memory_listen("nobody", make_recorder)
    await pool.acquire("plc", make_recorder)
    await listener.close()
    with pytest.raises(NotConnected):
        await pool.acquire("plc", make_recorder)


async def test_memory_remote_that_never_reads_breaks_the_line(bench: Bench, make_recorder: MakeRecorder) -> None:
    await bench.listen("memory://plc")
    pool = bench.pool(plc={"url": "memory://plc", "write_buffer": "1KiB"})
    lease = await pool.acquire("plc", make_recorder)
    bench.served[0].line.pause_reading()  # type: ignore[attr-defined]  # the lines of a listener offer it
    lease.session.line.write(b"x" * 2000)
    await bench.until(lambda: lease.session.lost)
    assert [error.stable_code for error in lease.session.lost] == ["E2030"]


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "memory://plc"])
async def test_listener_full_hangs_up_on_more_clients(bench: Bench, make_recorder: MakeRecorder, url: str) -> None:
    listener = await bench.listen(url, clients_max=1)
    pool = bench.pool(plc={"url": listener.url})
    one = await pool.acquire("plc", make_recorder)
    await bench.until(lambda: listener.clients == 1)
    try:
        two = await pool.acquire("plc", make_recorder, is_shared=False)
        await bench.until(lambda: two.session.lost)
    except NotConnected as error:
        assert "full" in error.text  # noqa: PT017 - a memory line is refused while it opens, a socket afterwards
    one.session.line.write(b"x")
    await bench.until(lambda: one.session.data == b"x")
    assert not one.session.lost


async def test_listener_closed_tells_its_sessions(bench: Bench, make_recorder: MakeRecorder) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    lease = await bench.pool(plc={"url": listener.url}).acquire("plc", make_recorder)
    await bench.until(lambda: listener.clients == 1)
    await listener.close()
    await bench.until(lambda: lease.session.lost)
    assert [error.stable_code for error in bench.served[0].lost] == ["E2033"]
    assert listener.clients == 0


async def test_listener_on_taken_address_says_so(bench: Bench, make_recorder: MakeRecorder) -> None:
    taken = [await bench.listen(url) for url in ("tcp://127.0.0.1:0", "udp://127.0.0.1:0", "memory://plc")]
    for url in (*(listener.url for listener in taken), "tcp://192.0.2.1:1502"):
        with pytest.raises(Misconfigured, match="choose a free address") as caught:
            await listen(url, make_recorder)
        assert caught.value.stable_code == "E2035"
    with pytest.raises(Misconfigured, match="needs a server context"):
        await listen("tls+tcp://127.0.0.1:0", make_recorder)


async def test_tcp_remote_that_never_reads_breaks_the_line(bench: Bench, make_recorder: MakeRecorder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        lease = await bench.pool(plc={"url": url, "write_buffer": "64KiB"}).acquire("plc", make_recorder)
        with pytest.raises(NotConnected) as caught:  # noqa: PT012 - how much the kernel takes before is its own affair
            for _ in range(1000):
                lease.session.line.write(b"x" * 65_536)
                assert lease.session.line.write_pending() <= 2 * 65_536
                await asyncio.sleep(0)
        assert caught.value.stable_code == "E2030"
        await bench.until(lambda: lease.session.lost)
        assert [error.stable_code for error in lease.session.lost] == ["E2030"]
        assert "reads too slowly" in lease.session.lost[0].text
        assert bench.value("edge_endpoint_losses_total", endpoint="plc", reason="backlog") == 1


async def test_tcp_remote_that_resets_loses_the_line(bench: Bench, make_recorder: MakeRecorder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        lease = await bench.pool(plc={"url": url}).acquire("plc", make_recorder)
        client, _ = server.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.close()
        await bench.until(lambda: lease.session.lost)
    assert [error.stable_code for error in lease.session.lost] == ["E2029"]
    assert "reset" in lease.session.lost[0].text


async def test_tcp_socket_is_prompt_and_notices_a_dead_remote(bench: Bench, make_recorder: MakeRecorder) -> None:
    made: list[socket.socket] = []

    class Seen(StreamLine):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport.get_extra_info("socket"))
            super().connection_made(transport)

    listener = await bench.listen("tcp://127.0.0.1:0")
    setup = listener.admit()
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: Seen(setup), "127.0.0.1", listener.port)
    assert made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert made[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNACKNOWLEDGED_MS_MAX
    transport.close()


async def test_tcp_gathers_answers_but_keeps_back_none(bench: Bench, make_recorder: MakeRecorder) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    session = (await bench.pool(plc={"url": listener.url}).acquire("plc", make_recorder)).session
    await bench.until(lambda: bool(bench.served))
    client = session.line
    assert isinstance(client, StreamLine)
    assert client._peer is not None
    for size, low_water in ((4000, 4000), (GATHER_BYTES_MAX + 1, GATHER_BYTES_MAX), (0, 1), (8, 8)):
        client.gather(size)
        assert client._peer.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == low_water
    bench.served[0].line.write(b"few")
    await bench.until(lambda: session.data == b"few")
    assert client._peer.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


async def test_tcp_session_that_fails_loses_its_line(
    bench: Bench, make_recorder: MakeRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(make_recorder):  # type: ignore[misc,valid-type]
        def data_received(self, data: bytes) -> None:
            raise ValueError("no such frame")

    listener = await bench.listen("tcp://127.0.0.1:0")
    lease = await bench.pool(plc={"url": listener.url}).acquire("plc", Faulty)
    lease.session.line.write(b"x")
    await bench.until(lambda: lease.session.lost)
    assert "ValueError: no such frame" in lease.session.lost[0].text
    assert "data_received" in caplog.text


async def test_tcp_flood_leaves_the_loop_and_its_neighbours_responsive(
    bench: Bench, make_recorder: MakeRecorder
) -> None:
    class Flood(make_recorder):  # type: ignore[misc,valid-type]
        def pour(self) -> None:
            if not self.lost and not self.line.is_closing:
                if self.line.write_pending() < 500_000:
                    self.line.write(bytes(262_144))
                asyncio.get_running_loop().call_soon(self.pour)

        def line_made(self, line: OpenLine) -> None:
            super().line_made(line)
            self.pour()

    class Counter(make_recorder):  # type: ignore[misc,valid-type]
        size = 0

        def data_received(self, data: bytes) -> None:
            self.size += len(data)

    flood = await bench.listen("tcp://127.0.0.1:0", make_session=Flood)
    echo = await bench.listen("tcp://127.0.0.1:0")
    pool = bench.pool(hostile={"url": flood.url}, good={"url": echo.url})
    hostile = await pool.acquire("hostile", Counter)
    good = await pool.acquire("good", make_recorder)
    clock = asyncio.get_running_loop().time
    slowest = 0.0
    for number in range(1, 51):
        sent = clock()
        good.session.line.write(b"x")
        await bench.until(lambda number=number: len(good.session.data) == number)  # type: ignore[misc]
        slowest = max(slowest, clock() - sent)
    assert hostile.session.size > 1_000_000
    assert slowest < LOOP_LAG_S_MAX, f"slowest exchange beside the flood: {slowest * 1000:.1f} ms"
    hostile.release()


async def test_capture_keeps_the_last_chunks_with_direction(bench: Bench, make_recorder: MakeRecorder) -> None:
    await bench.listen("memory://plc")
    pool = bench.pool(plc={"url": "memory://plc", "capture": 3})
    lease = await pool.acquire("plc", make_recorder)
    for data in (b"one", b"two", b"x" * 5000):
        del lease.session.data[:]
        lease.session.line.write(data)
        await bench.until(lambda data=data: lease.session.data == data)  # type: ignore[misc]
    chunks = pool.capture("plc")
    assert [(chunk.direction, chunk.size) for chunk in chunks] == [("in", 3), ("out", 5000), ("in", 5000)]
    assert [len(chunk.data) for chunk in chunks] == [3, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX]
    assert chunks[0].time <= chunks[1].time
    bench.served[0].line.close()
    await bench.until(lambda: lease.session.lost)
    assert len(lease.session.lost) == 1
    assert len(pool.capture("plc")) == 3


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "memory://plc"])
async def test_rate_limit_spreads_bytes_over_time_in_order(bench: Bench, make_recorder: MakeRecorder, url: str) -> None:
    listener = await bench.listen(url)
    pool = bench.pool(plc={"url": listener.url, "rate_limit": 20_000, "capture": 10})
    lease = await pool.acquire("plc", make_recorder)
    started = asyncio.get_running_loop().time()
    sent = b"".join(number.to_bytes(2, "big") * 500 for number in range(28))
    for start in range(0, len(sent), 1000):
        lease.session.line.write(sent[start : start + 1000])
    assert lease.session.line.write_pending() > 0
    await bench.until(lambda: len(lease.session.data) == len(sent))
    # One second's worth passes at once; of the other eight pieces the last is let go after 0.35 s, far from at once.
    assert asyncio.get_running_loop().time() - started > 0.2
    assert lease.session.data == sent
    lease.release()
    await bench.until(lambda: listener.clients == 0)


async def test_rate_limit_release_sends_what_was_held_back(bench: Bench, make_recorder: MakeRecorder) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0", make_session=lambda: reader)
    reader = make_recorder()
    lease = await bench.pool(plc={"url": listener.url, "rate_limit": 100}).acquire("plc", make_recorder)
    for _ in range(10):
        lease.session.line.write(b"x" * 60)
    lease.release()
    await bench.until(lambda: reader.lost)
    assert len(reader.data) == 600


async def test_rate_limit_queue_over_its_bound_breaks_the_line(bench: Bench, make_recorder: MakeRecorder) -> None:
    await bench.listen("memory://plc")
    pool = bench.pool(plc={"url": "memory://plc", "rate_limit": 100, "write_buffer": "1KiB"})
    lease = await pool.acquire("plc", make_recorder)
    lease.session.line.write(b"x" * 600)
    lease.session.line.write(b"x" * 600)
    await bench.until(lambda: lease.session.lost)
    assert [error.stable_code for error in lease.session.lost] == ["E2030"]
    with pytest.raises(NotConnected):
        lease.session.line.write(b"x")
