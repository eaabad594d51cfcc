"""Commands as messages: topics, payloads, and the JSON of an answer. Pure.

    cmd/{tag}    {"id": "01JD...", "value": 42.0, "ttl_ms": 5000}     or a bare JSON value: 42.0
    ack/{tag}    {"id": "01JD...", "tag": "pump7.speed", "outcome": "CONFIRMED", "code": "", ...}

A tag fills one level of a topic; a slash in its name is written %2F there, a sign that no tag holds. Whatever the
payload, only MessageRefused comes out: a key that is not known may be a safety switch misspelt, so it is refused too.

Source: contract/frame.proto (CmdFrame, CmdAckFrame); MQTT Version 5.0, 3.3.2.3 (expiry, response, correlation), 4.7.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from framegate.contract.command import ID_CHARACTERS_MAX, TTL_S, TTL_S_MAX, Command, CommandRecord, Outcome
from framegate.contract.frame import Value
from framegate_plugins.mqtt.packets import Publish
from framegate_plugins.mqtt.properties import Property, PropertyValue, integer, words
from framegate_plugins.mqtt.topics import is_topic_name, matches

PAYLOAD_BYTES_MAX: Final = 4_096
TOPIC_BYTES_MAX: Final = 1_024
CORRELATION_BYTES_MAX: Final = 1_024
TAG_CHARACTERS_MAX: Final = 128  # as contract/tables/variables.schema.json has it
REASON_CHARACTERS_MAX: Final = 1_024
TEXT_CHARACTERS_MAX: Final = 1_024
TAG: Final = "{tag}"
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1
_TIME_MAX = (1 << 63) - 1
_KEPT: Final = {
    Property.RESPONSE_TOPIC: TOPIC_BYTES_MAX,
    Property.CORRELATION_DATA: CORRELATION_BYTES_MAX,
    Property.MESSAGE_EXPIRY: 0,
    Property.TOPIC_ALIAS: 0,
}
"""Properties that mean something here; the longest value of a text or of bytes."""
_KEYS: Final = ("id", "tag", "value", "issued", "ttl_ms", "verify", "retry", "select")
_ID = re.compile(rf"[A-Za-z0-9_.-]{{1,{ID_CHARACTERS_MAX}}}")
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f#+/{}]")  # not within one level of a topic
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_CHARACTERS: Final = 26


class MessageRefused(Exception):
    """A message that is no command; `code` and `text` are for the answer."""

    def __init__(self, text: str, code: str = "E5115") -> None:
        super().__init__(text)
        self.code, self.text = code, text


@dataclass(frozen=True, slots=True)
class ReturnAddress:
    """Where an answer goes; topic "": nobody wants one."""

    topic: str
    correlation: bytes = b""


class CommandTopics:
    """The topics of one connector's commands.

    filter  what is subscribed to: the template with `+` for the tag
    """

    def __init__(self, template: str, reply: str, *, tenant: str, gateway: str) -> None:
        """template and reply hold {tenant}, {gateway} and {tag}; characters that no topic level holds become `_`."""
        names = {"{tenant}": tenant, "{gateway}": gateway}
        self._levels = [_filled(level, names) for level in template.split("/")]
        self._reply = "/".join(_filled(level, names) for level in reply.split("/"))
        self.filter = "/".join("+" if level == TAG else level for level in self._levels)

    @property
    def is_answerable(self) -> bool:
        """Whether the template for answers leads away from the commands."""
        return self._is_safe(self._reply.replace(TAG, "tag"))

    def tag_of(self, topic: str) -> str:
        """The tag that a topic names; raises MessageRefused."""
        if not matches(self.filter, topic):
            raise MessageRefused(f"topic {topic[:80]!r} is none of {self.filter}; send commands there")
        tag = _unescaped(topic.split("/")[self._levels.index(TAG)])
        if not tag or len(tag) > TAG_CHARACTERS_MAX or not tag.isprintable():
            raise MessageRefused(f"topic {topic[:80]!r} names no tag; put its name where {self.filter} has a +")
        return tag

    def answer_to(self, publish: Publish) -> ReturnAddress:
        """Where the sender of a message wants its answer: its response topic, else the template for its tag.

        A topic that would come back to us as a command is none, and neither is one with a wildcard.
        """
        correlation = publish.properties.get(Property.CORRELATION_DATA, b"")
        assert isinstance(correlation, bytes)
        topic = words(publish.properties, Property.RESPONSE_TOPIC)
        if not topic and self._reply and matches(self.filter, publish.topic):
            topic = self._reply.replace(TAG, publish.topic.split("/")[self._levels.index(TAG)])
        if not self._is_safe(topic) or len(correlation) > CORRELATION_BYTES_MAX:
            return ReturnAddress("")
        return ReturnAddress(topic, correlation)

    def _is_safe(self, topic: str) -> bool:
        if not is_topic_name(topic) or topic.startswith("$") or matches(self.filter, topic):
            return False
        return len(topic.encode()) <= TOPIC_BYTES_MAX


def trimmed(publish: Publish) -> Publish:
    """What is kept of a message while it waits: what can be used of it, and enough of the rest to be refused."""
    kept: dict[Property, PropertyValue] = {}
    for name, most in _KEPT.items():
        value = publish.properties.get(name)
        if value is not None:
            kept[name] = value[: most + 1] if isinstance(value, str | bytes) else value
    return replace(publish, topic=publish.topic[: TOPIC_BYTES_MAX + 1], properties=kept)


def command_from(publish: Publish, tag: str, received: int, new_id: str, oversize: int = 0) -> Command:
    """The command that a message carries.

    received  ns UTC, when the message came: Message Expiry counts from there
    new_id    for a message that brings neither an id nor correlation data that could be one
    oversize  bytes of a payload that was not kept
    raises    MessageRefused - retained (E5116), or no command (E5115)
    """
    if publish.retain:
        text = f"tag {tag}: a retained message is no command, it would be written again at each connection"
        raise MessageRefused(f"{text}; publish it without retain, and clear the topic", "E5116")
    if oversize:
        raise MessageRefused(f"tag {tag}: the message has {oversize} bytes; {PAYLOAD_BYTES_MAX} are the most")
    try:
        found = _loaded(publish.payload)
        keys = found if isinstance(found, dict) else {"value": found}
        command = _command(keys, tag, _id_from(publish.properties) or new_id)
    except ValueError as error:
        raise MessageRefused(f"tag {tag}: {error}") from None
    return _expiring(command, publish, received)


def id_from(publish: Publish) -> str:
    """The id that an answer to a message carries, even if the message is no command; "" where it has none."""
    try:
        found = _loaded(publish.payload)
        return _sound_id(found["id"]) if isinstance(found, dict) and "id" in found else _id_from(publish.properties)
    except ValueError:
        return _id_from(publish.properties)


def answer_from(record: CommandRecord) -> bytes:
    """A command's outcome as JSON."""
    assert record.outcome is not None
    command = record.command
    return answer(
        command.id, command.tag, record.outcome, record.code, record.reason, time=record.ended, origin=record.origin
    )


def answer(id_: str, tag: str, outcome: Outcome, code: str, reason: str, *, time: int, origin: str) -> bytes:
    """The JSON of one CmdAckFrame; time in ns UTC."""
    fields = {
        "id": id_,
        "tag": tag,
        "outcome": outcome.name,
        "code": code,
        "reason": reason[:REASON_CHARACTERS_MAX],
        "ts": time,
        "origin": origin,
    }
    return json.dumps(fields, ensure_ascii=False).encode(errors="replace")


def ulid(now_ns: int, chance: bytes) -> str:
    """A ULID of this millisecond; chance: 10 bytes."""
    number = (now_ns // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(chance, "big")
    return "".join(_CROCKFORD[number >> 5 * place & 31] for place in reversed(range(_ULID_CHARACTERS)))


# -- payloads -------------------------------------------------------------------------------------------------


def _loaded(payload: bytes) -> Any:
    """JSON as Python sees it; raises ValueError."""
    if not payload:
        raise ValueError("the message is empty; send a JSON value")
    try:
        return json.loads(payload.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("the message is nested too deeply; send a JSON value or one object") from None
    except UnicodeDecodeError:
        raise ValueError("the message is no UTF-8; send JSON") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the message is no JSON: {error.msg} at character {error.pos}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in the message; say everything once")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON; send a number")


def _command(keys: Mapping[str, Any], tag: str, id_: str) -> Command:
    """raises ValueError"""
    for key in keys:
        if key not in _KEYS:
            raise ValueError(f"key {key[:40]!r} is not known; there are {', '.join(_KEYS)}")
    if "value" not in keys:
        raise ValueError("key 'value' is missing; say what to write")
    if keys.get("tag", tag) != tag:
        raise ValueError("key 'tag' names another tag than the topic; leave it out, or correct one of them")
    return Command(
        id=_sound_id(keys["id"]) if "id" in keys else id_,
        tag=tag,
        value=_value(keys["value"]),
        issued=_time(keys.get("issued", 0)),
        ttl_s=_ttl_s(keys["ttl_ms"]) if "ttl_ms" in keys else TTL_S,
        verify=_switch(keys, "verify"),
        retry=_switch(keys, "retry"),
        select=_switch(keys, "select"),
    )


def _sound_id(value: object) -> str:
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise ValueError(f"key 'id' is not 1 to {ID_CHARACTERS_MAX} letters, digits, '-', '_' or '.'")


def _id_from(properties: Mapping[Property, object]) -> str:
    """Correlation data that could be an id; "" otherwise."""
    data = properties.get(Property.CORRELATION_DATA, b"")
    assert isinstance(data, bytes)
    text = data.decode("ascii", "replace")
    return text if _ID.fullmatch(text) else ""


def _value(value: object) -> Value:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and _INT_MIN <= value <= _INT_MAX:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, str) and len(value) <= TEXT_CHARACTERS_MAX and _is_text(value):
        return value
    raise ValueError(
        "key 'value' is neither true or false, nor a finite number of at most 64 bits, "
        f"nor a text of at most {TEXT_CHARACTERS_MAX} characters"
    )


def _is_text(value: str) -> bool:
    """Whether it holds no half of a surrogate pair, which JSON can spell and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _time(value: object) -> int:
    """ns UTC; raises ValueError."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, TypeError):  # TypeError: it has no zone
            value = (datetime.fromisoformat(value) - _EPOCH) // timedelta(microseconds=1) * 1000
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _TIME_MAX:
        return value
    raise ValueError("key 'issued' is neither a time with its zone, as 2026-01-31T12:00:00Z, nor ns since 1970 UTC")


def _ttl_s(value: object) -> float:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= TTL_S_MAX * 1000:
        return value / 1000
    raise ValueError(f"key 'ttl_ms' is not a whole number from 1 to {TTL_S_MAX * 1000:.0f}")


def _switch(keys: Mapping[str, Any], key: str) -> bool:
    value = keys.get(key, False)
    if isinstance(value, bool):
        return value
    raise ValueError(f"key {key!r} is neither true nor false")


def _expiring(command: Command, publish: Publish, received: int) -> Command:
    """The command with its ttl cut down to what is left of the message's expiry."""
    if Property.MESSAGE_EXPIRY not in publish.properties:
        return command
    left_s = integer(publish.properties, Property.MESSAGE_EXPIRY, 0)
    age_s = (received - command.issued) / 1e9 if command.issued else 0.0
    ttl_s = max(0.0, min(command.ttl_s, age_s + left_s))
    return replace(command, ttl_s=ttl_s)


# -- topics ---------------------------------------------------------------------------------------------------


def _filled(level: str, names: Mapping[str, str]) -> str:
    for placeholder, name in names.items():
        level = level.replace(placeholder, _NO_NAME.sub("_", name))
    return level


def _unescaped(level: str) -> str:
    return level.replace("%2F", "/").replace("%2f", "/")
