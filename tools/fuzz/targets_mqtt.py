"""MQTT: packets alone, what a hostile broker may say to the client, and a hostile client to the broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable, Sequence
from random import Random
from typing import cast

from framegate.contract.connector import Window
from framegate.contract.errors import FrameBroken, GatewayError, NotConnected
from framegate.contract.frame import Position
from framegate.endpoint.clock import SystemClock
from framegate_plugins.mqtt.broker import Broker
from framegate_plugins.mqtt.broker_client import BrokerClient
from framegate_plugins.mqtt.client import Client
from framegate_plugins.mqtt.codec import PacketReader, decode, encode
from framegate_plugins.mqtt.faults import Limits
from framegate_plugins.mqtt.fields import varint
from framegate_plugins.mqtt.link import Link
from framegate_plugins.mqtt.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    TopicFilter,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
)
from framegate_plugins.mqtt.properties import Kind, Property
from framegate_plugins.mqtt.publish import PublishStyle, PublishWriter
from framegate_plugins.mqtt.session import ClientSession
from tools.fuzz.target import Target, pieces

WHOLE, TORN = b"\xff", b"\x05"
_SPOKEN = {"v5": Version.V5, "v311": Version.V3_1_1}
_FROM_BROKER: Sequence[Packet] = (
    Connack(False, 0, {Property.RECEIVE_MAXIMUM: 20, Property.ASSIGNED_CLIENT_IDENTIFIER: "a"}),
    Connack(False, 0x9C, {Property.SERVER_REFERENCE: "other:1883"}),
    Ack(Kind.PUBACK, 1),
    Ack(Kind.PUBREC, 1, 0x97, {Property.REASON_STRING: "quota"}),
    Ack(Kind.PUBCOMP, 2),
    Publish("t/a", b"payload", 1, packet_id=7, properties={Property.TOPIC_ALIAS: 1}),
    Suback(3, (0, 1, 0x80)),
    Unsuback(4, (0, 0x11)),
    Pingresp(),
    Disconnect(0x8B, {Property.REASON_STRING: "bye"}),
    Auth(0x18, {Property.AUTHENTICATION_METHOD: "x"}),
)
_FROM_CLIENT: Sequence[Packet] = (
    Connect(
        "c", keep_alive_s=10, username="u", password=b"p", will=Will("w", b"gone", 1, retain=True),
        properties={Property.SESSION_EXPIRY: 60, Property.RECEIVE_MAXIMUM: 3},
    ),
    Connect("", clean=True),
    Publish("t/a", b"payload", 2, packet_id=7, properties={Property.USER_PROPERTY: (("k", "v"),)}),
    Publish("t/b", b"", 0, retain=True),
    Ack(Kind.PUBREL, 7),
    Ack(Kind.PUBACK, 1),
    Subscribe(8, (TopicFilter("t/+", 2), TopicFilter("$share/g/#", 1)), {Property.SUBSCRIPTION_IDENTIFIER: (5,)}),
    Unsubscribe(9, ("t/+", "nix")),
    Pingreq(),
    Disconnect(4),
)  # fmt: skip
_CONNECTS = {
    version: encode(Connect("fuzz", version, username="u", password=b"p"), version) for version in _SPOKEN.values()
}


def _written(packets: Sequence[Packet], version: Version) -> list[bytes]:
    """Those packets that this version has."""
    written: list[bytes] = []
    for packet in packets:
        with contextlib.suppress(KeyError, AssertionError, FrameBroken):
            written.append(encode(packet, version))
    return written


def sealed(case: bytes, dice: Random) -> bytes:
    """The length of the one packet put right."""
    body = case[2:]
    return case[:1] + body[:1] + varint(len(body[1:])) + body[1:]


# -- packets -----------------------------------------------------------------------------------------------------


def _packets(name: str) -> Target:
    version = _SPOKEN[name]

    def run(case: bytes) -> Hashable:
        """What is read can be written, and is read as the same again."""
        reader = PacketReader(version, 4_096)
        kinds: list[str] = []
        for piece in pieces(case):
            for packet in reader.feed(piece):
                kinds.append(type(packet).__name__)
                spoken = packet.version if isinstance(packet, Connect) else reader.version
                assert decode(encode(packet, spoken), spoken) == packet, "a packet comes back as it was"
        return name, tuple(kinds[:6])

    def seeds() -> list[bytes]:
        packets = _written((*_FROM_BROKER, *_FROM_CLIENT), version)
        return [WHOLE + packet for packet in packets] + [TORN + b"".join(packets)]

    return Target(f"mqtt-packets-{name}", run, (FrameBroken,), seeds, sealed)


# -- the client --------------------------------------------------------------------------------------------------


class Line:
    """A line that swallows what is written."""

    url = "memory://fuzz"
    is_datagram = False

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def write_pending(self) -> int:
        return 0

    def gather(self, size: int) -> None: ...

    def close(self) -> None: ...


def _client(name: str, qos: int) -> Target:
    version = _SPOKEN[name]

    def run(case: bytes) -> Hashable:
        """A client that has asked to connect and, once it may, has two windows under way."""
        session, line = ClientSession(), Line()
        client = Client("c", session, SystemClock())
        client.line_made(line)
        # As connect() does, which would wait for the answer.
        client.version = version
        client._answer = answer = asyncio.get_running_loop().create_future()  # noqa: SLF001
        ended: list[GatewayError | None] = []
        losses: list[bool] = []
        client.on_lost = lambda error: losses.append(session.detach(error))
        is_attached = False
        for piece in pieces(case):
            client.data_received(piece)
            if client.is_accepted and not is_attached:
                is_attached = True
                session.attach(
                    Link(PublishWriter(PublishStyle(version, qos)), client.write, lambda: 0, 5), is_resumed=False
                )
                for first in (1, 9):
                    session.offer(_window(first), ended.append)
        session.detach(NotConnected("over"))
        client.line_lost(NotConnected("over"))
        if answer.done():
            answer.exception()  # seen: nobody complains of it
        error = client.error.stable_code if client.error else ""
        return name, qos, error, min(line.written, 999), tuple(type(end).__name__ for end in ended)

    def seeds() -> list[bytes]:
        packets = _written(_FROM_BROKER, version)
        accepted = encode(Connack(), version)
        acks = b"".join(encode(Ack(Kind.PUBACK if qos == 1 else Kind.PUBREC, n), version) for n in range(1, 6))
        done = b"".join(encode(Ack(Kind.PUBCOMP, n), version) for n in range(1, 6))
        return [
            *(WHOLE + packet for packet in packets),
            *(bytes((len(accepted),)) + accepted + packet for packet in packets),
            bytes((len(accepted),)) + accepted + acks + done,
        ]

    return Target(f"mqtt-client-{name}-qos{qos}", run, (), seeds, sealed)


def _window(first: int) -> Window:
    places = list(range(first, first + 8))
    keys = [b"t/%d" % (place % 3) for place in places]
    payload = [b"%d" % place for place in places]
    return Window(Position(first), Position(first + 7), keys, payload, places, [1] * 8, "text/plain")


# -- the broker --------------------------------------------------------------------------------------------------


class _Transport:
    """As much of a transport as the broker uses."""

    def __init__(self) -> None:
        self.written = 0
        self.is_over = False

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        self.is_over = True

    def abort(self) -> None:
        self.is_over = True

    def set_write_buffer_limits(self, high: int) -> None: ...


def _broker(name: str) -> Target:
    version = _SPOKEN[name]

    def run(case: bytes) -> Hashable:
        """A client speaks that has connected, or has not, where the case begins with an even byte."""
        broker = Broker(Limits(users={"u": "p"}))
        client, transport = BrokerClient(broker), _Transport()
        client.connection_made(cast(asyncio.Transport, transport))
        if case[:1] and case[0] & 1:
            client.data_received(_CONNECTS[version])
        for piece in pieces(case):
            client.data_received(piece)
        client.connection_lost(None)
        counts = broker.counts
        return name, transport.is_over, min(transport.written, 300), min(counts.messages, 3), min(counts.violations, 2)

    def seeds() -> list[bytes]:
        packets = _written(_FROM_CLIENT, version)
        whole = b"".join(packets[2:])
        return [*(mark + packet for packet in packets for mark in (WHOLE, b"\xfe")), WHOLE + whole, TORN + whole]

    return Target(f"mqtt-broker-{name}", run, (), seeds, sealed)


TARGETS: Sequence[Target] = (
    *map(_packets, _SPOKEN),
    _client("v5", 1),
    _client("v5", 2),
    _client("v311", 1),
    *map(_broker, _SPOKEN),
)
