"""The protobuf encoder against the generated classes: same rows, any kind, any text."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract._generated import frame_pb2
from framegate.contract.connector import Window
from framegate.contract.frame import Batch, Gap, Position
from framegate.northbound import encode_protobuf

from .any_rows import Names, batch_of, encoder_of, per_row, placed_of, plain, streams, suffixes


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
