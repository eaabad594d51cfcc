"""The packets of MQTT 3.1.1 and 5 as frozen records. How they are written is in codec.py.

Fields that only MQTT 5 has (properties, reason codes) keep their defaults under 3.1.1.

Source: MQTT Version 5.0, chapter 3; MQTT Version 3.1.1, chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Literal, TypeAlias

from framegate_plugins.mqtt.properties import Kind, Properties, no_properties

QOS_MAX = 2


@unique
class Version(IntEnum):
    """Protocol levels, as they stand in CONNECT."""

    V3_1_1 = 4
    V5 = 5

    @property
    def words(self) -> str:
        return "5" if self is Version.V5 else "3.1.1"


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = field(default_factory=no_properties)


@dataclass(frozen=True, slots=True)
class Connect:
    """clean: Clean Session in 3.1.1, Clean Start in 5."""

    client_id: str
    version: Version = Version.V5
    clean: bool = True
    keep_alive_s: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = field(default_factory=no_properties)

    def __repr__(self) -> str:
        return f"Connect(client_id={self.client_id!r}, version={self.version.words}, clean={self.clean})"


@dataclass(frozen=True, slots=True)
class Connack:
    session_present: bool = False
    reason: int = 0
    properties: Properties = field(default_factory=no_properties)


@dataclass(frozen=True, slots=True)
class Publish:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = field(default_factory=no_properties)


AckKind: TypeAlias = Literal[Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP]


@dataclass(frozen=True, slots=True)
class Ack:
    """PUBACK, PUBREC, PUBREL or PUBCOMP: one shape."""

    kind: AckKind
    packet_id: int
    reason: int = 0
    properties: Properties = field(default_factory=no_properties)


@dataclass(frozen=True, slots=True)
class TopicFilter:
    """One line of a SUBSCRIBE, with its options (3.8.3.1)."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(frozen=True, slots=True)
class Subscribe:
    packet_id: int
    topics: tuple[TopicFilter, ...]
    properties: Properties = field(default_factory=no_properties)


@dataclass(frozen=True, slots=True)
class Suback:
    packet_id: int
    reasons: tuple[int, ...]
    properties: Properties = field(default_factory=no_properties)


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = field(default_factory=no_properties)


@dataclass(frozen=True, slots=True)
class Unsuback:
    """reasons: one per filter in MQTT 5, none in 3.1.1."""

    packet_id: int
    reasons: tuple[int, ...] = ()
    properties: Properties = field(default_factory=no_properties)


@dataclass(frozen=True, slots=True)
class Pingreq:
    pass


@dataclass(frozen=True, slots=True)
class Pingresp:
    pass


@dataclass(frozen=True, slots=True)
class Disconnect:
    reason: int = 0
    properties: Properties = field(default_factory=no_properties)


@dataclass(frozen=True, slots=True)
class Auth:
    reason: int = 0
    properties: Properties = field(default_factory=no_properties)


Packet: TypeAlias = (
    Connect
    | Connack
    | Publish
    | Ack
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
