"""Commands as messages: what is understood, what is refused, and where answers go."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract.command import TTL_S, Command, CommandRecord, Outcome, Stage
from framegate_plugins.mqtt.command_message import (
    PAYLOAD_BYTES_MAX,
    REASON_CHARACTERS_MAX,
    CommandTopics,
    MessageRefused,
    ReturnAddress,
    answer_from,
    command_from,
    id_from,
    trimmed,
    ulid,
)
from framegate_plugins.mqtt.packets import Publish
from framegate_plugins.mqtt.properties import Properties, Property

NOW = 1_800_000_000_000_000_000
NEW = "01NEW"
TOPICS = CommandTopics("{tenant}/cmd/{tag}", "ack/{gateway}/{tag}", tenant="acme", gateway="gw/1+")


def command(payload: bytes | str, **properties: bytes | int) -> Command:
    data = payload.encode() if isinstance(payload, str) else payload
    found = {Property[name]: value for name, value in properties.items()}
    return command_from(Publish("acme/cmd/a", data, properties=found), "a", NOW, NEW)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("42", Command(NEW, "a", 42)),
        ("-1.5e3", Command(NEW, "a", -1500.0)),
        ("false", Command(NEW, "a", value=False)),
        ('"open"', Command(NEW, "a", "open")),
        ("18446744073709551615", Command(NEW, "a", 2**64 - 1)),
        ('{"id": "c-1", "value": 1}', Command("c-1", "a", 1)),
        ('{"id": "c.2", "tag": "a", "value": 1, "ttl_ms": 1500}', Command("c.2", "a", 1, ttl_s=1.5)),
        (
            '{"value": true, "verify": true, "retry": true, "select": true, "issued": 7}',
            Command(NEW, "a", value=True, issued=7, verify=True, retry=True, select=True),
        ),
        ('{"value": 0, "issued": "1970-01-01T01:00:00.000001+01:00"}', Command(NEW, "a", 0, issued=1_000)),
    ],
)
def test_command_is_understood(payload: str, expected: Command) -> None:
    found = command(payload)
    assert found == expected
    assert type(found.value) is type(expected.value)


HOSTILE: list[tuple[bytes | str, str]] = [
    (b"", "empty"),
    (b"\xff\xfe", "UTF-8"),
    ("{", "no JSON"),
    ("42 43", "no JSON"),
    ("null", "'value'"),
    ("[1, 2]", "'value'"),
    ("NaN", "NaN"),
    ("-Infinity", "Infinity"),
    ("1e999", "'value'"),
    ("18446744073709551616", "'value'"),
    ("9" * PAYLOAD_BYTES_MAX, "'value'"),
    ("[" * PAYLOAD_BYTES_MAX, "nested"),
    ('{"a":' * 800, "JSON"),
    ('"' + "x" * 1_025 + '"', "'value'"),
    ('"\\ud800"', "'value'"),
    ("{}", "'value' is missing"),
    ('{"value": {"value": 1}}', "'value'"),
    ('{"value": 1, "value": 2}', "twice"),
    ('{"value": 1, "verfiy": true}', "'verfiy'"),
    ('{"value": 1, "verify": 1}', "'verify'"),
    ('{"value": 1, "tag": "b"}', "'tag'"),
    ('{"value": 1, "id": ""}', "'id'"),
    ('{"value": 1, "id": 7}', "'id'"),
    ('{"value": 1, "id": "a b"}', "'id'"),
    ('{"value": 1, "id": "a\\n"}', "'id'"),
    ('{"value": 1, "id": "' + "x" * 65 + '"}', "'id'"),
    ('{"value": 1, "ttl_ms": 0}', "'ttl_ms'"),
    ('{"value": 1, "ttl_ms": 86400001}', "'ttl_ms'"),
    ('{"value": 1, "ttl_ms": true}', "'ttl_ms'"),
    ('{"value": 1, "ttl_ms": 1.5}', "'ttl_ms'"),
    ('{"value": 1, "issued": -1}', "'issued'"),
    ('{"value": 1, "issued": "yesterday"}', "'issued'"),
    ('{"value": 1, "issued": "2026-01-31T12:00:00"}', "'issued'"),
    ('{"value": 1, "issued": "9999-01-31T12:00:00Z"}', "'issued'"),
    ('{"value": 1, "issued": 1e18}', "'issued'"),
]


@pytest.mark.parametrize(("payload", "why"), HOSTILE)
def test_hostile_payload_is_refused_with_its_reason(payload: bytes | str, why: str) -> None:
    with pytest.raises(MessageRefused, match=why) as refused:
        command(payload)
    assert refused.value.code == "E5115"
    assert len(refused.value.text) < REASON_CHARACTERS_MAX


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789.eE+-truefalsnidvy\\ ').map(str.encode))
def test_any_bytes_are_a_command_or_refused(payload: bytes) -> None:
    publish = Publish("acme/cmd/a", payload)
    id_from(publish)
    try:
        command_from(publish, "a", NOW, NEW)
    except MessageRefused as refused:
        assert refused.code == "E5115"  # noqa: PT017 - whether it is refused is not the question


def test_payload_that_was_not_kept_is_refused_with_its_size() -> None:
    with pytest.raises(MessageRefused, match="5000000 bytes"):
        command_from(Publish("acme/cmd/a", b""), "a", NOW, NEW, oversize=5_000_000)


def test_retained_message_is_refused_whatever_it_holds() -> None:
    with pytest.raises(MessageRefused) as refused:
        command_from(Publish("acme/cmd/a", b"1", retain=True), "a", NOW, NEW)
    assert refused.value.code == "E5116"


@pytest.mark.parametrize(
    ("payload", "left_s", "ttl_s"),
    [
        ("1", 10, 10.0),
        ("1", 3_600, TTL_S),
        ("1", 0, 0.0),
        (f'{{"value": 1, "issued": {NOW - 4_000_000_000}}}', 10, 14.0),
    ],
)
def test_message_expiry_cuts_the_ttl(payload: str, left_s: int, ttl_s: float) -> None:
    assert command(payload, MESSAGE_EXPIRY=left_s).ttl_s == ttl_s


@pytest.mark.parametrize(
    ("payload", "correlation", "expected"),
    [
        (b"1", b"sound-id", "sound-id"),
        (b"1", b"no id", ""),
        (b'{"id": "mine", "value": 1}', b"sound-id", "mine"),
        (b'{"id": 7}', b"sound-id", "sound-id"),
        (b"{", b"", ""),
    ],
)
def test_answer_to_a_refused_message_carries_the_id_it_had(payload: bytes, correlation: bytes, expected: str) -> None:
    publish = Publish("acme/cmd/a", payload, properties={Property.CORRELATION_DATA: correlation})
    assert id_from(publish) == expected


def test_correlation_data_that_could_be_an_id_is_the_id() -> None:
    assert command("1", CORRELATION_DATA=b"an-id").id == "an-id"
    assert command("1", CORRELATION_DATA=b"\x00\x01").id == NEW


def test_names_that_no_level_holds_do_not_widen_the_filter() -> None:
    assert CommandTopics("a/{gateway}/{tag}", "", tenant="", gateway="gw/1+{tag}").filter == "a/gw_1__tag_/+"


@pytest.mark.parametrize(
    ("topic", "tag"), [("acme/cmd/pump7.speed", "pump7.speed"), ("acme/cmd/a%2Fb", "a/b"), ("acme/cmd/ä [1]", "ä [1]")]
)
def test_tag_is_one_level_of_the_topic(topic: str, tag: str) -> None:
    assert TOPICS.tag_of(topic) == tag


@pytest.mark.parametrize(
    "topic", ["acme/cmd/a/b", "acme/cmd", "other/cmd/a", "acme/cmd/", "a" * 60_000, "acme/cmd/a\x07"]
)
def test_topic_without_a_tag_is_refused(topic: str) -> None:
    with pytest.raises(MessageRefused):
        TOPICS.tag_of(topic)


@given(st.binary(max_size=3_000), st.text(max_size=3_000), st.text(st.characters(codec="ascii"), max_size=2_000))
def test_what_is_kept_of_a_message_means_the_same(correlation: bytes, response: str, tag: str) -> None:
    properties: Properties = {
        Property.CORRELATION_DATA: correlation,
        Property.RESPONSE_TOPIC: response,
        Property.MESSAGE_EXPIRY: 9,
        Property.USER_PROPERTY: (("a", "b" * 9_000),),
    }
    whole = Publish(f"acme/cmd/{tag}", b"1", 2, packet_id=7, properties=properties)
    kept = trimmed(whole)
    assert TOPICS.answer_to(kept) == TOPICS.answer_to(whole)
    assert command_from(kept, "a", NOW, NEW) == command_from(whole, "a", NOW, NEW)
    assert _tag(kept) == _tag(whole)
    assert sum(map(len, (kept.topic, *map(str, kept.properties.values())))) < 9_000


def _tag(publish: Publish) -> str:
    try:
        return TOPICS.tag_of(publish.topic)
    except MessageRefused:
        return ""


def test_answer_goes_to_the_template_where_no_response_topic_is_named() -> None:
    assert TOPICS.answer_to(Publish("acme/cmd/a%2Fb", b"")) == ReturnAddress("ack/gw_1_/a%2Fb")


@pytest.mark.parametrize(
    ("response", "correlation"),
    [("acme/cmd/b", b""), ("a/+", b""), ("a/#", b""), ("$SYS/a", b""), ("x" * 1_025, b""), ("fine", b"x" * 1_025)],
)
def test_response_topic_that_loops_or_is_none_gets_no_answer(response: str, correlation: bytes) -> None:
    properties: Properties = {Property.RESPONSE_TOPIC: response, Property.CORRELATION_DATA: correlation}
    assert TOPICS.answer_to(Publish("acme/cmd/a", b"", properties=properties)) == ReturnAddress("")


def test_topic_of_an_older_subscription_gets_no_answer_from_the_template() -> None:
    assert TOPICS.answer_to(Publish("old/a", b"")) == ReturnAddress("")


def test_answer_is_the_frame_of_the_contract() -> None:
    record = CommandRecord(
        Command("c", "a", 1), "north:cloud", Stage.DISPATCHED, Outcome.UNKNOWN, "E4210", "n" * 9_999, NOW, NOW + 5
    )
    assert json.loads(answer_from(record)) == {
        "id": "c",
        "tag": "a",
        "outcome": "UNKNOWN",
        "code": "E4210",
        "reason": "n" * REASON_CHARACTERS_MAX,
        "ts": NOW + 5,
        "origin": "north:cloud",
    }


def test_ulids_sort_by_time_and_hold_all_their_chance() -> None:
    # The example of the ULID specification: 1469918176385 ms.
    assert ulid(1_469_918_176_385_000_000, b"\0" * 10)[:10] == "01ARYZ6S41"
    assert ulid(NOW, b"\xff" * 10)[10:] == "Z" * 16
    assert ulid(NOW, b"\xff" * 10) < ulid(NOW + 1_000_000, b"\0" * 10)
