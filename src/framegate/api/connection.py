"""One HTTP connection with limits: uvicorn's protocol over httptools, and what uvicorn leaves open.

uvicorn bounds neither the bytes of a header nor the time a request may take to arrive, and closes politely towards a
client that reads nothing. Here every phase has a deadline, headers and bodies a size, and a crowd makes room: of the
connections of one peer, else of all, the one goes that has owed us a request for longest.

Source: RFC 9112; CWE-400; slow HTTP attacks as slowhttptest makes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from framegate.api.configuration import CONFIG_BYTES_MAX
from framegate.api.problem import CONTENT_TYPE, STATUS, problem
from framegate.observe.metrics import Metrics

CONNECTIONS_MAX: Final = 256
CONNECTIONS_PER_PEER_MAX: Final = 64
HEADER_BYTES_MAX: Final = 16 << 10
"""Request line, header names and values together."""
HEADER_WAIT_S: Final = 5.0
"""From the first byte, or the connection, to the end of the headers."""
BODY_WAIT_S: Final = 20.0
"""For each BODY_STEP_BYTES of a body, and for its rest."""
BODY_STEP_BYTES: Final = 1 << 20
BODY_BYTES_MAX: Final = CONFIG_BYTES_MAX + (1 << 20)
"""Whatever the operation: beyond that nothing more is read, not even to be thrown away."""
REPLY_WAIT_S: Final = 20.0
"""A client that does not take its answer for so long is cut."""
KEEP_ALIVE_S: Final = 75
LIVE_BUFFER_BYTES_MAX: Final = 1 << 20
"""Of frames and pongs that wait for a live client."""
LIVE_CLOSE_WAIT_S: Final = 3.0
"""For the client's own goodbye."""


@dataclass(slots=True)
class Crowd:
    """The open connections of one server; the one that has waited longest comes first."""

    metrics: Metrics
    members: dict[Connection, None] = field(default_factory=dict)

    def admit(self, connection: Connection) -> bool:
        """Make room where needed; False: there is none."""
        of_peer = [one for one in self.members if one.peer == connection.peer]
        is_full = len(of_peer) >= CONNECTIONS_PER_PEER_MAX or len(self.members) >= CONNECTIONS_MAX
        if is_full and not self._evict(of_peer if len(of_peer) >= CONNECTIONS_PER_PEER_MAX else list(self.members)):
            self.refused("crowd")
            return False
        self.members[connection] = None
        return True

    def renew(self, connection: Connection) -> None:
        """It has been answered: of those that wait it is the last to go."""
        if connection in self.members:
            del self.members[connection]
            self.members[connection] = None

    def leave(self, connection: Connection) -> None:
        self.members.pop(connection, None)

    def refused(self, reason: str) -> None:
        self.metrics.counter("edge_api_refused_total", reason=reason).value += 1

    def _evict(self, candidates: list[Connection]) -> bool:
        waiting = next((one for one in candidates if one.is_waiting), None)
        if waiting is None:
            return False
        self.refused("crowd")
        self.leave(waiting)
        waiting.transport.abort()
        return True


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with deadlines and sizes. Made by the server for each client.

    is_waiting  it owes us a request, or the rest of one
    """

    def __init__(self, config: Config, state: ServerState, crowd: Crowd) -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self.is_waiting = True
        self._crowd = crowd
        self._deadline: asyncio.TimerHandle | None = None  # of the request
        self._unread: asyncio.TimerHandle | None = None  # of the answer
        self._head_bytes = self._body_bytes = self._unparsed_bytes = 0
        self._is_in_head = self._is_in_body = self._has_begun = False

    @property
    def peer(self) -> str:
        return self.client[0] if self.client else ""

    # -- asyncio --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._crowd.admit(self):
            transport.abort()
            return
        # So that a pause means: the client has not taken everything. (0 would stop asyncio's TLS for good.)
        transport.set_write_buffer_limits(high=1, low=0)
        self._within(HEADER_WAIT_S, self._too_slow)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(REPLY_WAIT_S, self._not_read)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taken()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._taken()
        self._unset_keepalive_if_required()
        self._crowd.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # bytes may be on their way when a connection is cut
            return
        self._has_begun = False
        super().data_received(data)
        # The parser tells of a header once it is whole; one that never ends is seen here.
        if self._is_in_head and not self._has_begun:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > HEADER_BYTES_MAX:
                self._refuse_header()

    # -- httptools ------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._head_bytes = self._body_bytes = self._unparsed_bytes = 0
        self.is_waiting = self._is_in_head = self._has_begun = True
        self._within(HEADER_WAIT_S, self._too_slow)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head, self._is_in_body = False, True
        self._within(BODY_WAIT_S, self._too_slow)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        before = self._body_bytes
        self._body_bytes += len(body)
        if self._body_bytes // BODY_STEP_BYTES > before // BODY_STEP_BYTES:
            self._within(BODY_WAIT_S, self._too_slow)
        if self._body_bytes > BODY_BYTES_MAX:
            self.transport.abort()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.is_waiting = self._is_in_body = False
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.is_waiting = not self.pipeline
        self._crowd.renew(self)
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        """From here on the connection is a live channel's, with limits of its own."""
        self._disarm()
        self._taken()
        self._crowd.leave(self)
        super().handle_websocket_upgrade()

    # -- limits ---------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for bytes that are no request, and for a header that `_grow` refused."""
        if self._head_bytes > HEADER_BYTES_MAX:
            self._refuse_header()
        else:
            self._refuse("broken", "E4247", "these bytes are no HTTP/1.1 request")

    def _grow(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEADER_BYTES_MAX:
            raise ValueError("header too long")  # httptools ends the parse, and uvicorn asks for send_400_response

    def _too_slow(self) -> None:
        if not self._is_in_body:
            self._refuse("slow", "E4245", "the request did not arrive whole within its deadline")
            return
        if self.cycle.response_started:  # answered already; what still comes is of no use
            self._crowd.refused("slow")
            self.transport.abort()
            return
        self._refuse("slow", "E4245", "the body did not arrive whole within its deadline")
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def _not_read(self) -> None:
        self._crowd.refused("slow")
        self.transport.abort()

    def _taken(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _refuse_header(self) -> None:
        self._refuse("header", "E4246", f"request line and headers have more than {HEADER_BYTES_MAX:,} bytes")

    def _refuse(self, reason: str, code: str, text: str) -> None:
        """Answer outside of any operation, and end the connection."""
        self._crowd.refused(reason)
        if self.transport.is_closing():
            return
        body = msgspec.json.encode(problem(code, text))
        head = f"HTTP/1.1 {STATUS[code]} Refused\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode("ascii") + body)
        self.transport.close()
        self._disarm()

    def _within(self, seconds: float, action: Callable[[], Any]) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, action)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class LiveConnection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, which takes no client's word for it that it reads or goes."""

    def data_received(self, data: bytes) -> None:
        # Each ping is answered at once: whoever sends them and reads nothing would fill the memory.
        if self.transport.get_write_buffer_size() > LIVE_BUFFER_BYTES_MAX:
            self.transport.abort()
        else:
            super().data_received(data)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self.loop.call_later(LIVE_CLOSE_WAIT_S, self.transport.abort)
