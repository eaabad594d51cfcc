"""One connection of the embedded broker: packets in, packets out, and the faults it was told to commit.

Answers are gathered while one piece of received data is taken in and leave in one write. Sockets are used directly, not
through the endpoint layer, because a fault needs a hard reset.

Source: MQTT Version 5.0, chapter 3; 4.13 (errors).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from framegate.contract.errors import FrameBroken
from framegate_plugins.mqtt.broker_session import SUBSCRIPTIONS_MAX, BrokerSession
from framegate_plugins.mqtt.codec import PacketReader, VersionUnsupported, encode
from framegate_plugins.mqtt.faults import Limits
from framegate_plugins.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
)
from framegate_plugins.mqtt.properties import Kind, Property, PropertyValue, integer
from framegate_plugins.mqtt.topics import is_topic_filter, split_share

if TYPE_CHECKING:
    from framegate_plugins.mqtt.broker import Broker

CONNECT_S = 5.0
"""How long a new connection may take to send CONNECT."""
WRITE_BUFFER_BYTES_MAX = 16 * 1024 * 1024
TOPIC_ALIASES_MAX = 65_535
_RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


class BrokerClient(asyncio.Protocol):
    """Serves one client."""

    def __init__(self, broker: Broker) -> None:
        self.session: BrokerSession | None = None
        self._broker = broker
        self._limits = replace(broker.limits)
        self._reader = PacketReader(packet_bytes_max=self._limits.packet_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._is_gathering = False
        self._has_ended = False
        self._owed: set[int] = set()  # identifiers of messages not yet acknowledged for good
        self._aliases: dict[int, str] = {}
        self._will: Will | None = None
        self._is_heard = True
        self._patience: asyncio.TimerHandle | None = None

    # -- called by the loop ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        self._broker.clients.add(self)
        self._patience = asyncio.get_running_loop().call_later(CONNECT_S, self.hang_up)

    def pause_writing(self) -> None:
        """The client does not read."""
        self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._broker.ended(self)

    def data_received(self, data: bytes) -> None:
        if self._has_ended or self._broker.faults.is_silent:
            return
        self._is_heard = True
        self._is_gathering = True
        try:
            for packet in self._reader.feed(data):
                self._take(packet)
                if self.has_ended():
                    return
        except VersionUnsupported as error:
            # A client is answered in a form it can read: 3.1.1's for lower levels (3.1.2.2).
            version = Version.V5 if error.level > Version.V5 else Version.V3_1_1
            self._refuse(0x84, version)
        except FrameBroken:
            self.expel(0x81)
        finally:
            self._is_gathering = False
            self._flush()

    # -- called by the broker -------------------------------------------------------------------------------------

    def send(self, packet: Packet) -> None:
        """Queue a packet; inside data_received it leaves with the others."""
        self._out.append(encode(packet, self._reader.version))
        if not self._is_gathering:
            self._flush()

    def expel(self, reason: int) -> None:
        """End the connection with a word about why, where the version has one."""
        if self._has_ended:
            return
        if self._reader.version is Version.V5 and self.session is not None:
            self.send(Disconnect(reason))
        self._flush()
        self._leave()
        if self._transport is not None:
            self._transport.close()

    def hang_up(self) -> None:
        """Cut the connection; what was not yet written is not."""
        self._out.clear()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._broker.faults.is_reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        self._leave()
        transport.abort()

    def has_ended(self) -> bool:
        return self._has_ended

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _leave(self) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        if self._patience is not None:
            self._patience.cancel()
        if self.session is not None:
            self._broker.left(self.session, self._will)

    # -- packets --------------------------------------------------------------------------------------------------

    def _take(self, packet: Packet) -> None:
        if self.session is None:
            if isinstance(packet, Connect):
                self._connect(packet)
            else:
                self.hang_up()
        elif isinstance(packet, Publish):
            self._publish(self.session, packet)
        elif isinstance(packet, Ack):
            self._ack(self.session, packet)
        elif isinstance(packet, Subscribe):
            self._subscribe(self.session, packet)
        elif isinstance(packet, Unsubscribe):
            known = [self.session.subscriptions.pop(name, None) is not None for name in packet.filters]
            # 0x11: no subscription existed (3.11.3).
            self.send(Unsuback(packet.packet_id, tuple(0 if was_there else 0x11 for was_there in known)))
        elif isinstance(packet, Pingreq):
            self.send(Pingresp())
        elif isinstance(packet, Disconnect):
            self._disconnect(self.session, packet)
        else:
            self.expel(0x82)

    def _connect(self, packet: Connect) -> None:
        limits, faults = self._limits, self._broker.faults
        if packet.version not in limits.versions:
            self._refuse(0x84, Version.V3_1_1 if Version.V3_1_1 in limits.versions else Version.V5)
        elif faults.refuse or faults.redirect:
            moved = 0x9D if faults.is_moved else 0x9C
            self._refuse(faults.refuse or moved, packet.version, faults.redirect)
        elif limits.users and not _may_enter(limits, packet):
            self._refuse(0x86, packet.version)
        elif not packet.client_id and packet.version is Version.V3_1_1 and not packet.clean:
            self._refuse(0x85, packet.version)
        else:
            self._welcome(packet)

    def _welcome(self, packet: Connect) -> None:
        limits, broker = self._limits, self._broker
        session, is_resumed = broker.join(packet, self)
        self.session, self._will = session, packet.will
        keep_alive_s = limits.server_keep_alive_s or packet.keep_alive_s
        self._watch(keep_alive_s)
        properties: dict[Property, PropertyValue] = {}
        if packet.version is Version.V5:
            properties = _granted(limits)
            properties[Property.SESSION_EXPIRY] = session.expiry_s
            if limits.server_keep_alive_s:
                properties[Property.SERVER_KEEP_ALIVE] = keep_alive_s
            if not packet.client_id:
                properties[Property.ASSIGNED_CLIENT_IDENTIFIER] = session.client_id
        self.send(Connack(is_resumed, 0, properties))
        session.attach(self.send, integer(packet.properties, Property.RECEIVE_MAXIMUM, 65_535))

    def _refuse(self, reason: int, version: Version, reference: str = "") -> None:
        if version is Version.V5:
            properties: dict[Property, PropertyValue] = {Property.SERVER_REFERENCE: reference} if reference else {}
            answer = Connack(False, reason, properties)
        else:
            # 3.1.1, table 3.1; 3 is "server unavailable", for whatever it has no code for.
            answer = Connack(False, {0x84: 1, 0x85: 2, 0x86: 4, 0x87: 5}.get(reason, 3))
        self._out.append(encode(answer, version))
        self._flush()
        self._leave()
        if self._transport is not None:
            self._transport.close()

    def _watch(self, keep_alive_s: int) -> None:
        """Hang up after one and a half keep alives of silence (3.1.2.10)."""
        if self._patience is not None:
            self._patience.cancel()
        if keep_alive_s:
            self._is_heard = False
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(keep_alive_s * 1.5, self._judge_silence, keep_alive_s)

    def _judge_silence(self, keep_alive_s: int) -> None:
        if self._is_heard:
            self._watch(keep_alive_s)
        else:
            self.expel(0x8D)

    def _publish(self, session: BrokerSession, packet: Publish) -> None:
        broker, limits = self._broker, self._limits
        broker.counts.publishes += 1
        topic = self._topic(packet)
        if topic is None:
            self.expel(0x94)
        elif packet.qos > limits.maximum_qos:
            self.expel(0x9B)
        elif packet.retain and not limits.retain_available:
            self.expel(0x9A)
        elif self._is_too_much(packet):
            broker.counts.violations += 1
            self.expel(0x93)
        elif topic in broker.faults.expel_topics:
            self.expel(broker.faults.expel_topics[topic])
        else:
            self._accept(session, replace(packet, topic=topic, dup=False))
        if broker.faults.cut_every and broker.counts.publishes % broker.faults.cut_every == 0:
            broker.counts.cuts += 1
            self.hang_up()

    def _is_too_much(self, packet: Publish) -> bool:
        """Whether a client overruns Receive Maximum, which 3.1.1 does not know."""
        if self._reader.version is not Version.V5 or not packet.qos or packet.packet_id in self._owed:
            return False
        return len(self._owed) >= self._limits.receive_maximum

    def _topic(self, packet: Publish) -> str | None:
        alias = integer(packet.properties, Property.TOPIC_ALIAS, 0)
        if not alias:
            return packet.topic
        if alias > self._limits.topic_alias_maximum:
            return None
        if packet.topic:
            self._aliases[alias] = packet.topic
        return self._aliases.get(alias)

    def _accept(self, session: BrokerSession, packet: Publish) -> None:
        broker = self._broker
        reason = broker.faults.refuse_topics.get(packet.topic, 0)
        if reason and self._reader.version is Version.V3_1_1:
            self.hang_up()
            return
        if packet.qos:
            self._owed.add(packet.packet_id)
        is_repeat = packet.qos == 2 and packet.packet_id in session.received
        if is_repeat:
            broker.counts.repeats += 1
        elif not reason:
            broker.publish(packet, session.client_id)
        if packet.qos == 1:
            self._acknowledge(Ack(Kind.PUBACK, packet.packet_id, reason))
        elif packet.qos:
            if not reason:
                session.received.add(packet.packet_id)
            self._acknowledge(Ack(Kind.PUBREC, packet.packet_id, reason))

    def _acknowledge(self, ack: Ack) -> None:
        delay_s = self._broker.faults.ack_delay_s
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, self._acknowledge_now, ack)
        else:
            self._acknowledge_now(ack)

    def _acknowledge_now(self, ack: Ack) -> None:
        if not self._has_ended:
            if ack.kind is not Kind.PUBREC or ack.reason:
                self._owed.discard(ack.packet_id)
            self.send(ack)

    def _ack(self, session: BrokerSession, packet: Ack) -> None:
        if packet.kind is Kind.PUBREL:
            # 0x92: packet identifier not found (3.7.2.1).
            reason = 0 if packet.packet_id in session.received else 0x92
            session.received.discard(packet.packet_id)
            self._acknowledge(Ack(Kind.PUBCOMP, packet.packet_id, reason))
        else:
            session.take_ack(packet)

    def _subscribe(self, session: BrokerSession, packet: Subscribe) -> None:
        identifier = integer(packet.properties, Property.SUBSCRIPTION_IDENTIFIER, 0)
        reasons, fresh = [], []
        for topic in packet.topics:
            if not is_topic_filter(topic.filter):
                reasons.append(0x8F)  # topic filter invalid
            elif len(session.subscriptions) >= SUBSCRIPTIONS_MAX:
                reasons.append(0x97)  # quota exceeded
            else:
                granted = replace(topic, qos=min(topic.qos, self._limits.maximum_qos))
                fresh.append((granted, topic.filter not in session.subscriptions))
                share, plain = split_share(topic.filter)
                session.subscriptions[topic.filter] = replace(granted, filter=plain), identifier
                reasons.append(granted.qos)
                self._broker.shared.note(share, plain, session)
        if self._reader.version is Version.V3_1_1:
            reasons = [min(reason, 0x80) for reason in reasons]
        self.send(Suback(packet.packet_id, tuple(reasons)))
        for topic, is_new in fresh:
            self._broker.send_retained(session, topic, identifier, is_new=is_new)

    def _disconnect(self, session: BrokerSession, packet: Disconnect) -> None:
        if packet.reason != 0x04:  # disconnect with will message
            self._will = None
        if Property.SESSION_EXPIRY in packet.properties:
            session.expiry_s = integer(packet.properties, Property.SESSION_EXPIRY, 0)
        self._leave()
        if self._transport is not None:
            self._transport.close()


def _may_enter(limits: Limits, packet: Connect) -> bool:
    """Whether user name and password are right; a password is bytes and need not be text (3.1.3.6)."""
    password = limits.users.get(packet.username or "")
    return password is not None and password.encode() == (packet.password or b"")


def _granted(limits: Limits) -> dict[Property, PropertyValue]:
    """Limits as properties of CONNACK; what has its default value is not said."""
    properties: dict[Property, PropertyValue] = {
        Property.RECEIVE_MAXIMUM: limits.receive_maximum,
        Property.TOPIC_ALIAS_MAXIMUM: min(limits.topic_alias_maximum, TOPIC_ALIASES_MAX),
        Property.MAXIMUM_PACKET_SIZE: limits.packet_bytes_max,
    }
    if limits.maximum_qos < 2:
        properties[Property.MAXIMUM_QOS] = limits.maximum_qos
    if not limits.retain_available:
        properties[Property.RETAIN_AVAILABLE] = 0
    return properties
