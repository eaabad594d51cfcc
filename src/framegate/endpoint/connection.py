"""One line of one endpoint through its life: opening, shared, ended. The pool keeps the list, this keeps the state.

The opening runs in a task of its own, so that the caller who happened to come first may be cancelled without
failing the others; nobody left waiting cancels the task. A failed opening is forgotten at once. The session hears
`line_lost` exactly once, unless nobody holds a lease any more: then there is nobody to tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Generic
from weakref import WeakKeyDictionary

from framegate.contract.errors import GatewayError, Misconfigured, NotConnected
from framegate.contract.ports import Clock, Log, S, Session
from framegate.endpoint.capture import Capture, Chunk
from framegate.endpoint.certificate import is_exposed
from framegate.endpoint.endpoint import Endpoint
from framegate.endpoint.line import Between, LineSetup, OpenLine
from framegate.endpoint.loss import open_failure, open_timeout, reason_of, serial_failure
from framegate.endpoint.memory import open_memory
from framegate.endpoint.ratelimit import RateLimit
from framegate.endpoint.serial import open_serial
from framegate.endpoint.tcp import byte_totals, open_stream
from framegate.endpoint.tls import ClientContexts, Step, open_tls
from framegate.endpoint.udp import open_udp
from framegate.observe.metrics import Metrics


class Remote:
    """One endpoint as the pool runs it: its row, its connections and its instruments."""

    def __init__(self, endpoint: Endpoint, clock: Clock, log: Log, metrics: Metrics) -> None:
        self.endpoint = endpoint
        self.where = f"endpoint {endpoint.name}: {endpoint.url.place}"
        self.clock = clock
        self.log = log
        self.metrics = metrics
        self.connections: list[Connection] = []
        self.handed: WeakKeyDictionary[socket.socket, tuple[int, int]] = (
            WeakKeyDictionary()
        )  # with bytes counted so far
        self.ring: deque[Chunk] = deque(maxlen=endpoint.capture_chunks)
        self.contexts = ClientContexts(endpoint, clock) if endpoint.tls is not None else None
        name = endpoint.name
        self.connects = metrics.counter("edge_endpoint_connects_total", endpoint=name)
        self.received = metrics.counter("edge_endpoint_received_bytes_total", endpoint=name)
        self.sent = metrics.counter("edge_endpoint_sent_bytes_total", endpoint=name)
        metrics.gauge("edge_endpoint_lines", endpoint=name).read = self._lines

    def _lines(self) -> float:
        handed = sum(each.fileno() >= 0 for each in self.handed)
        return float(handed + sum(connection.line is not None for connection in self.connections))

    @property
    def has_handed(self) -> bool:
        return any(each.fileno() >= 0 for each in self.handed)

    def count_handed(self) -> None:
        """Bring the counters of bytes up to date with what the kernel has counted on TCP sockets."""
        for each, (sent, received) in list(self.handed.items()):
            totals = byte_totals(each) if each.fileno() >= 0 else None
            if totals is not None:
                self.sent.value += totals[0] - sent
                self.received.value += totals[1] - received
                self.handed[each] = totals

    def shut_handed(self) -> None:
        """End what was handed over; whoever reads from it sees its end."""
        for each in self.handed:
            with contextlib.suppress(OSError):  # closed, or lost already
                each.shutdown(socket.SHUT_RDWR)

    def count(self, metric: str, error: NotConnected) -> None:
        self.metrics.counter(metric, endpoint=self.endpoint.name, reason=reason_of(error)).value += 1

    def pick(self, kin: str) -> Connection | None:
        """The connection of this kin with the fewest shares; None where one more may and should be opened."""
        usable = [one for one in self.connections if one.is_usable and one.is_shared and one.kin == kin]
        least = min(usable, key=lambda connection: connection.shares, default=None)
        if least is not None and (least.shares == 0 or len(usable) >= self.endpoint.connections):
            return least
        return None


class Connection:
    """One line, its session and its shares; owner of the line.

    kin  whose code made the session: nobody else can share it
    """

    def __init__(
        self,
        remote: Remote,
        session: Session,
        gone: Callable[[Connection], None],
        *,
        is_shared: bool = True,
        kin: str = "",
    ) -> None:
        self.is_shared = is_shared
        self.kin = kin
        self.remote = remote
        self.session = session
        self.shares = 0
        self.line: OpenLine | None = None
        self.error: GatewayError | None = None
        self._gone = gone
        self._top = self._decorated(session)
        self._settled = asyncio.Event()
        self._opening: asyncio.Task[None] = asyncio.create_task(self._open(), name=f"open-{remote.endpoint.name}")

    @property
    def is_usable(self) -> bool:
        """Whether a new share may be given out: opening, or open and not about to end."""
        return self.error is None and (self.line is None or not self.line.is_closing)

    async def opened(self) -> None:
        """Wait until the line stands.

        raises NotConnected, Misconfigured - it does not
        """
        await self._settled.wait()
        if self.error is not None:
            raise self.error

    def give_back(self) -> None:
        """One share less; the last one closes the line, or stops the opening."""
        self.shares -= 1
        if self.shares == 0 and self.error is None:
            self.end(NotConnected(f"{self.remote.where}: nobody uses the line any more", code="E2031"))

    def end(self, error: GatewayError) -> None:
        """Take the connection out of use, tell the session if somebody still shares it, close the line."""
        if self.error is not None:
            return
        self.error = error
        self.remote.connections.remove(self)
        self._settled.set()
        if asyncio.current_task() is not self._opening:
            self._opening.cancel()
        line = self.line
        if line is None:
            self._gone(self)
            return
        if self.shares and isinstance(error, NotConnected):
            self._top.line_lost(error)
        # A decorator may hold back bytes that were written before the release.
        (self._top if isinstance(self._top, Between) else line).close()

    # -- owner of the line --------------------------------------------------------------------------------

    def line_made(self, line: OpenLine) -> None:
        if self.error is not None:  # given up while the transport connected
            line.close()
            return
        self.line = line
        self._top.line_made(line)

    def line_ended(self, line: OpenLine, error: NotConnected) -> None:
        if line is not self.line:
            return
        if self.error is None:
            self.remote.count("edge_endpoint_losses_total", error)
            self.remote.log.warning("endpoint_lost", endpoint=self.remote.endpoint.name, reason=str(error))
            self.end(error)
        self._gone(self)

    # -- opening ------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        remote, endpoint = self.remote, self.remote.endpoint
        try:
            async with asyncio.timeout(endpoint.connect_timeout_s):
                await self._dial()
        except TimeoutError as error:
            self._fail(open_failure(remote.where, error) if error.errno else self._too_late())
        except OSError as error:
            words = serial_failure if endpoint.url.scheme == "serial" else open_failure
            self._fail(words(remote.where, error))
        except (NotConnected, Misconfigured) as error:
            self._fail(error)
        else:
            remote.connects.value += 1
            self._settled.set()

    def _too_late(self) -> NotConnected:
        return open_timeout(self.remote.where, self.remote.endpoint.connect_timeout_s)

    def _fail(self, error: NotConnected | Misconfigured) -> None:
        if isinstance(error, NotConnected):
            self.remote.count("edge_endpoint_failures_total", error)
        self.end(error)

    async def _dial(self) -> None:
        remote, endpoint = self.remote, self.remote.endpoint
        url = endpoint.url
        setup = self._setup()
        step, tls = Step.BEST, ""
        if remote.contexts is not None:
            self._warn_of_exposed_key()
            stream, step = await open_tls(endpoint, setup, remote.contexts)
            tls = stream.tls_version
        elif url.scheme == "tcp":
            await open_stream(setup, url.host, url.port or 0)
        elif url.scheme == "udp":
            await open_udp(setup, url.host, url.port or 0)
        elif url.scheme == "serial":
            await open_serial(setup, url)
        else:
            await open_memory(setup, url.host)
        self._report(step, tls)

    def _setup(self) -> LineSetup:
        remote, endpoint = self.remote, self.remote.endpoint
        return LineSetup(
            where=remote.where,
            url=endpoint.url.place,
            owner=self,
            deliver=self._top.data_received,
            write_buffer_bytes_max=endpoint.write_buffer_bytes_max,
            received=remote.received,
            sent=remote.sent,
        )

    def _decorated(self, session: Session) -> Session:
        endpoint, clock = self.remote.endpoint, self.remote.clock
        if endpoint.rate_bytes_per_s:
            session = RateLimit(session, endpoint.rate_bytes_per_s, endpoint.write_buffer_bytes_max, clock)
        if endpoint.capture_chunks:
            session = Capture(session, self.remote.ring, clock)
        return session

    def _report(self, step: Step, tls: str) -> None:
        """Say that the line stands, and how far it had to step down."""
        remote, name, url = self.remote, self.remote.endpoint.name, self.remote.endpoint.url.place
        if step is not Step.BEST:
            remote.metrics.counter("edge_endpoint_tls_downgrades_total", endpoint=name, step=step.value).value += 1
        if step is Step.PLAINTEXT:
            remote.metrics.counter("edge_endpoint_plaintext_total", endpoint=name).value += 1
            remote.log.warning("endpoint_plaintext", endpoint=name, url=url)
        elif step is Step.TLS_1_2:
            remote.log.warning("endpoint_tls_downgraded", endpoint=name, url=url, tls=tls)
        remote.log.info("endpoint_opened", endpoint=name, url=url, tls=tls)

    def _warn_of_exposed_key(self) -> None:
        options = self.remote.endpoint.tls
        key = options and (options.key or options.cert)
        if key and is_exposed(key):
            self.remote.log.warning("endpoint_key_exposed", endpoint=self.remote.endpoint.name, file=str(key))


class Share(Generic[S]):
    """A lease: one user's share of a connection."""

    __slots__ = ("_connection", "_is_released", "_session")

    def __init__(self, connection: Connection, session: S) -> None:
        self._connection = connection
        self._session = session
        self._is_released = False

    @property
    def session(self) -> S:
        return self._session

    def release(self) -> None:
        if not self._is_released:
            self._is_released = True
            self._connection.give_back()
