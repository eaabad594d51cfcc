from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract.errors import DeviceRefused, Misconfigured
from framegate.contract.frame import Batch, TagId, Value, ValueType, uniform_quality, uniform_time
from framegate.contract.quality import Quality
from framegate.mapper.inverse import Inverse
from framegate.mapper.mapping import MappingRow, compile_mapping
from framegate.mapper.processing import Processing

scales = st.decimals(-1000, 1000, places=4).filter(bool).map(float)
offsets = st.decimals(-1000, 1000, places=3).map(float)


@given(raw=st.integers(-(2**31), 2**31 - 1), scale=scales, offset=offsets)
def test_inverse_of_the_scaled_value_is_the_raw_one(raw: int, scale: float, offset: float) -> None:
    row = MappingRow(TagId(1), scale, offset, ValueType.INT32)
    batch = Batch(np.ones(1, np.int32), np.array([raw]), uniform_quality(0), uniform_time(1), 1)
    (out,) = compile_mapping([row])(batch)
    assert Inverse("t", ValueType.INT32, scale, offset).raw(out.value.tolist()[0]) == raw


@pytest.mark.parametrize("type_", [ValueType.INT64, ValueType.UINT64])
def test_inverse_keeps_every_bit_of_a_wide_integer(type_: ValueType) -> None:
    highest = int(np.iinfo(type_.value).max)
    assert Inverse("t", type_).raw(highest) == highest


@pytest.mark.parametrize(
    ("inverse", "value", "raw"),
    [
        (Inverse("t", ValueType.INT16, 0.1), 12.34, 123),
        (Inverse("t", ValueType.FLOAT32, 0.5, 1.0), 2.0, 2.0),
        (Inverse("t", ValueType.BOOL, processing=Processing(invert=True)), True, False),
        (Inverse("t", ValueType.INT16, processing=Processing(enum=((0, "off"), (1, "on")))), "on", 1),
        (Inverse("t", ValueType.INT16, processing=Processing(enum=((0, "off"), (1, "on")))), 0, 0),
        (Inverse("t", ValueType.BOOL, processing=Processing(enum=((0, "off"), (1, "on")))), "on", True),
        (Inverse("t", ValueType.INT16, 0.5, processing=Processing(expr="value * 2", inverse="value / 2")), 8, 8),
        (Inverse("t", ValueType.STRING, processing=Processing(expr="value", inverse="value .. '!'")), "a", "a!"),
        (Inverse("t", ValueType.BOOL, processing=Processing(expr="not value", inverse="not value")), True, False),
        (Inverse("t", ValueType.BYTES), b"\x00", b"\x00"),
        (Inverse("t", ValueType.JSON), '{"a": [1, 2.5, true]}', {"a": [1, 2.5, True]}),
        (Inverse("t", ValueType.JSON), "3", 3),
    ],
)
def test_inverse_gives_the_raw_value(inverse: Inverse, value: Value, raw: Value) -> None:
    found = inverse.raw(value)
    assert found == raw
    assert found.__class__ is raw.__class__


@pytest.mark.parametrize(
    ("inverse", "value", "words", "quality"),
    [
        (Inverse("t", ValueType.INT16, 0.1), 4000, "would be raw 40000, and int16 holds", Quality.BAD_OUT_OF_RANGE),
        (Inverse("t", ValueType.UINT16), -1, "would be raw -1", Quality.BAD_OUT_OF_RANGE),
        (Inverse("t", ValueType.FLOAT32), 1e39, "beyond float32", Quality.BAD_OUT_OF_RANGE),
        (Inverse("t", ValueType.FLOAT64), float("nan"), "no number", Quality.BAD_OUT_OF_RANGE),
        (Inverse("t", ValueType.INT16, limits=(10, 60)), 61, "beyond its limits 10 to 60", Quality.BAD_OUT_OF_RANGE),
        (Inverse("t", ValueType.FLOAT64, limits=(10, 60)), float("nan"), "limits", Quality.BAD_OUT_OF_RANGE),
        (Inverse("t", ValueType.INT16), "5", "str given, int16 wanted", Quality.BAD_TYPE_MISMATCH),
        (Inverse("t", ValueType.INT16), True, "bool given", Quality.BAD_TYPE_MISMATCH),
        (Inverse("t", ValueType.BOOL), 1, "int given, bool wanted", Quality.BAD_TYPE_MISMATCH),
        (Inverse("t", ValueType.JSON), "[1,", "no JSON text", Quality.BAD_TYPE_MISMATCH),
        (Inverse("t", ValueType.JSON), 3, "no JSON text", Quality.BAD_TYPE_MISMATCH),
        (
            Inverse("t", ValueType.INT16, processing=Processing(enum=((0, "off"), (1, "on")))),
            "run",
            "'run' is none of off, on",
            Quality.BAD_OUT_OF_RANGE,
        ),
        (
            Inverse("t", ValueType.FLOAT64, processing=Processing(expr="value", inverse="1 / value")),
            0,
            "inverse failed: the result is not a finite number",
            Quality.BAD_CONFIGURATION_ERROR,
        ),
        (
            Inverse("t", ValueType.FLOAT64, processing=Processing(expr="value", inverse="number('x') + value")),
            0,
            'inverse failed: "x" is no number',
            Quality.BAD_CONFIGURATION_ERROR,
        ),
    ],
)
def test_what_cannot_be_written_is_refused(inverse: Inverse, value: Value, words: str, quality: Quality) -> None:
    with pytest.raises(DeviceRefused) as caught:
        inverse.raw(value)
    assert words in caught.value.text
    assert (caught.value.stable_code, caught.value.quality) == ("E1195", quality)


def test_inverse_that_reads_tags_is_refused() -> None:
    with pytest.raises(Misconfigured):
        Inverse("t", ValueType.FLOAT64, processing=Processing(expr="value", inverse="tag['a']"))
