"""Reason codes: what a broker's no means, and what the gateway does about it.

The table is the whole policy; README.md prints it for operators. A connection that is refused is always tried again
with back-off, never given up: what is wrong may be cured at the broker, and the gateway cannot see that.

Source: MQTT Version 5.0, 2.4 and the lists of 3.2.2.2, 3.4.2.1 and 3.14.2.1; MQTT Version 3.1.1, table 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto, unique

from framegate.contract.errors import Busy, GatewayError, NotConnected, PayloadRefused
from framegate_plugins.mqtt.packets import Version
from framegate_plugins.mqtt.properties import Properties, Property, words

SUCCESS = 0x00
NO_MATCHING_SUBSCRIBERS = 0x10
UNSUPPORTED_VERSION = 0x84
USE_ANOTHER_SERVER = 0x9C
SERVER_MOVED = 0x9D
HOLD_S = 0.05
FIRST_REFUSAL = 0x80
"""Codes from here on are refusals (2.4)."""


@unique
class Action(Enum):
    """What comes next."""

    BACK_OFF = auto()  # reconnect later; nothing is given up
    AFRESH = auto()  # both sides disagree about the session: reconnect with a new one, send again what is open
    AGAIN = auto()  # the same message a little later
    REFUSED = auto()  # this message will never be taken


_TABLE: Mapping[int, tuple[str, Action, str]] = {
    0x80: ("unspecified error", Action.AGAIN, "see the broker's log"),
    0x81: ("malformed packet", Action.AFRESH, "report it with a capture of the endpoint"),
    0x82: ("protocol error", Action.AFRESH, "report it with a capture of the endpoint"),
    0x83: ("implementation specific error", Action.AGAIN, "see the broker's log"),
    0x84: ("unsupported protocol version", Action.BACK_OFF, 'set option version to "auto" or to one it speaks'),
    0x85: ("client identifier not valid", Action.BACK_OFF, "set option client_id to one the broker accepts"),
    0x86: ("bad user name or password", Action.BACK_OFF, "correct credentials of the endpoint"),
    0x87: ("not authorised", Action.BACK_OFF, "let the broker allow this client to publish to this topic"),
    0x88: ("server unavailable", Action.BACK_OFF, "see the broker's log"),
    0x89: ("server busy", Action.BACK_OFF, "see the broker's load"),
    0x8A: ("banned", Action.BACK_OFF, "lift the ban at the broker"),
    0x8B: ("server shutting down", Action.BACK_OFF, "it should come back by itself"),
    0x8C: ("bad authentication method", Action.BACK_OFF, "use user name and password, or a client certificate"),
    0x8D: ("keep alive timeout", Action.BACK_OFF, "raise option keep_alive, or check the network"),
    0x8E: ("session taken over", Action.BACK_OFF, "another client uses the same client_id; give each its own"),
    0x90: ("topic name invalid", Action.REFUSED, "correct the topic of the connector"),
    0x91: ("packet identifier in use", Action.AFRESH, "nothing; the session starts afresh"),
    0x92: ("packet identifier not found", Action.AFRESH, "nothing; the session starts afresh"),
    0x93: ("receive maximum exceeded", Action.AFRESH, "lower option inflight_max"),
    0x94: ("topic alias invalid", Action.BACK_OFF, "set option topic_alias to false"),
    0x95: ("packet too large", Action.REFUSED, "lower batch of the connector, or raise the broker's limit"),
    0x96: ("message rate too high", Action.BACK_OFF, "raise the broker's limit, or batch more rows per message"),
    0x97: ("quota exceeded", Action.AGAIN, "raise the broker's quota"),
    0x98: ("administrative action", Action.BACK_OFF, "ask the broker's administrator"),
    0x99: ("payload format invalid", Action.REFUSED, "choose an encoding the broker accepts"),
    0x9A: ("retain not supported", Action.BACK_OFF, "set option retain to false and remove status_topic"),
    0x9B: ("QoS not supported", Action.AFRESH, "lower option qos"),
    0x9C: ("use another server", Action.BACK_OFF, "name that server in endpoints.yml"),
    0x9D: ("server moved", Action.BACK_OFF, "name that server in endpoints.yml"),
    0x9F: ("connection rate exceeded", Action.BACK_OFF, "nothing; the gateway waits longer each time"),
    0xA0: ("maximum connect time", Action.BACK_OFF, "nothing; the gateway reconnects"),
}
# Return codes of a 3.1.1 CONNACK, as the codes of MQTT 5 that mean the same.
_RETURN_CODES = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
_LOGIN_CODES = {0x86, 0x87, 0x8A, 0x8C}


class Redirected(NotConnected):
    """The broker names another server, in `server`; `is_permanent`: for good (server moved)."""

    def __init__(self, text: str, *, server: str, is_permanent: bool) -> None:
        super().__init__(text, code="E5106")
        self.server = server
        self.is_permanent = is_permanent


class VersionRefused(NotConnected):
    """The broker does not speak MQTT 5."""


def describe(reason: int) -> str:
    """Words for a code: "quota exceeded (0x97)"."""
    return f"{_TABLE[reason][0] if reason in _TABLE else 'unknown reason'} ({reason:#04x})"


def action(reason: int) -> Action:
    """What a refusal calls for; an unknown code is met with patience."""
    return _TABLE[reason][1] if reason in _TABLE else Action.BACK_OFF


def connack_code(reason: int, version: Version) -> int:
    """A CONNACK's answer as a code of MQTT 5; brokers that speak no MQTT 5 answer with 3.1.1's return codes."""
    if version is Version.V3_1_1 or reason < FIRST_REFUSAL:
        return _RETURN_CODES.get(reason, reason)
    return reason


def connect_refusal(where: str, reason: int, properties: Properties) -> NotConnected:
    """Why the broker did not take the connection."""
    if reason in {USE_ANOTHER_SERVER, SERVER_MOVED}:
        return _redirect(where, reason, properties)
    text = f"{where}: the broker refused the connection: {_reason_words(reason, properties)}"
    if reason == UNSUPPORTED_VERSION:
        return VersionRefused(text, code="E5111")
    return NotConnected(text, code="E5105" if reason in _LOGIN_CODES else "E5102")


def disconnection(where: str, reason: int, properties: Properties) -> NotConnected:
    """Why the broker ended the connection."""
    if reason in {USE_ANOTHER_SERVER, SERVER_MOVED}:
        return _redirect(where, reason, properties)
    text = f"{where}: the broker ended the connection: {_reason_words(reason, properties)}"
    return NotConnected(text, code="E5105" if reason in _LOGIN_CODES else "E5104")


def message_refusal(topic: bytes, position: int, reason: int, wait_s: float) -> GatewayError:
    """What a refused PUBLISH means for the window it came from."""
    what = f"message to topic {topic.decode(errors='replace')} at position {position}"
    text = f"{what}: the broker answered {_reason_words(reason, {})}"
    wanted = action(reason)
    if wanted is Action.REFUSED:
        return PayloadRefused(text, code="E5107")
    if wanted is Action.AGAIN:
        return Busy(text, wait_s=wait_s, code="E5109")
    return NotConnected(text, code="E5105" if reason in _LOGIN_CODES else "E5104")


def unsendable(topic: bytes, position: int, reason: str) -> PayloadRefused:
    """A message that the broker has said beforehand it will not take."""
    text = f"message to topic {topic.decode(errors='replace')} at position {position} cannot be sent: {reason}"
    return PayloadRefused(f"{text}; lower batch of the connector, or correct its topic", code="E5108")


def held_back() -> Busy:
    """Why a window that is itself in order has to wait."""
    text = "messages wait behind one that the broker refused; they are sent after that one was tried again"
    return Busy(text, wait_s=HOLD_S, code="E5109")


def _redirect(where: str, reason: int, properties: Properties) -> Redirected:
    server = words(properties, Property.SERVER_REFERENCE)
    named = f"the broker asks to use server {server}" if server else "the broker asks to use another server, unnamed"
    text = f"{where}: {named} ({reason:#04x}); set that server as url of the endpoint, or map it with option servers"
    return Redirected(text, server=server, is_permanent=reason == SERVER_MOVED)


def _reason_words(reason: int, properties: Properties) -> str:
    said = words(properties, Property.REASON_STRING)
    hint = _TABLE[reason][2] if reason in _TABLE else "see the broker's log"
    return f"{describe(reason)}{f', {said!r}' if said else ''}; {hint}"
