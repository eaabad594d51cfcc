"""Messages that come: acknowledged once they are settled, taken once under QoS 2, whatever is lost in between."""

from __future__ import annotations

import random
from collections import deque

import pytest

from framegate.contract.errors import FrameBroken, FrameShort
from framegate_plugins.mqtt.codec import PacketReader, encode
from framegate_plugins.mqtt.inbound import OPEN_MAX, QUEUE_MAX, Arrival, Inbound, long_publish
from framegate_plugins.mqtt.packets import Ack, Publish, Version
from framegate_plugins.mqtt.properties import Kind, Property

V5, V311 = Version.V5, Version.V3_1_1


class Told:
    """What the broker is told."""

    def __init__(self, version: Version) -> None:
        self._reader = PacketReader(version)
        self.acks: list[tuple[Kind, int, int]] = []

    def write(self, data: bytes) -> None:
        for packet in self._reader.feed(data):
            assert isinstance(packet, Ack)
            self.acks.append((packet.kind, packet.packet_id, packet.reason))


def made(version: Version = V5, open_max: int = OPEN_MAX) -> tuple[Inbound, Told, list[bool]]:
    drained: list[bool] = []
    inbound, told = Inbound(open_max, lambda: drained.append(True)), Told(version)
    inbound.attach(told.write, version, is_resumed=False)
    return inbound, told, drained


def arrival(packet_id: int, qos: int = 1, payload: bytes = b"1", *, dup: bool = False) -> Arrival:
    return Arrival(Publish("cmd/a", payload, qos, dup=dup, packet_id=packet_id), 0)


@pytest.mark.parametrize(("qos", "kind"), [(1, Kind.PUBACK), (2, Kind.PUBREC)])
def test_message_is_acknowledged_when_it_is_settled(qos: int, kind: Kind) -> None:
    inbound, told, _ = made()
    inbound.take(arrival(7, qos))
    assert told.acks == []
    inbound.settle(inbound.queue.popleft())
    assert told.acks == [(kind, 7, 0)]


@pytest.mark.parametrize("qos", [1, 2])
def test_message_that_comes_again_before_it_is_settled_is_the_same(qos: int) -> None:
    inbound, _, _ = made()
    told = Told(V5)
    inbound.take(arrival(7, qos))
    inbound.detach()
    inbound.attach(told.write, V5, is_resumed=True)
    inbound.take(arrival(7, qos, dup=True))
    assert len(inbound.queue) == 1
    inbound.settle(inbound.queue.popleft())
    assert len(told.acks) == 1


@pytest.mark.parametrize("qos", [1, 2])
def test_message_settled_while_there_was_no_connection_is_acknowledged_when_it_comes_again(qos: int) -> None:
    inbound, told, _ = made()
    inbound.take(arrival(7, qos))
    inbound.detach()
    inbound.settle(inbound.queue.popleft(), 0x97)
    inbound.attach(told.write, V5, is_resumed=True)
    inbound.take(arrival(7, qos, dup=True))
    assert not inbound.queue
    assert [reason for _, _, reason in told.acks] == [0x97]


def test_identifiers_of_a_lost_session_mean_nothing() -> None:
    inbound, told, _ = made()
    inbound.take(arrival(7, 2))
    inbound.settle(inbound.queue[0])
    inbound.take(arrival(8, 1))
    inbound.attach(told.write, V5, is_resumed=False)
    inbound.take(arrival(7, 2))
    inbound.take(arrival(8, 1))
    assert len(inbound.queue) == 4
    inbound.settle(inbound.queue[1])  # of the session that is gone: the broker is told nothing
    assert told.acks == [(Kind.PUBREC, 7, 0)]


def test_qos_2_is_taken_once_until_its_release() -> None:
    inbound, told, _ = made()
    inbound.take(arrival(7, 2))
    inbound.settle(inbound.queue.popleft())
    inbound.take(arrival(7, 2, dup=True))
    assert not inbound.queue
    inbound.release(7)
    inbound.release(7)
    assert told.acks == [(Kind.PUBREC, 7, 0)] * 2 + [(Kind.PUBCOMP, 7, 0), (Kind.PUBCOMP, 7, 0x92)]
    inbound.take(arrival(7, 2))
    assert len(inbound.queue) == 1


def test_refused_qos_2_message_frees_its_identifier() -> None:
    inbound, told, _ = made()
    inbound.take(arrival(7, 2))
    inbound.settle(inbound.queue.popleft(), 0x97)
    inbound.take(arrival(7, 2, b"another"))
    assert told.acks == [(Kind.PUBREC, 7, 0x97)]
    assert len(inbound.queue) == 1


def test_reasons_are_left_out_under_3_1_1_and_the_release_is_awaited() -> None:
    inbound, told, _ = made(V311)
    inbound.take(arrival(7, 2))
    inbound.settle(inbound.queue.popleft(), 0x97)
    inbound.take(arrival(7, 2, dup=True))
    inbound.release(7)
    assert not inbound.queue
    assert told.acks == [(Kind.PUBREC, 7, 0)] * 2 + [(Kind.PUBCOMP, 7, 0)]


def test_broker_that_breaks_its_rules_is_told_so() -> None:
    inbound, _, _ = made(open_max=2)
    inbound.take(arrival(1))
    with pytest.raises(FrameBroken, match="identifier 1"):
        inbound.take(arrival(1, payload=b"another"))
    with pytest.raises(FrameBroken, match="PUBREL"):
        inbound.release(1)
    with pytest.raises(FrameBroken, match="alias"):
        inbound.take(Arrival(Publish("", b"1", properties={Property.TOPIC_ALIAS: 1}), 0))
    inbound.take(arrival(2))
    with pytest.raises(FrameBroken, match="Receive Maximum"):
        inbound.take(arrival(3))


def test_messages_beyond_the_window_of_3_1_1_come_again_on_a_new_connection() -> None:
    inbound, told, drained = made(V311, open_max=2)
    for packet_id in (1, 2, 3):
        inbound.take(arrival(packet_id))
    inbound.settle(inbound.queue.popleft())
    assert drained == []
    inbound.settle(inbound.queue.popleft())
    assert drained == [True]
    inbound.attach(told.write, V311, is_resumed=True)
    inbound.take(arrival(3, dup=True))
    inbound.settle(inbound.queue.popleft())
    assert [packet_id for _, packet_id, _ in told.acks] == [1, 2, 3]
    assert drained == [True]


def test_messages_of_qos_0_are_dropped_and_counted_when_the_queue_is_full() -> None:
    inbound, _, _ = made()
    for _ in range(QUEUE_MAX + 3):
        inbound.take(arrival(0, 0))
    assert (len(inbound.queue), inbound.dropped) == (QUEUE_MAX, 3)


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("version", [V5, V311])
@pytest.mark.parametrize("seed", range(20))
def test_messages_over_a_line_that_loses_anything_arrive_in_order(seed: int, version: Version, qos: int) -> None:
    """A broker as the standard has it (4.3, 4.4), on a session that it keeps, against losses at any step."""
    dice = random.Random(seed)
    inbound, _, _ = made(version, 5)
    broker = _ModelBroker(version, qos, 60)
    taken: list[bytes] = []
    for _ in range(4_000):
        if not broker.is_connected:
            inbound.detach()
            broker.connect()
            inbound.attach(broker.told.write, version, is_resumed=True)
        step = dice.random()
        if step < 0.03:
            broker.is_connected = False
            inbound.detach()  # whatever was on its way is lost, either way
        if step < 0.4 and inbound.queue:
            message = inbound.queue.popleft()
            taken.append(message.publish.payload)
            inbound.settle(message)
        elif broker.is_connected:
            broker.step(inbound)
        if broker.is_done:
            break
    assert broker.is_done
    firsts = list(dict.fromkeys(taken))
    assert firsts == [b"%d" % number for number in range(60)]
    assert qos == 1 or taken == firsts


class _ModelBroker:
    """Sends numbered messages, 3 at a time, repeats what was not answered after each connection, checks the answers."""

    def __init__(self, version: Version, qos: int, number: int) -> None:
        self.version, self.qos = version, qos
        self.is_connected = False
        self.told = Told(version)
        self._fresh = deque(range(number))
        self._unacked: dict[int, int] = {}
        self._unreleased: list[int] = []
        self._outgoing: deque[tuple[str, int, int]] = deque()
        self._last_id = 0

    @property
    def is_done(self) -> bool:
        return not (self._fresh or self._unacked or self._unreleased)

    def connect(self) -> None:
        self.is_connected, self.told = True, Told(self.version)
        self._outgoing = deque(("again", packet_id, number) for packet_id, number in self._unacked.items())
        self._outgoing += [("release", packet_id, 0) for packet_id in self._unreleased]

    def step(self, inbound: Inbound) -> None:
        for kind, packet_id, reason in self.told.acks:
            # A PUBREL that is repeated because PUBCOMP was lost finds nothing (4.3.3).
            assert reason == 0 or (kind is Kind.PUBCOMP and reason == 0x92)
            if kind is Kind.PUBCOMP:
                self._unreleased.remove(packet_id)
            else:
                self._unacked.pop(packet_id, None)
            if kind is Kind.PUBREC and packet_id not in self._unreleased:
                self._unreleased.append(packet_id)
                self._outgoing.append(("release", packet_id, 0))
        self.told.acks.clear()
        if not self._outgoing and self._fresh and len(self._unacked) + len(self._unreleased) < 3:
            self._last_id = self._last_id % 5 + 1  # identifiers are reused soon
            while self._last_id in self._unacked or self._last_id in self._unreleased:
                self._last_id = self._last_id % 5 + 1
            number = self._fresh.popleft()
            self._unacked[self._last_id] = number
            self._outgoing.append(("fresh", self._last_id, number))
        if self._outgoing:
            what, packet_id, number = self._outgoing.popleft()
            if what == "release":
                inbound.release(packet_id)
            elif packet_id in self._unacked:
                inbound.take(arrival(packet_id, self.qos, b"%d" % number, dup=what == "again"))


def test_long_message_is_read_without_its_payload() -> None:
    packet = encode(Publish("cmd/a", b"x" * 500, 1, packet_id=9), V311)
    head = len(packet) - 500
    for size in range(1, head):
        if size < 3:
            assert long_publish(packet[:size], 0, 100) is None
        else:
            with pytest.raises(FrameShort):
                long_publish(packet[:size], 0, 100)
    found = long_publish(packet[:head], 0, 100)
    assert found == (Publish("cmd/a", b"", 1, packet_id=9), head, len(packet))
    assert long_publish(packet, 0, 1_000) is None
    assert long_publish(b"\x20\xff\xff\x7f", 0, 100) is None


def test_long_message_whose_topic_is_longer_than_itself_is_broken() -> None:
    with pytest.raises(FrameBroken):
        long_publish(b"\x30\xff\x01\xff\xff" + b"a" * 300, 0, 100)
