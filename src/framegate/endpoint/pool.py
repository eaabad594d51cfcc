"""The pool: one line per endpoint, opened when first leased, shared, closed with the last lease.

`connections: 4` in a row makes it up to four lines, over which leases are spread. Rows that differ in nothing but
their name share their lines; a protocol whose session belongs to one client asks for a line of its own. The pool
neither retries nor backs off: a failed opening is told to everyone who waits for it and then forgotten; the runtime
decides when to ask again. Which transport a URL means and how a line ends is in connection.py.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from framegate.contract.errors import Misconfigured, NotConnected
from framegate.contract.ports import Clock, Credentials, Lease, Log, S
from framegate.endpoint.capture import Chunk
from framegate.endpoint.connection import Connection, Remote, Share
from framegate.endpoint.endpoint import Endpoint
from framegate.endpoint.handing import Relay, connected, is_plain
from framegate.endpoint.loss import tables_changed
from framegate.observe.metrics import Metrics

SAMPLE_PERIOD_S = 2.0
"""How often received bytes of plain TCP lines are read from the kernel."""


class EndpointPool:
    """Lines by endpoint name; satisfies contract.ports.Lines. Used from the loop thread only."""

    def __init__(self, endpoints: Mapping[str, Endpoint], clock: Clock, log: Log, metrics: Metrics) -> None:
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._by_url: dict[str, list[Remote]] = {}
        self._remotes: dict[str, Remote] = {}
        for name, endpoint in endpoints.items():
            self._remotes[name] = self._remote(endpoint)
        self._living: set[Connection] = set()
        self._is_closed = False
        self._closed: asyncio.Future[None] | None = None
        self._sampling: asyncio.TimerHandle | None = None

    async def acquire(
        self, endpoint: str, make_session: Callable[[], S], *, is_shared: bool = True, kin: str = ""
    ) -> Lease[S]:
        """A share of the line to an endpoint; see contract.ports.Lines.

        kin     only sessions that the same code made are shared; see KinLines
        raises NotConnected E2020-E2033; Misconfigured E2034 - no such endpoint, E2010-E2014 - its files or secrets
        """
        remote = self._find(endpoint)
        if self._is_closed:
            raise tables_changed(remote.where, "the gateway is shutting down")
        connection = remote.pick(kin) if is_shared else None
        if connection is None:
            connection = Connection(remote, make_session(), self._forget, is_shared=is_shared, kin=kin)
            remote.connections.append(connection)
            self._living.add(connection)
            self._sample_later()
        connection.shares += 1
        try:
            await connection.opened()
        except BaseException:
            connection.give_back()
            raise
        return Share(connection, cast(S, connection.session))

    async def hand_over(self, endpoint: str) -> socket.socket:
        """A socket of the caller's own; see contract.ports.Lines.

        raises NotConnected E2020-E2033; Misconfigured E2034 - no such endpoint, E2010-E2014 - its files or secrets
        """
        remote = self._find(endpoint)
        if self._is_closed:
            raise tables_changed(remote.where, "the gateway is shutting down")
        if not is_plain(remote.endpoint):
            relay = Relay(remote.endpoint.write_buffer_bytes_max)
            return await relay.start(await self.acquire(endpoint, lambda: relay, is_shared=False))
        handed = await connected(remote)
        if remote not in self._by_url[str(remote.endpoint.url)] or self._is_closed:
            handed.close()
            raise tables_changed(remote.where, "its row in endpoints.yml has changed while the line was opened")
        self._sample_later()
        return handed

    def credentials(self, endpoint: str) -> Credentials | None:
        """User name and password of an endpoint, resolved now.

        raises Misconfigured E2034 - no such endpoint; E2010 - a reference leads nowhere
        """
        return self._find(endpoint).endpoint.login()

    def capture(self, endpoint: str) -> Sequence[Chunk]:
        """The last chunks of traffic, oldest first; empty unless the row says `capture`."""
        return list(self._find(endpoint).ring)

    def update(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Take new tables: lines of rows that changed or went are ended, the others do not notice."""
        wanted = [replace(endpoint, name="") for endpoint in endpoints.values()]
        for name, remote in list(self._remotes.items()):
            mine = replace(remote.endpoint, name="")
            if mine not in wanted:
                self._end(remote, "its row in endpoints.yml has changed; the line opens again with the new settings")
                same_url = self._by_url[str(remote.endpoint.url)]
                same_url[:] = [other for other in same_url if other is not remote]
            if name not in endpoints or replace(endpoints[name], name="") != mine:
                del self._remotes[name]
            if name not in endpoints:
                self._metrics.forget(endpoint=name)
        for name, endpoint in endpoints.items():
            if name not in self._remotes:
                self._remotes[name] = self._remote(endpoint)

    def close(self) -> asyncio.Future[None]:
        """End every line, at once; await the result to know that all of them are gone."""
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
        self._is_closed = True
        for remote in self._remotes.values():
            self._end(remote, "the gateway is shutting down")
        self._note_end()
        return self._closed

    def _remote(self, endpoint: Endpoint) -> Remote:
        """The remote of an equal row, else a new one."""
        for remote in self._by_url.setdefault(str(endpoint.url), []):
            if replace(remote.endpoint, name=endpoint.name) == endpoint:
                return remote
        remote = Remote(endpoint, self._clock, self._log, self._metrics)
        self._by_url[str(endpoint.url)].append(remote)
        return remote

    def _find(self, name: str) -> Remote:
        remote = self._remotes.get(name)
        if remote is None:
            known = ", ".join(sorted(self._remotes)) or "none"
            text = f'endpoint "{name}" is not in endpoints.yml; add it, or name one that is there: {known}'
            raise Misconfigured(text, code="E2034")
        return remote

    def _end(self, remote: Remote, reason: str) -> None:
        error: NotConnected = tables_changed(remote.where, reason)
        for connection in list(remote.connections):
            connection.end(error)
        remote.shut_handed()

    def _forget(self, connection: Connection) -> None:
        self._living.discard(connection)
        self._note_end()

    def _note_end(self) -> None:
        if self._living:
            return
        if self._sampling is not None and (self._is_closed or not self._has_handed):
            self._sampling.cancel()
            self._sampling = None
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def _sample_later(self) -> None:
        if self._sampling is None:
            self._sampling = asyncio.get_running_loop().call_later(SAMPLE_PERIOD_S, self._sample)

    def _sample(self) -> None:
        self._sampling = None
        for connection in self._living:
            if connection.line is not None:
                connection.line.count_received()
        for remote in self._remotes.values():
            remote.count_handed()
        if self._living or self._has_handed:
            self._sample_later()

    @property
    def _has_handed(self) -> bool:
        return any(remote.has_handed for remote in self._remotes.values())
