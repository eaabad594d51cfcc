"""Decoding: every type, width and order, alone and mixed; fresh values, stable tag arrays."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract.driver import BoundTag
from framegate.contract.frame import Batch, Kind, TagId, ValueType
from framegate.contract.law import law_text
from framegate.contract.quality import Quality
from framegate_plugins.modbus.columns import Columns
from framegate_plugins.modbus.options import Limits, Options
from framegate_plugins.modbus.planner import merge
from framegate_plugins.modbus.tags import Point, points_from, source_bytes
from framegate_plugins.modbus.values import value_bytes, write_request

VALUES: list[dict[str, Any]] = json.loads(law_text("vectors/modbus/values.json"))["cases"]
PACK = {
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}


def bound(number: int, address: str, type_: str, options: Mapping[str, Any] | None = None) -> BoundTag:
    return BoundTag(TagId(number), f"t{number}", address, ValueType(type_), "RW", options or {})


def points_of(*tags: BoundTag) -> list[Point]:
    return points_from(tags, Options())


def decode(points: list[Point], image: bytes, limits: Limits | None = None) -> list[Batch]:
    """What a device whose holding registers are `image` yields."""
    blocks = merge(points, limits or Limits())
    raw = b"".join(image[2 * block.start : 2 * (block.start + block.count)] for block in blocks)
    return Columns(points, blocks).batches(raw, 1_000)


def by_tag(batches: list[Batch]) -> dict[int, object]:
    return {int(tag): value for batch in batches for tag, value in zip(batch.tag, batch.value.tolist(), strict=True)}


def _options(case: dict[str, Any]) -> dict[str, Any]:
    return {key: case[key] for key in ("byte_order", "word_order", "length", "encoding") if key in case}


@pytest.mark.parametrize("case", VALUES, ids=[f"{i} {c['type']} {c['registers']}" for i, c in enumerate(VALUES)])
def test_golden_value_is_read_from_its_registers(case: dict[str, Any]) -> None:
    address = "hr:1" + (f".{case['part']}" if "part" in case else "")
    (batch,) = decode(
        points_of(bound(7, address, case["type"], _options(case))), b"\xaa\xaa" + bytes.fromhex(case["registers"])
    )
    assert batch.value.tolist() == [case["value"]]
    assert batch.kind is ValueType(case["type"]).kind


@pytest.mark.parametrize("case", [c for c in VALUES if "part" not in c and c["type"] not in {"int8", "uint8", "bool"}])
def test_golden_value_is_written_to_its_registers(case: dict[str, Any]) -> None:
    (point,) = points_of(bound(7, "hr:1", case["type"], _options(case)))
    assert write_request(point, case["value"]).data.hex() == bytes.fromhex(case["registers"]).hex()


@pytest.mark.parametrize("byte_order", ["big", "little"])
@pytest.mark.parametrize("word_order", ["big", "little"])
@pytest.mark.parametrize("type_", PACK)
def test_order_table_matches_the_letters(type_: str, byte_order: str, word_order: str) -> None:
    """ABCD, CDAB, BADC, DCBA, worked out by moving letters instead of indexes."""
    size = struct.calcsize(PACK[type_])
    letters = "ABCDEFGH"[:size]
    words = [letters[i : i + 2] for i in range(0, size, 2)]
    words = [word[::-1] for word in words] if byte_order == "little" else words
    wire = "".join(words[::-1] if word_order == "little" else words)
    assert "".join(wire[offset] for offset in source_bytes(size, byte_order, word_order)) == letters


TYPES = ["bool", "int8", "uint8", *PACK, "string", "bytes"]


@given(
    st.lists(
        st.tuples(st.sampled_from(TYPES), st.sampled_from(["big", "little"]), st.sampled_from(["big", "little"])),
        max_size=30,
    ),
    st.binary(min_size=400, max_size=400),
    st.integers(4, 125),
)
def test_mixed_plan_equals_one_tag_at_a_time(
    rows: list[tuple[str, str, str]], image: bytes, registers_max: int
) -> None:
    tags, offset = [], 0
    for number, (type_, byte_order, word_order) in enumerate(rows):
        options: dict[str, Any] = {"byte_order": byte_order, "word_order": word_order}
        if type_ in {"string", "bytes"}:
            options |= {"length": 7, "encoding": "latin-1"} if type_ == "string" else {"length": 7}
        tags.append(bound(number, f"hr:{offset}", type_, options))
        offset += number % 5 + 1
    mixed = by_tag(decode(points_of(*tags), image, Limits(registers_max=registers_max)))
    alone = {tag.id: by_tag(decode(points_of(tag), image))[tag.id] for tag in tags}
    assert repr(mixed.get(0)) == repr(alone.get(TagId(0)))
    assert {key: repr(value) for key, value in mixed.items()} == {int(key): repr(value) for key, value in alone.items()}


@given(st.sampled_from(sorted(PACK)), st.sampled_from(["big", "little"]), st.sampled_from(["big", "little"]), st.data())
def test_value_written_is_read_back(type_: str, byte_order: str, word_order: str, data: st.DataObject) -> None:
    width = 8 * struct.calcsize(PACK[type_])
    if type_.startswith("float"):
        value: float = data.draw(st.floats(width=32 if width == 32 else 64, allow_nan=False))
    else:
        signed = type_.startswith("int")
        value = data.draw(
            st.integers(-(1 << width - 1), (1 << width - 1) - 1) if signed else st.integers(0, (1 << width) - 1)
        )
    points = points_of(bound(1, "hr:0", type_, {"byte_order": byte_order, "word_order": word_order}))
    assert by_tag(decode(points, write_request(points[0], value).data)) == {1: value}
    assert value_bytes(points[0], value) == struct.pack(">" + PACK[type_], value)


def test_bits_of_coils_come_from_the_right_byte() -> None:
    tags = [bound(i, f"coil:{i}", "bool") for i in (3, 4, 10, 11, 12, 20)]
    points = points_of(*tags)
    blocks = merge(points, Limits())
    states = [i % 3 == 0 for i in range(3, 21)]
    raw = bytes(np.packbits(np.array(states), bitorder="little"))
    (batch,) = Columns(points, blocks).batches(raw, 1)
    assert by_tag([batch]) == {i: i % 3 == 0 for i in (3, 4, 10, 11, 12, 20)}
    assert batch.kind is Kind.BOOL


def test_batches_of_two_scans_share_tags_but_no_values() -> None:
    points = points_of(
        bound(1, "hr:0", "int16"), bound(2, "hr:1", "float32"), bound(3, "hr:3.1", "bool"), bound(4, "hr:4", "uint64")
    )
    columns = Columns(points, merge(points, Limits()))
    first = columns.batches(bytes(16), 1)
    kept = [batch.value.copy() for batch in first]
    second = columns.batches(b"\x01" * 16, 2)
    for old, new, copy in zip(first, second, kept, strict=True):
        assert old.tag is new.tag
        assert not old.tag.flags.writeable
        assert not old.value.flags.writeable
        assert (old.value == copy).all()
        assert len(old.quality) == len(old.source_time) == 1
    assert [batch.kind for batch in first] == [Kind.FLOAT, Kind.INT, Kind.UINT, Kind.BOOL]


def test_signalling_nan_is_a_value_and_no_warning() -> None:
    (batch,) = decode(points_of(bound(1, "hr:0", "float32")), bytes.fromhex("7fa00001"))
    assert np.isnan(batch.value).all()


def test_status_of_a_block_marks_its_rows_only() -> None:
    points = points_of(
        bound(1, "hr:0", "int16"), bound(2, "hr:100", "int16"), bound(3, "hr:101", "string", {"length": 2})
    )
    columns = Columns(points, merge(points, Limits()))
    numbers, texts = columns.batches(b"\0\1" + bytes(4), 1, [0, Quality.BAD_NODE_ID_UNKNOWN])
    assert numbers.quality.tolist() == [0, Quality.BAD_NODE_ID_UNKNOWN]
    assert texts.quality.tolist() == [Quality.BAD_NODE_ID_UNKNOWN]
    (partial,) = columns.batches_of(b"\0\1" + bytes(4), 1, [0, None])
    assert (partial.tag.tolist(), partial.value.tolist()) == ([1], [1])


def test_text_that_cannot_be_decoded_is_bad() -> None:
    points = points_of(bound(1, "hr:0", "string", {"length": 2}), bound(2, "hr:1", "string", {"length": 2}))
    (batch,) = decode(points, b"\xff\xfeOK")
    assert batch.quality.tolist() == [Quality.BAD_DECODING_ERROR, 0]
    assert batch.value.tolist() == [None, "OK"]
