"""Features against a plain reference that keeps everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.errors import GatewayError
from framegate.contract.frame import Batch, Tag, TagId, ValueType
from framegate.contract.quality import Quality
from framegate.mapper.rules.features import FUNCTIONS, SAMPLES_MAX, Feature, Features

TAG = Tag(TagId(7), "a", "plc", ValueType.FLOAT64, "", "R")
OTHER = Tag(TagId(9), "b", "plc", ValueType.FLOAT64, "", "R")
NUMPY: dict[str, Any] = {
    "avg": np.mean, "min": np.min, "max": np.max, "sum": np.sum, "std": np.std, "range": np.ptp, "count": len,
    "first": lambda values: values[0], "last": lambda values: values[-1],
}  # fmt: skip
STEPS = st.lists(st.tuples(st.integers(0, 30), st.floats(-1e6, 1e6)), min_size=1, max_size=60)


def batch(times: list[int], values: list[float], quality: int = 0, tag: int = 7) -> Batch:
    column = np.array(values, np.float64)
    return Batch(
        np.full(len(values), tag, np.int32), column, np.array([quality], np.uint32), np.array(times), times[-1]
    )


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(1, 100), st.integers(0, 120), st.sampled_from(sorted(FUNCTIONS)))
def test_window_counts_what_is_younger_than_its_length(steps: Any, window: int, later: int, function: str) -> None:
    times = np.cumsum([step for step, _ in steps]).tolist()
    values = [value for _, value in steps]
    features = Features([Feature(TAG, window, function)])
    features.take(batch(times, values))
    now = times[-1] + later
    inside = np.array([value for time, value in zip(times, values, strict=True) if time > now - window])
    found = features.vector(now)
    if len(inside) or function in {"sum", "count"}:
        np.testing.assert_allclose(found.values, [NUMPY[function](inside)])
        assert found.quality == 0
    else:
        assert (len(found.values), found.quality) == (0, Quality.BAD_NO_DATA)


@settings(max_examples=100, deadline=None)
@given(STEPS, STEPS, st.integers(1, 8))
def test_kept_state_goes_on_as_if_nothing_had_happened(before: Any, after: Any, last: int) -> None:
    def make() -> Features:
        return Features([Feature(TAG, 50, "avg"), Feature(TAG, last=last), Feature(TAG)])

    through, saved = make(), make()
    times = np.cumsum([step for step, _ in before]).tolist()
    for one in (through, saved):
        one.take(batch(times, [value for _, value in before]))
    restored = make()
    restored.load(saved.save())
    later = (times[-1] + np.cumsum([step for step, _ in after])).tolist()
    for one in (through, restored):
        one.take(batch(later, [value for _, value in after]))
    expected, found = through.vector(later[-1]), restored.vector(later[-1])
    assert (found.values.tolist(), found.quality) == (expected.values.tolist(), expected.quality)
    assert restored.save() == through.save()


@pytest.mark.parametrize("cut", [1, 10, 33, 50])
def test_state_cut_short_is_refused_and_changes_nothing(cut: int) -> None:
    features = Features([Feature(TAG, 50, "avg"), Feature(TAG)])
    features.take(batch([1, 2, 3], [1.0, 2.0, 3.0]))
    whole = features.save()
    with pytest.raises(GatewayError, match=r"^E5070"):
        features.load(whole[:-cut])
    assert features.save() == whole


def test_state_of_other_inputs_is_refused() -> None:
    with pytest.raises(GatewayError, match=r"^E5070 .*of other inputs"):
        Features([Feature(TAG)]).load(Features([Feature(OTHER)]).save())


def test_window_with_more_values_than_are_kept_is_uncertain_until_they_are_old() -> None:
    features = Features([Feature(TAG, 10_000, "count")])
    features.take(batch(list(range(SAMPLES_MAX + 5)), [1.0] * (SAMPLES_MAX + 5)))
    found = features.vector(SAMPLES_MAX + 5)
    assert (found.values.tolist(), found.quality) == ([SAMPLES_MAX], Quality.UNCERTAIN)
    found = features.vector(10_000 + SAMPLES_MAX)
    assert (found.values.tolist(), found.quality) == ([4.0], Quality.GOOD)


def test_bad_values_are_not_kept_and_speak_for_the_feature() -> None:
    features = Features([Feature(TAG, last=2)])
    features.take(batch([1, 2], [1.0, 2.0]))
    features.take(batch([3], [9.0], Quality.BAD_SENSOR_FAILURE))
    assert features.vector(3).quality == Quality.BAD_SENSOR_FAILURE
    features.take(batch([4], [3.0]))
    assert features.vector(4).values.tolist() == [2.0, 3.0]
