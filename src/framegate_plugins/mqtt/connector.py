"""The MQTT connector: open, send, close.

Chooses server and version, keeps one session over all its connections and hands windows to it. What is under way is
in session.py, how a connection talks in client.py. The session outlives `close()` as well: after a silence the outbox
closes and opens again, and offers the same windows.

Source: contract/connector.py; MQTT Version 5.0, 4.1 and 4.4 (sessions, redelivery), 4.11 (server redirection).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, NoReturn

from framegate.contract.connector import ConnectorContext, Window
from framegate.contract.errors import GatewayError, Misconfigured, NotConnected
from framegate.contract.ports import Lease
from framegate_plugins.mqtt.client import INBOUND_BYTES_MAX, Client, ClosedEarly
from framegate_plugins.mqtt.codec import encode
from framegate_plugins.mqtt.commands import Commands
from framegate_plugins.mqtt.handshake import OFFLINE, ONLINE, Handshake
from framegate_plugins.mqtt.link import Link
from framegate_plugins.mqtt.options import Options, parse_options
from framegate_plugins.mqtt.packets import Connack, Disconnect, Version
from framegate_plugins.mqtt.properties import Property, words
from framegate_plugins.mqtt.publish import PublishStyle, PublishWriter
from framegate_plugins.mqtt.reason import Redirected, VersionRefused
from framegate_plugins.mqtt.session import ClientSession

REDIRECTS_MAX = 3
CLOSED_EARLY_MAX = 2
"""So many lines in a row that end without an answer to an MQTT 5 CONNECT: the broker may speak 3.1.1 only."""
FLUSH_S = 1.0
"""Patience for acknowledgements in close()."""
DRAIN_S = 0.002
"""How often QoS 0, which gets no answers, looks whether the line has room again."""
_EXACTLY_ONCE = 2


class MqttConnector:
    """Publishes windows to one broker, and takes commands from it where its row says so."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Check options; raises Misconfigured E5101."""
        self._options: Options = parse_options(options)
        self._version = self._options.version or Version.V5
        self._session = ClientSession()
        self._commands: Commands | None = None
        self._context: ConnectorContext | None = None
        self._client: Client | None = None
        self._lease: Lease[Client] | None = None
        self._pulse: asyncio.Task[None] | None = None
        self._closed_early = 0
        self._moved_to = ""  # endpoint that a permanent redirect named
        self._redirect: Redirected | None = None  # came with a DISCONNECT, for the next open
        self._last_endpoint = ""
        self._granted = (self._options.qos, self._options.retain)

    async def open(self, context: ConnectorContext) -> None:
        """Connect, or resume after a loss.

        raises NotConnected - unreachable, refused (E5102 to E5106, E5111), silent
               Misconfigured - no such endpoint, or its files cannot work
        """
        self._part("it is opened again")
        self._context = context
        self._take_commands(context)
        redirect, self._redirect = self._redirect, None
        endpoint = (redirect and self._target(redirect)) or self._moved_to or context.endpoint
        for _ in range(REDIRECTS_MAX + 1):
            try:
                await self._join_stepping_down(context, endpoint)
            except Redirected as answer:
                endpoint = self._target(answer)
                if not endpoint:
                    raise
                context.log.info("mqtt_redirected", connector=context.name, server=answer.server, endpoint=endpoint)
            else:
                return
        text = f"connector {context.name}: redirected more than {REDIRECTS_MAX} times, last to endpoint {endpoint}"
        raise NotConnected(f"{text}; correct the redirections of the brokers", code="E5106")

    async def send(self, window: Window) -> None:
        """Deliver a window; returns when every message is acknowledged (QoS 0: handed to the line).

        raises NotConnected; PayloadRefused E5107, E5108 - names the message; Busy E5109 - the broker wants patience
        """
        ended: asyncio.Future[GatewayError | None] = asyncio.get_running_loop().create_future()

        def end(error: GatewayError | None) -> None:
            if not ended.done():
                ended.set_result(error)

        self._session.offer(window, end)
        try:
            while not ended.done() and self._session.is_unanswered and self._context is not None:
                await self._context.clock.sleep(DRAIN_S)
                self._session.refill()
            error = await ended
        finally:
            self._session.withdraw(window)
        if error is not None:
            raise error

    async def close(self) -> None:
        """Wait a little for what is under way, then leave politely."""
        client, context = self._client, self._context
        if client is not None and context is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._idle()
            farewell = self._handshake(context).status(OFFLINE, client.version)
            client.leave(farewell + encode(Disconnect(), client.version))
        if self._commands is not None:
            self._commands.stop()
        self._part("it was closed")

    def _take_commands(self, context: ConnectorContext) -> None:
        """Begin, or go on, to hand in commands. Raises Misconfigured."""
        options = self._options
        if options.commands is None:
            return
        if context.commands is None:
            text = f"connector {context.name}: option commands is set, and this gateway takes no commands; remove it"
            raise Misconfigured(text, code="E5101")
        if self._commands is None:
            self._commands = Commands(options.commands, options.receive_maximum, context, context.commands)
            self._session.on_other = self._commands.replies.take_answer
        self._commands.start()

    # -- connecting -----------------------------------------------------------------------------------------------

    async def _join_stepping_down(self, context: ConnectorContext, endpoint: str) -> None:
        """Join; with version "auto", once more with 3.1.1 if the broker seems to speak no MQTT 5."""
        can_step_down = self._options.version is None and self._version is Version.V5
        try:
            await self._join(context, endpoint)
        except VersionRefused:
            if not can_step_down:
                raise
        except ClosedEarly:
            self._closed_early += 1
            if not can_step_down or self._closed_early < CLOSED_EARLY_MAX:
                raise
        else:
            return
        self._version, self._closed_early = Version.V3_1_1, 0
        try:
            await self._join(context, endpoint)
        except NotConnected:
            self._version = Version.V5
            raise
        context.log.info("mqtt_stepped_down", connector=context.name, version=self._version.words)

    async def _join(self, context: ConnectorContext, endpoint: str) -> None:
        """One connection, up to the point where messages flow."""
        session, version = self._session, self._version
        is_new = session.needs_clean or endpoint != self._last_endpoint
        # Commands that came while the gateway was away wait in the session at the broker: it is never begun anew then.
        clean = is_new and self._commands is None if version is Version.V5 else not self._options.session_expiry_s
        if self._commands is not None and endpoint != self._last_endpoint:
            self._commands.forget()
        if (is_new and self._options.qos == _EXACTLY_ONCE and self._options.session_expiry_s) or session.needs_purge:
            await self._purge(context, endpoint)
            clean = False
        client, lease = await self._acquire(context, endpoint, self._commands)
        try:
            connack = await self._connect(client, endpoint, clean=clean)
            link = self._link(client, connack)
            is_resumed = connack.session_present and not is_new
            if is_resumed and not session.can_resume(link):
                self._start_afresh(client)
            client.raise_if_ended()
        except BaseException:
            client.leave()
            lease.release()
            if self._commands is not None:
                self._commands.detach()
            raise
        client.on_lost = self._on_lost
        self._client, self._lease = client, lease
        self._last_endpoint, self._closed_early, session.needs_clean = endpoint, 0, False
        self._joined(context, client, connack, link, is_resumed=is_resumed)

    def _joined(
        self, context: ConnectorContext, client: Client, connack: Connack, link: Link, *, is_resumed: bool
    ) -> None:
        handshake = self._handshake(context)
        self._note_reduction(context, link.writer.style)
        client.write(handshake.status(ONLINE, client.version))
        repeats = self._session.attach(link, is_resumed=is_resumed)
        if self._commands is not None:
            share, packet_bytes_max = handshake.replies_max(connack), link.writer.style.packet_bytes_max
            self._commands.subscribe(share, packet_bytes_max, is_resumed=is_resumed)
        context.log.info(
            "mqtt_connected",
            connector=context.name,
            version=client.version.words,
            client_id=words(connack.properties, Property.ASSIGNED_CLIENT_IDENTIFIER) or handshake.client_id,
            is_resumed=is_resumed,
            repeats=repeats,
        )
        keep_alive_s = handshake.keep_alive_s(connack)
        if keep_alive_s:
            self._pulse = asyncio.create_task(client.keep_alive(keep_alive_s), name=f"{context.name} keep-alive")

    async def _acquire(
        self, context: ConnectorContext, endpoint: str, commands: Commands | None
    ) -> tuple[Client, Lease[Client]]:
        client = Client(context.name, self._session, context.clock, commands)
        lease = await context.lines.acquire(endpoint, lambda: client, is_shared=False)
        return client, lease

    async def _connect(self, client: Client, endpoint: str, *, clean: bool, is_purge: bool = False) -> Connack:
        context = self._context
        assert context is not None
        login = context.lines.credentials(endpoint)
        handshake = self._handshake(context)
        if is_purge:
            return await client.connect(handshake.purge(self._version, login))
        receive_maximum = self._commands.receive_maximum if self._commands is not None else None
        packet = handshake.connect(
            self._version, login, INBOUND_BYTES_MAX, clean=clean, receive_maximum=receive_maximum
        )
        return await client.connect(packet)

    async def _purge(self, context: ConnectorContext, endpoint: str) -> None:
        """Make the broker forget this client, so that a session begins that it will keep.

        A packet identifier remembered from an earlier QoS 2 message would swallow a new message. Asking for a clean
        start on the real connection is not enough: under 3.1.1 that also ends the session with the connection, and
        mosquitto (2.0) saves no session over its own restart that began so.
        """
        client, lease = await self._acquire(context, endpoint, None)
        try:
            await self._connect(client, endpoint, clean=True, is_purge=True)
            client.leave(encode(Disconnect(), client.version))
        finally:
            client.leave()
            lease.release()
        # A broker that limits connections per second may refuse the next one: it need not be purged again.
        self._session.needs_clean, self._session.needs_purge, self._last_endpoint = False, False, endpoint

    def _handshake(self, context: ConnectorContext) -> Handshake:
        return Handshake(self._options, gateway=context.gateway, connector=context.name)

    def _link(self, client: Client, connack: Connack) -> Link:
        context = self._context
        assert context is not None
        handshake = self._handshake(context)
        writer = PublishWriter(handshake.style(client.version, connack))
        return Link(writer, client.write, client.write_pending, handshake.inflight_max(client.version, connack))

    def _target(self, redirect: Redirected) -> str:
        """Row of endpoints.yml that a redirect leads to; "" if it is not to be followed."""
        if not self._options.follow_redirect:
            return ""
        # 4.11: several references are separated by spaces; the first one that an operator has vouched for is taken.
        known = (self._options.servers.get(server, "") for server in redirect.server.split(" "))
        endpoint = next(filter(None, known), "")
        if endpoint and redirect.is_permanent:
            self._moved_to = endpoint
        return endpoint

    def _start_afresh(self, client: Client) -> NoReturn:
        self._session.needs_clean = True
        text = f"{client.where}: the broker has changed its limits; what is under way goes into a new session"
        raise NotConnected(text, code="E5104")

    def _note_reduction(self, context: ConnectorContext, style: PublishStyle) -> None:
        """Say once that the broker grants less than was asked for."""
        granted = (style.qos, style.retain)
        if granted not in {self._granted, (self._options.qos, self._options.retain)}:
            context.log.warning("mqtt_reduced", connector=context.name, qos=style.qos, retain=style.retain)
        self._granted = granted

    # -- parting --------------------------------------------------------------------------------------------------

    def _on_lost(self, error: NotConnected) -> None:
        """The connection broke, or was given up by either side."""
        if isinstance(error, Redirected):
            self._redirect = error
        is_told = self._session.detach(error)
        context = self._context
        self._part(error.text)
        if not is_told and context is not None:
            context.lost(error)

    def _part(self, reason: str) -> None:
        """Give the connection back, whatever its state; the session stays."""
        client, lease, pulse = self._client, self._lease, self._pulse
        self._client = self._lease = self._pulse = None
        if pulse is not None:
            pulse.cancel()
        if self._commands is not None:
            self._commands.detach()
        if client is not None:
            client.leave()
            if self._session.is_attached:
                self._session.detach(NotConnected(f"{client.where}: not connected: {reason}", code="E5104"))
        if lease is not None:
            lease.release()

    async def _idle(self) -> None:
        """Wait until nothing is under way."""
        if self._session.is_idle:
            return
        idle = asyncio.get_running_loop().create_future()
        self._session.on_idle = lambda: None if idle.done() else idle.set_result(None)
        try:
            await idle
        finally:
            self._session.on_idle = None
