"""Sockets handed over: a line for a driver that runs in another process, in place of a session.

Plain TCP and UDP rows hand over the connected socket itself. Where the gateway has to stay in between - TLS, serial
and memory lines, and rows with `rate_limit` or `capture` - it is one end of a socket pair, and a relay joins the other
end to a line of the pool. Each side of a relay is read only as fast as the other one takes it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

from framegate.contract.errors import NotConnected
from framegate.contract.ports import Lease, Line
from framegate.endpoint.line import OpenLine
from framegate.endpoint.loss import open_failure, open_timeout
from framegate.endpoint.tcp import notice_loss
from framegate.endpoint.udp import datagram_socket

if TYPE_CHECKING:
    from framegate.endpoint.connection import Remote
    from framegate.endpoint.endpoint import Endpoint

RELAY_BYTES_MAX = 64 * 1024
"""Held in each direction of a relay; beyond, its source is not read."""
_SYN = 1
"""The kernel counts it among acknowledged bytes."""
RELAY_LOOK_S = 0.005
"""How often a line that is full is looked at; lines do not tell when they have drained."""


def is_plain(endpoint: Endpoint) -> bool:
    """Whether nothing of the gateway has to stand between the socket and the remote."""
    is_watched = endpoint.rate_bytes_per_s or endpoint.capture_chunks
    return endpoint.url.scheme in {"tcp", "udp"} and endpoint.tls is None and not is_watched


async def connected(remote: Remote) -> socket.socket:
    """A connected socket to a plain endpoint; the remote knows of it while it is open.

    raises NotConnected E2020-E2029
    """
    url, limit_s = remote.endpoint.url, remote.endpoint.connect_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            if url.scheme == "udp":
                handed = await datagram_socket(url.host, url.port or 0, socket.socket.connect)
            else:
                handed = await _stream_socket(url.host, url.port or 0)
    except OSError as error:
        is_late = isinstance(error, TimeoutError) and not error.errno
        lost = open_timeout(remote.where, limit_s) if is_late else open_failure(remote.where, error)
        remote.count("edge_endpoint_failures_total", lost)
        raise lost from error
    remote.handed[handed] = _SYN, 0
    remote.connects.value += 1
    remote.log.info("endpoint_opened", endpoint=remote.endpoint.name, url=url.place, tls="")
    return handed


async def _stream_socket(host: str, port: int) -> socket.socket:
    """Connected to the first address of a host that takes it; raises OSError."""
    loop = asyncio.get_running_loop()
    refusal = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        peer = socket.socket(family, kind, protocol)
        try:
            peer.setblocking(False)
            await loop.sock_connect(peer, address)
            notice_loss(peer)
        except OSError as error:
            peer.close()
            refusal = error
        except BaseException:
            peer.close()
            raise
        else:
            return peer
    raise refusal


class Relay:
    """Session of a line whose user is a socket; bytes of the line go to the socket, and the other way round."""

    def __init__(self, write_buffer_bytes_max: int) -> None:
        self._line: OpenLine | None = None
        self._lease: Lease[Relay] | None = None
        self._end = _RelayEnd(self)
        self._early = bytearray()
        self._error: NotConnected | None = None
        self._pending_bytes_max = min(RELAY_BYTES_MAX, write_buffer_bytes_max // 2)

    async def start(self, lease: Lease[Relay]) -> socket.socket:
        """The socket for the line's user, non-blocking; the share of the line ends with it."""
        self._lease = lease
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            theirs.setblocking(False)
            await asyncio.get_running_loop().create_unix_connection(lambda: self._end, sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            lease.release()
            raise
        return theirs

    # -- called by the line -------------------------------------------------------------------------------

    def line_made(self, line: Line) -> None:
        self._line = cast(OpenLine, line)  # the pool hands in its own lines

    def data_received(self, data: bytes) -> None:
        if self._end.transport is None:
            self._early += data
        else:
            self._end.transport.write(data)

    def line_lost(self, error: NotConnected) -> None:
        self._error = error
        if self._end.transport is not None:
            self._end.transport.close()

    # -- called by the end --------------------------------------------------------------------------------

    def joined(self, transport: asyncio.Transport) -> None:
        transport.write(bytes(self._early))
        self._early.clear()
        if self._error is not None:
            transport.close()

    def forward(self, data: bytes) -> bool:
        """Bytes for the line; whether it wants no more for now."""
        if self._error is not None or self._line is None:
            return False
        self._line.write(data)
        return self.is_full

    @property
    def is_full(self) -> bool:
        return self._error is None and self._line is not None and self._line.write_pending() > self._pending_bytes_max

    def hold(self, *, is_held: bool) -> None:
        """The socket's user reads too slowly, or has caught up."""
        if self._error is None and self._line is not None:
            (self._line.pause_reading if is_held else self._line.resume_reading)()

    def ended(self) -> None:
        if self._lease is not None:
            self._lease.release()


class _RelayEnd(asyncio.Protocol):
    """The gateway's end of a socket pair."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=RELAY_BYTES_MAX)
        self._relay.joined(self.transport)

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        if self._relay.forward(data) and not self.transport.is_closing():
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(RELAY_LOOK_S, self._look)

    def pause_writing(self) -> None:
        self._relay.hold(is_held=True)

    def resume_writing(self) -> None:
        self._relay.hold(is_held=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay.ended()

    def _look(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if self._relay.is_full:
            asyncio.get_running_loop().call_later(RELAY_LOOK_S, self._look)
        else:
            self.transport.resume_reading()
