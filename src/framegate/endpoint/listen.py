"""Servers on every kind of line, for bridges, simulators and tests.

    listener = await listen("tcp://127.0.0.1:0", make_session)
    listener.port                     the port the kernel chose
    await listener.close()            ends every line; the sessions' line_lost is called

TLS wants a context from `tls.server_context`. Clients beyond `clients_max` are hung up on; a handshake has
HANDSHAKE_S to finish, so that half-open clients go away by themselves.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from framegate.contract.errors import Misconfigured
from framegate.contract.ports import Session
from framegate.endpoint.line import CLOSE_FLUSH_S
from framegate.endpoint.listener import CLIENTS_MAX, Listener
from framegate.endpoint.memory import bind_memory
from framegate.endpoint.serial import open_serial
from framegate.endpoint.tcp import StreamLine
from framegate.endpoint.udp import DatagramServer, bind_udp
from framegate.endpoint.url import EndpointUrl, parse_url

HANDSHAKE_S = 5.0
BACKLOG_CONNECTIONS = 64


async def listen(
    url: EndpointUrl | str,
    make_session: Callable[[], Session],
    tls: ssl.SSLContext | None = None,
    *,
    clients_max: int = CLIENTS_MAX,
) -> Listener:
    """A server on the address; port 0 takes any free one.

    make_session  called for each client; a serial line has one client, for ever
    raises        Misconfigured E2035 - the address is taken, not ours, or wants a TLS context
    """
    address = parse_url(url) if isinstance(url, str) else url
    if (tls is not None) != (address.scheme == "tls+tcp"):
        raise Misconfigured(f"listener {address.place}: tls+tcp, and only it, needs a server context", code="E2035")
    listener = Listener(address, make_session, clients_max)
    try:
        if address.scheme == "udp":
            await _listen_udp(listener, address)
        elif address.scheme == "serial":
            line = await open_serial(listener.admit(), address)
            listener.started(line.close)
        elif address.scheme == "memory":
            listener.started(bind_memory(address.host, listener.admit))
        else:
            await _listen_tcp(listener, address, tls)
    except OSError as error:
        raise Misconfigured(
            f"listener {address.place}: cannot listen here ({error.strerror or error}); "
            "choose a free address of this machine",
            code="E2035",
        ) from error
    return listener


async def _listen_tcp(listener: Listener, address: EndpointUrl, tls: ssl.SSLContext | None) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: StreamLine(listener.admit(), is_tls=tls is not None),
        address.host,
        address.port,
        ssl=tls,
        backlog=BACKLOG_CONNECTIONS,
        ssl_handshake_timeout=HANDSHAKE_S if tls else None,
        ssl_shutdown_timeout=CLOSE_FLUSH_S if tls else None,
    )
    listener.started(server.close, server.sockets[0].getsockname()[1])


async def _listen_udp(listener: Listener, address: EndpointUrl) -> None:
    server = DatagramServer(listener.admit, listener.clients_max)
    transport = await bind_udp(server, address.host, address.port or 0)
    listener.started(transport.close, transport.get_extra_info("sockname")[1])
