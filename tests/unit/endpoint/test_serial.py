from __future__ import annotations

import asyncio
import contextlib
import os
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from framegate.contract.errors import Misconfigured, NotConnected
from framegate.endpoint.line import OpenLine
from framegate.endpoint.serial import SerialLine

if TYPE_CHECKING:
    from tests.unit.endpoint.conftest import Bench, Recorder

    MakeRecorder = type[Recorder]

EXCHANGE_S_MAX = 0.05
HALF_DUPLEX_S = 1.0


@dataclass
class Pty:
    """The far end of a pseudo terminal, and the device path of the near one."""

    master: int
    device: str

    def pull(self) -> None:
        """What a pulled USB adapter looks like from the near end."""
        os.close(self.master)
        self.master = -1


@pytest.fixture
def pty() -> Iterator[Pty]:
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    pty = Pty(master, os.ttyname(slave))
    os.close(slave)
    yield pty
    if pty.master >= 0:
        os.close(pty.master)


@pytest.fixture
async def pair(bench: Bench) -> tuple[str, str]:
    """Two serial devices joined by a null modem of two pseudo terminals, pumped by the loop."""
    ends = [os.openpty() for _ in range(2)]
    loop = asyncio.get_running_loop()
    for (master, slave), (other, _) in zip(ends, reversed(ends), strict=True):
        tty.setraw(slave)
        os.set_blocking(master, False)
        loop.add_reader(master, _pump, master, other)

    async def close() -> None:
        for master, slave in ends:
            loop.remove_reader(master)
            os.close(master)
            os.close(slave)

    bench.at_end(close)
    return os.ttyname(ends[0][1]), os.ttyname(ends[1][1])


def _pump(source: int, target: int) -> None:
    with contextlib.suppress(BlockingIOError, OSError):
        os.write(target, os.read(source, 4096))


async def test_serial_line_carries_bytes_and_tells_its_silence(
    bench: Bench, make_recorder: MakeRecorder, pty: Pty
) -> None:
    pool = bench.pool(bus={"url": f"serial://{pty.device}?baud=9600&stopbits=2"})
    lease = await pool.acquire("bus", make_recorder)
    line: OpenLine = lease.session.line  # type: ignore[assignment]  # the pool's lines offer more than the contract
    assert line.silence_s == pytest.approx(3.5 * 11 / 9600)
    assert line.url == f"serial://{pty.device}"
    line.write(b"\x01\x03request")
    await bench.until(lambda: _read(pty) == b"\x01\x03request")
    os.write(pty.master, b"\x00\x0a\x0dreply\xff\x11")
    await bench.until(lambda: lease.session.data == b"\x00\x0a\x0dreply\xff\x11")
    assert bench.value("edge_endpoint_received_bytes_total", endpoint="bus") == 10
    assert bench.value("edge_endpoint_sent_bytes_total", endpoint="bus") == 9
    lease.release()
    again = await pool.acquire("bus", make_recorder)
    again.release()


def _read(pty: Pty) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(pty.master, 4096)
    return b""


async def test_serial_half_duplex_for_a_second_has_no_late_frame(
    bench: Bench, make_recorder: MakeRecorder, pair: tuple[str, str]
) -> None:
    await bench.listen(f"serial://{pair[1]}?baud=115200")
    pool = bench.pool(bus={"url": f"serial://{pair[0]}?baud=115200"})
    lease = await pool.acquire("bus", make_recorder)
    session = lease.session
    clock = asyncio.get_running_loop().time
    started, count, slowest = clock(), 0, 0.0
    while clock() - started < HALF_DUPLEX_S:
        frame = bytes((count % 251,)) * (8 + count % 240)
        del session.data[:]
        sent = clock()
        session.line.write(frame)
        await bench.until(lambda wanted=frame: len(session.data) >= len(wanted))  # type: ignore[misc]
        assert session.data == frame
        slowest = max(slowest, clock() - sent)
        count += 1
    assert slowest < EXCHANGE_S_MAX, f"{count} exchanges, slowest {slowest * 1000:.1f} ms"
    assert count > HALF_DUPLEX_S / EXCHANGE_S_MAX
    lease.release()


async def test_serial_adapter_pulled_loses_the_line_once(bench: Bench, make_recorder: MakeRecorder, pty: Pty) -> None:
    pool = bench.pool(bus={"url": f"serial://{pty.device}"})
    lease = await pool.acquire("bus", make_recorder)
    pty.pull()
    await bench.until(lambda: lease.session.lost)
    assert [error.stable_code for error in lease.session.lost] == ["E2027"]
    assert "check plug and cable" in lease.session.lost[0].text
    with pytest.raises(NotConnected):
        lease.session.line.write(b"x")
    with pytest.raises(NotConnected):
        await pool.acquire("bus", make_recorder)
    assert len(lease.session.lost) == 1


async def test_serial_port_missing_or_no_port_says_so(
    bench: Bench, make_recorder: MakeRecorder, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no port")
    pool = bench.pool(none={"url": "serial:///dev/ttyAbsent9"}, file={"url": f"serial://{tmp_path}/file"})
    with pytest.raises(NotConnected, match="does not exist") as caught:
        await pool.acquire("none", make_recorder)
    assert caught.value.stable_code == "E2027"
    with pytest.raises(NotConnected, match="is no serial port") as caught:
        await pool.acquire("file", make_recorder)
    assert bench.value("edge_endpoint_failures_total", endpoint="none", reason="serial") == 1


async def test_serial_port_held_by_another_row_says_so(bench: Bench, make_recorder: MakeRecorder, pty: Pty) -> None:
    pool = bench.pool(one={"url": f"serial://{pty.device}"}, two={"url": f"serial://{pty.device}?baud=19200"})
    lease = await pool.acquire("one", make_recorder)
    with pytest.raises(NotConnected, match="give it one owner"):
        await pool.acquire("two", make_recorder)
    lease.release()
    await pool.acquire("two", make_recorder)


async def test_serial_rs485_where_driver_cannot_is_misconfigured(
    bench: Bench, make_recorder: MakeRecorder, pty: Pty
) -> None:
    pool = bench.pool(bus={"url": f"serial://{pty.device}?rs485=on"})
    with pytest.raises(Misconfigured, match="remove rs485=on") as caught:
        await pool.acquire("bus", make_recorder)
    assert caught.value.stable_code == "E2006"


async def test_serial_remote_that_never_reads_breaks_the_line(
    bench: Bench, make_recorder: MakeRecorder, pty: Pty
) -> None:
    pool = bench.pool(bus={"url": f"serial://{pty.device}", "write_buffer": "1KiB"})
    lease = await pool.acquire("bus", make_recorder)
    with pytest.raises(NotConnected) as caught:  # noqa: PT012 - how much the kernel takes before is its own affair
        for _ in range(200):
            lease.session.line.write(b"x" * 250)
    assert caught.value.stable_code == "E2030"
    await bench.until(lambda: lease.session.lost)
    assert [error.stable_code for error in lease.session.lost] == ["E2030"]


async def test_serial_queued_bytes_follow_when_the_remote_reads(
    bench: Bench, make_recorder: MakeRecorder, pty: Pty
) -> None:
    pool = bench.pool(bus={"url": f"serial://{pty.device}"})
    lease = await pool.acquire("bus", make_recorder)
    sent = bytes(range(256)) * 400
    lease.session.line.write(sent[:100_000])
    lease.session.line.write(sent[100_000:])
    assert lease.session.line.write_pending() > 0
    received = bytearray()

    def is_complete() -> bool:
        received.extend(_read(pty))
        return len(received) >= len(sent)

    await bench.until(is_complete)
    assert received == sent
    line = lease.session.line
    assert isinstance(line, SerialLine)
    await bench.until(lambda: line.write_pending() == 0)
    assert not asyncio.get_running_loop().remove_writer(line._fd), "a drained line must not watch for writability"


async def test_serial_wake_without_bytes_is_no_loss(bench: Bench, make_recorder: MakeRecorder, pty: Pty) -> None:
    lease = await bench.pool(bus={"url": f"serial://{pty.device}"}).acquire("bus", make_recorder)
    line = lease.session.line
    assert isinstance(line, SerialLine)
    line._on_readable()
    assert not line.is_closing
