"""The OPC UA server bridge: tags as nodes, rows as values, writes as commands.

This file keeps the verbs of contract/bridge.py; the server itself is in server/. Why the services are our own while
codec tables and cryptography are asyncua's: docs/decisions/0022-own-opcua-services.md.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final
from urllib.parse import urlsplit

from framegate.contract.bridge import BridgeContext, BridgeHealth, BridgeTag
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch
from framegate_plugins.opcua.pki import WARN_DAYS, Identity, Pki, application_uri, certificate_from, days_left
from framegate_plugins.opcua.server.answers import Application
from framegate_plugins.opcua.server.channel import Security
from framegate_plugins.opcua.server.counts import Counts
from framegate_plugins.opcua.server.identity import Gatekeeper
from framegate_plugins.opcua.server.live import STANDARD_URI, server_values
from framegate_plugins.opcua.server.options import Options, parse_options
from framegate_plugins.opcua.server.server import Server, channel_numbers
from framegate_plugins.opcua.server.space import Space, problems_of
from framegate_plugins.opcua.server.standard import standard_nodes
from framegate_plugins.opcua.server.writing import Writer

PORT: Final = 4840
"""Registered for OPC UA over TCP."""
CLOSE_S: Final = 1.5
_UNTRUSTED: Final = "E2702"


class OpcUaBridge:
    """Shows tags to OPC UA clients."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Check options; raises Misconfigured E2760."""
        self._options: Options = parse_options(options)
        self._space: Space | None = None
        self._server: Server | None = None
        self._counts: Counts | None = None
        self._monotonic: Callable[[], float] = lambda: 0.0
        self.port = 0

    def check(self, tags: Sequence[BridgeTag]) -> None:
        """Whether all tags have a place of their own. raises Misconfigured E2761"""
        problems = problems_of(tags)
        if problems:
            raise Misconfigured("tags cannot be shown over OPC UA", code="E2761", tag_problems=problems)

    async def open(self, context: BridgeContext) -> None:
        """Build the address space and listen.

        raises Misconfigured - E2761, E2762 (the address), E2700 (the certificate), E2010 (a password)
        """
        self.check(context.tags)
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # what it says of hostile bytes, counts says in ours
        self._monotonic = context.clock.monotonic
        host, port, url = _address(context)
        pki = Pki(context.home / "pki")
        identity = await asyncio.to_thread(
            pki.own, application_uri(context.gateway), context.gateway, self._hosts(host)
        )
        self._counts = counts = Counts(context.name, context.clock, context.log)
        space = self._space = self._build(context, identity)
        gatekeeper = Gatekeeper(self._options, context.base, identity.key, context.clock.monotonic)
        await asyncio.to_thread(gatekeeper.check)
        about = Application(
            identity.uri, f"Framegate {context.gateway}", url, identity.certificate, self._options.security,
            bool(self._options.users), self._options.anonymous is not None,
        )  # fmt: skip
        writer = Writer(space, context.commands, self._options.write_s)
        security = self._security(context, pki, identity)
        server = Server(self._options, about, space, writer, gatekeeper, security, counts, context.clock)
        try:
            self.port = await server.listen(host, port)
        except OSError as error:
            await server.close()
            reason = (error.strerror or str(error)).lower()
            text = f"bridge {context.name}: cannot listen at {host}:{port} ({reason}); choose another address"
            raise Misconfigured(text, code="E2762") from error
        self._server = server
        context.log.info("opcua_bridge_listens", bridge=context.name, port=self.port, tags=len(space))
        self._warn(context, identity)

    def update(self, batches: Sequence[Batch]) -> None:
        if self._space is not None:
            self._space.update(batches, self._monotonic())

    def health(self) -> BridgeHealth:
        if self._server is None or self._counts is None:
            return BridgeHealth()
        counts = self._counts
        return BridgeHealth(self._server.clients, counts.requests_total, counts.writes_total, counts.refused_total)

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await server.close()
            except TimeoutError:
                return

    def _build(self, context: BridgeContext, identity: Identity) -> Space:
        """The address space. Many small objects live from now on: the collector is kept from looking at each."""
        tags_uri = f"urn:framegate:{context.gateway}"
        namespaces = [STANDARD_URI, identity.uri, tags_uri, f"{tags_uri}:structure"]
        gc.disable()
        try:
            values = server_values(namespaces, _version(), self._options, context.clock)
            space = Space(context.gateway, context.tags, standard_nodes(values), tags_uri)
            gc.freeze()
        finally:
            gc.enable()
        return space

    def _warn(self, context: BridgeContext, identity: Identity) -> None:
        """Say what an operator may not have meant."""
        if "none" in self._options.security:
            context.log.warning("opcua_bridge_unsecured", bridge=context.name)
        days = days_left(identity.not_after)
        if days < WARN_DAYS:
            context.log.warning("opcua_bridge_certificate_ends", bridge=context.name, days=days)

    def _security(self, context: BridgeContext, pki: Pki, identity: Identity) -> Security:
        takes_any = self._options.trust == "any"

        def judge(certificate: bytes) -> str:
            refusal = pki.judge(certificate)
            return "" if refusal is None or (takes_any and refusal.code == _UNTRUSTED) else refusal.text

        own = certificate_from(identity.certificate)
        return Security(own, identity.key, self._options.security, judge, channel_numbers(), context.clock.now_ns)

    def _hosts(self, host: str) -> tuple[str, ...]:
        """Names for the certificate; an address that means "all of them" is none."""
        return tuple(dict.fromkeys((*self._options.hosts, *(() if host in {"0.0.0.0", "::", ""} else (host,)))))  # noqa: S104


def _address(context: BridgeContext) -> tuple[str, int, str]:
    """Host and port to listen at, and the URL that clients are told. raises Misconfigured E2762"""
    try:
        parts = urlsplit(context.url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        text = f"bridge {context.name}: url {context.url!r} cannot be used ({error}); write tcp://HOST:{PORT}"
        raise Misconfigured(text, code="E2762") from error
    if not host:
        text = f"bridge {context.name}: url {context.url!r} names no host; write tcp://HOST:{PORT}"
        raise Misconfigured(text, code="E2762")
    if context.tls is not None:
        text = f"bridge {context.name}: OPC UA secures itself and does not go over TLS; remove tls from the endpoint"
        raise Misconfigured(text, code="E2762")
    shown = f"[{host}]" if ":" in host else host
    return host, PORT if port is None else port, f"opc.tcp://{shown}:{PORT if port is None else port}/"


def _version() -> str:
    try:
        return version("framegate")
    except PackageNotFoundError:
        return "0"
