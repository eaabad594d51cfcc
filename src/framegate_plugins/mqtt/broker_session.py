"""One client's session in the embedded broker: subscriptions, and messages on their way to it. Sans I/O.

Kept in memory while the client is away. Messages of QoS 1 and 2 that are under way when a connection ends are repeated
on the next one, as 4.4 asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from framegate_plugins.mqtt.packets import Ack, Packet, Publish, TopicFilter
from framegate_plugins.mqtt.properties import Kind
from framegate_plugins.mqtt.topics import matches, split_share

QUEUE_MESSAGES_MAX = 100_000
SUBSCRIPTIONS_MAX = 1_000
INFLIGHT_MAX = 1_000
PACKET_ID_MAX = 65_535


class BrokerSession:
    """subscriptions: filter as the client wrote it -> its options and subscription identifier (0: none)."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.expiry_s = 0
        self.left_at = 0.0  # loop time at which the client went; meaningful while it is away
        self.subscriptions: dict[str, tuple[TopicFilter, int]] = {}
        self.received: set[int] = set()  # QoS 2 from the client: PUBREC sent, PUBREL not yet here
        self.dropped = 0
        self._queue: deque[Publish] = deque()
        self._inflight: dict[int, Publish] = {}
        self._releasing: dict[int, None] = {}
        self._next_id = 1
        self._send: Callable[[Packet], None] | None = None
        self._room = INFLIGHT_MAX

    @property
    def is_present(self) -> bool:
        return self._send is not None

    def attach(self, send: Callable[[Packet], None], receive_maximum: int) -> None:
        """The client is here: repeat what was under way, then go on."""
        self._send = send
        self._room = min(INFLIGHT_MAX, receive_maximum)
        for packet_id in self._releasing:
            send(Ack(Kind.PUBREL, packet_id))
        for message in self._inflight.values():
            send(replace(message, dup=True))
        self._pump()

    def detach(self, now: float) -> None:
        self._send = None
        self.left_at = now

    def matching(self, topic: str) -> list[tuple[TopicFilter, int]]:
        """Subscriptions of its own, not shared ones, that take a topic in."""
        return [
            entry
            for name, entry in self.subscriptions.items()
            if not split_share(name)[0] and matches(entry[0].filter, topic)
        ]

    def deliver(self, message: Publish) -> None:
        """Send a message, or keep it while the client is away or slow."""
        if not message.qos:
            if self._send is not None:
                self._send(message)
        elif len(self._queue) >= QUEUE_MESSAGES_MAX:
            self.dropped += 1
        else:
            self._queue.append(message)
            self._pump()

    def take_ack(self, ack: Ack) -> None:
        """An answer of the client to a message."""
        if ack.kind is Kind.PUBREC and ack.reason < 0x80:  # 2.4: refusals begin there
            if self._inflight.pop(ack.packet_id, None) is not None:
                self._releasing[ack.packet_id] = None
            if self._send is not None:
                self._send(Ack(Kind.PUBREL, ack.packet_id))
        elif ack.kind is Kind.PUBCOMP:
            self._releasing.pop(ack.packet_id, None)
        else:
            self._inflight.pop(ack.packet_id, None)
        self._pump()

    def _pump(self) -> None:
        while self._send is not None and self._queue and len(self._inflight) + len(self._releasing) < self._room:
            while self._next_id in self._inflight or self._next_id in self._releasing:
                self._next_id = self._next_id % PACKET_ID_MAX + 1
            message = replace(self._queue.popleft(), packet_id=self._next_id)
            self._inflight[self._next_id] = message
            self._next_id = self._next_id % PACKET_ID_MAX + 1
            self._send(message)
