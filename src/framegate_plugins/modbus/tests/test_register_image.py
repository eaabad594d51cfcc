"""Rows into registers: what the driver's decoder reads there, what does not fit, and when it may be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.bridge import BridgeTag
from framegate.contract.frame import Batch, TagId, Value, ValueType, uniform_quality, uniform_time
from framegate.contract.quality import Quality
from framegate_plugins.modbus.address import Area
from framegate_plugins.modbus.bridge_options import parse_bridge_options
from framegate_plugins.modbus.bridge_trial import batches_of, bridge_tag
from framegate_plugins.modbus.register_image import Refused, RegisterImage
from framegate_plugins.modbus.register_map import register_map
from framegate_plugins.modbus.values import value_from

STALE = {"quality": "stale"}
NUMBERS = [type_ for type_ in ValueType if type_.value.startswith(("int", "uint", "float"))]


class Shown:
    """Tags and their image."""

    def __init__(self, *rows: str | BridgeTag, **options: Any) -> None:
        self.tags = [bridge_tag(number, row) if isinstance(row, str) else row for number, row in enumerate(rows)]
        parsed = parse_bridge_options(options)
        self.map = register_map(self.tags, parsed)
        self.image = RegisterImage(self.map, parsed)

    def show(self, quality: int = Quality.GOOD, /, **values: Value) -> None:
        self.image.update(batches_of(self.tags, values, quality))

    def value(self, name: str) -> Value:
        """As a master reads it. Raises Refused."""
        entry = next(entry for entry in self.map.entries if entry.tag.name == name)
        point = entry.point
        return value_from(point, self.image.read(point.area, point.offset, point.count))

    def status(self, name: str) -> int:
        return next(int(self.image.status[entry.slot]) for entry in self.map.entries if entry.tag.name == name)

    def exception(self, name: str) -> int:
        with pytest.raises(Refused) as caught:
            self.value(name)
        return caught.value.exception


def in_range(type_: ValueType) -> st.SearchStrategy[int | float]:
    if type_ is ValueType.FLOAT64:
        return st.floats(allow_nan=False)
    if type_ is ValueType.FLOAT32:
        return st.floats(width=32, allow_nan=False)
    limits = np.iinfo(type_.value)
    return st.integers(int(limits.min), int(limits.max))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_number_is_shown_bit_for_bit(data: st.DataObject) -> None:
    rows: list[str] = []
    values: dict[str, Value] = {}
    for number in range(data.draw(st.integers(1, 12))):
        type_ = data.draw(st.sampled_from(NUMBERS))
        orders = [data.draw(st.sampled_from(["big", "little"])) for _ in range(2)]
        rows.append(f"t{number} {type_.value} R byte_order={orders[0]} word_order={orders[1]}")
        values[f"t{number}"] = data.draw(in_range(type_))
    shown = Shown(*rows)
    shown.show(**values)
    assert {name: shown.value(name) for name in values} == values


@pytest.mark.parametrize(
    ("row", "value", "expected"),
    [
        ("int32 R type=int16", 40_000, 32_767),
        ("int32 R type=uint16", -1, 0),
        ("uint64 R type=int64", 2**64 - 1, 2**63 - 1),
        ("int64 R type=uint64", -5, 0),
        ("float64 R type=int16", 1e9, 32_767),
        ("float64 R type=int64", 1e30, int(np.nextafter(2.0**63, 0))),
        ("float64 R type=int16", float("-inf"), -32_768),
        ("float64 R type=float32", 1e300, float("inf")),
        ("string R length=4", "abcdef", "abcd"),
        ("string R length=3", "aää", "aä"),
        ("bytes R length=2", b"abc", b"ab"),
    ],
)
def test_value_that_does_not_fit_is_shown_as_the_nearest_and_is_bad(row: str, value: Value, expected: Value) -> None:
    shown = Shown(f"t {row}", **STALE)
    shown.show(t=value)
    assert shown.value("t") == expected
    assert shown.status("t") == Quality.BAD_OUT_OF_RANGE


def test_value_that_does_not_fit_is_refused_where_bad_is() -> None:
    shown = Shown("t float64 R type=int16")
    shown.show(t=1e9)
    assert shown.exception("t") == 11


def test_nan_has_no_nearest_whole_number() -> None:
    shown = Shown("t float64 R type=int16", "f float32 R", **STALE)
    shown.show(t=7.0)
    shown.show(t=float("nan"), f=float("nan"))
    assert shown.value("t") == 7
    assert shown.status("t") == Quality.BAD_OUT_OF_RANGE
    assert np.isnan(float(shown.value("f")))  # type: ignore[arg-type]
    assert shown.status("f") == Quality.GOOD


@pytest.mark.parametrize(
    ("row", "value", "expected"),
    [("float64 R type=int16", 2.6, 3), ("bool R type=int32", True, 1), ("int16 R type=float64", -3, -3.0)],
)
def test_value_is_shown_as_the_type_that_its_row_asks_for(row: str, value: Value, expected: Value) -> None:
    shown = Shown(f"t {row}")
    shown.show(t=value)
    assert (shown.value("t"), shown.status("t")) == (expected, Quality.GOOD)


def test_scaled_value_is_shown_as_a_whole_number_of_steps() -> None:
    shown = Shown("t float64 R type=int16 address=hr:0", "s float64 R type=int16 address=hr:1", **STALE)
    shown.tags[0] = shown.tags[0]._replace(options={**shown.tags[0].options, "scale": 0.1})
    shown = Shown(*shown.tags, **STALE)
    shown.show(t=21.47, s=21.47)
    assert (shown.value("t"), shown.value("s")) == (215, 21)
    shown.show(t=3_277.0)
    assert (shown.value("t"), shown.status("t")) == (32_767, Quality.BAD_OUT_OF_RANGE)


def test_text_of_an_enumeration_is_shown_as_its_number() -> None:
    mode = BridgeTag(TagId(3), "mode", ValueType.STRING, "R", texts=("off", "on", "trip"))
    shown = Shown(mode, mode._replace(id=TagId(4), name="fault", numbers=(-1, 0, 70_000)), **STALE)
    shown.show(mode="trip", fault="off")
    assert (shown.value("mode"), shown.value("fault")) == (2, -1)
    shown.show(mode="else")
    assert (shown.value("mode"), shown.status("mode")) == (2, Quality.BAD_OUT_OF_RANGE)


def test_bits_of_one_register_do_not_touch_each_other() -> None:
    shown = Shown(*(f"b{bit} bool R address=hr:0.{bit}" for bit in range(16)), "w bool R address=hr:1")
    shown.show(**{f"b{bit}": bit % 3 == 0 for bit in range(16)}, w=True)
    assert shown.image.read(Area.HOLDING_REGISTERS, 0, 2) == b"\x92\x49\x00\x01"
    shown.show(b0=False, b1=True)
    assert shown.image.read(Area.HOLDING_REGISTERS, 0, 1) == b"\x92\x4a"


def test_register_of_several_tags_is_readable_once_all_of_them_are() -> None:
    shown = Shown("a bool R address=hr:0.0", "b bool R address=hr:0.1")
    shown.show(a=True)
    assert shown.exception("a") == 11
    shown.show(b=True)
    assert shown.value("a") is True
    shown.show(Quality.BAD, b=True)
    assert shown.exception("a") == 11


def test_of_several_rows_of_one_tag_the_last_one_counts() -> None:
    shown = Shown("a int16 R", "b bool R address=hr:0.0")
    ids = [np.array([tag.id] * 3, np.int32) for tag in shown.tags]
    quality = np.array([0, 0x80000000, 0], np.uint32)
    value = np.array([1, 2, 3])
    time = uniform_time(0)
    shown.image.update([Batch(ids[0], value, quality, time, 0)])
    shown.image.update([Batch(ids[1], np.array([True, True, False]), uniform_quality(0), time, 0)])
    assert (shown.value("a"), shown.value("b")) == (3, False)
    shown.image.update([Batch(ids[0][:2], value[:2], quality[:2], time, 0)])
    assert shown.exception("a") == 11


def test_rows_of_other_tags_are_passed_over() -> None:
    shown = Shown("a int16 R")
    ids = np.array([1, 100, 99, 101, 2_000_000_000], np.int32)
    shown.image.update([Batch(ids, np.arange(5), uniform_quality(0), uniform_time(0), 0)])
    assert shown.value("a") == 1


def test_write_only_tag_is_read_as_a_gap() -> None:
    shown = Shown("a int16 W address=hr:0", "b int16 RW address=hr:1")
    shown.show(b=3)
    assert shown.image.read(Area.HOLDING_REGISTERS, 0, 2) == b"\0\0\0\3"
    assert Shown("a int16 W address=hr:0", gaps="exception").exception("a") == 2


def test_read_that_touches_a_gap_and_a_bad_tag_is_an_illegal_address() -> None:
    shown = Shown("a int16 R address=ir:0", "b int16 R address=ir:2", gaps="exception")
    with pytest.raises(Refused) as caught:
        shown.image.read(Area.INPUT_REGISTERS, 0, 3)
    assert caught.value.exception == 2
    with pytest.raises(Refused) as caught:
        shown.image.read(Area.INPUT_REGISTERS, 65_535, 1)
    assert caught.value.exception == 2
