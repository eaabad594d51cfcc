"""Datagram lines over UDP: what is written leaves as one datagram, what arrives is delivered as one.

A UDP line is open as soon as it is bound; that nobody listens shows when the first datagram comes back refused,
and ends the line. A listener keeps one line per remote address; when its table is full, the address that has
been silent longest makes room, because datagrams carry no goodbye.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from framegate.contract.errors import NotConnected
from framegate.endpoint.line import BaseLine, LineSetup
from framegate.endpoint.loss import backlog, line_loss, open_failure

DATAGRAM_BYTES_MAX = 65_507


class DatagramLine(BaseLine):
    """What clients and the lines of a listener share: writing to one remote address, dropping while paused."""

    is_datagram = True

    def __init__(self, setup: LineSetup) -> None:
        super().__init__(setup)
        self._transport: asyncio.DatagramTransport | None = None
        self._address: tuple[str, int] | None = None
        self._is_paused = False

    def write(self, data: bytes) -> None:
        if self._error is not None:
            raise self._gone()
        transport = self._transport
        assert transport is not None
        transport.sendto(data, self._address)
        self._sent.value += len(data)
        if self.write_pending() > self._setup.write_buffer_bytes_max:
            self.abort(backlog(self._setup.where, self._setup.write_buffer_bytes_max))

    def write_pending(self) -> int:
        # Datagram transports have it on both loops; typeshed lists it for streams only.
        return 0 if self._transport is None else cast(asyncio.WriteTransport, self._transport).get_write_buffer_size()

    def take(self, data: bytes) -> None:
        if not self._is_paused and self._error is None:
            self._setup.received.value += len(data)
            self._setup.deliver(data)

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False

    def close(self) -> None:
        if self._close_reason():
            self._leave()

    def abort(self, error: NotConnected) -> None:
        if self._error is None:
            self._error = error
        self._leave()

    def _leave(self) -> None:
        asyncio.get_running_loop().call_soon(self.end, None)

    def end(self, error: Exception | None) -> None:
        self._finish(self, line_loss(self._setup.where, error))


class DatagramClient(DatagramLine, asyncio.DatagramProtocol):
    """Our end of a line to one remote."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._setup.owner.line_made(self)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.take(data)

    def error_received(self, exc: Exception) -> None:
        """An ICMP answer: nobody listens there, or no route leads there."""
        if isinstance(exc, OSError):
            self.abort(open_failure(self._setup.where, exc))

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(exc)

    def _leave(self) -> None:
        if self._transport is not None:
            self._transport.close()


class DatagramServer(asyncio.DatagramProtocol):
    """A bound socket and its lines, one per remote address, the longest silent first."""

    def __init__(self, admit: Callable[[str], LineSetup], clients_max: int) -> None:
        self._admit = admit
        self._clients_max = clients_max
        self._lines: dict[tuple[str, int], DatagramLine] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        line = self._lines.pop(addr, None)
        if line is None or line.is_closing:
            while len(self._lines) >= self._clients_max:
                longest_silent = self._lines.pop(next(iter(self._lines)))
                longest_silent.close()
                longest_silent.end(None)
            line = _ServerLine(self._admit(f"{addr[0]}:{addr[1]}"), self._transport, addr)
        self._lines[addr] = line
        line.take(data)

    def error_received(self, exc: Exception) -> None:
        """One remote's ICMP answer says nothing of the others, and not whose it is."""

    def connection_lost(self, exc: Exception | None) -> None:
        for line in self._lines.values():
            line.end(exc)
        self._lines.clear()


class _ServerLine(DatagramLine):
    def __init__(self, setup: LineSetup, transport: asyncio.DatagramTransport | None, address: tuple[str, int]) -> None:
        super().__init__(setup)
        self._transport = transport
        self._address = address
        self.peer = address[0]
        setup.owner.line_made(self)


async def open_udp(setup: LineSetup, host: str, port: int) -> DatagramClient:
    """A bound socket that talks to one remote only.

    raises OSError - no such host, or no route
    """
    line = DatagramClient(setup)
    endpoint = await datagram_socket(host, port, socket.socket.connect)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: line, sock=endpoint)
    return line


async def bind_udp(server: DatagramServer, host: str, port: int) -> asyncio.DatagramTransport:
    """A bound socket that feeds the server.

    raises OSError - the address is taken, or not ours
    """
    endpoint = await datagram_socket(host, port, socket.socket.bind)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: server, sock=endpoint)
    return transport


async def datagram_socket(host: str, port: int, attach: Callable[[socket.socket, Any], None]) -> socket.socket:
    """A socket attached to the first address of a host; made here because uvloop leaks its own when that fails.

    raises OSError - no such host, or it cannot be attached
    """
    loop = asyncio.get_running_loop()
    family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
    endpoint = socket.socket(family, kind, protocol)
    try:
        endpoint.setblocking(False)
        attach(endpoint, address)
    except OSError:
        endpoint.close()
        raise
    return endpoint
