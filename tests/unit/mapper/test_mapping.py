from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, Kind, TagId, Value, ValueColumn, ValueType, uniform_quality, uniform_time
from framegate.contract.quality import Quality
from framegate.mapper import mapping as subject
from framegate.mapper.mapping import MappingRow, compile_mapping

INT64_MAX = 2**63 - 1


def batch_of(tags: Sequence[int], values: ValueColumn, quality: Sequence[int] = (0,)) -> Batch:
    column = np.array(quality, dtype=np.uint32)
    return Batch(np.array(tags, dtype=np.int32), values, column, uniform_time(5), 7)


def scaled(scale: float, offset: float = 0.0, tag: int = 1) -> MappingRow:
    return MappingRow(TagId(tag), scale, offset, ValueType.INT16)


def rows_of(batches: Sequence[Batch]) -> list[tuple[int, Value]]:
    return [row for batch in batches for row in zip(batch.tag.tolist(), batch.value.tolist(), strict=True)]


def test_mapping_without_rows_passes_the_same_object() -> None:
    batch = batch_of([1, 2], np.array([1.0, 2.0]))
    assert compile_mapping([])(batch)[0] is batch


def test_mapping_untouched_batch_passes_the_same_object() -> None:
    mapping = compile_mapping([scaled(0.1, tag=9)])
    batch = batch_of([1, 2], np.array([1, 2]))
    assert mapping(batch) == (batch,)
    assert mapping(batch)[0] is batch


def test_scaled_integer_becomes_the_nearest_decimal() -> None:
    mapping = compile_mapping([scaled(0.1), scaled(0.1, -40, tag=2), scaled(0.0025, 0.5, tag=3)])
    (out,) = mapping(batch_of([1, 2, 3, 1], np.array([3, 3, 7, -1])))
    assert out.kind is Kind.FLOAT
    assert out.value.tolist() == [0.3, -39.7, 0.5175, -0.1]


def test_mixed_integers_split_into_untouched_and_scaled() -> None:
    mapping = compile_mapping([scaled(0.5, tag=2)])
    batch = batch_of([1, 2, 3, 2], np.array([10, 11, 12, 13]), [0, 1, 2, 3])
    plain, moved = mapping(batch)
    assert (plain.kind, rows_of([plain]), plain.quality.tolist()) == (Kind.INT, [(1, 10), (3, 12)], [0, 2])
    assert (moved.kind, rows_of([moved]), moved.quality.tolist()) == (Kind.FLOAT, [(2, 5.5), (2, 6.5)], [1, 3])
    assert plain.source_time is batch.source_time
    assert plain.gateway_time == moved.gateway_time == 7


def test_floats_stay_one_batch_and_unscaled_rows_keep_their_bits() -> None:
    mapping = compile_mapping([scaled(0.5, 1, tag=2)])
    (out,) = mapping(batch_of([1, 2, 3, 2], np.array([-0.0, 4.0, np.nan, np.inf])))
    assert np.signbit(out.value[0])
    assert out.value[1] == 3.0
    assert np.isnan(out.value[2])
    assert np.isinf(out.value[3])


def test_float_at_the_edge_of_its_range_does_not_overflow_on_the_way() -> None:
    (out,) = compile_mapping([scaled(0.3)])(batch_of([1], np.array([1.5e308])))
    assert out.value.tolist() == [1.5e308 * 0.3]


def test_large_integers_scale_without_overflow() -> None:
    mapping = compile_mapping([scaled(1000), scaled(0.5, tag=2)])
    (out,) = mapping(batch_of([1, 2], np.array([INT64_MAX, -INT64_MAX - 1])))
    assert out.value.tolist() == [pytest.approx(INT64_MAX * 1000.0), -(2.0**62)]
    (wide,) = mapping(batch_of([1], np.array([2**64 - 1], dtype=np.uint64)))
    assert wide.value.tolist() == [pytest.approx(2.0**64 * 1000)]


def test_renamed_tag_leaves_under_its_new_id_with_a_lasting_array() -> None:
    mapping = compile_mapping([MappingRow(TagId(1), rename_id=TagId(50))])
    batch = batch_of([1, 2], np.array(["a", b"b"], dtype=np.object_))
    (first,), (second,) = mapping(batch), mapping(batch)
    assert first.tag.tolist() == [50, 2]
    assert first.tag is second.tag
    assert first.value is batch.value


def test_output_arrays_keep_identity_per_input_layout() -> None:
    mapping = compile_mapping([scaled(0.1, tag=2)])
    batch = batch_of([1, 2], np.array([1, 2]))
    again = Batch(batch.tag, np.array([3, 4]), batch.quality, batch.source_time, 8)
    assert [out.tag for out in mapping(batch)] == [out.tag for out in mapping(again)]
    assert all(out.tag is same.tag for out, same in zip(mapping(batch), mapping(again), strict=True))


def test_bad_rows_stay_bad() -> None:
    mapping = compile_mapping([scaled(0.1, tag=2)])
    batch = batch_of([1, 2], np.array([0, 0]), [Quality.BAD_TIMEOUT])
    assert all(out.quality is batch.quality for out in mapping(batch))


def test_text_and_booleans_of_a_scaled_tag_pass_untouched() -> None:
    mapping = compile_mapping([scaled(0.1)])
    for values in (np.array([True]), np.array(["x"], dtype=np.object_)):
        batch = batch_of([1], values)
        assert mapping(batch)[0] is batch


def test_same_tags_with_another_kind_get_their_own_plan() -> None:
    mapping = compile_mapping([scaled(0.1)])
    batch = batch_of([1], np.array([3]))
    other = Batch(batch.tag, np.array([3.0]), uniform_quality(0), uniform_time(1), 1)
    assert mapping(batch)[0].value.tolist() == mapping(other)[0].value.tolist() == [0.3]


def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LAYOUTS_MAX", 3)
    mapping = compile_mapping([scaled(0.1)])
    for value in range(10):
        assert mapping(batch_of([1], np.array([value])))[0].value.tolist() == [value / 10]
    assert len(mapping._layouts) == 3


@pytest.mark.parametrize(
    "rows",
    [
        [scaled(0)],
        [scaled(float("nan"))],
        [scaled(1, float("inf"))],
        [scaled(1), scaled(2)],
        [MappingRow(TagId(1), 2, 0, ValueType.STRING)],
    ],
)
def test_impossible_rows_are_refused(rows: list[MappingRow]) -> None:
    with pytest.raises(Misconfigured) as caught:
        compile_mapping(rows)
    assert caught.value.stable_code == "E1190"


numbers = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda number: number == 0 or abs(number) > 1e-6)


@given(
    scale=numbers.filter(bool),
    offset=numbers,
    raw=st.lists(st.tuples(st.integers(1, 5), st.integers(-(2**31), 2**32)), min_size=1, max_size=20),
)
def test_mapping_any_integers_equals_the_formula(scale: float, offset: float, raw: list[tuple[int, int]]) -> None:
    mapping = compile_mapping([scaled(scale, offset, tag) for tag in (2, 4)])
    tags, values = zip(*raw, strict=True)
    out = rows_of(mapping(batch_of(tags, np.array(values, dtype=np.int64))))
    for tag in range(1, 6):
        expected = [value * scale + offset if tag in {2, 4} else value for at, value in raw if at == tag]
        assert [value for at, value in out if at == tag] == pytest.approx(expected, rel=1e-9, abs=1e-9)
