"""Packets <-> bytes, for MQTT 3.1.1 and 5. Pure: no socket, no session, no clock.

`encode` and `decode` take one whole packet; `PacketReader` cuts a stream into packets with a bound on their size.
Whatever the bytes, only FrameBroken and FrameShort come out. Reason codes are not judged: brokers send codes that
the standard does not list for that packet (mosquitto answers PUBACK 0x95), and what they mean is in reason.py.

The connector's PUBLISH has a writer of its own for speed, publish.py; tests hold the two against each other.
Source: MQTT Version 5.0, chapters 2 and 3; MQTT Version 3.1.1, chapters 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from framegate.contract.errors import FrameBroken, FrameShort
from framegate_plugins.mqtt.fields import VARINT_MAX, Fields, binary, broken, read_varint, text, varint
from framegate_plugins.mqtt.packets import (
    Ack,
    AckKind,
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
from framegate_plugins.mqtt.properties import (
    NO_PROPERTIES,
    Kind,
    Properties,
    Property,
    decode_properties,
    encode_properties,
)
from framegate_plugins.mqtt.topics import is_topic_name

PACKET_BYTES_MAX = VARINT_MAX + 5
_RESERVED_FLAGS = {Kind.PUBREL: 2, Kind.SUBSCRIBE: 2, Kind.UNSUBSCRIBE: 2}
_PROTOCOL_NAME = "MQTT"


class VersionUnsupported(FrameBroken):
    """A CONNECT of a protocol level that is neither 3.1.1 nor 5."""

    def __init__(self, level: int) -> None:
        super().__init__(f"MQTT packet: CONNECT asks for protocol level {level}; 4 and 5 exist here", code="E5100")
        self.level = level


# -- one packet -----------------------------------------------------------------------------------------------


def encode(packet: Packet, version: Version = Version.V5) -> bytes:
    """One packet as bytes; properties are left out under 3.1.1.

    raises FrameBroken - a field cannot be written
    """
    kind, flags, body = _ENCODERS[type(packet)](packet, version)
    return bytes((kind << 4 | flags,)) + varint(len(body)) + body


def decode(data: bytes, version: Version = Version.V5) -> Packet:
    """The packet that these bytes are, no more and no less.

    raises FrameShort - more bytes needed; FrameBroken - no valid packet
    """
    frame = frame_bounds(data, 0, PACKET_BYTES_MAX)
    if frame is None:
        raise FrameShort("MQTT packet: more bytes needed", code="E5100")
    start, end = frame
    if end != len(data):
        raise broken(f"{len(data) - end} bytes follow the packet")
    return decode_body(data[0], data[start:end], version)


def frame_bounds(data: bytes, at: int, packet_bytes_max: int) -> tuple[int, int] | None:
    """Where the body of the packet at `at` starts and ends; None while bytes are missing.

    raises FrameBroken - the packet is longer than the bound, or has no valid length
    """
    length = read_varint(data, at + 1)
    if length is None:
        return None
    size, start = length
    if start - at + size > packet_bytes_max:
        raise broken(f"it has {start - at + size} bytes; {packet_bytes_max} are allowed here")
    return None if start + size > len(data) else (start, start + size)


def decode_body(first: int, body: bytes, version: Version) -> Packet:
    """A packet from its first byte and what follows its length; raises FrameBroken."""
    number, flags = first >> 4, first & 15
    if number == Kind.PUBLISH:
        return _decode_publish(flags, body, version)
    decoder = _DECODERS.get(number)
    if decoder is None or (number == Kind.AUTH and version is not Version.V5):
        raise broken(f"packet type {number} does not exist")
    kind = Kind(number)
    if flags != _RESERVED_FLAGS.get(kind, 0):
        raise broken(f"{kind.name} has flags {flags:#x}")
    fields = Fields(body)
    packet = decoder(fields, version)
    fields.finish(kind.name)
    return packet


class PacketReader:
    """Cuts a stream into packets."""

    def __init__(self, version: Version = Version.V5, packet_bytes_max: int = PACKET_BYTES_MAX) -> None:
        self.version = version
        self.packet_bytes_max = packet_bytes_max
        self._kept = bytearray()
        self._needed = 2

    def feed(self, data: bytes) -> list[Packet]:
        """Every packet that is now complete; a CONNECT among them sets the version.

        raises FrameBroken - the stream cannot be read on; packets before the broken one are lost with it
        """
        self._kept += data
        if len(self._kept) < self._needed:
            return []
        data, at, packets = bytes(self._kept), 0, []
        while at < len(data):
            frame = frame_bounds(data, at, self.packet_bytes_max)
            if frame is None:
                break
            packet = decode_body(data[at], data[frame[0] : frame[1]], self.version)
            if isinstance(packet, Connect):
                self.version = packet.version
            packets.append(packet)
            at = frame[1]
        self._kept = bytearray(data[at:])
        self._needed = _bytes_needed(data, at)
        return packets


def _bytes_needed(data: bytes, at: int) -> int:
    """How long the packet that has begun will be, as far as that is known: spares looking at each small piece."""
    length = read_varint(data, at + 1)
    return 2 if length is None else length[0] + length[1] - at


# -- encoders -------------------------------------------------------------------------------------------------

_Encoded = tuple[Kind, int, bytes]


def _block(properties: Properties, version: Version) -> bytes:
    return encode_properties(properties) if version is Version.V5 else b""


def _encode_connect(packet: Connect, _: Version) -> _Encoded:
    will, version = packet.will, packet.version
    flags = packet.clean << 1 | (packet.password is not None) << 6 | (packet.username is not None) << 7
    payload = text(packet.client_id)
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        payload += _block(will.properties, version) + text(will.topic) + binary(will.payload)
    if packet.username is not None:
        payload += text(packet.username)
    if packet.password is not None:
        payload += binary(packet.password)
    header = text(_PROTOCOL_NAME) + bytes((version, flags)) + packet.keep_alive_s.to_bytes(2, "big")
    return Kind.CONNECT, 0, header + _block(packet.properties, version) + payload


def _encode_connack(packet: Connack, version: Version) -> _Encoded:
    return Kind.CONNACK, 0, bytes((packet.session_present, packet.reason)) + _block(packet.properties, version)


def _encode_publish(packet: Publish, version: Version) -> _Encoded:
    packet_id = packet.packet_id.to_bytes(2, "big") if packet.qos else b""
    flags = packet.dup << 3 | packet.qos << 1 | packet.retain
    return Kind.PUBLISH, flags, text(packet.topic) + packet_id + _block(packet.properties, version) + packet.payload


def _encode_ack(packet: Ack, version: Version) -> _Encoded:
    body = packet.packet_id.to_bytes(2, "big")
    if version is Version.V5 and (packet.reason or packet.properties):
        body += bytes((packet.reason,)) + (encode_properties(packet.properties) if packet.properties else b"")
    return packet.kind, _RESERVED_FLAGS.get(packet.kind, 0), body


def _encode_subscribe(packet: Subscribe, version: Version) -> _Encoded:
    body = packet.packet_id.to_bytes(2, "big") + _block(packet.properties, version)
    for topic in packet.topics:
        options = topic.qos
        if version is Version.V5:
            options |= topic.no_local << 2 | topic.retain_as_published << 3 | topic.retain_handling << 4
        body += text(topic.filter) + bytes((options,))
    return Kind.SUBSCRIBE, 2, body


def _encode_suback(packet: Suback, version: Version) -> _Encoded:
    body = packet.packet_id.to_bytes(2, "big") + _block(packet.properties, version)
    return Kind.SUBACK, 0, body + bytes(packet.reasons)


def _encode_unsubscribe(packet: Unsubscribe, version: Version) -> _Encoded:
    body = packet.packet_id.to_bytes(2, "big") + _block(packet.properties, version)
    return Kind.UNSUBSCRIBE, 2, body + b"".join(map(text, packet.filters))


def _encode_unsuback(packet: Unsuback, version: Version) -> _Encoded:
    body = packet.packet_id.to_bytes(2, "big")
    if version is Version.V5:
        body += encode_properties(packet.properties) + bytes(packet.reasons)
    return Kind.UNSUBACK, 0, body


def _encode_farewell(packet: Disconnect | Auth, version: Version) -> _Encoded:
    kind = Kind.DISCONNECT if isinstance(packet, Disconnect) else Kind.AUTH
    body = b""
    if version is Version.V5 and (packet.reason or packet.properties):
        body = bytes((packet.reason,)) + (encode_properties(packet.properties) if packet.properties else b"")
    return kind, 0, body


_ENCODERS: Mapping[type, Callable[..., _Encoded]] = {
    Connect: _encode_connect,
    Connack: _encode_connack,
    Publish: _encode_publish,
    Ack: _encode_ack,
    Subscribe: _encode_subscribe,
    Suback: _encode_suback,
    Unsubscribe: _encode_unsubscribe,
    Unsuback: _encode_unsuback,
    Pingreq: lambda *_: (Kind.PINGREQ, 0, b""),
    Pingresp: lambda *_: (Kind.PINGRESP, 0, b""),
    Disconnect: _encode_farewell,
    Auth: _encode_farewell,
}


# -- decoders -------------------------------------------------------------------------------------------------


def _properties(fields: Fields, kind: Kind, version: Version) -> Properties:
    return decode_properties(fields, kind) if version is Version.V5 else NO_PROPERTIES


def _packet_id(fields: Fields) -> int:
    packet_id = fields.u16("packet identifier")
    if packet_id == 0:
        raise broken("the packet identifier is 0")
    return packet_id


def _decode_connect(fields: Fields, _: Version) -> Connect:
    name, level = fields.text("protocol name"), fields.byte("protocol level")
    if name == "MQIsdp" or (name == _PROTOCOL_NAME and level not in {4, 5}):
        raise VersionUnsupported(level)
    if name != _PROTOCOL_NAME:
        raise broken(f"the protocol is called {name[:16]!r}")
    version, flags = Version(level), fields.byte("connect flags")
    has_will, has_name, has_password = flags & 4, flags & 0x80, flags & 0x40
    if flags & 1 or (flags >> 3 & 3) == 3 or (not has_will and flags & 0x38):
        raise broken(f"connect flags {flags:#04x} contradict each other")
    if version is Version.V3_1_1 and has_password and not has_name:
        raise broken("a password without a user name")  # MQTT-3.1.2-22 of 3.1.1; MQTT 5 allows it
    keep_alive_s = fields.u16("keep alive")
    properties = _properties(fields, Kind.CONNECT, version)
    client_id = fields.text("client identifier")
    will = _decode_will(fields, flags, version) if has_will else None
    return Connect(
        client_id=client_id,
        version=version,
        clean=bool(flags & 2),
        keep_alive_s=keep_alive_s,
        username=fields.text("user name") if has_name else None,
        password=fields.binary("password") if has_password else None,
        will=will,
        properties=properties,
    )


def _decode_will(fields: Fields, flags: int, version: Version) -> Will:
    properties = _properties(fields, Kind.WILL, version)
    topic = fields.text("will topic")
    if not is_topic_name(topic):
        raise broken("the will topic is empty or holds a wildcard")
    return Will(topic, fields.binary("will payload"), flags >> 3 & 3, bool(flags & 0x20), properties)


def _decode_connack(fields: Fields, version: Version) -> Connack:
    flags, reason = fields.byte("connack flags"), fields.byte("reason code")
    if flags > 1:
        raise broken(f"connack flags {flags:#04x}")
    # A broker that does not speak our version answers in its own, without properties.
    properties = _properties(fields, Kind.CONNACK, version) if fields or not reason else NO_PROPERTIES
    return Connack(bool(flags), reason, properties)


def _decode_publish(flags: int, body: bytes, version: Version) -> Publish:
    qos, dup = flags >> 1 & 3, bool(flags & 8)
    if qos == 3 or (dup and not qos):
        raise broken(f"PUBLISH has flags {flags:#x}")
    fields = Fields(body)
    topic = fields.text("topic")
    packet_id = _packet_id(fields) if qos else 0
    properties = _properties(fields, Kind.PUBLISH, version)
    if not is_topic_name(topic) and (topic or Property.TOPIC_ALIAS not in properties):
        raise broken("the topic is empty or holds a wildcard")
    return Publish(topic, fields.rest(), qos, bool(flags & 1), dup, packet_id, properties)


def _ack_decoder(kind: AckKind) -> Callable[[Fields, Version], Ack]:
    def decode_ack(fields: Fields, version: Version) -> Ack:
        packet_id = _packet_id(fields)
        if version is not Version.V5 or not fields:
            return Ack(kind, packet_id)
        reason = fields.byte("reason code")
        return Ack(kind, packet_id, reason, decode_properties(fields, kind) if fields else NO_PROPERTIES)

    return decode_ack


def _decode_subscribe(fields: Fields, version: Version) -> Subscribe:
    packet_id = _packet_id(fields)
    properties = _properties(fields, Kind.SUBSCRIBE, version)
    topics = []
    while fields:
        name, options = fields.text("topic filter"), fields.byte("subscription options")
        reserved = 0xC0 if version is Version.V5 else 0xFC
        if options & reserved or options & 3 == 3 or options >> 4 & 3 == 3:
            raise broken(f"subscription options {options:#04x}")
        topics.append(TopicFilter(name, options & 3, bool(options & 4), bool(options & 8), options >> 4 & 3))
    if not topics:
        raise broken("SUBSCRIBE names no topic filter")
    return Subscribe(packet_id, tuple(topics), properties)


def _decode_suback(fields: Fields, version: Version) -> Suback:
    packet_id = _packet_id(fields)
    properties = _properties(fields, Kind.SUBACK, version)
    return Suback(packet_id, tuple(fields.rest()), properties)


def _decode_unsubscribe(fields: Fields, version: Version) -> Unsubscribe:
    packet_id = _packet_id(fields)
    properties = _properties(fields, Kind.UNSUBSCRIBE, version)
    filters = []
    while fields:
        filters.append(fields.text("topic filter"))
    if not filters:
        raise broken("UNSUBSCRIBE names no topic filter")
    return Unsubscribe(packet_id, tuple(filters), properties)


def _decode_unsuback(fields: Fields, version: Version) -> Unsuback:
    packet_id = _packet_id(fields)
    properties = _properties(fields, Kind.UNSUBACK, version)
    return Unsuback(packet_id, tuple(fields.rest()) if version is Version.V5 else (), properties)


def _farewell(fields: Fields, kind: Kind, version: Version) -> tuple[int, Properties]:
    if version is not Version.V5 or not fields:
        return 0, NO_PROPERTIES
    reason = fields.byte("reason code")
    return reason, decode_properties(fields, kind) if fields else NO_PROPERTIES


_DECODERS: Mapping[int, Callable[[Fields, Version], Packet]] = {
    Kind.CONNECT: _decode_connect,
    Kind.CONNACK: _decode_connack,
    **{kind: _ack_decoder(kind) for kind in (Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP)},
    Kind.SUBSCRIBE: _decode_subscribe,
    Kind.SUBACK: _decode_suback,
    Kind.UNSUBSCRIBE: _decode_unsubscribe,
    Kind.UNSUBACK: _decode_unsuback,
    Kind.PINGREQ: lambda *_: Pingreq(),
    Kind.PINGRESP: lambda *_: Pingresp(),
    Kind.DISCONNECT: lambda fields, version: Disconnect(*_farewell(fields, Kind.DISCONNECT, version)),
    Kind.AUTH: lambda fields, version: Auth(*_farewell(fields, Kind.AUTH, version)),
}
