"""PUBLISH packets of whole windows, written fast: the only part of the codec that runs once per message.

What is the same for every message of a connection is made once: topic with its length, property block, fixed
header's flags. A message then costs one look-up, one number and a handful of references in a list that is joined
into one write. Topic aliases live here too, because they belong to a connection and to its order of packets.

Source: MQTT Version 5.0, 3.3 (PUBLISH), 3.3.2.3.4 (Topic Alias).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add
from typing import TypeAlias, cast

import orjson

from framegate.contract.connector import Window
from framegate_plugins.mqtt.codec import PACKET_BYTES_MAX
from framegate_plugins.mqtt.fields import BINARY_BYTES_MAX, text, varint
from framegate_plugins.mqtt.packets import Version
from framegate_plugins.mqtt.properties import Property, UserProperties, encode_property
from framegate_plugins.mqtt.topics import is_topic_name

ROUTES_MAX = 65_536
"""Topics whose written form is kept; further ones are written anew each time."""
BACKFILL_PROPERTY: UserProperties = (("backfill", "true"),)
"""Carried by every message with rows that newer ones have overtaken."""
POSITION_DIGITS_MAX = 20
RUN_MIN, RUN_MAX = 16, 4_096
"""Messages that are written at once."""
HEAD_BYTES_MAX = 5
HEADS_MAX = 16_384
"""Fixed headers that are kept; longer tails of the distribution are written anew each time."""
_ALIAS_BYTES = 3
_DUP, _RETAIN = 0x08, 0x01
_NO_TOPIC = b"\0\0"
_Common: TypeAlias = tuple[bytes, bytes, int]


@dataclass(frozen=True, slots=True)
class PublishStyle:
    """What every message of a connection has in common.

    gateway    name for the user property `gateway`; "" leaves it and `pos` out
    alias_max  topic aliases the broker accepts
    """

    version: Version = Version.V5
    qos: int = 1
    retain: bool = False
    packet_bytes_max: int = PACKET_BYTES_MAX
    alias_max: int = 0
    gateway: str = ""
    user_properties: UserProperties = ()


class PublishWriter:
    """Gathers packets in `parts`, `size` bytes in all, until they are taken.

    refusal  why the last run stopped at a message that can never be sent; "" otherwise
    """

    def __init__(self, style: PublishStyle) -> None:
        self.style = style
        self.parts: list[bytes] = []
        self.size = 0
        self.refusal = ""
        self._routes: dict[bytes, tuple[bytes, bytes]] = {}
        self._aliases = 0
        self._alias_max = style.alias_max if style.version is Version.V5 else 0
        self._encoding: str | None = None
        self._is_backfill = False
        self._has_positions = bool(style.gateway) and style.version is Version.V5
        self._lengths: Sequence[bytes] = ()
        self._blocks: Sequence[bytes] = ()
        # What messages of one topic have in common while positions have `digits` digits: topic, everything between
        # packet identifier and position, and the bytes of a packet without its payload.
        self._common: dict[bytes, _Common] = {}
        self._digits = 0
        self._heads: dict[int, bytes] = {}  # by remaining length
        self._first = 0

    def take(self) -> bytes:
        """Everything gathered since the last call."""
        data = b"".join(self.parts)
        self.parts.clear()
        self.size = 0
        return data

    def add_run(
        self, window: Window, indices: Sequence[int], packet_ids: Sequence[int], bytes_max: int, *, dup: bool = False
    ) -> int:
        """Write messages of a window until `size` reaches bytes_max; how many were written.

        packet_ids  one per index; empty for QoS 0
        returns     fewer than asked at the bound, or in front of a message that cannot be sent (see `refusal`)
        """
        if window.encoding != self._encoding or window.is_backfill != self._is_backfill:
            self._prepare(window)
        self.refusal = ""
        heads, written = self._heads_for(dup=dup), 0
        while more := self._add_known(window, indices[written:], packet_ids[written:], bytes_max, heads):
            written += more
        return written + self._add_each(window, indices[written:], packet_ids[written:], bytes_max, dup=dup)

    def _add_known(
        self, window: Window, indices: Sequence[int], packet_ids: Sequence[int], bytes_max: int, heads: dict[int, bytes]
    ) -> int:
        """Write neighbours whose topics are known column by column: how many, from the first on. 0: not these."""
        first = self._common.get(window.key[indices[0]]) if isinstance(indices, range) and indices else None
        if first is None:
            return 0
        each = first[2] + len(window.payload[indices[0]]) + HEAD_BYTES_MAX
        limit = min(len(indices), RUN_MAX, (bytes_max - self.size) * 7 // (each * 8))  # others may be longer
        if limit < RUN_MIN:
            return 0
        run = slice(indices[0], indices[0] + limit)
        payloads, known = window.payload[run], list(map(self._common.get, window.key[run]))
        digits = orjson.dumps(list(window.position[run]))[1:-1].split(b",") if self._has_positions else [b""] * limit
        if None in known or set(map(len, digits)) != {self._digits}:
            return 0
        topics, middles, fixed = zip(*cast(list[_Common], known), strict=True)
        bodies = list(map(add, fixed, map(len, payloads)))
        if max(bodies) + HEAD_BYTES_MAX > self.style.packet_bytes_max:
            return 0
        found = cast(list[bytes], list(map(heads.get, bodies)))
        if None in found:
            found = [self._head(body) for body in bodies]
        size = self.size + sum(bodies) + sum(map(len, found))
        if size >= bytes_max:
            return 0
        parts = [b""] * (6 * limit)
        parts[0::6], parts[1::6], parts[3::6], parts[4::6], parts[5::6] = found, topics, middles, digits, payloads
        if packet_ids:
            parts[2::6] = [packet_id.to_bytes(2, "big") for packet_id in packet_ids[:limit]]
        self.parts += parts
        self.size = size
        return limit

    def _add_each(
        self, window: Window, indices: Sequence[int], packet_ids: Sequence[int], bytes_max: int, *, dup: bool
    ) -> int:
        """Message by message, learning topics, lengths and digits."""
        heads, common = self._heads_for(dup=dup), self._common
        extend, has_positions, size = self.parts.extend, self._has_positions, self.size
        keys, payloads, positions = window.key, window.payload, window.position
        packet_bytes_max = self.style.packet_bytes_max
        packet_id = digits = b""
        self.refusal = ""
        written = 0
        for written, index in enumerate(indices):
            if size >= bytes_max:
                break
            if has_positions:
                digits = b"%d" % positions[index]
                if len(digits) != self._digits:
                    self._digits = len(digits)
                    common.clear()
            key, payload = keys[index], payloads[index]
            known = common.get(key) or self._common_of(key)
            if known is None:
                break
            topic, middle, fixed = known
            body = fixed + len(payload)
            head = heads.get(body) or self._head(body)
            if body + len(head) > packet_bytes_max:
                self.refusal = f"it has {body + len(head)} bytes, the broker takes {packet_bytes_max}"
                self._forget(key)  # the broker has not seen an alias that was to be introduced here
                break
            if packet_ids:
                packet_id = packet_ids[written].to_bytes(2, "big")
            extend((head, topic, packet_id, middle, digits, payload))
            size += body + len(head)
        else:
            written = len(indices)
        self.size = size
        return written

    def fits(self, window: Window, index: int) -> bool:
        """Whether a message that was sent on another connection may be sent on this one."""
        self._prepare(window)
        overhead = 5 + 2 + 2 + 4 + _ALIAS_BYTES + POSITION_DIGITS_MAX + len(self._blocks[-1])
        return overhead + len(window.key[index]) + len(window.payload[index]) <= self.style.packet_bytes_max

    def _prepare(self, window: Window) -> None:
        """Property blocks for messages like a window's, by the number of digits of their position."""
        encoding = window.encoding
        self._encoding, self._is_backfill = encoding, window.is_backfill
        self._common.clear()
        digits_range = range(POSITION_DIGITS_MAX + 1)
        if self.style.version is not Version.V5:
            self._lengths = [b""] * (POSITION_DIGITS_MAX + _ALIAS_BYTES + 1)
            self._blocks = [b""] * (POSITION_DIGITS_MAX + 1)
            return
        block = encode_property(Property.CONTENT_TYPE, encoding) if encoding else b""
        block += encode_property(Property.USER_PROPERTY, self.style.user_properties)
        if window.is_backfill:
            block += encode_property(Property.USER_PROPERTY, BACKFILL_PROPERTY)
        if not self._has_positions:
            self._blocks = [block] * len(digits_range)
            self._lengths = [varint(len(block) + extra) for extra in range(POSITION_DIGITS_MAX + _ALIAS_BYTES + 1)]
            return
        block += encode_property(Property.USER_PROPERTY, (("gateway", self.style.gateway),))
        block += bytes((Property.USER_PROPERTY,)) + text("pos")
        self._blocks = [block + digits.to_bytes(2, "big") for digits in digits_range]
        self._lengths = [varint(len(block) + 2 + extra) for extra in range(POSITION_DIGITS_MAX + _ALIAS_BYTES + 1)]

    def _heads_for(self, *, dup: bool) -> dict[int, bytes]:
        """Fixed headers of messages of this kind, filled as lengths are met."""
        first = (
            0x30
            | self.style.qos << 1
            | (_RETAIN if self.style.retain and not self._is_backfill else 0)
            | (_DUP if dup else 0)
        )
        if first != self._first:
            self._first = first
            self._heads.clear()
        return self._heads

    def _head(self, body: int) -> bytes:
        head = bytes((self._first,)) + (varint(body) if body <= PACKET_BYTES_MAX - 5 else b"\xff\xff\xff\xff\x7f")
        if len(self._heads) < HEADS_MAX:
            self._heads[body] = head
        return head

    def _common_of(self, key: bytes) -> _Common | None:
        """What the messages of a topic have in common; None when no message may carry it."""
        is_known = key in self._routes
        route = self._routes.get(key) or self._route(key)
        if route is None:
            return None
        topic, alias = route
        middle = self._lengths[self._digits + len(alias)] + alias + self._blocks[self._digits]
        fixed = len(topic) + (2 if self.style.qos else 0) + len(middle) + self._digits
        found = topic, middle, fixed
        if is_known:  # the first message of an alias carries its topic; the others do not
            self._common[key] = found
        return found

    def _forget(self, key: bytes) -> None:
        self._routes.pop(key, None)
        self._common.pop(key, None)

    def _route(self, key: bytes) -> tuple[bytes, bytes] | None:
        """Topic and alias property for a topic not met before; None when no message may carry it."""
        if len(key) > BINARY_BYTES_MAX or not is_topic_name(key.decode(errors="replace")):
            self.refusal = "its topic is empty, too long, or holds a wildcard"
            return None
        topic = len(key).to_bytes(2, "big") + key
        if len(self._routes) >= ROUTES_MAX:
            return topic, b""
        if self._aliases >= self._alias_max:
            self._routes[key] = topic, b""
            return topic, b""
        self._aliases += 1
        alias = encode_property(Property.TOPIC_ALIAS, self._aliases)
        self._routes[key] = _NO_TOPIC, alias
        return topic, alias
