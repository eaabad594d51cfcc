"""The lines of a driver in a process of its own: the one socket that the gateway has handed over.

Satisfies contract.ports.Lines, as far as one line goes: whoever shares it shares the session, and once it has ended
only the gateway can open another, by opening the driver again.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from framegate.contract.errors import Misconfigured, NotConnected
from framegate.contract.ports import Credentials, Lease, S, Session
from framegate.endpoint.line import LineSetup, OpenLine
from framegate.endpoint.tcp import StreamLine
from framegate.endpoint.udp import DatagramClient

WRITE_BUFFER_BYTES_MAX = 4 << 20


class HandedLines:
    """The line of one endpoint.

    handed  None: the driver's row names no endpoint
    """

    def __init__(self, endpoint: str, handed: socket.socket | None, login: Credentials | None) -> None:
        self._endpoint = endpoint
        self._handed = handed
        self._login = login
        self._shared: _Shared | None = None
        self._opening = asyncio.Lock()

    async def acquire(self, endpoint: str, make_session: Callable[[], S], *, is_shared: bool = True) -> Lease[S]:
        """See contract.ports.Lines; raises Misconfigured E4518 - a second line; NotConnected E4521 - it has ended."""
        self._check(endpoint)
        async with self._opening:
            shared, is_new = self._shared, False
            if shared is None or shared.is_over:
                shared, is_new = _Shared(make_session(), f"endpoint {endpoint}"), True
                await shared.open(self._take())
                self._shared = shared
        if not (is_new or is_shared):
            text = f"endpoint {endpoint}: a driver in a process of its own has one line; remove `isolation: process`"
            raise Misconfigured(text, code="E4518")
        return cast(Lease[S], _Share(shared))

    async def hand_over(self, endpoint: str) -> socket.socket:
        """The socket itself."""
        self._check(endpoint)
        return self._take()

    def credentials(self, endpoint: str) -> Credentials | None:
        self._check(endpoint)
        return self._login

    def _check(self, endpoint: str) -> None:
        if endpoint != self._endpoint or not endpoint:
            text = f'a driver in a process of its own has the line of its row\'s endpoint only, not "{endpoint}"'
            raise Misconfigured(f"{text}; remove `isolation: process`", code="E4518")

    def _take(self) -> socket.socket:
        handed, self._handed = self._handed, None
        if handed is None:
            raise NotConnected(f"endpoint {self._endpoint}: its line has ended; it opens again", code="E4521")
        return handed


class _Shared:
    """The line, its session and its shares; owner of the line."""

    def __init__(self, session: Session, where: str) -> None:
        self.session = session
        self.shares = 0
        self.is_over = False
        self._where = where
        self._line: OpenLine | None = None

    async def open(self, handed: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        setup = LineSetup(self._where, self._where, self, self.session.data_received, WRITE_BUFFER_BYTES_MAX)
        handed.setblocking(False)
        make: Callable[[], Any] = lambda: StreamLine(setup)  # noqa: E731 - one of two
        if handed.type == socket.SOCK_DGRAM:
            await loop.create_datagram_endpoint(lambda: DatagramClient(setup), sock=handed)
        elif handed.family == socket.AF_UNIX:
            await loop.create_unix_connection(make, sock=handed)
        else:
            await loop.create_connection(make, sock=handed)

    def give_back(self) -> None:
        self.shares -= 1
        if self.shares == 0 and self._line is not None:
            self.is_over = True
            self._line.close()

    def line_made(self, line: OpenLine) -> None:
        self._line = line
        self.session.line_made(line)

    def line_ended(self, line: OpenLine, error: NotConnected) -> None:
        was_over, self.is_over = self.is_over, True
        if not was_over:
            self.session.line_lost(error)


class _Share:
    """A lease."""

    def __init__(self, shared: _Shared) -> None:
        self._shared: _Shared | None = shared
        self.session = shared.session
        shared.shares += 1

    def release(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.give_back()
