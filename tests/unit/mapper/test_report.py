from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.frame import Batch, TagId, Value, ValueType
from framegate.mapper.mapping import Mapping, MappingRow, compile_mapping
from framegate.mapper.processing import Processing

S = 1_000_000_000
TIMEOUT = 0x800A_0000
Row = tuple[int, Value, int, int]


def row_of(tag: int, processing: Processing, type_: ValueType = ValueType.FLOAT64) -> MappingRow:
    return MappingRow(TagId(tag), type=type_, processing=processing, name=f"t{tag}")


def give(mapping: Mapping, rows: Sequence[tuple[int, Any, int, int]], kind: Any = np.float64) -> list[Row]:
    """Rows (tag, value, quality, second) through a mapping, as one batch taken at the last second."""
    tag, value, quality, second = zip(*rows, strict=True)
    batch = Batch(
        np.array(tag, np.int32),
        np.array(value, kind),
        np.array(quality, np.uint32),
        np.array(second, np.int64) * S,
        second[-1] * S,
    )
    return rows_of(mapping(batch))


def rows_of(batches: Sequence[Batch]) -> list[Row]:
    found = []
    for batch in batches:
        quality, time = np.broadcast_to(batch.quality, batch.rows), np.broadcast_to(batch.source_time, batch.rows)
        columns = (batch.tag.tolist(), batch.value.tolist(), quality.tolist(), (time // S).tolist())
        found += list(zip(*columns, strict=True))
    return found


def went_on(processing: Processing, values: Sequence[Any], kind: Any = np.float64) -> list[Any]:
    """Which of these values, one a second and all Good, go on."""
    mapping = compile_mapping([row_of(1, processing)])
    return [row[1] for at, value in enumerate(values, 1) for row in give(mapping, [(1, value, 0, at)], kind)]


CHANGE = Processing(when="change")


@pytest.mark.parametrize(
    ("processing", "values", "expected"),
    [
        (CHANGE, [1, 1, 2, 2, 1], [1, 2, 1]),
        (CHANGE, [0.0, -0.0, 0.1], [0.0, 0.1]),
        (Processing(when="change", deadband=0.5), [1, 1.5, 1.51, 1.2, 1.0], [1, 1.51, 1.0]),
        (Processing(when="change", deadband_percent=10), [100, 109, 111, 120, 123], [100, 111, 123]),
        (Processing(when="change", deadband_percent=10, range=(0, 16)), [8, 9.6, 9.7], [8, 9.7]),
        (Processing(when="change", deadband=5), [float("inf"), float("inf"), 1], [float("inf"), 1]),
        (Processing(heartbeat=3, when="change"), [1, 1, 1, 1, 1, 1, 1], [1, 1, 1]),
    ],
)
def test_values_that_differ_enough_go_on(processing: Processing, values: list[float], expected: list[float]) -> None:
    assert went_on(processing, values) == expected


def test_integers_booleans_and_texts_are_compared_exactly() -> None:
    assert went_on(CHANGE, [2**62, 2**62, 2**62 + 1], np.int64) == [2**62, 2**62 + 1]
    assert went_on(CHANGE, [True, True, False], np.bool_) == [True, False]
    assert went_on(CHANGE, ["a", "a", "b"], np.object_) == ["a", "b"]


def test_nan_is_told_once() -> None:
    found = went_on(Processing(when="change", deadband=1), [1, float("nan"), float("nan"), 1])
    assert (found[0], np.isnan(found[1]), found[2:]) == (1, True, [1])


def test_a_change_of_quality_always_goes_on_and_the_same_bad_is_no_change() -> None:
    mapping = compile_mapping([row_of(1, Processing(when="change", deadband=100))])
    given_rows = [(0, 0), (0, TIMEOUT), (7, TIMEOUT), (0, TIMEOUT + 0x1_0000), (0, 0), (0, 0x4000_0000)]
    found = [give(mapping, [(1, value, quality, at)]) for at, (value, quality) in enumerate(given_rows)]
    assert [len(rows) for rows in found] == [1, 1, 0, 1, 1, 1]


def test_a_tag_twice_in_a_batch_is_compared_in_order() -> None:
    mapping = compile_mapping([row_of(1, CHANGE)])
    rows = [(1, 1, 0, 1), (2, 5, 0, 1), (1, 1, 0, 2), (1, 2, 0, 3), (2, 5, 0, 3)]
    assert [row[:2] for row in give(mapping, rows)] == [(1, 1), (2, 5), (1, 2), (2, 5)]


def test_rows_that_ask_for_nothing_all_go_on() -> None:
    mapping = compile_mapping([row_of(1, CHANGE)])
    for second in (1, 2):
        assert (2, 5, 0, second) in give(mapping, [(1, 1, 0, second), (2, 5, 0, second)])


def test_heartbeat_repeats_the_newest_row_when_none_arrives() -> None:
    mapping = compile_mapping([row_of(1, Processing(when="change", deadband=9, heartbeat=10))])
    assert rows_of(mapping.tick(0)) == []
    give(mapping, [(1, 1, 0, 1)])
    give(mapping, [(1, 2, 0, 2)])
    assert rows_of(mapping.tick(10 * S)) == []
    assert rows_of(mapping.tick(11 * S)) == [(1, 2, 0, 2)]
    assert rows_of(mapping.tick(12 * S)) == []
    assert rows_of(mapping.tick(5 * S)) == [(1, 2, 0, 2)], "a clock that was set back makes it due"


def test_timer_sends_the_newest_row_at_multiples_of_its_period() -> None:
    mapping = compile_mapping([row_of(1, Processing(when="timer", every=10))])
    mapping.tick(0)
    assert len(give(mapping, [(1, 1, 0, 1)])) == 1, "the first value is told at once"
    assert give(mapping, [(1, 2, 0, 8)]) == []
    assert rows_of(mapping.tick(9 * S)) == []
    assert rows_of(mapping.tick(10 * S)) == [(1, 2, 0, 8)]
    assert rows_of(mapping.tick(11 * S)) == []
    assert len(give(mapping, [(1, 0, TIMEOUT, 12)])) == 1
    assert rows_of(mapping.tick(20 * S)) == [(1, 0, TIMEOUT, 12)]


def test_state_survives_another_mapping() -> None:
    before = compile_mapping([row_of(1, CHANGE), row_of(2, CHANGE)])
    give(before, [(1, 1, 0, 1), (2, 2, 0, 1)])
    after = compile_mapping([row_of(3, CHANGE), row_of(2, CHANGE), row_of(1, CHANGE)], previous=before)
    assert [row[0] for row in give(after, [(1, 1, 0, 2), (2, 3, 0, 2), (3, 3, 0, 2)])] == [2, 3]


# -- swinging door --------------------------------------------------------------------------------------------------


def through_door(points: Sequence[tuple[int, float]], bound: float) -> list[tuple[int, float]]:
    """What goes on of points (second, value), the held one at the end included."""
    mapping = compile_mapping([row_of(1, Processing(when="change", swinging_door=bound))])
    found = [row for second, value in points for row in give(mapping, [(1, value, 0, second)])]
    found += rows_of(mapping.release(points[-1][0] * S))
    return [(row[3], float(row[1])) for row in found if isinstance(row[1], float)]


@settings(max_examples=200, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(1, 50), st.floats(-1e3, 1e3)), min_size=1, max_size=40),
    bound=st.floats(0.01, 200),
)
def test_door_no_left_out_value_is_further_from_the_line_than_the_bound(
    points: list[tuple[int, float]], bound: float
) -> None:
    seconds = np.cumsum([step for step, _ in points])
    given_points = [(int(second), value) for second, (_, value) in zip(seconds, points, strict=True)]
    kept = through_door(given_points, bound)
    assert set(kept) <= set(given_points)
    assert [second for second, _ in kept] == sorted({second for second, _ in kept})
    assert (kept[0], kept[-1]) == (given_points[0], given_points[-1])
    line = np.interp(seconds, [second for second, _ in kept], [value for _, value in kept])
    assert np.abs(line - [value for _, value in given_points]).max() <= bound * (1 + 1e-9) + 1e-9


def test_door_leaves_a_straight_line_to_its_ends() -> None:
    assert through_door([(second, 3.0 * second) for second in range(1, 100)], 0.001) == [(1, 3.0), (99, 297.0)]


def test_door_sends_the_held_row_before_one_that_went_bad() -> None:
    mapping = compile_mapping([row_of(1, Processing(when="change", swinging_door=1))])
    give(mapping, [(1, 1, 0, 1)])
    assert give(mapping, [(1, 1.5, 0, 2)]) == []
    assert give(mapping, [(1, 0, TIMEOUT, 3)]) == [(1, 1.5, 0, 2), (1, 0, TIMEOUT, 3)]
    assert give(mapping, [(1, 0, TIMEOUT, 4)]) == []
    assert give(mapping, [(1, 1.5, 0, 5)]) == [(1, 1.5, 0, 5)]


def test_door_after_nan_begins_anew() -> None:
    values = [1.0, 1.0, float("nan"), 1.0, 1.0, 1.0]
    kept = through_door(list(enumerate(values, 1)), 1)
    assert [second for second, _ in kept] == [1, 2, 3, 4, 6]


def test_door_of_a_device_whose_clock_steps_back_loses_nothing() -> None:
    kept = through_door([(10, 1.0), (11, 1.0), (5, 1.0), (5, 1.0), (6, 1.0)], 1)
    assert kept == [(10, 1.0), (11, 1.0), (5, 1.0), (5, 1.0), (6, 1.0)]


def test_door_heartbeat_sends_the_newest() -> None:
    mapping = compile_mapping([row_of(1, Processing(when="change", swinging_door=1, heartbeat=5))])
    found = [row[3] for second in range(13) for row in give(mapping, [(1, 1.0, 0, second)])]
    assert found == [0, 5, 10]
