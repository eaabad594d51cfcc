from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from framegate.contract.errors import Misconfigured, NotConnected
from framegate.contract.ports import Credentials, Lines
from framegate.endpoint import pool as pool_module
from framegate.endpoint.endpoint import endpoint_from_row

if TYPE_CHECKING:
    from tests.unit.endpoint.conftest import Bench, Recorder

    MakeRecorder = type[Recorder]


@pytest.fixture
def silent_socket() -> Iterator[socket.socket]:
    """A listening socket that nobody serves: the kernel connects, nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "udp://127.0.0.1:0", "memory://plc"])
async def test_line_once_open_carries_bytes_both_ways(bench: Bench, make_recorder: MakeRecorder, url: str) -> None:
    listener = await bench.listen(url)
    pool: Lines = bench.pool(plc={"url": listener.url})
    lease = await pool.acquire("plc", make_recorder)
    session = lease.session
    assert session.line.url == listener.url
    assert session.line.is_datagram == url.startswith("udp")
    session.line.write(b"ping")
    await bench.until(lambda: session.data == b"ping")
    lease.release()
    lease.release()
    if not url.startswith("udp"):
        await bench.until(lambda: listener.clients == 0)
    await bench.until(lambda: bench.value("edge_endpoint_lines", endpoint="plc") == 0)
    await bench.until(lambda: bench.value("edge_endpoint_received_bytes_total", endpoint="plc") == 4)
    assert bench.value("edge_endpoint_sent_bytes_total", endpoint="plc") == 4
    assert bench.value("edge_endpoint_connects_total", endpoint="plc") == 1
    assert session.lost == []


async def test_acquire_of_one_endpoint_twice_shares_line_and_session(bench: Bench, make_recorder: MakeRecorder) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    pool = bench.pool(plc={"url": listener.url})
    first = await pool.acquire("plc", make_recorder)
    second = await pool.acquire("plc", make_recorder)
    assert first.session is second.session
    await bench.until(lambda: listener.clients == 1)
    first.release()
    second.session.line.write(b"still open")
    await bench.until(lambda: second.session.data == b"still open")
    second.release()
    await bench.until(lambda: listener.clients == 0)


async def test_acquire_by_many_at_once_opens_one_line(bench: Bench, make_recorder: MakeRecorder) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    pool = bench.pool(plc={"url": listener.url})
    leases = await asyncio.gather(*(pool.acquire("plc", make_recorder) for _ in range(20)))
    assert len({id(lease.session) for lease in leases}) == 1
    assert len(bench.served) == 1
    assert bench.value("edge_endpoint_connects_total", endpoint="plc") == 1


async def test_acquire_with_connections_spreads_leases(bench: Bench, make_recorder: MakeRecorder) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    pool = bench.pool(plc={"url": listener.url, "connections": 3})
    leases = [await pool.acquire("plc", make_recorder) for _ in range(7)]
    users = [sum(lease.session is session for lease in leases) for session in {lease.session for lease in leases}]
    assert sorted(users) == [2, 2, 3]
    await bench.until(lambda: listener.clients == 3)


async def test_acquire_cancelled_does_not_fail_the_others(bench: Bench, make_recorder: MakeRecorder) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    pool = bench.pool(plc={"url": listener.url})
    first = asyncio.create_task(pool.acquire("plc", make_recorder))
    second = asyncio.create_task(pool.acquire("plc", make_recorder))
    await asyncio.sleep(0)
    first.cancel()
    lease = await second
    lease.session.line.write(b"x")
    await bench.until(lambda: lease.session.data == b"x")
    assert first.cancelled()


async def test_acquire_cancelled_by_all_stops_the_opening(
    bench: Bench, make_recorder: MakeRecorder, silent_socket: socket.socket
) -> None:
    port = silent_socket.getsockname()[1]
    pool = bench.pool(plc={"url": f"tls+tcp://127.0.0.1:{port}", "connect_timeout": "60s"})
    task = asyncio.create_task(pool.acquire("plc", make_recorder))
    accepted, _ = await asyncio.get_running_loop().run_in_executor(None, silent_socket.accept)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    with accepted:
        accepted.settimeout(5.0)
        await asyncio.get_running_loop().run_in_executor(None, _read_to_end, accepted)
    assert bench.value("edge_endpoint_lines", endpoint="plc") == 0


def _read_to_end(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass


async def test_loss_is_told_once_and_a_new_acquire_opens_anew(bench: Bench, make_recorder: MakeRecorder) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    pool = bench.pool(plc={"url": listener.url})
    first = await pool.acquire("plc", make_recorder)
    second = await pool.acquire("plc", make_recorder)
    await bench.until(lambda: bench.served and bench.served[0].made)
    bench.served[0].line.close()
    await bench.until(lambda: first.session.lost)
    assert [error.stable_code for error in first.session.lost] == ["E2028"]
    assert "endpoint plc: tcp://127.0.0.1" in first.session.lost[0].text
    with pytest.raises(NotConnected) as caught:
        first.session.line.write(b"too late")
    assert caught.value.stable_code == "E2028"
    third = await pool.acquire("plc", make_recorder)
    assert third.session is not first.session
    first.release()
    second.release()
    third.session.line.write(b"x")
    await bench.until(lambda: third.session.data == b"x")
    assert len(first.session.lost) == 1
    assert bench.value("edge_endpoint_losses_total", endpoint="plc", reason="closed") == 1
    assert len(bench.log.named("endpoint_lost")) == 1


async def test_close_by_session_is_told_once_and_keeps_no_dying_line(bench: Bench, make_recorder: MakeRecorder) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    pool = bench.pool(plc={"url": listener.url})
    first = await pool.acquire("plc", make_recorder)
    first.session.line.close()
    assert first.session.lost == []
    second = await pool.acquire("plc", make_recorder)
    assert second.session is not first.session
    await bench.until(lambda: first.session.lost)
    assert [error.stable_code for error in first.session.lost] == ["E2031"]


async def test_release_sends_what_was_written_before(bench: Bench, make_recorder: MakeRecorder) -> None:
    reader = make_recorder()
    listener = await bench.listen("tcp://127.0.0.1:0", make_session=lambda: reader)
    pool = bench.pool(plc={"url": listener.url, "write_buffer": "64MiB"})
    lease = await pool.acquire("plc", make_recorder)
    farewell = b"goodbye " * 2_000_000  # more than the kernel buffers
    lease.session.line.write(farewell)
    assert lease.session.line.write_pending() > 0
    lease.release()
    await bench.until(lambda: reader.lost)
    assert reader.data == farewell


async def test_open_refused_says_so_and_is_not_remembered(bench: Bench, make_recorder: MakeRecorder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    pool = bench.pool(plc={"url": f"tcp://127.0.0.1:{port}"}, named={"url": f"tcp://localhost:{port}"})
    for name in ("plc", "named"):
        results = await asyncio.gather(*(pool.acquire(name, make_recorder) for _ in range(3)), return_exceptions=True)
        for error in results:
            assert isinstance(error, NotConnected)
            assert error.stable_code == "E2020"
            assert "refused the connection; check that it runs and listens" in error.text
        assert bench.value("edge_endpoint_failures_total", endpoint=name, reason="refused") == 1
    await bench.listen(f"tcp://127.0.0.1:{port}")
    lease = await pool.acquire("plc", make_recorder)
    lease.session.line.write(b"x")
    await bench.until(lambda: lease.session.data == b"x")


async def test_open_of_unknown_name_says_so(bench: Bench, make_recorder: MakeRecorder) -> None:
    pool = bench.pool(plc={"url": "tcp://no-such-host.invalid:502"})
    with pytest.raises(NotConnected, match="could not be resolved") as caught:
        await pool.acquire("plc", make_recorder)
    assert caught.value.stable_code == "E2022"


async def test_open_without_answer_ends_at_its_deadline(
    bench: Bench, make_recorder: MakeRecorder, silent_socket: socket.socket
) -> None:
    port = silent_socket.getsockname()[1]
    pool = bench.pool(plc={"url": f"tls+tcp://127.0.0.1:{port}", "connect_timeout": "200ms"})
    started = asyncio.get_running_loop().time()
    with pytest.raises(NotConnected) as caught:
        await pool.acquire("plc", make_recorder)
    assert caught.value.stable_code in {"E2023", "E2025"}
    assert asyncio.get_running_loop().time() - started < 2.0


async def test_acquire_of_unknown_endpoint_lists_the_known(bench: Bench, make_recorder: MakeRecorder) -> None:
    pool = bench.pool(plc={"url": "memory://plc"})
    with pytest.raises(Misconfigured, match="one that is there: plc") as caught:
        await pool.acquire("plx", make_recorder)
    assert caught.value.stable_code == "E2034"


async def test_update_ends_changed_lines_and_leaves_the_others(bench: Bench, make_recorder: MakeRecorder) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    rows: dict[str, dict[str, object]] = {
        name: {"url": listener.url, "connect_timeout": wait}
        for name, wait in (("same", "5s"), ("changed", "6s"), ("removed", "7s"))
    }
    pool = bench.pool(**rows)
    same, changed, removed = [await pool.acquire(name, make_recorder) for name in rows]
    new_rows: dict[str, dict[str, object]] = {
        "same": {"url": listener.url, "connect_timeout": "5s"},
        "changed": {"url": listener.url, "connect_timeout": "6s", "connections": 2},
        "added": {"url": listener.url, "connect_timeout": "8s"},
    }
    pool.update({name: endpoint_from_row(name, row, bench.base) for name, row in new_rows.items()})
    assert [error.stable_code for error in changed.session.lost] == ["E2033"]
    assert [error.stable_code for error in removed.session.lost] == ["E2033"]
    assert same.session.lost == []
    again = await pool.acquire("same", make_recorder)
    assert again.session is same.session
    await pool.acquire("changed", make_recorder)
    await pool.acquire("added", make_recorder)
    with pytest.raises(Misconfigured):
        await pool.acquire("removed", make_recorder)
    assert bench.value("edge_endpoint_connects_total", endpoint="removed") == 0
    await bench.until(lambda: listener.clients == 3)
    assert len(changed.session.lost) == 1


async def test_acquire_through_equal_rows_shares_one_line(bench: Bench, make_recorder: MakeRecorder) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    pool = bench.pool(one={"url": listener.url}, other={"url": listener.url})
    one, other = await pool.acquire("one", make_recorder), await pool.acquire("other", make_recorder)
    assert one.session is other.session
    own = await pool.acquire("one", make_recorder, is_shared=False)
    assert own.session is not one.session
    await bench.until(lambda: listener.clients == 2)
    one.release()
    own.release()
    await bench.until(lambda: listener.clients == 1)


async def test_close_ends_every_line_and_opens_no_more(
    bench: Bench, make_recorder: MakeRecorder, silent_socket: socket.socket
) -> None:
    listener = await bench.listen("tcp://127.0.0.1:0")
    port = silent_socket.getsockname()[1]
    pool = bench.pool(plc={"url": listener.url}, slow={"url": f"tls+tcp://127.0.0.1:{port}"})
    lease = await pool.acquire("plc", make_recorder)
    opening = asyncio.create_task(pool.acquire("slow", make_recorder))
    await asyncio.sleep(0)
    await pool.close()
    assert [error.stable_code for error in lease.session.lost] == ["E2033"]
    with pytest.raises(NotConnected, match="shutting down"):
        await opening
    with pytest.raises(NotConnected, match="shutting down"):
        await pool.acquire("plc", make_recorder)
    await bench.until(lambda: listener.clients == 0)


async def test_received_bytes_of_an_open_tcp_line_are_sampled(
    bench: Bench, make_recorder: MakeRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "SAMPLE_PERIOD_S", 0.01)
    listener = await bench.listen("tcp://127.0.0.1:0")
    lease = await bench.pool(plc={"url": listener.url}).acquire("plc", make_recorder)

    def received() -> float:
        return bench.value("edge_endpoint_received_bytes_total", endpoint="plc")

    for total in (7, 14):
        lease.session.line.write(b"7 bytes")
        await bench.until(lambda total=total: len(lease.session.data) == total)  # type: ignore[misc]
        await bench.until(lambda total=total: received() == total)  # type: ignore[misc]
    bench.served[0].line.close()
    await bench.until(lambda: lease.session.lost)
    assert received() == 14


async def test_credentials_are_resolved_when_asked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"url": "memory://b", "credentials": {"username": "gw1", "password": "${env:BROKER_PASSWORD}"}}
    pool = bench.pool(broker=row, plc={"url": "memory://plc"})
    monkeypatch.setenv("BROKER_PASSWORD", "hunter2")
    assert pool.credentials("broker") == Credentials("gw1", "hunter2")
    assert pool.credentials("plc") is None
    monkeypatch.delenv("BROKER_PASSWORD")
    with pytest.raises(Misconfigured, match=r"\$\{env:BROKER_PASSWORD\}"):
        pool.credentials("broker")
