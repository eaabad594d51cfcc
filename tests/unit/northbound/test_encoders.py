"""Encoders against a naive reference: same rows, any kind, any text."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract._generated import frame_pb2
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, Gap, Position
from framegate.northbound import encode_json, encode_protobuf
from framegate.northbound.encoder import backfill_template, make_encoder
from framegate.northbound.slices import after

from .any_rows import BAD, Names, batch_of, encoder_of, placed_of, reference, streams, suffixes, unpacked
from .test_encode_protobuf import protobuf_rows


@settings(max_examples=150, deadline=None)
@given(stream=streams, suffix=suffixes, batch=st.integers(1, 7), template=st.sampled_from(["", "{tenant}/{device}"]))
def test_json_batch_any_rows_equal_the_reference(stream: list[Batch], suffix: str, batch: int, template: str) -> None:
    names = Names(suffix)
    placed = placed_of(stream, 7)
    encoder = encoder_of("json-batch", template, names, batch=batch)
    for _ in range(2):  # caches are warm the second time
        window = encoder.encode(placed)
        frames = unpacked(window)
        assert sorted(frames, key=lambda frame: int(frame["pos"])) == reference(placed, names)
        assert frames == reference(placed, names)
        assert max(window.rows) <= batch
        assert (window.first, window.last) == (7, placed[-1].last)


@settings(max_examples=100, deadline=None)
@given(stream=streams, suffix=suffixes)
def test_json_any_rows_equal_the_reference(stream: list[Batch], suffix: str) -> None:
    names = Names(suffix)
    placed = placed_of(stream)
    encoder = encoder_of("json", names=names)
    for _ in range(2):
        window = encoder.encode(placed)
        assert [json.loads(payload) for payload in window.payload] == reference(placed, names)
        assert list(window.position) == [frame["pos"] for frame in reference(placed, names)]
        assert set(window.rows) == {1}


def test_values_render_as_their_own_types() -> None:
    stream = [
        batch_of([0, 1], [1.1, float(np.float32(1.1))]),
        batch_of([1, 3], [float(np.float32(1.1)), 3e38 * 10]),
        batch_of([0], [12], "l"),
        batch_of([0], [2**64 - 1], "L"),
        batch_of([0, 2], [True, False], "?"),
        batch_of([0, 2, 4], ['a"\n€', b"\x00\xff", [1, 2.5]], "O"),
    ]
    (payload,) = encoder_of("json-batch").encode(placed_of(stream)).payload
    texts = [part.split(b',"ts"')[0] for part in payload.split(b'"value":')[1:]]
    assert texts == [
        b"1.1",
        b"1.1",
        b"1.1",
        b"3e+39",
        b"12",
        b"18446744073709551615",
        b"true",
        b"false",
        '"a\\"\\n€"'.encode(),
        b'"AP8="',
        b"[1,2.5]",
    ]


def test_text_that_orjson_refuses_is_still_json() -> None:
    (payload,) = (
        encoder_of("json-batch").encode(placed_of([batch_of([0, 2], ["\ud800", [2**70, math.nan]], "O")])).payload
    )
    assert [frame["value"] for frame in json.loads(payload)["frames"]] == ["\ud800", [2**70, None]]


def test_null_never_carries_a_usable_quality() -> None:
    stream = [
        batch_of([0, 2, 4], [math.nan, math.inf, 1.0], quality=[0, 0x800A_0000, BAD]),
        batch_of([0], [None], "O"),
        batch_of([0, 2], [1, 2], "l", quality=[0x800A_0000]),
    ]
    frames = unpacked(encoder_of("json-batch").encode(placed_of(stream)))
    assert [frame["value"] for frame in frames] == [None] * 6
    assert [frame["qos"] for frame in frames] == [0x803C_0000, 0x800A_0000, BAD, 0x809B_0000, 0x800A_0000, 0x800A_0000]


def test_json_batch_messages_are_full_across_batches_and_break_at_holes() -> None:
    encoder = encoder_of("json-batch", batch=32)
    stream = placed_of([batch_of(range(20), range(20), "l") for _ in range(5)])
    assert encoder.encode(stream).rows == [32, 32, 32, 4]
    del stream[2]
    window = encoder.encode(stream)
    assert (window.rows, window.position) == ([32, 8, 32, 8], [1, 33, 61, 93])


def test_device_in_the_template_gives_each_device_its_messages() -> None:
    window = encoder_of("json-batch", "{tenant}/{device}").encode(placed_of([batch_of([0, 3, 1, 4, 0], range(5), "l")]))
    assert (window.key, window.rows) == ([b"gas/dev0", b"gas/dev1", b"gas/dev0"], [2, 2, 1])


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("ms", 1_732_000_000_123),
        ("us", 1_732_000_000_123_456),
        ("ns", 1_732_000_000_123_456_789),
        ("iso", "2024-11-19T07:06:40.123456Z"),
    ],
)
def test_time_is_written_in_the_connectors_unit(unit: str, expected: object) -> None:
    encoder = encoder_of("json", time=unit)
    uniform, mixed = batch_of([0, 2], [1, 2]), batch_of([0, 2], [1, 2], time=[1_732_000_000_123_456_789, 0])
    texts = [json.loads(payload)["ts"] for payload in encoder.encode(placed_of([uniform, mixed])).payload]
    assert texts[:3] == [expected] * 3
    if unit == "iso":
        stamp = datetime.fromisoformat(str(expected))
        assert stamp - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(seconds=1_732_000_000, microseconds=123_456)


def test_long_texts_keep_messages_bounded() -> None:
    long = "x" * 100_000
    placed = placed_of([batch_of(range(6), [long] * 6, "O"), batch_of(range(3), [1, 2, 3], "l")])
    window = encoder_of("json-batch").encode(placed)
    assert window.rows == [2, 2, 5]
    assert max(map(len, window.payload)) <= encode_json.MESSAGE_BYTES_MAX + 4096
    assert unpacked(window) == reference(placed, Names())
    packed = encoder_of("protobuf").encode(placed)
    assert max(map(len, packed.payload)) <= encode_protobuf.MESSAGE_BYTES_MAX + 64
    assert len(protobuf_rows(packed)) == 9


@pytest.mark.parametrize("encoding", ["json", "json-batch", "protobuf"])
def test_zstd_each_payload_stands_alone(encoding: str) -> None:
    placed = placed_of([batch_of(range(5), range(5), "l")])
    flat, packed = encoder_of(encoding).encode(placed), encoder_of(encoding, compress="zstd").encode(placed)
    assert [zstandard.decompress(payload) for payload in packed.payload] == list(flat.payload)
    assert packed.encoding == flat.encoding + "+zstd"


def test_rows_behind_the_cursor_are_sliced_off() -> None:
    (placed,) = placed_of([batch_of(range(5), range(5), "l", quality=range(5), time=range(5))], 10)
    assert after(placed, Position(14)) is None
    assert after(placed, Position(9)) is placed
    rest = after(placed, Position(11))
    assert rest is not None
    frames = unpacked(encoder_of("json-batch").encode([rest]))
    assert [(frame["pos"], frame["value"], frame["qos"]) for frame in frames] == [(12, 2, 2), (13, 3, 3), (14, 4, 4)]


@pytest.mark.parametrize("encoding", ["json", "json-batch"])
def test_backfill_is_marked_once_per_json_message_and_else_the_same(encoding: str) -> None:
    rows, gap = (
        [batch_of([1, 2, 1], [1, 2, 3], "l", quality=[0, 1, 2]), batch_of([1], [1.5])],
        Gap(Position(5), Position(9), "damage", "", "", 10**18),
    )
    live, backfill = encoder_of(encoding), encoder_of(encoding, is_backfill=True)
    notices = live.encode_gap(gap), backfill.encode_gap(gap)
    for plain, marked in ((live.encode(placed_of(rows)), backfill.encode(placed_of(rows))), notices):
        assert plain is not None
        assert marked is not None
        for one, other in zip(plain.payload, marked.payload, strict=True):
            assert json.loads(one) | {"backfill": True} == json.loads(other)
            assert other.count(b"backfill") == 1


@pytest.mark.parametrize(
    ("encoding", "template", "expected"),
    [
        ("json", "", "{tenant}/{device}/{tag}/backfill"),
        ("protobuf", "", "{tenant}/{gateway}/backfill"),
        ("json-batch", "a/{device}", "a/{device}/backfill"),
    ],
)
def test_backfill_has_a_topic_beside_the_live_one(encoding: str, template: str, expected: str) -> None:
    assert backfill_template(encoding, template) == expected


def test_gap_notice_says_what_is_gone() -> None:
    gap = Gap(Position(5), Position(9), "disk_full", "disk full", "", 10**18)
    window = encoder_of("json").encode_gap(gap)
    assert window is not None
    assert (window.key, window.first, window.last) == ([b"gas/gap/gap"], 5, 9)
    told = {"first": 5, "last": 9, "reason": "disk_full", "detail": "disk full"}
    assert json.loads(window.payload[0]) == {"gateway": 'g"w', "gap": told, "ts": 10**12}
    assert encoder_of("protobuf").encode_gap(gap) is None
    window = encoder_of("protobuf", "{tenant}/{device}").encode_gap(gap)
    assert window is not None
    expected = frame_pb2.GapFrame(
        first_pos=5, last_pos=9, reason=frame_pb2.GAP_REASON_DISK_FULL, detail="disk full", ts=10**18, gateway='g"w'
    )
    assert window.payload[0] == expected.SerializeToString(deterministic=True)


def test_forget_takes_new_names_from_the_catalogue() -> None:
    names = Names()
    encoder = encoder_of("json", names=names)
    placed = placed_of([batch_of([4], [1], "l")])
    encoder.encode(placed)
    names.suffix = ".new"
    encoder.forget()
    assert encoder.encode(placed).key == [b"gas/dev1/t4.new"]


@pytest.mark.parametrize(
    ("encoding", "template", "options"),
    [
        ("xml", "", {}),
        ("json", "{tenant}/{site}", {}),
        ("json-batch", "{tag}", {}),
        ("protobuf", "a/{tag}", {}),
        ("json", "a/{", {}),
        ("json", "a/#", {}),
        ("json-batch", "", {"batch": 0}),
        ("json", "", {"compress": "gzip"}),
        ("json", "", {"time": "s"}),
    ],
)
def test_impossible_encoding_is_refused_with_a_way_out(encoding: str, template: str, options: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match=r"E240[12] .*(use|write|need)"):
        encoder_of(encoding, template, **options)


def test_route_values_cannot_break_a_topic() -> None:
    encoder = make_encoder(
        "json",
        tenant="{tag}",
        gateway="g",
        connector="c",
        template="{tenant}/{device}/{tag}",
        catalogue=Names("+#/é\n"),
    )
    assert encoder.encode(placed_of([batch_of([4], [1], "l")])).key == ["{tag}/dev1/t4__/é_".encode()]
