"""What the embedded broker can be told to refuse or to do wrong. Plain switches; they work on a running broker."""

from __future__ import annotations

from dataclasses import dataclass, field

from framegate_plugins.mqtt.packets import QOS_MAX, Version

PACKET_BYTES_MAX = 16 * 1024 * 1024


@dataclass(slots=True)
class Limits:
    """What the broker grants, as it says in CONNACK. Taken up by connections made afterwards.

    server_keep_alive_s  0: the client's own word counts
    users                user name -> password; empty: everybody may come
    """

    versions: frozenset[Version] = frozenset(Version)
    receive_maximum: int = 65_535
    maximum_qos: int = QOS_MAX
    retain_available: bool = True
    packet_bytes_max: int = PACKET_BYTES_MAX
    topic_alias_maximum: int = 64
    server_keep_alive_s: int = 0
    session_expiry_s_max: int = 86_400
    users: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Faults:
    """What goes wrong. All zero: a good broker.

    cut_every        hang up after so many PUBLISH packets, with their acknowledgements not yet sent
    is_reset         hang up by RST instead of FIN
    is_silent        take packets, never answer, not even pings
    refuse           reason code of MQTT 5 for every CONNECT
    redirect         Server Reference for every CONNECT; with is_moved for good (0x9D), else for now (0x9C)
    forget_sessions  every session is new
    ack_delay_s      acknowledgements leave so much later
    refuse_topics    topic -> reason code for its PUBACK or PUBREC; under 3.1.1, which has none, hang up
    expel_topics     topic -> reason code of a DISCONNECT that its PUBLISH provokes
    """

    cut_every: int = 0
    is_reset: bool = False
    is_silent: bool = False
    refuse: int = 0
    redirect: str = ""
    is_moved: bool = False
    forget_sessions: bool = False
    ack_delay_s: float = 0.0
    refuse_topics: dict[str, int] = field(default_factory=dict)
    expel_topics: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """What the broker has seen.

    repeats     PUBLISH packets of QoS 2 that it already had
    violations  PUBLISH packets beyond Receive Maximum
    dropped     messages for subscribers that were full
    """

    connects: int = 0
    resumed: int = 0
    publishes: int = 0
    messages: int = 0
    repeats: int = 0
    violations: int = 0
    dropped: int = 0
    cuts: int = 0
