"""Answers on their way to those who sent commands: single messages of QoS 1, beside the windows of the outbox.

Sans I/O. They take packet identifiers of their own (identifiers.py), and a share of the broker's Receive Maximum that
windows then do without, so neither can hold up or confuse the other. An answer that was not acknowledged goes out again
on the next connection. What the broker refuses is told and dropped: it concerns who asked, not the log.

Source: MQTT Version 5.0, 3.3.2.3 (correlation data), 4.4 (redelivery), 4.9 (flow control).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from framegate.contract.errors import FrameBroken
from framegate_plugins.mqtt.codec import PACKET_BYTES_MAX, encode
from framegate_plugins.mqtt.command_message import ReturnAddress
from framegate_plugins.mqtt.identifiers import REPLY_IDS
from framegate_plugins.mqtt.packets import Publish, Version
from framegate_plugins.mqtt.properties import Property, PropertyValue
from framegate_plugins.mqtt.reason import FIRST_REFUSAL, describe

IN_FLIGHT_MAX: Final = len(REPLY_IDS)
_JSON = "application/json"


def share_of(receive_maximum: int) -> int:
    """How many answers may be under way at a broker that takes so many messages at once; 0: only with QoS 0."""
    return min(IN_FLIGHT_MAX, (receive_maximum + 2) // 4)


@dataclass(frozen=True, slots=True)
class _Reply:
    publish: Publish
    on_end: Callable[[str], None]


class Replies:
    """Answers that wait or are under way. Who makes them bounds their number: one per command that it has taken."""

    def __init__(self) -> None:
        self._write: Callable[[bytes], None] | None = None
        self._version = Version.V5
        self._share = 0
        self._packet_bytes_max = PACKET_BYTES_MAX
        self._waiting: deque[_Reply] = deque()
        self._flying: dict[int, _Reply] = {}
        self._free = deque(REPLY_IDS)

    def send(self, address: ReturnAddress, payload: bytes, on_end: Callable[[str], None]) -> None:
        """Deliver an answer, now or when there is a connection.

        on_end  called once: with "" when the broker has it, or with why it cannot be delivered
        """
        properties: dict[Property, PropertyValue] = {Property.PAYLOAD_FORMAT: 1, Property.CONTENT_TYPE: _JSON}
        if address.correlation:
            properties[Property.CORRELATION_DATA] = address.correlation
        self._waiting.append(_Reply(Publish(address.topic, payload, properties=properties), on_end))
        self._refill()

    def attach(
        self, write: Callable[[bytes], None], version: Version, share: int, packet_bytes_max: int, *, is_resumed: bool
    ) -> None:
        """A connection stands: what was under way goes out again, as a repeat if the broker kept the session."""
        self._write, self._version, self._packet_bytes_max = write, version, packet_bytes_max
        self._share = share
        again, self._flying = self._flying, {}
        self._free = deque(REPLY_IDS)
        if is_resumed and len(again) <= share:
            for packet_id, reply in again.items():
                self._free.remove(packet_id)
                self._put(reply, packet_id, dup=True)
        else:
            self._waiting.extendleft(reversed(again.values()))
        self._refill()

    def detach(self) -> None:
        """The connection is gone."""
        self._write = None

    def take_answer(self, packet_id: int, reason: int) -> None:
        """PUBACK for one of our identifiers; others are passed over."""
        reply = self._flying.pop(packet_id, None)
        if reply is None:
            return
        self._free.append(packet_id)
        reply.on_end("" if reason < FIRST_REFUSAL else f"the broker answered {describe(reason)}")
        self._refill()

    def _refill(self) -> None:
        while self._write is not None and self._waiting and (not self._share or len(self._flying) < self._share):
            reply = self._waiting.popleft()
            self._put(reply, self._free.popleft() if self._share else 0, dup=False)

    def _put(self, reply: _Reply, packet_id: int, *, dup: bool) -> None:
        assert self._write is not None
        qos = 1 if packet_id else 0
        packet = b""
        try:
            packet = encode(replace(reply.publish, qos=qos, packet_id=packet_id, dup=dup), self._version)
        except FrameBroken as error:
            reply.on_end(error.text)
        if len(packet) > self._packet_bytes_max:
            reply.on_end(f"it has {len(packet)} bytes; the broker takes {self._packet_bytes_max}")
            packet = b""
        if not packet:
            if packet_id:
                self._free.appendleft(packet_id)
            return
        if packet_id:
            self._flying[packet_id] = reply
        self._write(packet)
        if not packet_id:
            reply.on_end("")
