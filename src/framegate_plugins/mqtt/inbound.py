"""The receiving half of an MQTT session: which messages have come, and which of them the broker was told so.

Sans I/O. A message waits in `queue` until whoever takes it says `settle`: PUBACK or PUBREC leave then, never before.
The state outlives connections as the session does (4.1): an identifier of QoS 2 is known until PUBREL, whatever
happens in between, and a message that was settled while there was no connection is acknowledged when it comes again.

Bounds: as many unacknowledged messages as the Receive Maximum that was announced. A 3.1.1 broker cannot be told; what
it sends beyond is passed over, and the connection made anew when the rest is done, so that the broker sends it again.

Source: MQTT Version 5.0, 4.3 (QoS), 4.4 (redelivery), 4.6 (order of acknowledgements), 4.9 (flow control).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from framegate.contract.errors import FrameShort
from framegate_plugins.mqtt.codec import decode_body, encode
from framegate_plugins.mqtt.fields import broken, read_varint
from framegate_plugins.mqtt.packets import Ack, Publish, Version
from framegate_plugins.mqtt.properties import Kind, Property
from framegate_plugins.mqtt.reason import FIRST_REFUSAL

OPEN_MAX: Final = 256
"""Messages of QoS 1 and 2 that are not yet acknowledged."""
QUEUE_MAX: Final = 1_024
"""Messages that wait: those of QoS 0, and those that earlier sessions have left, on top of the open ones."""
_NOT_FOUND = 0x92


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A message and when it came, ns UTC. Compared by identity.

    oversize  bytes of its payload where they were too many to be kept; `publish.payload` is then empty
    """

    publish: Publish
    received: int
    oversize: int = 0

    def is_repeat_of(self, other: Arrival) -> bool:
        """Whether this is the same message, sent again."""
        mine, its = self.publish, other.publish
        key = Property.CORRELATION_DATA
        return (
            (mine.qos, mine.topic, mine.payload) == (its.qos, its.topic, its.payload)
            and self.oversize == other.oversize
            and mine.properties.get(key) == its.properties.get(key)
        )


class Inbound:
    """Messages of one client identifier at one broker.

    queue     arrivals in order; whoever takes them removes them
    dropped   messages of QoS 0 that found the queue full, so far
    """

    def __init__(self, open_max: int, on_drained: Callable[[], None]) -> None:
        """on_drained is called when the connection should be made anew: a broker has sent more than was kept."""
        self.open_max = min(open_max, OPEN_MAX)
        self.queue: deque[Arrival] = deque()
        self.dropped = 0
        self._on_drained = on_drained
        self._write: Callable[[bytes], None] | None = None
        self._version = Version.V5
        self._open: dict[int, Arrival] = {}  # not yet settled
        self._settled: dict[int, tuple[Arrival, int]] = {}  # settled while nobody could be told; with the reason
        self._received: set[int] = set()  # QoS 2: settled, PUBREL has not come
        self._is_overrun = False

    def attach(self, write: Callable[[bytes], None], version: Version, *, is_resumed: bool) -> None:
        """A connection stands; is_resumed: the broker has kept its half of the session."""
        if not is_resumed:
            self.forget()
        self._write, self._version = write, version
        self._is_overrun = False

    def detach(self) -> None:
        """The connection is gone; what has come stays."""
        self._write = None

    def forget(self) -> None:
        """The session has ended: identifiers mean nothing any more. What waits in the queue still waits."""
        self._open.clear()
        self._settled.clear()
        self._received.clear()

    def take(self, arrival: Arrival) -> None:
        """A message has come; raises FrameBroken where the broker breaks the rules of its identifiers."""
        publish = arrival.publish
        if Property.TOPIC_ALIAS in publish.properties:
            raise broken("a topic alias, and none was allowed")
        if not publish.qos:
            if len(self.queue) < QUEUE_MAX:
                self.queue.append(arrival)
            else:
                self.dropped += 1
        elif not self._is_known(arrival):
            self._keep(arrival)

    def release(self, packet_id: int) -> None:
        """PUBREL: the broker will not send this message again."""
        if packet_id in self._open:
            raise broken(f"PUBREL for packet identifier {packet_id}, which was not acknowledged")
        is_known = packet_id in self._received
        self._received.discard(packet_id)
        self._acknowledge(Kind.PUBCOMP, packet_id, 0 if is_known else _NOT_FOUND)

    def settle(self, arrival: Arrival, reason: int = 0) -> None:
        """A message has been dealt with: acknowledge it, with a reason where the version has them."""
        packet_id = arrival.publish.packet_id
        if self._open.get(packet_id) is arrival:
            del self._open[packet_id]
            if self._write is None:
                self._settled[packet_id] = arrival, reason
            else:
                self._answer(arrival.publish, reason)
        if self._is_overrun and not self._open:
            self._is_overrun = False
            self._on_drained()

    def _is_known(self, arrival: Arrival) -> bool:
        """Whether a message came before; it is acknowledged again if it had been settled."""
        publish = arrival.publish
        packet_id = publish.packet_id
        if publish.qos == 2 and packet_id in self._received:
            self._acknowledge(Kind.PUBREC, packet_id, 0)
            return True
        settled = self._settled.pop(packet_id, None)
        if settled is not None and arrival.is_repeat_of(settled[0]):
            self._answer(publish, settled[1])
            return True
        waiting = self._open.get(packet_id)
        if waiting is not None and not arrival.is_repeat_of(waiting):
            raise broken(f"packet identifier {packet_id} for a second message before the first was acknowledged")
        return waiting is not None

    def _keep(self, arrival: Arrival) -> None:
        is_full = len(self._open) + len(self._received) >= self.open_max
        if is_full and self._version is Version.V5:
            raise broken(f"more than {self.open_max} messages that were not acknowledged (Receive Maximum)")
        if is_full or len(self.queue) >= QUEUE_MAX:
            self._is_overrun = True
            return
        self._open[arrival.publish.packet_id] = arrival
        self.queue.append(arrival)

    def _answer(self, publish: Publish, reason: int) -> None:
        if self._version is Version.V3_1_1:
            reason = 0
        if publish.qos == 2 and reason < FIRST_REFUSAL:
            self._received.add(publish.packet_id)
        self._acknowledge(Kind.PUBACK if publish.qos == 1 else Kind.PUBREC, publish.packet_id, reason)

    def _acknowledge(self, kind: Kind, packet_id: int, reason: int) -> None:
        assert kind in {Kind.PUBACK, Kind.PUBREC, Kind.PUBCOMP}
        if self._write is not None:
            self._write(encode(Ack(kind, packet_id, reason), self._version))


def long_publish(data: bytes, at: int, packet_bytes_max: int) -> tuple[Publish, int, int] | None:
    """The PUBLISH of MQTT 3.1.1 at `at`, if it is longer than the bound, without its payload.

    returns  with where the payload starts and ends; None - another packet, or one within the bound
    raises   FrameShort - more bytes are needed to know; FrameBroken
    """
    length = read_varint(data, at + 1)
    if length is None or data[at] >> 4 != Kind.PUBLISH or sum(length) - at <= packet_bytes_max:
        return None
    size, start = length
    topic_end = start + 2 + int.from_bytes(data[start : start + 2], "big")
    payload = topic_end + (2 if data[at] & 6 else 0)
    if payload > start + size:
        raise broken("the topic is longer than its packet")
    if len(data) < max(start + 2, payload):
        raise FrameShort("MQTT packet: more bytes needed", code="E5100")
    publish = decode_body(data[at], data[start:payload], Version.V3_1_1)
    assert isinstance(publish, Publish)
    return publish, payload, start + size
