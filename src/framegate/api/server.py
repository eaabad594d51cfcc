"""The API's server: one listening address, uvicorn's protocols on the gateway's own loop, TLS where the row has it.

    server = await serve_api(face, desk, access, audit, row, log, metrics=metrics, ...)
    ...
    await server.close()

uvicorn's own server class is left out: it wants signals, a life span and a tick, and would not bound TLS handshakes.
Any address that other machines can reach needs TLS, or is refused.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from framegate.api.app import Api
from framegate.api.connection import KEEP_ALIVE_S, Connection, Crowd, LiveConnection
from framegate.api.live import MESSAGE_BYTES_MAX, Live
from framegate.api.operation import AccessDesk, Site
from framegate.config import ApiRow
from framegate.config.tables import is_loopback
from framegate.contract.access import Audit
from framegate.contract.command import Desk
from framegate.contract.errors import Misconfigured
from framegate.contract.ports import Clock, Log
from framegate.endpoint.thread import in_thread
from framegate.endpoint.tls import server_context
from framegate.observe.api_face import ApiFace
from framegate.observe.metrics import Metrics

BACKLOG: Final = 128
HANDSHAKE_WAIT_S: Final = 5.0
CLOSE_WAIT_S: Final = 1.0
"""Requests under way when the gateway stops have so long to end."""
PING_INTERVAL_S: Final = 20.0
PONG_WAIT_S: Final = 20.0


class Server:
    """A listening API.

    address  host:port it answers at; the port is known even where the row asked for 0
    """

    def __init__(self, api: Api, crowd: Crowd) -> None:
        self._api, self._crowd = api, crowd
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._config = Config(
            api,
            interface="asgi3",
            http="httptools",
            ws=LiveConnection,
            ws_max_size=MESSAGE_BYTES_MAX,
            ws_ping_interval=PING_INTERVAL_S,
            ws_ping_timeout=PONG_WAIT_S,
            ws_per_message_deflate=False,  # frames are small already, and 64 windows would take memory
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what matters is counted, or in our own log
        self._config.load()
        self.address = ""

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Listen; raises OSError."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._config, self._state, self._crowd),
            host,
            port,
            ssl=context,
            ssl_handshake_timeout=None if context is None else HANDSHAKE_WAIT_S,
            backlog=BACKLOG,
            reuse_address=True,
        )
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening; what is under way has CLOSE_WAIT_S, then it is cut. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = list(self._state.tasks)
        late = (await asyncio.wait(tasks, timeout=CLOSE_WAIT_S))[1] if tasks else ()
        for connection in list(self._state.connections):
            connection.transport.abort()  # first: a task that is cancelled still tries to answer
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=CLOSE_WAIT_S)
        await self._api.settle()


async def serve_api(
    face: ApiFace, desk: Desk, access: AccessDesk, audit: Audit, row: ApiRow, log: Log, metrics: Metrics, *,
    clock: Clock, base: Path, ready: Callable[[], str], scrape: Callable[[], Awaitable[bytes]],
) -> Server:  # fmt: skip
    """Serve the API of a gateway at the address of its row.

    base    folder that paths of the row are relative to
    ready   why the gateway cannot take and keep rows now, "" when it can
    scrape  the page for Prometheus
    raises  Misconfigured E4240 - the address cannot be listened on; E4241 - it needs TLS; E4242 - its files
    """
    if not row.cert and not is_loopback(row.listen):
        text = f"API address {row.listen}: other machines can reach it; add `tls` to `gateway.api`, or use 127.0.0.1"
        raise Misconfigured(text, code="E4241")
    live = Live(face, access, clock, metrics, origins=row.origins)
    api = Api(Site(face, desk, access, clock, ready, scrape), audit, log, metrics, live)
    crowd = Crowd(metrics)
    metrics.gauge("edge_api_connections").read = lambda: float(len(crowd.members))
    server = Server(api, crowd)
    host, _, port = row.listen.rpartition(":")
    try:
        await server.start(host.strip("[]"), int(port), await _context(row, base))
    except OSError as error:
        raise _not_listening(row.listen, error) from error
    log.info("api_listening", address=server.address, is_tls=bool(row.cert))
    return server


async def _context(row: ApiRow, base: Path) -> ssl.SSLContext | None:
    if not row.cert:
        return None
    cert, key, ca = base / row.cert, base / row.key, base / row.ca if row.ca else None
    try:
        return await in_thread("tls-files", lambda: server_context(cert, key, ca=ca, alpn=("http/1.1",)))
    except (OSError, ValueError) as error:
        text = f"API certificate {cert} or key {key} cannot be used ({error}); correct `gateway.api.tls`"
        raise Misconfigured(text, code="E4242") from error


def _not_listening(listen: str, error: OSError) -> Misconfigured:
    if error.errno == errno.EADDRINUSE:
        reason = "the port is taken by another program, perhaps a second gateway"
    else:
        reason = f"cannot be listened on ({(error.strerror or str(error)).lower()})"
    return Misconfigured(f"API address {listen}: {reason}; set `gateway.api.listen` to a free host:port", code="E4240")
