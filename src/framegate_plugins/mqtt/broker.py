"""A small MQTT broker in this process, for the demo and for tests: 3.1.1 and 5, QoS 0 to 2, retained messages,
wildcard and shared subscriptions, wills, sessions kept in memory, limits, and faults to order.

It keeps nothing on disk and is no broker for a plant. Message expiry and will delay are not observed.
`taken` is called with every message as it is accepted: the witness of tests.

Source: MQTT Version 5.0, chapter 4.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import replace
from itertools import count

from framegate.contract.errors import Misconfigured
from framegate_plugins.mqtt.broker_client import BrokerClient
from framegate_plugins.mqtt.broker_session import BrokerSession
from framegate_plugins.mqtt.faults import Counts, Faults, Limits
from framegate_plugins.mqtt.packets import Connect, Publish, TopicFilter, Version, Will
from framegate_plugins.mqtt.properties import Properties, Property, PropertyValue, integer
from framegate_plugins.mqtt.topics import matches, split_share

CLIENTS_MAX = 1_000
SESSIONS_MAX = 10_000
RETAINED_MAX = 100_000
CLOSE_S = 2.0
_FOR_EVER_S = 0xFFFF_FFFF


class Broker:
    """limits and faults may be changed at any time; limits hold for connections made afterwards."""

    def __init__(self, limits: Limits | None = None, faults: Faults | None = None) -> None:
        self.limits = limits or Limits()
        self.faults = faults or Faults()
        self.counts = Counts()
        self.taken: Callable[[Publish], None] | None = None
        self.clients: set[BrokerClient] = set()
        self.sessions: dict[str, BrokerSession] = {}
        self.retained: dict[str, Publish] = {}
        self.shared = SharedSubscriptions()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._names = count(1)
        self._empty: asyncio.Future[None] | None = None  # set while close() waits for the last client

    async def listen(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        """Take connections; port 0 takes any free one. Raises Misconfigured E2035."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._admit, host, port, ssl=tls)
        except OSError as error:
            text = f"broker {host}:{port}: cannot listen here ({error.strerror or error}); choose a free address"
            raise Misconfigured(text, code="E2035") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Hang up on everybody and stop listening; sessions stay for another listen()."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        self.cut()
        if self.clients:
            self._empty = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(CLOSE_S):
                await self._empty

    def cut(self) -> None:
        """Hang up on every client; the broker goes on listening."""
        for client in list(self.clients):
            client.hang_up()

    def expel(self, reason: int) -> None:
        """Send every client a DISCONNECT with this reason."""
        for client in list(self.clients):
            client.expel(reason)

    def ended(self, client: BrokerClient) -> None:
        """A connection is gone for good."""
        self.clients.discard(client)
        if not self.clients and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    # -- called by connections ------------------------------------------------------------------------------------

    def join(self, packet: Connect, client: BrokerClient) -> tuple[BrokerSession, bool]:
        """The session of a client that connects, and whether it was there before."""
        self.counts.connects += 1
        client_id = packet.client_id or f"assigned-{next(self._names)}"
        for other in list(self.clients):
            if other is not client and other.session is not None and other.session.client_id == client_id:
                other.expel(0x8E)  # session taken over
        self._expire()
        known = self.sessions.get(client_id)
        if known is None or packet.clean or self.faults.forget_sessions:
            if known is not None:
                self._discard(known)
            session, is_resumed = BrokerSession(client_id), False
            self.sessions[client_id] = session
        else:
            session, is_resumed = known, True
            self.counts.resumed += 1
        if packet.version is Version.V5:
            wanted = integer(packet.properties, Property.SESSION_EXPIRY, 0)
            session.expiry_s = min(wanted, self.limits.session_expiry_s_max)
        else:
            session.expiry_s = 0 if packet.clean else _FOR_EVER_S
        return session, is_resumed

    def left(self, session: BrokerSession, will: Will | None) -> None:
        """A client has gone; with a will, without saying goodbye."""
        session.detach(asyncio.get_running_loop().time())
        if not session.expiry_s:
            self._discard(session)
        if will is not None:
            self.publish(Publish(will.topic, will.payload, will.qos, will.retain, properties=will.properties), "")

    def publish(self, message: Publish, sender: str) -> None:
        """Hand a message to everybody who wants it."""
        self.counts.messages += 1
        if self.taken is not None:
            self.taken(message)
        if message.retain:
            self._retain(message)
        for session in list(self.sessions.values()):
            entries = session.matching(message.topic) if session.subscriptions else []
            entries = [entry for entry in entries if not (entry[0].no_local and session.client_id == sender)]
            if entries:
                # One copy for a client whose filters overlap (3.3.4): the highest QoS, every identifier.
                qos = max(topic.qos for topic, _ in entries)
                keeps_retain = any(topic.retain_as_published for topic, _ in entries)
                identifiers = tuple(identifier for _, identifier in entries if identifier)
                self._hand(session, message, qos, identifiers, retain=message.retain and keeps_retain)
        for session, topic, identifier in self.shared.choose(message.topic):
            self._hand(session, message, topic.qos, (identifier,) if identifier else (), retain=False)

    def send_retained(self, session: BrokerSession, topic: TopicFilter, identifier: int, *, is_new: bool) -> None:
        """What a new subscriber gets at once (3.3.1.3)."""
        share, plain = split_share(topic.filter)
        if share or topic.retain_handling == 2 or (topic.retain_handling == 1 and not is_new):
            return
        for message in list(self.retained.values()):
            if matches(plain, message.topic):
                self._hand(session, message, topic.qos, (identifier,) if identifier else (), retain=True)

    # -- plumbing -------------------------------------------------------------------------------------------------

    def _admit(self) -> BrokerClient:
        client = BrokerClient(self)
        if len(self.clients) >= CLIENTS_MAX:
            asyncio.get_running_loop().call_soon(client.hang_up)
        return client

    def _hand(
        self, session: BrokerSession, message: Publish, qos: int, identifiers: tuple[int, ...], *, retain: bool
    ) -> None:
        dropped = session.dropped
        properties = _forwarded(message.properties, identifiers)
        qos = min(qos, message.qos)
        session.deliver(Publish(message.topic, message.payload, qos, retain, properties=properties))
        self.counts.dropped += session.dropped - dropped

    def _retain(self, message: Publish) -> None:
        if not message.payload:
            self.retained.pop(message.topic, None)
        elif message.topic in self.retained or len(self.retained) < RETAINED_MAX:
            self.retained[message.topic] = replace(message, packet_id=0)

    def _expire(self) -> None:
        """Forget sessions whose time is over, and the oldest when there are too many."""
        now = asyncio.get_running_loop().time()
        away = sorted((s for s in self.sessions.values() if not s.is_present), key=lambda session: session.left_at)
        surplus = len(self.sessions) - SESSIONS_MAX + 1
        for place, session in enumerate(away):
            if place < surplus or now - session.left_at > session.expiry_s:
                self._discard(session)

    def _discard(self, session: BrokerSession) -> None:
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
        self.shared.forget(session)


class SharedSubscriptions:
    """Groups that take turns (4.8.2): each message goes to one member."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], list[BrokerSession]] = {}

    def note(self, share: str, topic_filter: str, session: BrokerSession) -> None:
        """A session has subscribed; without a share there is nothing to note."""
        if share:
            members = self._groups.setdefault((share, topic_filter), [])
            if session not in members:
                members.append(session)

    def forget(self, session: BrokerSession) -> None:
        for key, members in list(self._groups.items()):
            if session in members:
                members.remove(session)
            if not members:
                del self._groups[key]

    def choose(self, topic: str) -> list[tuple[BrokerSession, TopicFilter, int]]:
        """One member of each group that takes the topic in: the next one that is there, else the next one."""
        chosen = []
        for (share, topic_filter), members in list(self._groups.items()):
            if not matches(topic_filter, topic):
                continue
            name = f"$share/{share}/{topic_filter}"
            members[:] = [member for member in members if name in member.subscriptions]
            if members:
                member = next((member for member in members if member.is_present), members[0])
                members.remove(member)
                members.append(member)
                chosen.append((member, *member.subscriptions[name]))
        return chosen


def _forwarded(properties: Properties, identifiers: tuple[int, ...]) -> Properties:
    """Properties that travel on: all but those that belong to the sender's connection."""
    if not identifiers and Property.TOPIC_ALIAS not in properties:
        return properties
    forwarded: dict[Property, PropertyValue] = {
        name: value for name, value in properties.items() if name is not Property.TOPIC_ALIAS
    }
    if identifiers:
        forwarded[Property.SUBSCRIPTION_IDENTIFIER] = identifiers
    return forwarded
