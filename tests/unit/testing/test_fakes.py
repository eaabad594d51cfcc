"""The fakes keep the promises of the ports they stand for."""

from __future__ import annotations

import asyncio

import pytest

from framegate.contract.errors import Misconfigured, NotConnected
from framegate.contract.ports import Clock, FrameSink, Line, Lines, Log
from framegate.testing.fakes import START_NS, CollectingLog, CollectingSink, FakeClock, FakeLines
from framegate.testing.loop import LoopClock, run_virtual


class Echo:
    """A session that keeps what it hears."""

    def __init__(self) -> None:
        self.line: Line | None = None
        self.heard: list[bytes] = []
        self.lost: list[NotConnected] = []

    def line_made(self, line: Line) -> None:
        self.line = line

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    def line_lost(self, error: NotConnected) -> None:
        self.lost.append(error)


def test_fakes_satisfy_their_ports() -> None:
    clock: Clock = FakeClock()
    lines: Lines = FakeLines()
    sink: FrameSink = CollectingSink()
    log: Log = CollectingLog()
    assert all((clock, lines, sink, log))


async def test_clock_advance_wakes_sleepers_in_order_at_their_time() -> None:
    clock = FakeClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.monotonic()))

    tasks = [asyncio.create_task(sleeper("a", 1, 1)), asyncio.create_task(sleeper("b", 1.5))]
    await clock.advance(1.9)
    assert woken == [("a", 1), ("b", 1.5)]
    await clock.advance(0.2)
    assert ("a", 2) in woken
    assert clock.now_ns() == START_NS + 2_100_000_000
    clock.step_wall(-3600)
    assert round(clock.monotonic(), 6) == 2.1, "monotonic time does not notice"
    assert clock.now_ns() == START_NS + 2_100_000_000 - 3_600_000_000_000
    await asyncio.gather(*tasks)


async def test_lines_two_leases_share_line_until_last_release() -> None:
    lines = FakeLines({"plc1": lambda data: data.upper()})
    first = await lines.acquire("plc1", Echo)
    second = await lines.acquire("plc1", Echo)
    assert first.session is second.session
    assert lines.opened == 1
    line = first.session.line
    assert line is not None
    line.write(b"hello")
    assert first.session.heard == []
    await asyncio.sleep(0)
    assert first.session.heard == [b"HELLO"]
    first.release()
    first.release()
    assert lines.line("plc1") is not None
    second.release()
    assert lines.line("plc1") is None
    assert len(first.session.lost) == 1
    with pytest.raises(NotConnected):
        line.write(b"x")


async def test_lines_lost_line_is_opened_anew() -> None:
    lines = FakeLines({"plc1": lambda _: b""})
    first = await lines.acquire("plc1", Echo)
    line = lines.line("plc1")
    assert line is not None
    line.lose("reset by peer")
    second = await lines.acquire("plc1", Echo)
    assert second.session is not first.session
    first.release()
    assert lines.line("plc1") is not None, "an old lease does not close the new line"
    second.release()


async def test_lines_line_of_its_own_is_not_shared() -> None:
    lines = FakeLines({"broker": lambda _: b""})
    own = await lines.acquire("broker", Echo, is_shared=False)
    other = await lines.acquire("broker", Echo)
    assert own.session is not other.session
    assert lines.opened == 2
    own.release()
    assert own.session.lost
    assert not other.session.lost
    other.release()


async def test_lines_refusing_or_unknown_raise_as_the_port_says() -> None:
    lines = FakeLines({"plc1": lambda _: b""}, is_refusing=True)
    with pytest.raises(NotConnected):
        await lines.acquire("plc1", Echo)
    with pytest.raises(Misconfigured):
        await lines.acquire("plc2", Echo)


def test_virtual_loop_hours_take_no_time() -> None:
    async def scenario() -> None:
        clock = LoopClock()
        start = clock.monotonic()
        await clock.sleep(86_400)
        assert clock.monotonic() - start == pytest.approx(86_400)
        assert clock.now_ns() == START_NS + 86_400_000_000_000
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.get_running_loop().create_future()

    run_virtual(scenario())


def test_virtual_loop_nothing_to_wait_for_says_so() -> None:
    async def scenario() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            asyncio.get_running_loop().call_soon(int)  # so that the loop can end

    with pytest.raises(AssertionError, match="would wait for ever"):
        run_virtual(scenario())
