"""Our decoder of values against asyncua's encoder and decoder, and against bytes that mean no good."""

from __future__ import annotations

import contextlib
import tracemalloc
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_to_binary, variant_from_binary, variant_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.errors import FrameBroken
from framegate.contract.frame import Value, ValueType
from framegate_plugins.opcua.times import EPOCH_TICKS, text_of_ticks
from framegate_plugins.opcua.values import plain
from framegate_plugins.opcua.wire import Reader

V = ua.VariantType
whole = {V.SByte: (-128, 127), V.Byte: (0, 255), V.Int16: (-(2**15), 2**15 - 1), V.UInt16: (0, 2**16 - 1),
         V.Int32: (-(2**31), 2**31 - 1), V.UInt32: (0, 2**32 - 1), V.Int64: (-(2**63), 2**63 - 1),
         V.UInt64: (0, 2**64 - 1)}  # fmt: skip
texts = st.text(st.characters(codec="utf-8"), max_size=12)
scalars: dict[ua.VariantType, st.SearchStrategy[Any]] = {
    V.Boolean: st.booleans(),
    **{kind: st.integers(*edges) for kind, edges in whole.items()},
    V.Float: st.floats(width=32, allow_nan=False),
    V.Double: st.floats(allow_nan=False),
    V.String: texts | st.none(),
    V.DateTime: st.datetimes(datetime(1601, 1, 2), datetime(9999, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    V.Guid: st.uuids(),
    V.ByteString: st.binary(max_size=12) | st.none(),
    V.XmlElement: st.builds(ua.XmlElement, texts),
    V.NodeId: st.one_of(
        st.builds(lambda number: ua.NodeId(number, ua.Int16(7)), st.integers(0, 2**32 - 1)),
        st.builds(ua.NodeId, texts, st.integers(0, 2**15 - 1)),
        st.builds(lambda guid: ua.NodeId(guid, ua.Int16(3)), st.uuids()),
    ),
    V.StatusCode: st.builds(ua.StatusCode, st.integers(0, 2**32 - 1)),
    V.QualifiedName: st.builds(ua.QualifiedName, texts, st.integers(0, 2**15 - 1)),
    V.LocalizedText: st.builds(ua.LocalizedText, texts | st.none(), texts | st.none()),
    V.ExtensionObject: st.just(ua.ExtensionObject(ua.NodeId.from_string("ns=2;i=5"), ua.ByteString(b"ab"))),
}


@st.composite
def variants(draw: st.DrawFn) -> ua.Variant:
    kind = draw(st.sampled_from(list(scalars)))
    shape = draw(st.sampled_from(["scalar", "array", "matrix"]))
    if shape == "scalar":
        return ua.Variant(draw(scalars[kind]), kind)
    if shape == "array":
        return ua.Variant(draw(st.lists(scalars[kind], max_size=4)), kind, is_array=True)
    rows = draw(st.lists(st.lists(scalars[kind], min_size=2, max_size=2), min_size=2, max_size=3))
    return ua.Variant(rows, kind)


@given(variants())
@settings(max_examples=400, deadline=None)
def test_variant_is_read_as_asyncua_reads_it(variant: ua.Variant) -> None:
    data = variant_to_binary(variant)
    reader = Reader(data)
    kind, is_array, content = reader.variant()
    assert reader.at == len(data)
    assert (kind, is_array) == (variant.VariantType.value, variant.is_array)
    assert content == plain(variant_from_binary(Buffer(data)).Value)


@given(variants(), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_data_value_is_read_as_asyncua_writes_it(
    variant: ua.Variant, status: int, has_source: bool, has_server: bool
) -> None:
    moment = datetime(2026, 11, 26, 12, tzinfo=UTC)
    data = struct_to_binary(
        ua.DataValue(
            variant,
            ua.StatusCode(ua.UInt32(status)),
            moment if has_source else None,  # type: ignore[arg-type]
            moment if has_server else None,  # type: ignore[arg-type]
        )
    )
    ticks = EPOCH_TICKS + 1_795_694_400 * 10_000_000
    reader = Reader(data)
    sample, error = reader.sample()
    assert error is None
    assert reader.at == len(data)
    assert sample.value == plain(variant.Value)
    assert sample[1:] == (status, ticks if has_source else 0, ticks if has_server else 0)


def test_picoseconds_stand_behind_their_times_and_are_read_past() -> None:
    # Part 6, 5.2.2.17: source time, source picoseconds, server time, server picoseconds; asyncua has another order.
    data = bytes((0x3C,)) + (5).to_bytes(8, "little") + b"\x01\x00" + (6).to_bytes(8, "little") + b"\x02\x00"
    reader = Reader(data)
    assert reader.sample()[0] == (None, 0, 5, 6)
    assert reader.at == len(data)


@given(st.binary(max_size=64))
@settings(max_examples=1000, deadline=None)
def test_arbitrary_bytes_raise_only_frame_errors(data: bytes) -> None:
    with contextlib.suppress(FrameBroken):
        Reader(data).sample()
    for type_ in (ValueType.JSON, ValueType.INT64, ValueType.STRING):
        with contextlib.suppress(FrameBroken):
            Reader(data).sample(type_)


@given(variants())
@settings(max_examples=100, deadline=None)
def test_cut_anywhere_raises(variant: ua.Variant) -> None:
    data = variant_to_binary(variant)
    for length in range(len(data)):
        with pytest.raises(FrameBroken):
            Reader(data[:length]).variant()


@pytest.mark.parametrize("kind", [0x80 | kind for kind in range(26)])
def test_claim_of_many_items_takes_no_memory(kind: int) -> None:
    tracemalloc.start()
    with pytest.raises(FrameBroken, match="items"):
        Reader(bytes((kind,)) + (285_000_000).to_bytes(4, "little") + bytes(64)).variant()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 1024


def test_nesting_without_end_is_refused() -> None:
    for nested in (b"\x18" * 1000, b"\x17\x01" * 1000, b"\x98\x01\x00\x00\x00" * 1000, b"\x19\x40" + b"\x40" * 1000):
        with pytest.raises(FrameBroken):
            Reader(nested).variant()


@pytest.mark.parametrize("sizes", [(-1, -2), (0, 5), (2**30, 2**30), (3,), (2,) * 40])
def test_dimensions_that_do_not_fit_are_refused(sizes: tuple[int, ...]) -> None:
    items = (2).to_bytes(4, "little") + bytes(8)
    dimensions = len(sizes).to_bytes(4, "little") + b"".join(size.to_bytes(4, "little", signed=True) for size in sizes)
    with pytest.raises(FrameBroken):
        Reader(bytes((0xC0 | V.Int32.value,)) + items + dimensions).variant()


@pytest.mark.parametrize(
    ("variant", "type_", "value"),
    [
        (ua.Variant(7, V.Int16), ValueType.FLOAT64, 7.0),
        (ua.Variant(7, V.Int16), ValueType.UINT64, 7),
        (ua.Variant([7], V.Int32), ValueType.INT32, 7),
        (ua.Variant(ua.LocalizedText("a", "en"), V.LocalizedText), ValueType.STRING, "a"),
        (ua.Variant(ua.LocalizedText("a", "en"), V.LocalizedText), ValueType.JSON, {"Locale": "en", "Text": "a"}),
        (ua.Variant(datetime(1970, 1, 1, tzinfo=UTC), V.DateTime), ValueType.INT64, 0),
        (ua.Variant(datetime(1970, 1, 1, tzinfo=UTC), V.DateTime), ValueType.STRING, "1970-01-01T00:00:00Z"),
        (ua.Variant(UUID(int=5), V.Guid), ValueType.STRING, str(UUID(int=5))),
    ],
)
def test_value_is_what_the_tag_holds(variant: ua.Variant, type_: ValueType, value: Value) -> None:
    assert Reader(variant_to_binary(variant)).value(type_) == value


def test_time_keeps_its_hundred_nanoseconds() -> None:
    ticks = EPOCH_TICKS + 1_234_567
    data = bytes((V.DateTime.value,)) + ticks.to_bytes(8, "little")
    assert Reader(data).value(ValueType.INT64) == 123_456_700
    assert Reader(data).value(ValueType.STRING) == text_of_ticks(ticks) == "1970-01-01T00:00:00.1234567Z"


def test_value_that_does_not_fit_is_told_and_read_past() -> None:
    data = struct_to_binary(ua.DataValue(ua.Variant("text", V.String), ua.StatusCode(ua.UInt32(0))))
    reader = Reader(data)
    sample, error = reader.sample(ValueType.FLOAT64)
    assert isinstance(error, ValueError)
    assert sample.value is None
    assert reader.at == len(data)
