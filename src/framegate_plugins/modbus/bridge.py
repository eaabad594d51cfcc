"""The Modbus bridge: the gateway as a Modbus server, for masters and SCADA systems.

    register_map.py    which tag is shown where                write_plan.py     what a master's write means
    register_image.py  what is read, and may it be read        bridge_writes.py  outcomes as answers
    responder.py       one request, one answer                 server.py         clients, limits, order of answers

It shows what it is told by `update` and keeps nothing; the map goes to the bridge's folder as map.csv and map.md, so
that nobody has to type it into a master.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from framegate import __version__
from framegate.contract.bridge import BridgeContext, BridgeHealth, BridgeTag, ServerTls
from framegate.contract.errors import Misconfigured, NotConnected
from framegate.contract.frame import Batch
from framegate.endpoint.endpoint import TlsVersion
from framegate.endpoint.listen import listen
from framegate.endpoint.listener import Listener
from framegate.endpoint.secret import resolve
from framegate.endpoint.thread import in_thread
from framegate.endpoint.tls import server_context
from framegate.endpoint.url import parse_url
from framegate_plugins.modbus.bridge_options import parse_bridge_options
from framegate_plugins.modbus.bridge_writes import Writes
from framegate_plugins.modbus.framing import FRAMINGS, Framing
from framegate_plugins.modbus.identification import Identification
from framegate_plugins.modbus.map_document import as_csv, as_markdown
from framegate_plugins.modbus.register_image import RegisterImage
from framegate_plugins.modbus.register_map import RegisterMap, register_map
from framegate_plugins.modbus.responder import Responder
from framegate_plugins.modbus.server import Server

TURNED_AWAY_MAX: Final = 16
"""Connections beyond the limit that are open while they are being turned away."""
REOPEN_S: Final = 2.0
"""How often a lost serial port is looked for."""
REFUSALS_LOG_S: Final = 10.0
"""Refusals are told at most so often."""


class ModbusBridge:
    """A `Bridge`."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = parse_bridge_options(options)
        self._image: RegisterImage | None = None
        self._server: Server | None = None
        self._listener: Listener | None = None
        self._context: BridgeContext | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._is_closed = False
        self._told = -REFUSALS_LOG_S

    @property
    def url(self) -> str:
        """Where it listens, with the port that the kernel chose; "" while it is closed."""
        return "" if self._listener is None else self._listener.url

    def check(self, tags: Sequence[BridgeTag]) -> None:
        register_map(tags, self._options)

    async def open(self, context: BridgeContext) -> None:
        options = self._options
        self._context = context
        entries = register_map(context.tags, options)
        framing = _framing(options.framing, context)
        self._image = RegisterImage(entries, options)
        responder = Responder(entries, self._image, Identification(__version__, context.gateway, context.name))
        writes = Writes(context.commands, options.write_timeout_s)
        self._server = server = Server(options, framing, responder, writes, self._tell_refused, self._on_bus_lost)
        await self._listen(context, server)
        server.start()
        await self._write_map(context, entries)

    async def _listen(self, context: BridgeContext, server: Server) -> None:
        limits, is_datagram = self._options.limits, context.url.startswith("udp")
        tls = await _tls(context)
        clients_max = limits.clients + (0 if is_datagram else TURNED_AWAY_MAX)
        self._listener = await listen(context.url, server.make_client, tls, clients_max=clients_max)
        context.log.info(
            "modbus_bridge_serves", bridge=context.name, url=self.url, unit=self._options.unit, tags=len(context.tags)
        )

    def update(self, batches: Sequence[Batch]) -> None:
        assert self._image is not None
        self._image.update(batches)

    def health(self) -> BridgeHealth:
        return BridgeHealth() if self._server is None else self._server.health()

    async def close(self) -> None:
        self._is_closed = True
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)
        if self._listener is not None:
            await self._listener.close()
        if self._server is not None:
            await self._server.stop()

    def _on_bus_lost(self, error: NotConnected) -> None:
        """A serial adapter was pulled: nobody connects anew by himself there."""
        context, server = self._context, self._server
        if not self._is_closed and context is not None and server is not None:
            context.log.warning("modbus_bus_lost", bridge=context.name, reason=error.text)
            self._reopening = asyncio.get_running_loop().create_task(self._reopen(context, server))

    async def _reopen(self, context: BridgeContext, server: Server) -> None:
        if self._listener is not None:
            await self._listener.close()
        while True:
            await asyncio.sleep(REOPEN_S)
            with suppress(Misconfigured):  # not there yet
                return await self._listen(context, server)

    async def _write_map(self, context: BridgeContext, entries: RegisterMap) -> None:
        """Put the map where people find it; a full disk keeps nobody from reading registers."""
        page = as_markdown(entries, self._options, context.gateway, context.name, self.url)
        documents = {context.home / "map.csv": as_csv(entries), context.home / "map.md": page}
        try:
            await in_thread("modbus-map", lambda: _write(documents))
        except OSError as error:
            context.log.warning("modbus_map_unwritten", bridge=context.name, reason=error.strerror or str(error))

    def _tell_refused(self, peer: str, reason: str) -> None:
        context, server = self._context, self._server
        assert context is not None
        assert server is not None
        now = context.clock.monotonic()
        if now - self._told >= REFUSALS_LOG_S:
            self._told = now
            context.log.warning(
                "modbus_client_refused", bridge=context.name, peer=peer, reason=reason, count=server.counts.refused
            )


def _framing(name: str, context: BridgeContext) -> Framing:
    is_serial = parse_url(context.url).scheme == "serial"
    if name == "auto":
        name = "rtu" if is_serial else "tcp"
    if is_serial and name == "tcp":
        text = f"bridge {context.name}: framing tcp does not run on a serial line; set framing to rtu or ascii"
        raise Misconfigured(text, code="E2664")
    return FRAMINGS[name]


async def _tls(context: BridgeContext) -> ssl.SSLContext | None:
    """What the listener needs for tls+tcp; None elsewhere."""
    if parse_url(context.url).scheme != "tls+tcp":
        return None
    if context.tls is None:
        text = f"bridge {context.name}: {context.url} needs section tls with cert and key in its endpoint's row"
        raise Misconfigured(text, code="E2665")
    tls = context.tls
    try:
        return await in_thread("tls-files", lambda: _server_context(tls, context.base))
    except (OSError, ValueError) as error:
        text = f"bridge {context.name}: the certificate files cannot be used ({error}); correct section tls"
        raise Misconfigured(text, code="E2665") from error


def _server_context(tls: ServerTls, base: Path) -> ssl.SSLContext:
    return server_context(
        base / tls.cert,
        base / tls.key,
        ca=base / tls.ca if tls.ca else None,
        password=resolve(tls.key_password, base),
        minimum=TlsVersion(tls.minimum),
    )


def _write(documents: Mapping[Path, str]) -> None:
    """Write files so that a reader finds the old text or the new one."""
    for path, text in documents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.new")
        try:
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)
        finally:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
