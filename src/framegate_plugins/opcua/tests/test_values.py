"""Values of every type both ways, through asyncua's own encoder and decoder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import variant_from_binary, variant_to_binary
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract.frame import Value, ValueType
from framegate_plugins.opcua.times import (
    NS_TICKS_MAX,
    NS_TICKS_MIN,
    TICKS_MAX,
    datetime_of_ns,
    ns_of_datetime,
    ns_of_ticks,
    text_of_ticks,
    ticks_of_ns,
    ticks_of_text,
)
from framegate_plugins.opcua.values import NATURAL, WIRE, natural_type, plain, value_from, variant_from

V = ua.VariantType
INTEGERS = {
    V.SByte: (-128, 127), V.Byte: (0, 255), V.Int16: (-(2**15), 2**15 - 1), V.UInt16: (0, 2**16 - 1),
    V.Int32: (-(2**31), 2**31 - 1), V.UInt32: (0, 2**32 - 1), V.Int64: (-(2**63), 2**63 - 1),
    V.UInt64: (0, 2**64 - 1), V.StatusCode: (0, 2**32 - 1),
}  # fmt: skip
SCALARS: list[tuple[Any, Value]] = [
    (V.Boolean, True),
    (V.Boolean, False),
    *((kind, edge) for kind, edges in INTEGERS.items() for edge in edges),
    (V.Float, 1.5),
    (V.Double, -1e300),
    (V.Double, float("inf")),
    (V.String, "液位 ±5 %"),
    (V.String, ""),
    (V.DateTime, "2026-11-26T12:00:00.123456Z"),
    (V.DateTime, "1601-01-01T00:00:01Z"),
    (V.Guid, "72962b91-fa75-4ae6-8d28-b404dc7daf63"),
    (V.ByteString, b"\x00\xff"),
    (V.XmlElement, "<a b='1'/>"),
    (V.NodeId, "ns=2;s=Pump.Speed"),
    (V.NodeId, "i=2258"),
    (V.QualifiedName, "2:Pump"),
    (V.LocalizedText, "pump"),
    (V.StatusCode, 0x8091_0480),
]


def travelled(variant: ua.Variant) -> ua.Variant:
    return variant_from_binary(Buffer(variant_to_binary(variant)))


@pytest.mark.parametrize(("type_", "value"), SCALARS)
def test_scalar_both_ways_is_the_same(type_: ua.VariantType, value: Value) -> None:
    variant = travelled(variant_from(value, type_))
    assert variant.VariantType is type_
    back = value_from(variant, NATURAL[type_])
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("type_", [kind for kind in V if kind not in {V.Null, V.DiagnosticInfo}])
def test_array_of_every_type_both_ways_is_the_same(type_: ua.VariantType) -> None:
    items: list[Value] = [value for kind, value in SCALARS if kind is type_]
    if not items:
        pytest.skip(f"{type_.name} has no scalar form of its own")
    if type_ is V.LocalizedText:
        items = [{"Locale": "en", "Text": "pump"}, {"Locale": None, "Text": None}]
    arrays: list[Value] = [items, [], [items, items]]
    for given_ in arrays:
        variant = travelled(variant_from(given_, type_))
        assert variant.is_array
        assert value_from(variant, natural_type(type_, is_array=True)) == given_


@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=3, max_size=3), min_size=1, max_size=5))
def test_matrix_both_ways_keeps_its_shape(rows: list[list[int]]) -> None:
    matrix: Value = [list(row) for row in rows]
    assert value_from(travelled(variant_from(matrix, V.Int32)), ValueType.JSON) == matrix


def test_ragged_array_is_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        variant_from([[1, 2], [3]], V.Int32)


@pytest.mark.parametrize("type_", [*INTEGERS])
def test_integer_beyond_its_type_is_refused(type_: ua.VariantType) -> None:
    low, high = INTEGERS[type_]
    for beyond in (low - 1, high + 1):
        with pytest.raises(ValueError, match="beyond"):
            variant_from(beyond, type_)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (V.Boolean, 1), (V.Int32, True), (V.Int32, 1.5), (V.Double, "1"), (V.String, 1), (V.ByteString, "x"),
        (V.Float, 1e39), (V.Guid, "no"), (V.DateTime, "yesterday"), (V.NodeId, "no"), (V.ExtensionObject, {"a": 1}),
        (V.Int32, None),
    ],
)  # fmt: skip
def test_value_of_another_type_is_refused(type_: ua.VariantType, value: Value) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        variant_from(value, type_)


def test_tag_of_another_type_cannot_hold_it() -> None:
    for variant, type_ in (
        (ua.Variant(300, V.Int32), ValueType.INT8),
        (ua.Variant(1.5, V.Double), ValueType.INT32),
        (ua.Variant(True, V.Boolean), ValueType.FLOAT64),
        (ua.Variant("1", V.String), ValueType.FLOAT64),
        (ua.Variant([1, 2], V.Int32), ValueType.INT32),
    ):
        with pytest.raises(ValueError, match=r"declare|does not fit"):
            value_from(variant, type_)


def test_array_of_one_is_its_element_for_a_scalar_tag() -> None:
    assert value_from(ua.Variant([7], V.Int32), ValueType.INT32) == 7


def test_null_is_none() -> None:
    assert value_from(ua.Variant(), ValueType.STRING) is None
    assert value_from(ua.Variant(None, V.String), ValueType.STRING) is None


def test_localized_text_keeps_its_locale_as_json() -> None:
    text = ua.Variant(ua.LocalizedText("泵", "zh"), V.LocalizedText)
    assert value_from(text, ValueType.STRING) == "泵"
    given_ = value_from(text, ValueType.JSON)
    assert given_ == {"Locale": "zh", "Text": "泵"}
    assert variant_from(given_, V.LocalizedText) == text


def test_time_as_int64_is_ns_utc() -> None:
    moment = datetime(2026, 11, 26, 12, tzinfo=UTC)
    variant = ua.Variant(moment, V.DateTime)
    ns = value_from(variant, ValueType.INT64)
    assert ns == 1_795_694_400_000_000_000
    assert variant_from(ns, V.DateTime) == variant


def test_time_beyond_ns_is_refused_and_kept_as_text() -> None:
    variant = ua.Variant(datetime(9999, 1, 1, tzinfo=UTC), V.DateTime)
    with pytest.raises(ValueError, match="1678 to 2261"):
        value_from(variant, ValueType.INT64)
    assert value_from(variant, ValueType.STRING) == "9999-01-01T00:00:00Z"
    assert ns_of_datetime(datetime(1601, 1, 1, tzinfo=UTC)) is None


@given(st.integers(0, TICKS_MAX))
def test_ticks_as_text_come_back(ticks: int) -> None:
    assert ticks_of_text(text_of_ticks(ticks)) == ticks


@given(st.integers(NS_TICKS_MIN, NS_TICKS_MAX))
def test_ticks_as_ns_come_back(ticks: int) -> None:
    assert ticks_of_ns(ns_of_ticks(ticks)) == ticks


@given(st.integers(-(2**63) // 1000 + 1, (2**63 - 1) // 1000))
def test_ns_as_asyncua_datetime_come_back_to_the_microsecond(microseconds: int) -> None:
    ns = microseconds * 1000
    back = ns_of_datetime(datetime_of_ns(ns))
    assert back == (ns if ns >= -11_644_473_600 * 10**9 else None)


def test_structure_is_a_mapping_by_its_fields() -> None:
    assert plain(ua.Range(0.0, 10.0)) == {"Low": 0.0, "High": 10.0}
    assert plain(ua.EUInformation("http://x", 4408652, ua.LocalizedText("°C"), ua.LocalizedText(None))) == {
        "NamespaceUri": "http://x",
        "UnitId": 4408652,
        "DisplayName": {"Locale": None, "Text": "°C"},
        "Description": {"Locale": None, "Text": None},
    }
    unknown = ua.ExtensionObject(ua.NodeId.from_string("ns=2;i=5"), ua.ByteString(b"ab"))
    assert plain(unknown) == {"TypeId": "ns=2;i=5", "Body": b"ab"}


def test_nesting_beyond_its_bound_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(40):
        nested = [nested]
    with pytest.raises(ValueError, match="deeper"):
        plain(nested)


def test_every_type_of_a_tag_can_be_served() -> None:
    assert set(WIRE) == set(ValueType)
    for kind, type_ in WIRE.items():
        if kind is not ValueType.JSON:
            assert NATURAL[type_] is kind


def test_guid_is_written_as_text() -> None:
    assert variant_from("72962b91-fa75-4ae6-8d28-b404dc7daf63", V.Guid).Value == UUID(
        "72962b91-fa75-4ae6-8d28-b404dc7daf63"
    )
