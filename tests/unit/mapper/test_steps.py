from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, Kind, TagId, Value, ValueType, uniform_quality, uniform_time
from framegate.contract.quality import Quality
from framegate.mapper import alarms as alarms_module
from framegate.mapper.alarms import TELL_INTERVAL_NS, Alarms
from framegate.mapper.mapping import Mapping, MappingRow, compile_mapping
from framegate.mapper.planner import Planner
from framegate.mapper.processing import Processing
from framegate.observe.metrics import Metrics

S = 1_000_000_000
GOOD, TIMEOUT, WAITING = Quality.GOOD, Quality.BAD_TIMEOUT, Quality.BAD_WAITING_FOR_INITIAL_DATA
ALARM = TagId(99)


class Silence:
    """A log that keeps its events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def debug(self, event: str, **values: Any) -> None:
        self.events.append(event)

    info = warning = error = debug


def tag(number: int, type_: ValueType = ValueType.FLOAT64, *, scale: float = 1.0, **wishes: Any) -> MappingRow:
    return MappingRow(TagId(number), scale, 0.0, type_, None, Processing(**wishes), f"t{number}")


def calculated(number: int, expr: str, type_: ValueType = ValueType.FLOAT64, **wishes: Any) -> MappingRow:
    wish = Processing(expr=expr, **wishes)
    return MappingRow(TagId(number), 1.0, 0.0, type_, None, wish, f"t{number}", has_source=False)


def batch_of(tags: Sequence[int], values: Any, quality: Sequence[int] = (0,), second: int = 1) -> Batch:
    column = np.array(quality, np.uint32)
    return Batch(np.array(tags, np.int32), np.array(values), column, uniform_time(second * S), second * S)


def rows_of(batches: Sequence[Batch]) -> list[tuple[int, Value, int]]:
    return [
        row
        for batch in batches
        for row in zip(
            batch.tag.tolist(),
            batch.value.tolist(),
            np.broadcast_to(batch.quality, batch.rows).tolist(),
            strict=True,
        )
    ]


def test_clamp_sends_the_limit_and_says_so() -> None:
    mapping = compile_mapping([tag(1, clamp=(0, 10)), tag(2)])
    batch = batch_of([1, 1, 1, 2], [-1.0, 11.0, 5.0, 99.0], [GOOD, Quality.UNCERTAIN, GOOD, GOOD])
    assert rows_of(mapping(batch)) == [
        (1, 0.0, 0x0500),
        (1, 10.0, Quality.UNCERTAIN | 0x0600),
        (1, 5.0, GOOD),
        (2, 99.0, GOOD),
    ]
    assert batch.value.tolist() == [-1.0, 11.0, 5.0, 99.0], "what came in is shared and stays"
    assert rows_of(mapping(batch_of([1], [99.0], [TIMEOUT])))[0][2] == TIMEOUT


def test_clamp_of_integers_keeps_them_integers() -> None:
    mapping = compile_mapping([tag(1, ValueType.INT16, clamp=(-0.5, 9.5)), tag(2, ValueType.UINT64, clamp=(1, 2e30))])
    (out,) = mapping(batch_of([1, 1], [-7, 10]))
    assert (out.kind, out.value.tolist()) == (Kind.INT, [0, 9])
    wide = Batch(
        np.array([2, 2], np.int32), np.array([0, 2**64 - 1], np.uint64), uniform_quality(0), uniform_time(1), 1
    )
    assert mapping(wide)[0].value.tolist() == [1, 2**64 - 1]


def test_enum_goes_out_as_text_and_an_unlisted_number_as_its_decimals() -> None:
    texts = ((0, "off"), (1, "on"))
    mapping = compile_mapping([tag(1, ValueType.INT16, enum=texts), tag(2, ValueType.INT16), tag(3, enum=texts)])
    plain, texts_out = mapping(batch_of([1, 2, 1, 1], [1, 1, 7, 7], [GOOD, GOOD, GOOD, TIMEOUT]))
    assert rows_of([plain]) == [(2, 1, GOOD)]
    assert rows_of([texts_out]) == [(1, "on", GOOD), (1, "7", Quality.UNCERTAIN), (1, "7", TIMEOUT)]
    assert rows_of(mapping(batch_of([3, 3], [1.0, 1.5]))) == [(3, "on", GOOD), (3, "1.5", Quality.UNCERTAIN)]
    flags = compile_mapping([tag(1, ValueType.BOOL, enum=texts, invert=True)])
    assert rows_of(flags(batch_of([1, 1], [True, False]))) == [(1, "off", GOOD), (1, "on", GOOD)]


def test_invert_turns_booleans_and_leaves_the_batch_that_came() -> None:
    mapping = compile_mapping([tag(1, ValueType.BOOL, invert=True)])
    batch = batch_of([1, 2], [True, True])
    assert [row[1] for row in rows_of(mapping(batch))] == [False, True]
    assert batch.value.tolist() == [True, True]


def test_steps_run_in_their_order() -> None:
    row = tag(1, ValueType.INT16, scale=0.5, expr="value + 1", clamp=(0, 3), enum=((3, "full"),))
    assert rows_of(compile_mapping([row])(batch_of([1], [100]))) == [(1, "full", 0x0600)]


def test_mixed_integers_leave_as_kept_scaled_and_texts() -> None:
    rows = [
        tag(1, ValueType.INT16),
        tag(2, ValueType.INT16, scale=0.1),
        tag(3, ValueType.INT16, enum=((1, "x"),)),
        tag(4, ValueType.INT16, expr="value * 2 + tag['t2']"),
    ]
    out = compile_mapping(rows)(batch_of([4, 3, 2, 1], [10, 1, 5, 7]))
    assert rows_of(out) == [(1, 7, GOOD), (3, "x", GOOD), (4, 20.5, GOOD), (2, 0.5, GOOD)]


def test_other_tags_are_those_of_the_batch_else_the_newest() -> None:
    mapping = compile_mapping([tag(1, expr="value + tag['t2']"), tag(2, scale=10.0), tag(3, expr="tag['t1'] * 2")])
    assert rows_of(mapping(batch_of([1, 2, 3], [1.0, 2.0, 0.0]))) == [(1, 21.0, GOOD), (2, 20.0, GOOD), (3, 42.0, GOOD)]
    mapping(batch_of([2], [5.0]))
    assert rows_of(mapping(batch_of([1], [1.0]))) == [(1, 51.0, GOOD)]


def test_an_input_that_was_never_read_or_is_bad_makes_the_result_bad() -> None:
    mapping = compile_mapping([tag(1, expr="value + tag['t2']"), tag(2)])
    assert rows_of(mapping(batch_of([1], [1.0])))[0][2] == WAITING
    mapping(batch_of([2], [0.0], [TIMEOUT]))
    assert rows_of(mapping(batch_of([1], [1.0])))[0][2] == TIMEOUT
    mapping(batch_of([2], [0.0], [Quality.UNCERTAIN | 0x0600]))
    assert rows_of(mapping(batch_of([1], [1.0])))[0][2] == Quality.UNCERTAIN, "limit bits are the input's own"
    assert rows_of(mapping(batch_of([1], [1.0], [Quality.BAD_DEVICE_FAILURE])))[0][2] == Quality.BAD_DEVICE_FAILURE


def test_rows_of_another_kind_than_their_type_are_bad_where_an_expression_wants_them() -> None:
    mapping = compile_mapping([tag(1, expr="value + 1"), tag(2, expr="tag['t3'] + value"), tag(3)])
    (out,) = mapping(batch_of([1, 3], np.array(["x", "y"], np.object_)))
    assert rows_of([out]) == [(1, "x", Quality.BAD_TYPE_MISMATCH), (3, "y", GOOD)]
    assert rows_of(mapping(batch_of([2], [1.0])))[0][2] == Quality.BAD_TYPE_MISMATCH


def test_calculated_tags_follow_the_batch_that_brought_an_input() -> None:
    rows = [
        tag(1, scale=2.0),
        tag(2, ValueType.BOOL),
        calculated(10, "tag['t11'] + 1", ValueType.INT32),
        calculated(11, "tag['t1'] / 3"),
        calculated(12, "tag['t11'] > 1 and tag['t2']", ValueType.BOOL),
        calculated(13, "iif(tag['t12'], 'high', 'low')", ValueType.STRING),
    ]
    mapping = compile_mapping(rows)
    mapping(batch_of([2], [True]))
    first, *others = mapping(batch_of([1], [4.5], second=7))
    assert rows_of([first]) == [(1, 9.0, GOOD)]
    found = {row[0]: row[1:] for row in rows_of(others)}
    assert found == {10: (4, GOOD), 11: (3.0, GOOD), 12: (True, GOOD), 13: ("high", GOOD)}
    assert all(batch.source_time.tolist() == [7 * S] * batch.rows for batch in others)
    kinds = {batch.tag.tolist()[0]: batch.kind for batch in others}
    assert kinds[10] is Kind.INT
    assert kinds[12] is Kind.BOOL
    assert rows_of(mapping(batch_of([3], [1.0]))) == [(3, 1.0, GOOD)]


def test_a_calculated_integer_beyond_its_type_is_bad() -> None:
    mapping = compile_mapping([tag(1), calculated(2, "tag['t1'] * 2", ValueType.UINT8)])
    results = [rows_of(mapping(batch_of([1], [value])))[1] for value in (127.6, 128.0, -1.0)]
    assert results == [(2, 255, GOOD), (2, 0, Quality.BAD_OUT_OF_RANGE), (2, 0, Quality.BAD_OUT_OF_RANGE)]
    wide = compile_mapping([tag(1), calculated(2, "tag['t1']", ValueType.UINT64)])
    assert rows_of(wide(batch_of([1], [2.0**63])))[1][1] == 2**63
    assert rows_of(wide(batch_of([1], [2.0**64])))[1][2] == Quality.BAD_OUT_OF_RANGE


def test_a_timed_calculated_tag_is_evaluated_by_the_tick_and_takes_its_readers_along() -> None:
    rows = [
        tag(1),
        calculated(2, "tag['t1'] * 2", when="timer", every=10.0),
        calculated(3, "tag['t2'] + 1"),
        calculated(4, "42", when="timer", every=10.0),
    ]
    mapping = compile_mapping(rows)
    mapping.tick(5 * S)
    assert rows_of(mapping(batch_of([1], [4.0]))) == [(1, 4.0, GOOD)]
    out = mapping.tick(10 * S)
    assert sorted(rows_of(out)) == [(2, 8.0, GOOD), (3, 9.0, GOOD), (4, 42.0, GOOD)]
    assert {int(time) for batch in out for time in batch.source_time} == {10 * S}
    assert mapping.tick(19 * S) == []


def test_calculated_tags_may_ask_for_reports() -> None:
    mapping = compile_mapping([tag(1), calculated(2, "floor(tag['t1'])", when="change")])
    assert [len(rows_of(mapping(batch_of([1], [value])))) for value in (1.0, 1.5, 2.0)] == [2, 1, 2]


# -- failing ------------------------------------------------------------------------------------------------------


def failing_mapping(log: Silence, metrics: Metrics) -> Mapping:
    rows = [tag(1, expr="1 / value"), tag(2, expr="value * 2"), calculated(3, "tag['t1'] + 1")]
    return compile_mapping(rows, Alarms(ALARM, log, metrics))


def told(batches: Sequence[Batch]) -> list[dict[str, str]]:
    return [json.loads(str(row[1])) for row in rows_of(batches) if row[0] == ALARM]


def test_a_failing_expression_marks_its_tag_tells_once_and_touches_nothing_else() -> None:
    log, metrics = Silence(), Metrics()
    mapping = failing_mapping(log, metrics)
    out = mapping(batch_of([1, 2], [0.0, 5.0]))
    config = Quality.BAD_CONFIGURATION_ERROR
    assert rows_of(out)[:3] == [(1, 0.0, config), (2, 10.0, GOOD), (3, 1.0, config)]
    assert told(out) == [{"tag": "t1", "state": "active", "reason": "the result is not a finite number"}]
    assert told(mapping(batch_of([1, 2], [0.0, 5.0], second=2))) == []
    assert told(mapping(batch_of([1, 2], [0.0, 5.0], [TIMEOUT, 0], second=15))) == [], "Bad anyway: nothing is known"
    assert told(mapping(batch_of([1, 2], [2.0, 5.0], second=20))) == [{"tag": "t1", "state": "cleared", "reason": ""}]
    assert log.events == ["expression_failing", "expression_cleared"]
    assert metrics.counter("edge_mapping_failures_total").value == 2


def test_alarms_of_a_flapping_tag_are_bounded_and_its_last_state_is_told() -> None:
    mapping = failing_mapping(Silence(), Metrics())
    states = [told(mapping(batch_of([1, 2], [float(second % 2), 1.0], second=second))) for second in range(9)]
    assert [len(one) for one in states] == [1, 0, 0, 0, 0, 0, 0, 0, 0]
    mapping(batch_of([1, 2], [1.0, 1.0], second=9))
    assert told(mapping.tick(9 * S)) == []
    assert [alarm["state"] for alarm in told(mapping.tick(TELL_INTERVAL_NS))] == ["cleared"]
    assert told(mapping.tick(3 * TELL_INTERVAL_NS)) == []


def test_many_alarms_go_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms_module, "TOLD_MAX", 3)
    rows = [tag(number, expr="1 / value") for number in range(8)]
    mapping = compile_mapping(rows, Alarms(ALARM, Silence(), Metrics()))
    found = [told(mapping(batch_of(range(8), [0.0] * 8))), *(told(mapping.tick(S)) for _ in range(3))]
    assert [len(one) for one in found] == [3, 3, 2, 0]
    assert {alarm["tag"] for one in found for alarm in one} == {f"t{number}" for number in range(8)}


def test_an_alarm_is_cleared_when_its_expression_is_gone() -> None:
    alarms = Alarms(ALARM, Silence(), Metrics())
    before = compile_mapping([tag(1, expr="1 / value"), tag(2, expr="1 / value")], alarms)
    before(batch_of([1, 2], [0.0, 0.0]))
    after = compile_mapping([tag(1, expr="1 / value")], alarms, previous=before)
    assert told(after.tick(60 * S)) == [{"tag": "t2", "state": "cleared", "reason": ""}]
    assert set(alarms.failing) == {1}


def test_an_expression_that_raises_costs_only_its_own_tag() -> None:
    rows = [tag(number, ValueType.STRING, expr="value .. ''") for number in range(3)]
    rows += [calculated(number, f"number(tag['t{number - 10}']) * 2") for number in range(10, 13)]
    mapping = compile_mapping(rows, Alarms(ALARM, Silence(), Metrics()))
    out = mapping(batch_of([0, 1, 2], np.array(["1", "one", "3"], np.object_)))
    config = Quality.BAD_CONFIGURATION_ERROR
    assert [row for row in rows_of(out) if 10 <= row[0] < 13] == [(10, 2.0, GOOD), (11, 0.0, config), (12, 6.0, GOOD)]
    assert told(out)[0]["reason"] == '"one" is no number'


def test_a_text_that_is_too_long_fails_the_expression() -> None:
    mapping = compile_mapping([tag(1, ValueType.STRING, expr="value .. '!'")])
    out = rows_of(mapping(batch_of([1, 1], np.array(["x" * 16_385, "ok"], np.object_))))
    assert out == [(1, "", Quality.BAD_CONFIGURATION_ERROR), (1, "ok!", GOOD)]


def test_inputs_survive_another_mapping() -> None:
    before = compile_mapping(
        [
            tag(1),
            tag(2, ValueType.STRING),
            tag(3, expr="tag['t1'] + value"),
            calculated(4, "tag['t2']", ValueType.STRING),
        ]
    )
    before(batch_of([1], [40.0]))
    before(batch_of([2], np.array(["kept"], np.object_)))
    rows = [
        tag(2, ValueType.STRING),
        tag(1),
        tag(3, expr="tag['t1'] + value + 1"),
        tag(5, ValueType.STRING, expr="tag['t2'] .. value"),
    ]
    after = compile_mapping(rows, previous=before)
    assert rows_of(after(batch_of([3], [1.0]))) == [(3, 42.0, GOOD)]
    assert rows_of(after(batch_of([5], np.array(["!"], np.object_)))) == [(5, "kept!", GOOD)]


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([tag(1, expr="tag['nobody']")], "E1192"),
        ([calculated(1, "1 + 1")], "E1192"),
        ([calculated(1, "value")], "E1191"),
        ([tag(1, expr="value > 1")], "E1191"),
        ([tag(1, expr="tag['t1']")], "E1193"),
        ([calculated(1, "tag['t2']"), calculated(2, "tag['t3']"), calculated(3, "tag['t1']")], "E1193"),
    ],
)
def test_expressions_that_cannot_work_are_refused(rows: list[MappingRow], code: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        compile_mapping(rows)
    assert caught.value.stable_code == code


def test_a_mapping_may_be_compiled_in_another_thread_while_one_maps() -> None:
    before = compile_mapping([tag(1, expr="value + 1"), tag(2)])
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(compile_mapping, [tag(1, expr="value + tag['t2']"), tag(2)])
        for value in range(100):
            before(batch_of([1, 2], [float(value), 40.0]))
        after = made.result(timeout=30)
    after.take_over(before)
    assert rows_of(after(batch_of([1], [2.0])))[0][2] == WAITING, "no expression read t2 before, so it was not kept"
    assert rows_of(after(batch_of([2, 1], [40.0, 2.0]))) == [(2, 40.0, GOOD), (1, 42.0, GOOD)]


def test_a_long_chain_of_calculated_tags_runs_in_order() -> None:
    rows = [tag(0), *(calculated(number, f"tag['t{number - 1}'] + 1") for number in range(1, 1500))]
    mapping = compile_mapping(list(reversed(rows)))
    found = dict(row[:2] for row in rows_of(mapping(batch_of([0], [0.0]))))
    assert found == {number: float(number) for number in range(1500)}


def test_mapping_that_foresees_plans_nothing_when_rows_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the mapping before has seen is planned for beforehand, and gives what it would give without."""
    tags, value = np.arange(1, 21, dtype=np.int32), np.arange(20.0)
    batch = Batch(tags, value, uniform_quality(0), uniform_time(5), 7)

    def rows(factor: int) -> list[MappingRow]:
        return [MappingRow(TagId(tag), processing=Processing(expr=f"value * {factor} + {tag}")) for tag in range(1, 21)]

    before, after = compile_mapping(rows(2)), compile_mapping(rows(3))
    before(batch)
    after.foresee(before)
    monkeypatch.setattr(Planner, "plan", None)
    after.take_over(before)
    (out,) = after(batch)
    assert out.value.tolist() == [at * 3.0 + at + 1 for at in range(20)]
