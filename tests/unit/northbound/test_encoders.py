"""Encoders against a naive reference, and against the generated classes: same rows, any kind, any text."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract._generated import frame_pb2
from framegate.contract.connector import Window
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, Gap, Placed, Position, Tag, TagId, ValueType
from framegate.northbound import encode_json, encode_protobuf
from framegate.northbound.encoder import Encoder, backfill_template, make_encoder
from framegate.northbound.slices import after

BAD = 0x8000_0000
DTYPES = {"d": np.float64, "l": np.int64, "L": np.uint64, "?": np.bool_, "O": np.object_}
TYPES = {
    "d": ValueType.FLOAT64,
    "f": ValueType.FLOAT32,
    "l": ValueType.INT32,
    "L": ValueType.UINT64,
    "?": ValueType.BOOL,
    "O": ValueType.STRING,
}


class Names:
    """A catalogue whose ids choose device and type: id % 3 is the device, odd ids are float32."""

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix

    def intern(self, name: str, device: str, type_: ValueType, unit: str, access: str) -> TagId:
        raise AssertionError

    def tag(self, tag_id: int) -> Tag:
        type_ = ValueType.FLOAT32 if tag_id % 2 else ValueType.FLOAT64
        return Tag(TagId(tag_id), f"t{tag_id}{self.suffix}", f"dev{tag_id % 3}", type_, "", "R")

    def find(self, name: str) -> Tag | None:
        return None


def encoder_of(encoding: str, template: str = "", names: Names | None = None, **options: Any) -> Encoder:
    return make_encoder(
        encoding,
        tenant="gas",
        gateway='g"w',
        connector="cloud",
        template=template,
        catalogue=names or Names(),
        **options,
    )


def batch_of(
    tags: Sequence[int],
    values: Sequence[Any],
    kind: str = "d",
    quality: Sequence[int] = (0,),
    time: Sequence[int] = (1_732_000_000_123_456_789,),
    gateway_time: int = 5,
) -> Batch:
    column = np.array(values, DTYPES[kind]) if kind != "O" else np.empty(len(values), np.object_)
    if kind == "O":
        column[:] = values
    return Batch(np.array(tags, np.int32), column, np.array(quality, np.uint32), np.array(time, np.int64), gateway_time)


def placed_of(batches: Sequence[Batch], first: int = 1) -> list[Placed]:
    placed = []
    for batch in batches:
        placed.append(Placed(Position(first), batch))
        first += batch.rows
    return placed


def per_row(column: Any, rows: int) -> list[Any]:
    values: list[Any] = column.tolist()
    return values * (rows if len(values) == 1 else 1)


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [plain(member) for member in value]
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def reference(placed: Sequence[Placed], names: Names) -> list[dict[str, Any]]:
    """What JSON should say, row by row, slowly."""
    frames = []
    for first, batch in placed:
        rows = batch.rows
        columns = (
            batch.tag.tolist(),
            batch.value.tolist(),
            per_row(batch.quality, rows),
            per_row(batch.source_time, rows),
        )
        for row, (tag_id, value, quality, time) in enumerate(zip(*columns, strict=True)):
            tag = names.tag(tag_id)
            shown = plain(value)
            if isinstance(shown, float) and tag.type is ValueType.FLOAT32:
                with np.errstate(over="ignore"):
                    narrow = np.float32(shown)
                shown = float(str(narrow)) if np.isfinite(narrow) else shown
            if quality & BAD:
                shown = None
            elif shown is None:
                quality = 0x809B_0000 if value is None else 0x803C_0000  # noqa: PLW2901 - the rule of payloads.md
            frames.append({"tag": tag.name, "value": shown, "ts": time // 10**6, "qos": quality, "pos": first + row})
    return frames


def unpacked(window: Window) -> list[dict[str, Any]]:
    """Frames of a json-batch window, each with its position."""
    frames = []
    for payload, position, rows in zip(window.payload, window.position, window.rows, strict=True):
        message = json.loads(payload)
        assert (message["gateway"], message["pos"], len(message["frames"])) == ('g"w', position, rows)
        frames += [{**frame, "pos": position + row} for row, frame in enumerate(message["frames"])]
    return frames


finite = st.floats(allow_nan=False, allow_infinity=False)
objects = st.one_of(
    st.text(max_size=8),
    st.binary(max_size=8),
    st.none(),
    st.lists(st.integers(-9, 9) | finite, max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(-9, 9) | st.binary(max_size=4) | finite, max_size=3),
)
VALUES = {
    "d": st.floats(width=32) | st.floats(),
    "l": st.integers(-(2**63), 2**63 - 1),
    "L": st.integers(0, 2**64 - 1),
    "?": st.booleans(),
    "O": objects,
}
QUALITY = st.sampled_from([0, 0, 0x4000_0000, 0x800A_0000, 0x0000_0480, 0xFFFF_FFFF])
TIME = st.integers(-(2**60), 2**62)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    kind = draw(st.sampled_from("dlL?O"))
    rows = draw(st.integers(1, 9))
    tags = draw(st.lists(st.integers(0, 12), min_size=rows, max_size=rows))
    values = draw(st.lists(VALUES[kind], min_size=rows, max_size=rows))
    quality = draw(st.lists(QUALITY, min_size=1, max_size=1) | st.lists(QUALITY, min_size=rows, max_size=rows))
    time = draw(st.lists(TIME, min_size=1, max_size=1) | st.lists(TIME, min_size=rows, max_size=rows))
    return batch_of(tags, values, kind, quality, time, draw(TIME))


streams = st.lists(batches(), min_size=1, max_size=6)
suffixes = st.text(max_size=3)


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


def protobuf_rows(window: Window) -> dict[int, tuple[Any, ...]]:
    rows: dict[int, tuple[Any, ...]] = {}
    for payload, position, count in zip(window.payload, window.position, window.rows, strict=True):
        message = frame_pb2.FrameBatch.FromString(payload)
        assert message.SerializeToString(deterministic=True) == payload
        assert message.gateway == 'g"w'
        values: list[Any] = [
            *message.double_value,
            *message.int_value,
            *message.uint_value,
            *message.bool_value,
            *map(other_value, message.other_value),
        ]
        positions = [run.pos + row for run in message.run for row in range(run.rows)]
        assert (positions[0], len(positions), len(values), len(message.name)) == (position, count, count, count)
        times = list(message.ts) * (count if len(message.ts) == 1 else 1)
        qualities = list(message.qos) * (count if len(message.qos) == 1 else 1)
        rows.update(zip(positions, zip(message.name, values, times, qualities, strict=True), strict=True))
    return rows


def other_value(value: frame_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind is None:
        return None
    found = getattr(value, kind)
    return json.loads(found) if kind == "json_value" else found


def same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and (left == right or (left != left and right != right))  # noqa: PLR0124 - NaN


@settings(max_examples=150, deadline=None)
@given(stream=streams, suffix=suffixes, template=st.sampled_from(["", "{tenant}/{device}"]))
def test_protobuf_any_rows_parse_back_the_same(stream: list[Batch], suffix: str, template: str) -> None:
    names = Names(suffix)
    placed = placed_of(stream, 3)
    encoder = encoder_of("protobuf", template, names)
    for _ in range(2):
        window = encoder.encode(placed)
        rows = protobuf_rows(window)
        assert len(rows) == sum(window.rows)
        for first, batch in placed:
            columns = (batch.value.tolist(), per_row(batch.source_time, batch.rows), per_row(batch.quality, batch.rows))
            for row, (tag, value, time, quality) in enumerate(zip(batch.tag.tolist(), *columns, strict=True)):
                name, found, *rest = rows[first + row]
                assert (name, *rest) == (names.tag(tag).name, time, quality)
                assert same(found, value) or (isinstance(value, list | dict) and found == plain(value))


@settings(max_examples=100, deadline=None)
@given(stream=streams, template=st.sampled_from(["", "{tenant}/{device}"]))
def test_protobuf_rows_of_one_tag_leave_in_order(stream: list[Batch], template: str) -> None:
    window = encoder_of("protobuf", template).encode(placed_of(stream))
    last: dict[str, int] = {}
    for position, (name, *_) in protobuf_rows(window).items():
        assert position > last.get(name, 0)
        last[name] = position


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


def test_protobuf_large_batches_are_cut_by_size() -> None:
    rows = 30_000
    window = encoder_of("protobuf").encode(placed_of([batch_of(range(rows), range(rows), "l")]))
    assert max(map(len, window.payload)) <= encode_protobuf.MESSAGE_BYTES_MAX
    assert sorted(protobuf_rows(window)) == list(range(1, rows + 1))


def test_protobuf_batches_of_one_kind_share_a_message() -> None:
    stream = [batch_of([0, 2], [1.0, 2.0]), batch_of([1], [7], "l"), batch_of([4, 6], [3.0, 4.0], time=[9])]
    window = encoder_of("protobuf").encode(placed_of(stream))
    assert (window.rows, window.position) == ([4, 1], [1, 3])
    message = frame_pb2.FrameBatch.FromString(window.payload[0])
    assert [(run.pos, run.rows) for run in message.run] == [(1, 2), (4, 2)]
    assert len(message.qos) == 1
    assert len(message.ts) == 4


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


def test_backfill_is_marked_in_protobuf_and_else_the_same() -> None:
    rows, gap = placed_of([batch_of([1, 2], [1, 2], "l")]), Gap(Position(5), Position(9), "damage", "", "", 10**18)
    live, backfill = (encoder_of("protobuf", "{tenant}/{device}", is_backfill=mark) for mark in (False, True))
    batch = frame_pb2.FrameBatch.FromString(live.encode(rows).payload[0])
    lost = live.encode_gap(gap)
    assert lost is not None
    notice = frame_pb2.GapFrame.FromString(lost.payload[0])
    assert not batch.backfill
    batch.backfill = notice.backfill = True
    assert backfill.encode(rows).payload[0] == batch.SerializeToString(deterministic=True)
    told = backfill.encode_gap(gap)
    assert told is not None
    assert told.payload[0] == notice.SerializeToString(deterministic=True)


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
