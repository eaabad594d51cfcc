"""The server: it listens, lets connections in, and owns what they share. bridge.py is its only caller."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from framegate.contract.ports import Clock
from framegate_plugins.opcua.server.answers import Application
from framegate_plugins.opcua.server.attributes import Attributes
from framegate_plugins.opcua.server.channel import SecureChannelState, Security
from framegate_plugins.opcua.server.connection import Connection
from framegate_plugins.opcua.server.counts import Counts
from framegate_plugins.opcua.server.identity import Gatekeeper
from framegate_plugins.opcua.server.limits import OPENING_THREADS, OPENINGS_BURST, OPENINGS_PER_S, Peers
from framegate_plugins.opcua.server.live import is_live
from framegate_plugins.opcua.server.monitoring import Monitoring
from framegate_plugins.opcua.server.options import Options
from framegate_plugins.opcua.server.services import Parts, Rules, Services
from framegate_plugins.opcua.server.session import Sessions
from framegate_plugins.opcua.server.space import Space
from framegate_plugins.opcua.server.view import View
from framegate_plugins.opcua.server.writing import Writer

SWEEP_S: Final = 1.0
BACKLOG: Final = 64
"""Connections that the kernel keeps until they are taken."""


class Server:
    """One listening address and everybody who is connected to it."""

    def __init__(
        self,
        options: Options,
        about: Application,
        space: Space,
        writer: Writer,
        gatekeeper: Gatekeeper,
        security: Security,
        counts: Counts,
        clock: Clock,
    ) -> None:
        self._options, self._clock = options, clock
        self.security, self.counts = security, counts
        self.requests_per_s = options.requests_per_s
        self.sessions = Sessions(options.sessions_max)
        monitoring = Monitoring(space, self.sessions, options, clock, is_live)
        parts = Parts(View(space), Attributes(space), writer, monitoring, gatekeeper, counts)
        rules = Rules(about, allows_none="none" in options.security)
        self.services = Services(rules, parts, self.sessions, clock, self._spawn)
        self._connections: set[Connection] = set()
        self._peers: Counter[str] = Counter()
        self._openings = Peers(OPENINGS_PER_S, OPENINGS_BURST)
        self._threads = ThreadPoolExecutor(OPENING_THREADS, "opcua-open")
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def clients(self) -> int:
        return len(self._connections)

    async def listen(self, host: str, port: int) -> int:
        """Take connections; returns the port. raises OSError"""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self), host, port, backlog=BACKLOG)
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)
        found: int = self._listener.sockets[0].getsockname()[1]
        return found

    async def close(self) -> None:
        """Hang up on everybody."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._listener is not None:
            self._listener.close()
        self.sessions.close_all()
        for connection in list(self._connections):
            connection.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- what connections ask for -------------------------------------------------------------------------------

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def admit(self, connection: Connection) -> str:
        if len(self._connections) >= self._options.clients_max:
            return f"{self._options.clients_max} clients are connected already"
        if self._peers[connection.peer] >= self._options.clients_per_peer_max:
            return f"{self._options.clients_per_peer_max} clients of this address are connected already"
        self._connections.add(connection)
        self._peers[connection.peer] += 1
        return ""

    def leave(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._peers[connection.peer] -= 1
            if not self._peers[connection.peer]:
                del self._peers[connection.peer]

    def may_open(self, peer: str) -> bool:
        return self._openings.take(peer, self._clock.monotonic())

    def open_in_thread(
        self, channel: SecureChannelState, chunk: bytes, done: Callable[[bytes | None, BaseException | None], None]
    ) -> None:
        loop = asyncio.get_running_loop()

        def told(future: Future[bytes]) -> None:
            error = None if future.cancelled() else future.exception()
            answer = None if future.cancelled() or error else future.result()
            if not loop.is_closed():
                loop.call_soon_threadsafe(done, answer, error)

        self._threads.submit(channel.open, chunk).add_done_callback(told)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        self.sessions.sweep(self._clock.monotonic())


def channel_numbers() -> Callable[[], int]:
    """Numbers of channels, from a random one on."""
    last = secrets.randbelow(1 << 30)

    def following() -> int:
        nonlocal last
        last = last % 0xFFFF_FFFE + 1
        return last

    return following
