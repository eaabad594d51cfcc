"""The listening side of an endpoint: one session per client, a bound on clients, one way to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from framegate.contract.errors import NotConnected
from framegate.contract.ports import Session
from framegate.endpoint.line import LineSetup, OpenLine
from framegate.endpoint.loss import tables_changed
from framegate.endpoint.url import EndpointUrl

CLIENTS_MAX = 64
CLIENT_WRITE_BUFFER_BYTES_MAX = 1024 * 1024


class Listener:
    """A listening address. url: with the port the kernel chose; port: 0 where the transport has none."""

    def __init__(self, address: EndpointUrl, make_session: Callable[[], Session], clients_max: int) -> None:
        self.url = address.place
        self.port = 0
        self._address = address
        self.clients_max = clients_max
        self.is_closed = False
        self._make_session = make_session
        self._lines: set[OpenLine] = set()
        self._stop: Callable[[], None] | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def clients(self) -> int:
        """Lines open now."""
        return len(self._lines)

    def started(self, stop: Callable[[], None], port: int = 0) -> None:
        """The transport listens; `stop` makes it take no more clients."""
        self._stop = stop
        self.port = port
        if port:
            self.url = replace(self._address, port=port).place

    def admit(self, client: str = "a client") -> LineSetup:
        """A setup for the line of a new client; its session is told when the line stands."""
        owner = _Client(self, self._make_session())
        return LineSetup(
            where=f"listener {self.url}, {client}",
            url=self.url,
            owner=owner,
            deliver=owner.session.data_received,
            write_buffer_bytes_max=CLIENT_WRITE_BUFFER_BYTES_MAX,
        )

    def close(self) -> asyncio.Future[None]:
        """Stop listening and end every line, at once; await the result to know that all of them are gone."""
        if not self.is_closed:
            self.is_closed = True
            if self._stop is not None:
                self._stop()
            for line in list(self._lines):
                line.abort(tables_changed(f"listener {self.url}", "the listener was closed"))
            self._note_end()
        return self._closed

    def line_made(self, line: OpenLine) -> bool:
        if self.is_closed or len(self._lines) >= self.clients_max:
            return False
        self._lines.add(line)
        return True

    def line_ended(self, line: OpenLine) -> None:
        self._lines.discard(line)
        self._note_end()

    def _note_end(self) -> None:
        if self.is_closed and not self._lines and not self._closed.done():
            self._closed.set_result(None)


class _Client:
    """Owner of one client's line."""

    def __init__(self, listener: Listener, session: Session) -> None:
        self._listener = listener
        self.session = session
        self._is_admitted = False

    def line_made(self, line: OpenLine) -> None:
        self._is_admitted = self._listener.line_made(line)
        if self._is_admitted:
            self.session.line_made(line)
        else:
            where = f"listener {self._listener.url}"
            line.abort(tables_changed(where, f"it serves {self._listener.clients_max} clients already"))

    def line_ended(self, line: OpenLine, error: NotConnected) -> None:
        if self._is_admitted:
            self._listener.line_ended(line)
            self.session.line_lost(error)
