"""Properties of MQTT 5: which exist, what they hold, where they may stand.

Pure. A set of properties is a plain mapping from Property to its value; the table below is the whole knowledge.
MQTT 3.1.1 has none.

Source: MQTT Version 5.0, 2.2.2 (table 2-4).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum, auto, unique
from types import MappingProxyType
from typing import TypeAlias

from framegate_plugins.mqtt.fields import Fields, binary, broken, text, varint


@unique
class Kind(IntEnum):
    """Packet types (2.1.2); WILL stands for the properties of a will, which have a place of their own."""

    WILL = 0
    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


@unique
class Property(IntEnum):
    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_IDENTIFIER = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


@unique
class Form(Enum):
    """How a value is written."""

    FLAG = auto()  # one byte, 0 or 1
    U16 = auto()
    U16_POSITIVE = auto()
    U32 = auto()
    U32_POSITIVE = auto()
    VARINT_POSITIVE = auto()
    TEXT = auto()
    BINARY = auto()
    PAIRS = auto()  # (name, value), any number of times


UserProperties: TypeAlias = tuple[tuple[str, str], ...]
PropertyValue: TypeAlias = int | str | bytes | UserProperties | tuple[int, ...]
Properties: TypeAlias = Mapping[Property, PropertyValue]
NO_PROPERTIES: Properties = MappingProxyType({})

_P, _K, _F = Property, Kind, Form
_ANSWERS = {_K.CONNACK, _K.PUBACK, _K.PUBREC, _K.PUBREL, _K.PUBCOMP, _K.SUBACK, _K.UNSUBACK, _K.DISCONNECT, _K.AUTH}
_MESSAGE = {_K.PUBLISH, _K.WILL}
_TABLE: Mapping[Property, tuple[Form, set[Kind]]] = {
    _P.PAYLOAD_FORMAT: (_F.FLAG, _MESSAGE),
    _P.MESSAGE_EXPIRY: (_F.U32, _MESSAGE),
    _P.CONTENT_TYPE: (_F.TEXT, _MESSAGE),
    _P.RESPONSE_TOPIC: (_F.TEXT, _MESSAGE),
    _P.CORRELATION_DATA: (_F.BINARY, _MESSAGE),
    _P.SUBSCRIPTION_IDENTIFIER: (_F.VARINT_POSITIVE, {_K.PUBLISH, _K.SUBSCRIBE}),
    _P.SESSION_EXPIRY: (_F.U32, {_K.CONNECT, _K.CONNACK, _K.DISCONNECT}),
    _P.ASSIGNED_CLIENT_IDENTIFIER: (_F.TEXT, {_K.CONNACK}),
    _P.SERVER_KEEP_ALIVE: (_F.U16, {_K.CONNACK}),
    _P.AUTHENTICATION_METHOD: (_F.TEXT, {_K.CONNECT, _K.CONNACK, _K.AUTH}),
    _P.AUTHENTICATION_DATA: (_F.BINARY, {_K.CONNECT, _K.CONNACK, _K.AUTH}),
    _P.REQUEST_PROBLEM_INFORMATION: (_F.FLAG, {_K.CONNECT}),
    _P.WILL_DELAY: (_F.U32, {_K.WILL}),
    _P.REQUEST_RESPONSE_INFORMATION: (_F.FLAG, {_K.CONNECT}),
    _P.RESPONSE_INFORMATION: (_F.TEXT, {_K.CONNACK}),
    _P.SERVER_REFERENCE: (_F.TEXT, {_K.CONNACK, _K.DISCONNECT}),
    _P.REASON_STRING: (_F.TEXT, _ANSWERS),
    _P.RECEIVE_MAXIMUM: (_F.U16_POSITIVE, {_K.CONNECT, _K.CONNACK}),
    _P.TOPIC_ALIAS_MAXIMUM: (_F.U16, {_K.CONNECT, _K.CONNACK}),
    _P.TOPIC_ALIAS: (_F.U16_POSITIVE, {_K.PUBLISH}),
    _P.MAXIMUM_QOS: (_F.FLAG, {_K.CONNACK}),
    _P.RETAIN_AVAILABLE: (_F.FLAG, {_K.CONNACK}),
    _P.USER_PROPERTY: (_F.PAIRS, set(_K) - {_K.PINGREQ, _K.PINGRESP}),
    _P.MAXIMUM_PACKET_SIZE: (_F.U32_POSITIVE, {_K.CONNECT, _K.CONNACK}),
    _P.WILDCARD_SUBSCRIPTION_AVAILABLE: (_F.FLAG, {_K.CONNACK}),
    _P.SUBSCRIPTION_IDENTIFIER_AVAILABLE: (_F.FLAG, {_K.CONNACK}),
    _P.SHARED_SUBSCRIPTION_AVAILABLE: (_F.FLAG, {_K.CONNACK}),
}
_BY_ID = {int(name): (name, *_TABLE[name]) for name in Property}
_POSITIVE = {_F.U16_POSITIVE, _F.U32_POSITIVE, _F.VARINT_POSITIVE}


def no_properties() -> Properties:
    """The empty set, shared."""
    return NO_PROPERTIES


def encode_properties(properties: Properties) -> bytes:
    """The block with its length in front (2.2.2)."""
    block = b"".join(encode_property(name, value) for name, value in properties.items())
    return varint(len(block)) + block


def encode_property(name: Property, value: PropertyValue) -> bytes:
    """One property; a user property or subscription identifier as often as it has values."""
    form, _ = _TABLE[name]
    if isinstance(value, tuple):
        parts = [text(item[0]) + text(item[1]) if isinstance(item, tuple) else varint(item) for item in value]
        return b"".join(bytes((name,)) + part for part in parts)
    if isinstance(value, str):
        body = text(value)
    elif isinstance(value, bytes):
        body = binary(value)
    elif form is Form.FLAG:
        body = bytes((value,))
    elif form is Form.VARINT_POSITIVE:
        body = varint(value)
    else:
        body = value.to_bytes(2 if form in {Form.U16, Form.U16_POSITIVE} else 4, "big")
    return bytes((name,)) + body


def decode_properties(fields: Fields, kind: Kind) -> Properties:
    """The properties that stand next; raises FrameBroken for one that is unknown, misplaced or repeated."""
    block = fields.section(fields.varint("property length"), "the property block")
    if not block:
        return NO_PROPERTIES
    found: dict[Property, PropertyValue] = {}
    pairs: list[tuple[str, str]] = []
    identifiers: list[int] = []
    while block:
        number = block.varint("a property identifier")
        if number not in _BY_ID:
            raise broken(f"property {number:#04x} does not exist")
        name, form, places = _BY_ID[number]
        if kind not in places:
            raise broken(f"property {name.name} must not stand in {kind.name}")
        if form is Form.PAIRS:
            pairs.append((block.text("a user property"), block.text("a user property")))
            continue
        value = _decode_value(block, form, name.name)
        if name is Property.SUBSCRIPTION_IDENTIFIER and kind is Kind.PUBLISH:
            assert isinstance(value, int)
            identifiers.append(value)
            continue
        if name in found:
            raise broken(f"property {name.name} stands twice")
        found[name] = value
    if pairs:
        found[Property.USER_PROPERTY] = tuple(pairs)
    if identifiers:
        found[Property.SUBSCRIPTION_IDENTIFIER] = tuple(identifiers)
    return found


def _decode_value(block: Fields, form: Form, name: str) -> int | str | bytes:
    if form is Form.TEXT:
        return block.text(name)
    if form is Form.BINARY:
        return block.binary(name)
    if form is Form.FLAG:
        value = block.byte(name)
        if value > 1:
            raise broken(f"property {name} is {value}; 0 and 1 are allowed")
        return value
    if form is Form.VARINT_POSITIVE:
        value = block.varint(name)
    elif form in {Form.U16, Form.U16_POSITIVE}:
        value = block.u16(name)
    else:
        value = block.u32(name)
    if value == 0 and form in _POSITIVE:
        raise broken(f"property {name} must not be 0")
    return value


def integer(properties: Properties, name: Property, default: int) -> int:
    value = properties.get(name, default)
    assert isinstance(value, int)
    return value


def words(properties: Properties, name: Property) -> str:
    """A text property, "" when it is absent."""
    value = properties.get(name, "")
    assert isinstance(value, str)
    return value


def user_properties(properties: Properties) -> UserProperties:
    return properties.get(Property.USER_PROPERTY, ())  # type: ignore[return-value]  # the table says so
