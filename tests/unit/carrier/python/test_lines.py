from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from framegate.carrier.child.lines import HandedLines
from framegate.contract.errors import NotConnected
from framegate.contract.ports import Line


class Listening:
    """Satisfies contract.ports.Session."""

    def __init__(self) -> None:
        self.line: Line | None = None
        self.lost: list[NotConnected] = []

    def line_made(self, line: Line) -> None:
        self.line = line

    def data_received(self, data: bytes) -> None:
        """Not looked at."""

    def line_lost(self, error: NotConnected) -> None:
        self.lost.append(error)


async def test_a_line_that_has_ended_is_told_each_time_that_it_is_asked_for() -> None:
    ours, theirs = socket.socketpair()
    lines = HandedLines("plc", ours, None)
    lease = await lines.acquire("plc", Listening)
    assert lease.session.line is not None
    with contextlib.closing(theirs):
        theirs.shutdown(socket.SHUT_RDWR)
        async with asyncio.timeout(5):
            while not lease.session.lost:  # noqa: ASYNC110 - the session is told, and no test can wait for that
                await asyncio.sleep(0.001)
    for _ in range(2):
        with pytest.raises(NotConnected) as caught:
            await lines.acquire("plc", Listening)
        assert caught.value.stable_code == "E4521"
    lease.release()
