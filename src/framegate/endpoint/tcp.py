"""Stream lines over TCP, with or without TLS.

The loop calls the session's `data_received` itself: it is bound as an attribute before the transport exists,
because uvloop looks it up only once. So plain TCP cannot count received bytes as they pass; the kernel does,
and the counter is read from TCP_INFO now and then. A remote that vanishes is noticed by keep-alive within about
20 s, one that stops acknowledging by TCP_USER_TIMEOUT.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import cast

from framegate.contract.errors import NotConnected
from framegate.endpoint.line import CLOSE_FLUSH_S, BaseLine, LineSetup
from framegate.endpoint.loss import backlog, line_loss

KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 3
KEEPALIVE_PROBES = 3
UNACKNOWLEDGED_MS_MAX = 20_000

_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX),
)
GATHER_S = 0.005  # bytes that are gathered are delivered after so long, however few they are
GATHER_BYTES_MAX = 16 * 1024  # well under the smallest receive buffer
_AS_THEY_COME = 1  # SO_RCVLOWAT at its default
_TOTALS = struct.Struct("=QQ")
_TOTALS_OFFSET = 120
"""tcpi_bytes_acked and tcpi_bytes_received in struct tcp_info (linux/tcp.h, since 4.1)."""


class StreamLine(BaseLine, asyncio.Protocol):
    """One TCP or TLS connection."""

    def __init__(self, setup: LineSetup, *, is_tls: bool = False) -> None:
        super().__init__(setup)
        self._transport: asyncio.Transport | None = None
        self._flush_deadline: asyncio.TimerHandle | None = None
        self._received_bytes = 0
        self._has_fin = False
        self._peer: socket.socket | None = None
        self._low_water = _AS_THEY_COME
        self._gathering: asyncio.TimerHandle | None = None
        self.is_tls = is_tls
        self.data_received = self._count_and_deliver if is_tls else setup.deliver  # type: ignore[method-assign, assignment]

    # -- called by the loop -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("socket")
        if peer.family != socket.AF_UNIX:  # one end of a pair that was handed over
            notice_loss(peer)
        self._peer = None if self.is_tls else peer
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if address else ""  # none where it has gone already
        self._transport.set_write_buffer_limits(high=self._setup.write_buffer_bytes_max, low=0)
        self._setup.owner.line_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._flush_deadline is not None:
            self._flush_deadline.cancel()
        self._peer = None
        self._stop_gathering()
        self.count_received()
        self._finish(self, line_loss(self._setup.where, exc))

    def eof_received(self) -> None:
        """The remote sends no more; the kernel has counted its FIN as one byte."""
        if not self.is_tls:
            self.count_received()
            self._setup.received.value -= 1
            self._has_fin = True

    def pause_writing(self) -> None:
        """The write buffer is over its bound: the remote does not read."""
        self.abort(backlog(self._setup.where, self._setup.write_buffer_bytes_max))

    # -- called by the session ----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._error is not None:
            raise self._gone()
        self._transport.write(data)  # type: ignore[union-attr]  # the session knows the line since connection_made
        self._sent.value += len(data)

    def write_pending(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def gather(self, size: int) -> None:
        """Have the kernel wake us for `size` bytes at once (SO_RCVLOWAT), at most GATHER_S late.

        A remote that acknowledges small messages one by one would wake the process for every few bytes. Under TLS
        bytes on the wire are others than those the session counts.
        """
        size = min(size, GATHER_BYTES_MAX) or _AS_THEY_COME
        if size == self._low_water or self._peer is None or self._error is not None:
            return
        self._low_water = size
        self._peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        if size == _AS_THEY_COME:
            self._stop_gathering()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self.gather(0)

    def _stop_gathering(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    def close(self) -> None:
        if not self._close_reason() or self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            loop = asyncio.get_running_loop()
            self._flush_deadline = loop.call_later(CLOSE_FLUSH_S, self._transport.abort)
        self._transport.close()

    def abort(self, error: NotConnected) -> None:
        if self._error is None:
            self._error = error
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- called by the owner ------------------------------------------------------------------------------

    @property
    def tls_version(self) -> str:
        """Version of TLS, e.g. TLSv1.3; empty on a plain line."""
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        return tls.version() or "" if tls is not None else ""

    def count_received(self) -> None:
        if self.is_tls or self._has_fin or self._transport is None:
            return
        totals = byte_totals(self._transport.get_extra_info("socket"))
        if totals is not None:
            self._setup.received.value += totals[1] - self._received_bytes
            self._received_bytes = totals[1]

    def _count_and_deliver(self, data: bytes) -> None:
        self._setup.received.value += len(data)
        self._setup.deliver(data)


def byte_totals(peer: socket.socket) -> tuple[int, int] | None:
    """Bytes that the remote has acknowledged, its SYN among them, and received ones, as the kernel counts them.

    None: it has closed, or is no TCP socket; then the last reading stands.
    """
    try:
        info = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOTALS_OFFSET + _TOTALS.size)
    except OSError:
        return None
    if len(info) < _TOTALS_OFFSET + _TOTALS.size:
        return None
    acknowledged, received = _TOTALS.unpack_from(info, _TOTALS_OFFSET)
    return acknowledged, received


def notice_loss(peer: socket.socket) -> None:
    """Send at once, and notice a remote that vanishes."""
    for level, option, value in _OPTIONS:
        peer.setsockopt(level, option, value)


async def open_stream(
    setup: LineSetup,
    host: str,
    port: int,
    *,
    context: ssl.SSLContext | None = None,
    server_name: str = "",
    handshake_s: float = 0.0,
) -> StreamLine:
    """A connected line; with a context, its handshake is done.

    raises OSError - as the operating system or `ssl` words it; the caller knows what it means
    """
    loop = asyncio.get_running_loop()
    line = StreamLine(setup, is_tls=context is not None)
    if context is None:
        await loop.create_connection(lambda: line, host, port)
        return line
    await loop.create_connection(
        lambda: line,
        host,
        port,
        ssl=context,
        server_hostname=server_name or host,
        ssl_handshake_timeout=handshake_s,
        ssl_shutdown_timeout=CLOSE_FLUSH_S,
    )
    return line
