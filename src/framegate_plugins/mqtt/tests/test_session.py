"""The session without sockets: a model broker behind a line that loses whatever is on its way, at any byte."""

from __future__ import annotations

import random

import pytest

from framegate.contract.connector import Window
from framegate.contract.errors import Busy, FrameBroken, GatewayError, NotConnected
from framegate_plugins.mqtt.codec import PacketReader, encode
from framegate_plugins.mqtt.link import Link
from framegate_plugins.mqtt.packets import Ack, Publish, Version
from framegate_plugins.mqtt.properties import Kind
from framegate_plugins.mqtt.publish import PublishStyle, PublishWriter
from framegate_plugins.mqtt.session import ClientSession
from framegate_plugins.mqtt.tests.stage import Witness, windows

LOSS = NotConnected("the line broke", code="E2029")
STEPS_MAX = 20_000


class ModelBroker:
    """Takes bytes, gives bytes. `received` is the half of the session that it keeps."""

    def __init__(self, version: Version) -> None:
        self.witness = Witness()
        self.received: set[int] = set()
        self.owed: set[int] = set()
        self.receive_maximum = 0
        self.version = version
        self._reader = PacketReader(version)

    def connected(self, receive_maximum: int, *, keeps_session: bool) -> None:
        self._reader = PacketReader(self.version)
        self.owed.clear()
        self.receive_maximum = receive_maximum
        if not keeps_session:
            self.received.clear()

    def feed(self, data: bytes) -> bytes:
        return b"".join(self._answer(packet) for packet in self._reader.feed(data))

    def _answer(self, packet: object) -> bytes:
        if isinstance(packet, Publish):
            self.owed.add(packet.packet_id)
            assert len(self.owed) <= self.receive_maximum, "Receive Maximum was overrun"
            if packet.qos == 1 or packet.packet_id not in self.received:
                self.witness.take(packet.topic, packet.payload)
            if packet.qos == 1:
                self.owed.discard(packet.packet_id)
                return encode(Ack(Kind.PUBACK, packet.packet_id, 0x10 if packet.packet_id % 3 else 0), self.version)
            self.received.add(packet.packet_id)
            return encode(Ack(Kind.PUBREC, packet.packet_id), self.version)
        assert isinstance(packet, Ack)
        assert packet.kind is Kind.PUBREL
        self.received.discard(packet.packet_id)
        self.owed.discard(packet.packet_id)
        return encode(Ack(Kind.PUBCOMP, packet.packet_id), self.version)


class Line:
    """Two pipes, each of which may be cut at any byte."""

    def __init__(self, session: ClientSession, broker: ModelBroker, dice: random.Random, *, cuts: float) -> None:
        self.session, self.broker, self.dice, self.cuts = session, broker, dice, cuts
        self.there = self.back = b""
        self.is_up = False
        self.losses = 0

    def connect(self, qos: int, *, keeps_session: bool) -> None:
        receive_maximum = self.dice.randint(1, 12)
        self.broker.connected(receive_maximum, keeps_session=keeps_session)
        self.there = self.back = b""
        writer = PublishWriter(PublishStyle(self.broker.version, qos))
        self.is_up = True
        self.session.attach(Link(writer, self._write, lambda: 0, receive_maximum), is_resumed=keeps_session)

    def _write(self, data: bytes) -> None:
        self.there += data

    def step(self) -> None:
        """Some bytes move, one way or the other; or the line breaks."""
        if self.dice.random() < self.cuts:
            self.is_up = False
            self.losses += 1
            self.session.detach(LOSS)
        elif self.there and (not self.back or self.dice.random() < 0.5):
            size = self.dice.randint(1, len(self.there))
            self.back += self.broker.feed(self.there[:size])
            self.there = self.there[size:]
        elif self.back:
            self._answer(self.dice.randint(1, len(self.back)))

    def _answer(self, size: int) -> None:
        at = self.session.take_answers(self.back[:size], 0)
        self.back = self.back[at:]


def deliver(seed: int, qos: int, *, loses_session: bool, version: Version) -> tuple[Witness, int]:
    """Drive 60 messages through broken lines until all have arrived."""
    dice = random.Random(seed)
    session, broker = ClientSession(), ModelBroker(version)
    line = Line(session, broker, dice, cuts=0.03)
    waiting, offered = windows(60, dice.randint(3, 20)), set[int]()

    def offer(window: Window) -> None:
        def ended(error: GatewayError | None) -> None:
            offered.discard(id(window))
            if error is None:
                waiting.remove(window)
            else:
                assert error is LOSS

        offered.add(id(window))
        session.offer(window, ended)

    for _ in range(STEPS_MAX):
        if not waiting:
            return broker.witness, line.losses
        if not line.is_up:
            line.connect(qos, keeps_session=not loses_session or dice.random() < 0.5)
        for window in waiting[:4]:
            if id(window) not in offered:
                offer(window)
        line.step()
    pytest.fail(f"seed {seed}: not done after {STEPS_MAX} steps")


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("loses_session", [False, True])
@pytest.mark.parametrize("qos", [1, 2])
def test_session_over_a_line_cut_at_any_byte_loses_nothing_and_keeps_order(
    qos: int, loses_session: bool, version: Version
) -> None:
    losses = 0
    for seed in range(60):
        print(f"seed {seed}")  # noqa: T201 - shown when the test fails
        witness, lost = deliver(seed, qos, loses_session=loses_session, version=version)
        losses += lost
        witness.assert_complete(60)
        if qos == 2 and not loses_session:
            assert witness.duplicates == 0
    assert losses > 60, "the line hardly broke"


def attached(qos: int = 1, inflight_max: int = 10) -> tuple[ClientSession, list[bytes]]:
    session, written = ClientSession(), list[bytes]()
    writer = PublishWriter(PublishStyle(qos=qos))
    session.attach(Link(writer, written.append, lambda: 0, inflight_max), is_resumed=False)
    return session, written


def test_burst_of_acknowledgements_is_answered_with_one_write() -> None:
    session, written = attached(inflight_max=10)
    session.offer(windows(100, 100)[0], lambda _: None)
    assert len(written) == 1
    acks = b"".join(encode(Ack(Kind.PUBACK, packet_id, packet_id % 2 * 0x10)) for packet_id in range(1, 11))
    assert session.take_answers(acks, 0) == len(acks)
    assert len(written) == 2
    assert [packet.packet_id for packet in PacketReader().feed(written[1]) if isinstance(packet, Publish)] == list(
        range(11, 21)
    )


def test_write_buffer_that_is_full_gets_nothing_more_until_it_drains() -> None:
    session, written, pending = ClientSession(), list[bytes](), [10**6]
    writer = PublishWriter(PublishStyle(qos=0))
    session.attach(Link(writer, written.append, lambda: pending[0], 10), is_resumed=False)
    ends: list[GatewayError | None] = []
    session.offer(windows(20, 20)[0], ends.append)
    assert (written, ends) == ([], [])
    pending[0] = 0
    session.refill()
    assert ends == [None]


def test_acknowledgement_of_the_wrong_kind_is_a_broken_frame() -> None:
    session, _ = attached(qos=1)
    session.offer(windows(1, 1)[0], lambda _: None)
    with pytest.raises(FrameBroken):
        session.take_answers(encode(Ack(Kind.PUBREC, 1)), 0)


def test_acknowledgement_of_an_unknown_identifier_changes_nothing() -> None:
    session, written = attached(qos=2)
    ends: list[GatewayError | None] = []
    session.offer(windows(1, 1)[0], ends.append)
    session.take_answers(encode(Ack(Kind.PUBCOMP, 77)) + encode(Ack(Kind.PUBREC, 78)), 0)
    assert ends == []
    # 3.5.4: PUBREL for an identifier that is not known carries 0x92.
    assert written[-1] == encode(Ack(Kind.PUBREL, 78, 0x92))


@pytest.mark.parametrize("is_resumed", [False, True])
def test_messages_under_way_after_a_loss_are_repeated_with_dup_or_sent_as_new_in_order(is_resumed: bool) -> None:
    session, _ = attached(qos=2, inflight_max=4)
    (window,) = windows(6, 6)
    session.offer(window, lambda _: None)
    session.take_answers(encode(Ack(Kind.PUBREC, 3)), 0)  # out of turn: 3 is being released, 1, 2 and 4 are not
    session.detach(LOSS)
    written: list[bytes] = []
    style = PublishStyle(qos=2)
    session.attach(Link(PublishWriter(style), written.append, lambda: 0, 4), is_resumed=is_resumed)
    session.offer(window, lambda _: None)
    packets = PacketReader().feed(b"".join(written))
    sent = [(packet.packet_id, packet.payload, packet.dup) for packet in packets if isinstance(packet, Publish)]
    if is_resumed:
        assert packets[0] == Ack(Kind.PUBREL, 3)
        assert sent == [(1, b"1", True), (2, b"2", True), (4, b"4", True)]
    else:
        assert sent == [(5, b"1", False), (6, b"2", False), (7, b"3", False), (8, b"4", False)]


def test_window_offered_while_another_is_held_back_by_a_refusal_is_asked_for_patience() -> None:
    session, _ = attached(inflight_max=2)
    first, second = windows(4, 2)
    ends: list[GatewayError | None] = []
    session.offer(first, ends.append)
    session.take_answers(encode(Ack(Kind.PUBACK, 1, 0x97)), 0)
    session.offer(second, ends.append)
    assert isinstance(ends[0], Busy)
    session.take_answers(encode(Ack(Kind.PUBACK, 2)), 0)
    assert isinstance(ends[1], Busy)


def test_windows_not_offered_again_after_a_loss_are_forgotten() -> None:
    session, _ = attached()
    for window in windows(50, 10):
        session.offer(window, lambda _: None)
    for _ in range(2):
        session.detach(LOSS)
        session.attach(Link(PublishWriter(PublishStyle()), lambda _: None, lambda: 0, 10), is_resumed=False)
    assert list(session._flows) == []
    assert session.is_idle
