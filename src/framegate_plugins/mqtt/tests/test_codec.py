from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract.connector import Window
from framegate.contract.errors import FrameBroken, FrameShort
from framegate.contract.frame import Position
from framegate.contract.law import law_text
from framegate_plugins.mqtt.codec import PacketReader, VersionUnsupported, decode, encode
from framegate_plugins.mqtt.fields import read_varint, varint
from framegate_plugins.mqtt.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    TopicFilter,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
)
from framegate_plugins.mqtt.properties import _TABLE, Form, Kind, Property, PropertyValue
from framegate_plugins.mqtt.publish import PublishStyle, PublishWriter

VECTORS = json.loads(law_text("vectors/mqtt/packets.json"))
VERSIONS = {"5": Version.V5, "3.1.1": Version.V3_1_1}
_SAMPLE_OF: dict[Form, PropertyValue] = {
    Form.FLAG: 1, Form.U16: 7, Form.U16_POSITIVE: 8, Form.U32: 9, Form.U32_POSITIVE: 70_000, Form.VARINT_POSITIVE: 300,
    Form.TEXT: "grüße", Form.BINARY: b"\x00\xff", Form.PAIRS: (("a", "1"), ("a", "2")),
}  # fmt: skip


ONE_BY_DEFAULT = {
    Property.REQUEST_PROBLEM_INFORMATION,
    Property.RETAIN_AVAILABLE,
    Property.WILDCARD_SUBSCRIPTION_AVAILABLE,
    Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE,
    Property.SHARED_SUBSCRIPTION_AVAILABLE,
}


def every_property(kind: Kind) -> dict[Property, PropertyValue]:
    found = {name: _SAMPLE_OF[form] for name, (form, places) in _TABLE.items() if kind in places}
    found.update(dict.fromkeys(ONE_BY_DEFAULT & found.keys(), 0))  # a judge leaves out what has its default
    if kind is Kind.PUBLISH:
        found[Property.SUBSCRIPTION_IDENTIFIER] = (1, 300)
    return found


RICH: list[Packet] = [
    Connect(
        "gw1-cloud", Version.V5, clean=False, keep_alive_s=30, username="u", password=b"\x00p",
        will=Will("s/x", b"offline", 1, True, every_property(Kind.WILL)), properties=every_property(Kind.CONNECT),
    ),
    Connect("", Version.V3_1_1, username="only a name", will=Will("t", b"")),
    Connack(True, 0, every_property(Kind.CONNACK)),
    Publish("a/b", b"payload", 2, True, True, 65_535, every_property(Kind.PUBLISH)),
    Publish("a", b"x" * 20_000),
    *[Ack(kind, 1, 0x80, every_property(kind)) for kind in (Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP)],
    Ack(Kind.PUBACK, 2, 0x10),
    Subscribe(3, (TopicFilter("a/+", 2, True, True, 2), TopicFilter("#")), every_property(Kind.SUBSCRIBE)),
    Suback(3, (0, 1, 2, 0x87), every_property(Kind.SUBACK)),
    Unsubscribe(4, ("a", "b/#"), every_property(Kind.UNSUBSCRIBE)),
    Unsuback(4, (0, 0x11), every_property(Kind.UNSUBACK)),
    Pingreq(),
    Pingresp(),
    Disconnect(0x9D, every_property(Kind.DISCONNECT)),
    Auth(0x18, every_property(Kind.AUTH)),
]  # fmt: skip


def version_of(packet: Packet) -> Version:
    return packet.version if isinstance(packet, Connect) else Version.V5


@pytest.mark.parametrize("packet", RICH, ids=lambda packet: type(packet).__name__)
def test_packet_with_every_property_encoded_and_decoded_is_the_same(packet: Packet) -> None:
    assert decode(encode(packet), version_of(packet)) == packet


@pytest.mark.parametrize("packet", RICH, ids=lambda packet: type(packet).__name__)
def test_packet_cut_at_every_byte_is_short(packet: Packet) -> None:
    data = encode(packet)
    for size in range(0, len(data), 1 if len(data) < 1000 else 997):
        with pytest.raises(FrameShort):
            decode(data[:size], version_of(packet))
    with pytest.raises(FrameBroken, match="follow"):
        decode(data + b"\0", version_of(packet))


@pytest.mark.parametrize("packet", RICH, ids=lambda packet: type(packet).__name__)
def test_body_cut_at_every_byte_with_honest_length_raises_only_frame_broken(packet: Packet) -> None:
    data = encode(packet)
    size, start = read_varint(data, 1) or (0, 0)
    for kept in range(0, size, 1 if size < 1000 else 997):
        try:
            again = decode(data[:1] + varint(kept) + data[start : start + kept], version_of(packet))
        except FrameShort:
            pytest.fail("a whole packet cannot be short")
        except FrameBroken:
            continue
        assert again != packet


@given(st.binary(max_size=64), st.sampled_from(Version))
def test_decode_of_arbitrary_bytes_raises_only_frame_errors(data: bytes, version: Version) -> None:
    try:
        packet = decode(data, version)
    except FrameBroken:
        return
    assert decode(encode(packet, version_of(packet) if isinstance(packet, Connect) else version), version) == packet


@given(st.integers(0, len(RICH) - 1), st.integers(0, 400), st.integers(0, 255))
def test_decode_of_a_packet_with_one_byte_changed_raises_only_frame_errors(which: int, place: int, byte: int) -> None:
    data = bytearray(encode(RICH[which]))
    data[place % len(data)] = byte
    with contextlib.suppress(FrameBroken):
        decode(bytes(data), version_of(RICH[which]))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_reader_fed_in_pieces_gives_the_same_packets(pieces: list[int]) -> None:
    wanted = [packet for packet in RICH if not isinstance(packet, Connect) and len(encode(packet)) < 1000]
    stream = b"".join(map(encode, wanted))
    reader, found, at, turn = PacketReader(), [], 0, 0
    while at < len(stream):
        size = pieces[turn % len(pieces)]
        found += reader.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert found == wanted


def test_reader_of_a_packet_beyond_its_bound_refuses_before_the_body_arrives() -> None:
    with pytest.raises(FrameBroken, match="allowed"):
        PacketReader(packet_bytes_max=1000).feed(b"\x30" + varint(1001))


def test_reader_after_connect_speaks_its_version() -> None:
    reader = PacketReader(Version.V5)
    stream = encode(Connect("c", Version.V3_1_1)) + encode(Publish("a", b"x"), Version.V3_1_1)
    assert reader.feed(stream)[1] == Publish("a", b"x")


@pytest.mark.parametrize(
    ("data", "version", "words"),
    [
        ("3600", 5, "flags"),  # QoS 3
        ("3804 0001 61 00", 5, "flags"),  # DUP with QoS 0
        ("3206 0001 61 0000 00", 5, "identifier"),
        ("3003 0000 00", 5, "topic"),
        ("3004 0001 2b 00", 5, "wildcard"),
        ("3004 0001 00 00", 5, "U+0000"),
        ("3004 0001 ff 00", 5, "UTF-8"),
        ("3005 0001 61 01 7f", 5, "does not exist"),
        ("3007 0001 61 03 11 0000", 5, "must not stand"),
        ("3008 0001 61 04 0101 0101", 5, "twice"),
        ("3006 0001 61 02 01 02", 5, "0 and 1"),
        ("3007 0001 61 03 23 0000", 5, "must not be 0"),
        ("60 02 0001", 5, "flags"),
        ("80 07 0001 00 0001 61 00", 5, "flags"),
        ("82 03 0001 00", 5, "no topic filter"),
        ("82 07 0001 00 0001 61 03", 5, "options"),
        ("82 06 0001 0001 61 04", 4, "options"),
        ("20 03 02 00 00", 5, "connack"),
        ("00 00", 5, "does not exist"),
        ("f0 00", 4, "does not exist"),
        ("c0 01 00", 5, "too many"),
        ("30 ffffffff7f", 5, "four bytes"),
        ("30 8000", 5, "longer than"),
        ("10 0c 0004 4d515454 04 01 0000 0000", 5, "flags"),
        ("10 0c 0004 4d515454 04 40 0000 0000", 5, "password"),
        ("10 0c 0004 4d515455 04 00 0000 0000", 5, "called"),
    ],
)
def test_decode_of_a_violation_is_refused(data: str, version: int, words: str) -> None:
    with pytest.raises(FrameBroken, match=re.escape(words)):
        decode(bytes.fromhex(data), Version(version))


@pytest.mark.parametrize("data", ["10 0c 0004 4d515454 06 00 0000 0000", "10 0e 0006 4d5149736470 03 00 0000 0000"])
def test_connect_of_an_unknown_level_is_told_apart(data: str) -> None:
    with pytest.raises(VersionUnsupported):
        decode(bytes.fromhex(data))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['version']} {vector['name']}")
def test_vector_of_the_standard_is_read_and_written(vector: dict[str, Any]) -> None:
    data, version = bytes.fromhex(vector["hex"]), VERSIONS[vector["version"]]
    packet = decode(data, version)
    assert type(packet).__name__ == vector["type"]
    for name, wanted in vector["fields"].items():
        value = getattr(packet, name, None)
        if isinstance(packet, Subscribe) and name == "filters":
            value = [[topic.filter, topic.qos] for topic in packet.topics]
        elif name == "properties":
            value = {key.name: held for key, held in packet.properties.items()}  # type: ignore[union-attr]
        elif isinstance(value, bytes):
            value = value.hex()
        elif isinstance(value, tuple):
            value = list(value)
        assert value == wanted, name
    if not isinstance(packet, Connack):  # written in the broker's version, not in ours
        try:
            again = encode(packet, version)
        except FrameBroken:
            pytest.fail("a packet of the standard cannot be written")
        assert again == data


def test_varints_of_the_standard_are_written_and_read() -> None:
    for entry in json.loads(law_text("vectors/mqtt/varints.json"))["values"]:
        data = bytes.fromhex(entry["hex"])
        assert varint(entry["value"]) == data
        assert read_varint(data, 0) == (entry["value"], len(data))


def window(
    *messages: tuple[bytes, bytes, int], encoding: str = "application/json", is_backfill: bool = False
) -> Window:
    keys, payloads, positions = [list(column) for column in zip(*messages, strict=True)]
    last = max(positions)
    rows = [1] * len(messages)
    return Window(Position(min(positions)), Position(last), keys, payloads, positions, rows, encoding, is_backfill)


MESSAGES = st.tuples(st.sampled_from([b"a", b"t/\xc3\xa4"]), st.binary(max_size=300), st.integers(1, 2**63))


@given(
    st.lists(MESSAGES, min_size=1, max_size=8),
    st.sampled_from(Version),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from(["", "gw1"]),
    st.integers(0, 1),
)
def test_fast_publish_is_what_the_codec_writes(
    messages: list[tuple[bytes, bytes, int]], version: Version, qos: int, retain: bool, gateway: str, alias_max: int
) -> None:
    extra = (("site", "north"),)
    style = PublishStyle(version, qos, retain, gateway=gateway, user_properties=extra, alias_max=alias_max)
    writer = PublishWriter(style)
    ids = list(range(1, len(messages) + 1)) if qos else []
    assert writer.add_run(window(*messages), range(len(messages)), ids, 1 << 30) == len(messages)
    assert writer.size == sum(map(len, writer.parts))
    found = PacketReader(version).feed(writer.take())
    aliased = messages[0][0]
    for place, (packet, (key, payload, position)) in enumerate(zip(found, messages, strict=True)):
        properties: dict[Property, PropertyValue] = {}
        topic = key.decode()
        if version is Version.V5:
            if alias_max and key == aliased:
                properties[Property.TOPIC_ALIAS] = 1
                topic = "" if place else topic
            properties[Property.CONTENT_TYPE] = "application/json"
            pairs = (*extra, ("gateway", gateway), ("pos", str(position))) if gateway else extra
            properties[Property.USER_PROPERTY] = pairs
        assert packet == Publish(topic, payload, qos, retain, False, ids[place] if qos else 0, properties)


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"t/b", b"c"]), st.binary(max_size=60)), min_size=20, max_size=40),
    st.sampled_from([[], [(b"#", b"x")]]),
    st.sampled_from([1, 90, 995, 99_990]),
    st.integers(0, 1),
    st.sampled_from(["", "gw1"]),
    st.integers(0, 2),
    st.sampled_from([120, 1 << 20]),
    st.integers(3_000, 50_000),
)
def test_publish_in_runs_is_what_message_by_message_would_be(
    known: list[tuple[bytes, bytes]],
    impossible: list[tuple[bytes, bytes]],
    first: int,
    qos: int,
    gateway: str,
    alias_max: int,
    packet_max: int,
    chunk: int,
) -> None:
    messages = [(*message, first + place) for place, message in enumerate([*known * 4, *impossible, *known])]
    style = PublishStyle(qos=qos, gateway=gateway, alias_max=alias_max, packet_bytes_max=packet_max)
    whole, single = PublishWriter(style), PublishWriter(style)
    data = [b"", b""]
    for _ in range(2):  # the second time every topic and length is known
        for place, writer, step in ((0, whole, len(messages)), (1, single, 1)):
            at = 0
            while at < len(messages):
                run = range(at, min(len(messages), at + step))
                ids = [number + 1 for number in run] if qos else []
                written = writer.add_run(window(*messages), run, ids, chunk)
                at += written + (1 if writer.refusal else 0)
                if writer.size >= chunk or writer.refusal:
                    data[place] += writer.take()
            data[place] += writer.take()
    assert data[0] == data[1]


def test_backfill_carries_a_user_property_and_is_never_retained_in_any_turn_with_live_messages() -> None:
    writer = PublishWriter(PublishStyle(retain=True, gateway="gw1"))
    turns = [False, True, True, False]
    for is_backfill in turns:
        batch = window((b"a", b"x", 7), is_backfill=is_backfill)
        assert writer.add_run(batch, range(1), [1], 1 << 30) == 1
    for packet, is_backfill in zip(PacketReader().feed(writer.take()), turns, strict=True):
        assert isinstance(packet, Publish)
        pairs = packet.properties[Property.USER_PROPERTY]
        assert isinstance(pairs, tuple)
        assert (("backfill", "true") in pairs, packet.retain) == (is_backfill, not is_backfill)


def test_fast_publish_of_a_message_beyond_the_packet_size_stops_in_front_of_it() -> None:
    writer = PublishWriter(PublishStyle(packet_bytes_max=100))
    batch = window((b"a", b"x", 1), (b"a", b"x" * 100, 2), (b"a", b"x", 3))
    assert writer.add_run(batch, range(3), [1, 2, 3], 1 << 30) == 1
    assert "100" in writer.refusal


def test_topic_alias_introduced_by_a_message_that_was_not_sent_is_introduced_again() -> None:
    writer = PublishWriter(PublishStyle(packet_bytes_max=100, alias_max=9))
    batch = window((b"a", b"x" * 100, 1), (b"a", b"x", 2))
    assert writer.add_run(batch, range(1), [1], 1 << 30) == 0
    assert writer.add_run(batch, range(1, 2), [2], 1 << 30) == 1
    (packet,) = PacketReader().feed(writer.take())
    assert isinstance(packet, Publish)
    assert packet.topic == "a"


@pytest.mark.parametrize("key", [b"", b"a/#", b"a/+", b"a\0", b"x" * 65_536])
def test_fast_publish_to_an_impossible_topic_stops_in_front_of_it(key: bytes) -> None:
    writer = PublishWriter(PublishStyle())
    assert writer.add_run(window((key, b"x", 1)), range(1), [1], 1 << 30) == 0
    assert "topic" in writer.refusal


def test_connect_shown_in_a_log_holds_no_password() -> None:
    assert "secret" not in repr(replace(Connect("c"), username="u", password=b"secret"))
