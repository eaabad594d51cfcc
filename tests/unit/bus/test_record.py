"""Records: every kind comes back as it was, and bytes that are no record raise FrameBroken."""

from __future__ import annotations

import contextlib
import struct

import google_crc32c
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.bus.objects import pack_objects, unpack_objects
from framegate.bus.record import decode, encode, key_of
from framegate.contract.errors import FrameBroken
from framegate.contract.frame import Batch, Int32Column, Value, ValueColumn, uniform_quality, uniform_time

NAN_WITH_PAYLOAD = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_DEAD_BEEF))[0]


def no_layout(number: int) -> Int32Column:
    raise FrameBroken(f"layout {number}")


def round_trip(batch: Batch, first: int = 7) -> Batch:
    key = key_of(first)
    placed = decode(key, encode(key, batch, 0), no_layout)
    assert placed.first == first
    return placed.batch


def objects(*values: Value) -> npt.NDArray[np.object_]:
    column = np.empty(len(values), dtype=np.object_)
    for row, value in enumerate(values):
        column[row] = value
    return column


def batch_of(value: ValueColumn) -> Batch:
    return Batch(np.arange(len(value), dtype=np.int32), value, uniform_quality(0x8000_0000), uniform_time(-5), 2**62)


@pytest.mark.parametrize(
    "value",
    [
        np.array([0.1, -0.0, np.inf, NAN_WITH_PAYLOAD]),
        np.array([0, -(2**63), 2**63 - 1, 5], dtype=np.int64),
        np.array([0, 2**64 - 1, 1], dtype=np.uint64),
        np.array([True, False, True] * 7),
    ],
    ids=["float", "int", "uint", "bool"],
)
def test_record_of_numbers_comes_back_bit_identical(value: ValueColumn) -> None:
    back = round_trip(batch_of(value))
    assert back.value.dtype == value.dtype
    assert back.value.tobytes() == value.tobytes()
    assert (back.quality.tolist(), back.source_time.tolist(), back.gateway_time) == ([0x8000_0000], [-5], 2**62)
    assert back.tag.tolist() == list(range(len(value)))


def test_record_of_objects_comes_back_as_the_same_types() -> None:
    values: list[Value] = ["pump ü", b"\x00\xff", None, [1, [True, b"x", None], "y", 2.5], -(2**80), "", b"", [], False]
    back = round_trip(batch_of(objects(*values))).value.tolist()
    assert back == values
    assert [type(value) for value in back] == [type(value) for value in values]


@pytest.mark.parametrize("rows", [2, 3, 8, 60, 4096])
@pytest.mark.parametrize("runs", [1, 2, 1000])
def test_record_of_uneven_quality_and_times_comes_back(rows: int, runs: int) -> None:
    quality = np.sort(np.arange(rows, dtype=np.uint32) % runs) * 0x1000
    time = np.arange(rows, dtype=np.int64) * 17
    back = round_trip(Batch(np.ones(rows, dtype=np.int32), np.zeros(rows), quality, time, 1))
    assert np.array_equal(back.quality, quality)
    assert np.array_equal(back.source_time, time)


def test_record_with_layout_takes_its_tags_from_there() -> None:
    tag = np.array([9, 8, 7], dtype=np.int32)
    key = key_of(1)
    data = encode(key, Batch(tag, np.zeros(3), uniform_quality(0), uniform_time(0), 0), 5)
    assert decode(key, data, {5: tag}.__getitem__).batch.tag is tag


def test_record_columns_are_read_only() -> None:
    for value in (np.zeros(3), np.zeros(3, dtype=np.bool_), objects("a", "b", "c")):
        back = round_trip(batch_of(value))
        assert not any(column.flags.writeable for column in (back.tag, back.value, back.quality, back.source_time))


def test_record_of_arrays_and_structures_of_one_length_comes_back() -> None:
    value = objects([1, 2], [3.5, None], {"a": [b"b", {"c": True}], "d": {}})
    assert round_trip(batch_of(value)).value.tolist() == value.tolist()
    assert round_trip(batch_of(objects([1, 2], [3, 4], [5, 6]))).value.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_record_cut_anywhere_raises() -> None:
    key = key_of(3)
    data = encode(key, batch_of(objects("a", [1, b"b"], {"k": 1})), 0)
    for length in range(len(data)):
        with pytest.raises(FrameBroken):
            decode(key, data[:length], no_layout)


def test_record_with_any_bit_flipped_or_foreign_key_raises() -> None:
    key = key_of(3)
    data = encode(key, batch_of(np.array([1.0, 2.0])), 0)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameBroken):
            decode(key, bytes(flipped), no_layout)
    with pytest.raises(FrameBroken):
        decode(key_of(4), data, no_layout)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_record_of_arbitrary_bytes_under_a_right_check_sum_raises_only_frame_errors(body: bytes) -> None:
    key = key_of(1)
    data = body + google_crc32c.value(key + body).to_bytes(4, "little")
    with contextlib.suppress(FrameBroken):
        decode(key, data, no_layout)


values_ = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(values_, max_size=20))
@settings(max_examples=200, deadline=None)
def test_objects_of_any_shape_come_back(column: list[Value]) -> None:
    assert unpack_objects(pack_objects(column), len(column)) == column


@given(st.binary(max_size=64), st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_objects_of_arbitrary_bytes_raise_only_frame_errors(data: bytes, count: int) -> None:
    with contextlib.suppress(FrameBroken):
        unpack_objects(data, count)


def test_objects_foreign_type_is_refused_before_anything_is_written() -> None:
    with pytest.raises(TypeError, match="set is no value"):
        pack_objects([{"a"}])
    with pytest.raises(TypeError, match="int is no key"):
        pack_objects([{1: "a"}])
