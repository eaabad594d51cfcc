"""A small HTTP/1.1 server for probes and scrapers: GET only, no bodies, everything bounded.

Made for a gateway's own pages on loopback, not for the world. A client that sends its request slowly, or reads its
answer slowly, is cut at a deadline; when all places are taken the connection that has waited longest without a whole
request makes room, so a crowd of silent sockets cannot keep an honest scraper out.

Source: RFC 9112 (message syntax), RFC 9110 (semantics).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

HEADER_BYTES_MAX = 8 * 1024
HEADER_WAIT_S = 5.0
IDLE_WAIT_S = 75.0
"""Scrapers come back every 15 to 60 s and like to find their connection open."""
REPLY_WAIT_S = 10.0
REQUESTS_PER_CONNECTION_MAX = 1_000
CONNECTIONS_MAX = 128
CONNECTIONS_PER_PEER_MAX = 64
BACKLOG = 128

_REASON = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """Status, body and its type."""

    status: int
    body: bytes
    content_type: str = TEXT


Answer: TypeAlias = Callable[[str], Awaitable[Response]]
"""Path without its query -> response."""


@dataclass(slots=True, eq=False)
class _Connection:
    """One client. `is_waiting` while it owes us (the rest of) a request."""

    peer: str
    writer: asyncio.StreamWriter
    is_waiting: bool = True


class _Refused(Exception):
    """The request will not be answered as asked; the connection ends."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class HttpServer:
    """Listens on one address and asks `answer` for each path."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}  # oldest first
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; raises OSError."""
        self._server = await asyncio.start_server(
            self._connected, host, port, limit=HEADER_BYTES_MAX, backlog=BACKLOG, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and cut every client. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        return len(self._connections)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = writer.get_extra_info("peername")
        connection = _Connection(name[0] if isinstance(name, tuple) else "", writer)
        if not self._has_room(connection.peer):
            writer.transport.abort()
            return
        writer.transport.set_write_buffer_limits(high=0)  # so that drain() means: the client has taken everything
        task = asyncio.get_running_loop().create_task(self._converse(connection, reader), name="http-client")
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._connections.pop(connection, None))
        task.add_done_callback(lambda _: writer.close())  # one that is cancelled before its first step closes nothing

    def _has_room(self, peer: str) -> bool:
        """Make room where needed: of this peer's connections, else of all, the one that waits longest goes."""
        of_peer = [connection for connection in self._connections if connection.peer == peer]
        if len(of_peer) >= CONNECTIONS_PER_PEER_MAX:
            return self._evict(of_peer)
        if len(self._connections) >= CONNECTIONS_MAX:
            return self._evict(list(self._connections))
        return True

    def _evict(self, candidates: list[_Connection]) -> bool:
        for connection in candidates:
            if connection.is_waiting:
                self._connections.pop(connection).cancel()
                connection.writer.transport.abort()
                return True
        return False

    async def _converse(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        writer = connection.writer
        wait_s = HEADER_WAIT_S
        try:
            for _ in range(REQUESTS_PER_CONNECTION_MAX):
                head = await _read_head(reader, wait_s)
                if not head:
                    return
                connection.is_waiting = False
                path, keeps_open = _parse(head)
                await _reply(writer, await self._answer(path), keeps_open=keeps_open)
                if not keeps_open:
                    return
                connection.is_waiting = True
                wait_s = IDLE_WAIT_S
        except _Refused as refused:
            await _refuse(writer, refused)
        except (TimeoutError, ConnectionError):
            writer.transport.abort()


async def _read_head(reader: asyncio.StreamReader, wait_s: float) -> bytes:
    """A request up to its empty line; b"" when the client has left. Its first byte may take wait_s."""
    try:
        async with asyncio.timeout(wait_s):
            first = await reader.read(1)
        if not first:
            return b""
        async with asyncio.timeout(HEADER_WAIT_S):
            return first + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError as error:
        raise _Refused(431, f"the request's header has more than {HEADER_BYTES_MAX} bytes") from error


def _parse(head: bytes) -> tuple[str, bool]:
    """Path, and whether the connection stays open."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):
        raise _Refused(400, "not an HTTP request")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise _Refused(505, "HTTP/1.1 only")
    headers = _headers(lines[1:-2])
    if method != "GET":
        raise _Refused(405, "GET only")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise _Refused(400, "a GET request has no body here")
    keeps_open = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return target.partition("?")[0], keeps_open


def _headers(lines: list[str]) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _Refused(400, "a header line cannot be read")
        headers[name.lower()] = value.strip()
    return headers


async def _reply(writer: asyncio.StreamWriter, response: Response, *, keeps_open: bool) -> None:
    head = (
        f"HTTP/1.1 {response.status} {_REASON[response.status]}\r\n"
        f"Content-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"{'Allow: GET' if response.status == 405 else 'Server: framegate'}\r\n"
        f"Connection: {'keep-alive' if keeps_open else 'close'}\r\n\r\n"
    )
    writer.write(head.encode("ascii") + response.body)
    async with asyncio.timeout(REPLY_WAIT_S):
        await writer.drain()


async def _refuse(writer: asyncio.StreamWriter, refused: _Refused) -> None:
    try:
        await _reply(writer, Response(refused.status, f"{refused.text}\n".encode()), keeps_open=False)
    except (TimeoutError, ConnectionError):
        writer.transport.abort()
