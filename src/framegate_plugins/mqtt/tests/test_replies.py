"""Answers on their way: within their share, again after a loss, and never the cause of one."""

from __future__ import annotations

import pytest

from framegate_plugins.mqtt.codec import PacketReader
from framegate_plugins.mqtt.command_message import ReturnAddress
from framegate_plugins.mqtt.identifiers import MESSAGE_ID_MAX, REPLY_IDS, SUBSCRIBE_ID
from framegate_plugins.mqtt.packets import Publish, Version
from framegate_plugins.mqtt.properties import Property
from framegate_plugins.mqtt.replies import IN_FLIGHT_MAX, Replies, share_of

BIG = 65_535


class Broker:
    """What it was sent, and how each answer ended."""

    def __init__(self, version: Version = Version.V5) -> None:
        self.version = version
        self._reader = PacketReader(version)
        self.seen: list[Publish] = []

    def write(self, data: bytes) -> None:
        for packet in self._reader.feed(data):
            assert isinstance(packet, Publish)
            self.seen.append(packet)

    def attach(self, replies: Replies, share: int, packet_bytes_max: int = BIG, *, is_resumed: bool = False) -> None:
        replies.attach(self.write, self.version, share, packet_bytes_max, is_resumed=is_resumed)


def sent(replies: Replies, number: int) -> list[tuple[int, str]]:
    """So many answers, payloads 0, 1, ...; returns where their ends are noted."""
    ends: list[tuple[int, str]] = []
    for place in range(number):
        replies.send(ReturnAddress("ack/a"), b"%d" % place, lambda why, place=place: ends.append((place, why)))  # type: ignore[misc]
    return ends


@pytest.mark.parametrize(
    ("receive_maximum", "share"), [(1, 0), (2, 1), (3, 1), (20, 5), (60, 15), (BIG, IN_FLIGHT_MAX)]
)
def test_share_leaves_most_of_the_receive_maximum_to_windows(receive_maximum: int, share: int) -> None:
    assert share_of(receive_maximum) == share
    assert receive_maximum - share >= 1


def test_identifiers_of_answers_are_nobody_elses() -> None:
    assert min(REPLY_IDS) == MESSAGE_ID_MAX + 1
    assert SUBSCRIBE_ID not in REPLY_IDS
    assert max(*REPLY_IDS, SUBSCRIBE_ID) == 65_535


def test_no_more_answers_are_under_way_than_their_share_and_each_ends_once() -> None:
    replies, broker = Replies(), Broker()
    ends = sent(replies, 5)  # before there is a connection
    broker.attach(replies, 3)
    for answered in range(5):
        assert len(broker.seen) == min(5, answered + 3)
        replies.take_answer(broker.seen[answered].packet_id, 0)
    assert ends == [(place, "") for place in range(5)]
    replies.take_answer(broker.seen[0].packet_id, 0)  # an acknowledgement too many
    assert len(ends) == 5


@pytest.mark.parametrize("is_resumed", [True, False])
def test_answers_that_were_under_way_come_again_first(*, is_resumed: bool) -> None:
    replies, first, second = Replies(), Broker(), Broker()
    first.attach(replies, 2)
    sent(replies, 3)
    replies.detach()
    second.attach(replies, 2, is_resumed=is_resumed)
    assert [packet.payload for packet in second.seen] == [b"0", b"1"]
    assert [packet.dup for packet in second.seen] == [is_resumed] * 2
    if is_resumed:
        assert [packet.packet_id for packet in second.seen] == [packet.packet_id for packet in first.seen]
    for packet in second.seen[:2]:
        replies.take_answer(packet.packet_id, 0)
    assert second.seen[2].payload == b"2"


def test_answers_wait_as_new_when_the_share_has_shrunk() -> None:
    replies, first, second = Replies(), Broker(), Broker()
    first.attach(replies, 3)
    sent(replies, 3)
    replies.detach()
    second.attach(replies, 1, is_resumed=True)
    assert [(packet.payload, packet.dup) for packet in second.seen] == [(b"0", False)]


def test_answers_to_a_broker_without_room_go_with_qos_0() -> None:
    replies, broker = Replies(), Broker()
    broker.attach(replies, 0)
    assert sent(replies, 2) == [(0, ""), (1, "")]
    assert [packet.qos for packet in broker.seen] == [0, 0]


def test_answer_that_the_broker_refuses_is_told_and_the_next_goes() -> None:
    replies, broker = Replies(), Broker()
    broker.attach(replies, 1)
    ends = sent(replies, 2)
    replies.take_answer(broker.seen[0].packet_id, 0x87)
    assert ends == [(0, "the broker answered not authorised (0x87)")]
    assert broker.seen[1].payload == b"1"


def test_answer_that_is_too_large_is_told_and_the_next_goes() -> None:
    replies, broker = Replies(), Broker()
    broker.attach(replies, 1, 100)
    ends: list[str] = []
    replies.send(ReturnAddress("ack/a"), b"x" * 200, ends.append)
    replies.send(ReturnAddress("ack/\ud800"), b"", ends.append)
    replies.send(ReturnAddress("ack/a"), b"short", ends.append)
    assert [packet.payload for packet in broker.seen] == [b"short"]
    assert "the broker takes 100" in ends[0]
    assert "surrogate" in ends[1]


def test_correlation_data_comes_back_under_mqtt_5_only() -> None:
    for version in Version:
        replies, broker = Replies(), Broker(version)
        broker.attach(replies, 1)
        replies.send(ReturnAddress("ack/a", b"\0corr"), b"{}", lambda _: None)
        expected = b"\0corr" if version is Version.V5 else None
        assert broker.seen[0].properties.get(Property.CORRELATION_DATA) == expected
