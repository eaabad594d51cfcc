"""Windows agree with pandas on the same rows, whatever the batches they come in; and keep their bounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.errors import FrameBroken, Misconfigured
from framegate.contract.frame import Gap, Position, ValueType
from framegate.contract.quality import Quality
from framegate.mapper.rules import window
from framegate.mapper.rules.rule import STATE_BYTES_MAX, Rule

from .conftest import SECOND, START_NS, Row, Stage

FUNCTIONS = ["avg", "min", "max", "sum", "count", "stddev", "first", "last", "rate", "twa", "p50", "p95", "p99"]
GOOD, BAD = int(Quality.GOOD), int(Quality.BAD_TIMEOUT)
Sample = tuple[int, str, float, bool]
"""Milliseconds since the start, tag, value, Good."""


def play(stage: Stage, rule: Rule, samples: Sequence[Sample], seconds: int, by_source: bool = False) -> list[Row]:
    """Rows in batches of one gateway time each, and a tick at every second."""
    derived: list[Row] = []
    left = sorted(samples)
    for second in range(seconds + 1):
        now = START_NS + second * SECOND
        derived += stage.rows(rule.tick(now))
        while left and left[0][0] < (second + 1) * 1000:
            at = left[0][0]
            group = [sample for sample in left if sample[0] == at]
            left = left[len(group) :]
            rows = [(tag, value, GOOD if good else BAD) for _, tag, value, good in group]
            time = START_NS + at * 1_000_000
            batch = stage.batch(rows, now + SECOND - 1 if by_source else time, [time] * len(rows))
            derived += stage.rows(rule.take(batch))
    return derived


def frame_of(samples: Sequence[Sample], tag: str) -> pd.Series:
    """The Good rows of a tag, as pandas sees them."""
    rows = [(START_NS + at * 1_000_000, value) for at, name, value, good in sorted(samples) if name == tag and good]
    return pd.Series([value for _, value in rows], pd.to_datetime([time for time, _ in rows]), dtype=float)


def held(series: pd.Series, start: pd.Timestamp, stop: pd.Timestamp) -> float:
    """Time-weighted mean of a series whose values stand until the next one, by pandas."""
    edges = pd.DatetimeIndex([start, stop])
    standing = series.groupby(level=0).last().reindex(series.index.union(edges)).ffill()
    part = standing[(standing.index >= start) & (standing.index <= stop)].dropna()
    if len(part) < 2:
        return float("nan")
    seconds = np.diff(part.index.astype("datetime64[ns]").astype(np.int64)) / 1e9
    return float((part.to_numpy()[:-1] * seconds).sum() / seconds.sum()) if seconds.sum() else float("nan")


def judge(series: pd.Series, function: str, start: pd.Timestamp, stop: pd.Timestamp) -> float:
    """What pandas says of [start, stop)."""
    inside = series[(series.index >= start) & (series.index < stop)]
    if function == "count":
        return float(inside.count())
    if function == "twa":
        return held(series[series.index < stop], start, stop)
    if inside.empty:
        return float("nan")
    if function == "rate":
        known = series[series.index < start].iloc[-1:]
        known = pd.concat([known, inside])
        seconds = (known.index[-1] - known.index[0]).total_seconds()
        return float(known.diff().sum() / seconds) if seconds else float("nan")
    if function.startswith("p"):
        return float(inside.quantile(int(function[1:]) / 100))
    name = {"avg": "mean", "stddev": "std"}.get(function, function)
    return (
        float(inside.iloc[0 if name == "first" else -1])
        if name in {"first", "last"}
        else float(getattr(inside, name)())
    )


samples_of = st.lists(
    st.tuples(
        st.integers(0, 119_999),
        st.sampled_from(["a", "b"]),
        st.floats(-1e6, 1e6, allow_subnormal=False) | st.integers(-5, 5).map(float),
        st.just(True),
    ),
    max_size=80,
    unique_by=lambda sample: (sample[0], sample[1]),
)


@settings(max_examples=12, deadline=None)
@given(samples_of, st.sampled_from([(10, 10), (30, 10), (60, 60), (20, 5)]), st.booleans())
def test_figures_of_any_rows_agree_with_pandas(samples: list[Sample], spans: tuple[int, int], by_source: bool) -> None:
    length, slide = spans
    stage = Stage({"a": ValueType.FLOAT64, "b": ValueType.FLOAT64})
    by = "source_time" if by_source else "gateway_time"
    rule = stage.rule(
        "window", input=["a", "b"], window=f"{length}s", slide=f"{slide}s", functions=FUNCTIONS, by=by, lateness="2s"
    )
    derived = play(stage, rule, samples, 125, by_source)
    ends = {time for _, time, _, _ in derived if time > START_NS}
    assert {START_NS + at * SECOND for at in range(slide, 121, slide)} <= ends
    series = {tag: frame_of(samples, tag) for tag in ("a", "b")}
    for name, time, value, quality in derived:
        tag, function = name.split(".")
        stop = pd.Timestamp(time)
        wanted = judge(series[tag], function, stop - pd.Timedelta(seconds=length), stop)
        if quality >> 30 == 2:
            assert np.isnan(wanted), (name, stop, wanted)
        else:
            assert value == pytest.approx(wanted, rel=1e-9, abs=1e-6), (name, stop)


def test_tumbling_windows_agree_with_resample_of_pandas() -> None:
    dice = np.random.default_rng(7)
    samples: list[Sample] = [(at, "a", float(dice.normal(1e3, 1)), True) for at in range(0, 600_000, 250)]
    stage = Stage({"a": ValueType.FLOAT64})
    rule = stage.rule("window", input="a", window="1m", functions=["avg", "stddev", "p95", "count"])
    derived = play(stage, rule, samples, 602)
    bins = frame_of(samples, "a").resample("60s", label="right")
    for function, wanted in (
        ("avg", bins.mean()), ("stddev", bins.std()), ("p95", bins.quantile(0.95)), ("count", bins.count()),
    ):  # fmt: skip
        ours = {time: value for name, time, value, _ in derived if name == f"a.{function}" and time > START_NS}
        theirs = {int(stamp.value): float(value) for stamp, value in wanted.items()}
        assert ours == pytest.approx(theirs, rel=1e-9)
        assert len(ours) == 10


def test_spread_of_values_far_from_zero_is_exact() -> None:
    dice = np.random.default_rng(9)
    values = dice.normal(1e9, 1, 500).tolist()
    stage = Stage({"a": ValueType.FLOAT64})
    rule = stage.rule("window", input="a", window="1m", functions=["stddev"])
    samples: list[Sample] = [(at * 100, "a", value, True) for at, value in enumerate(values)]
    ((value, _),) = series(stage, rule, "a.stddev", samples, 61)
    assert value == pytest.approx(statistics.stdev(map(Fraction, values)), rel=1e-12)


def test_sliding_windows_agree_with_rolling_of_pandas() -> None:
    dice = np.random.default_rng(8)
    samples: list[Sample] = [(at * 1000, "a", float(dice.integers(0, 100)), True) for at in range(300)]
    stage = Stage({"a": ValueType.FLOAT64})
    rule = stage.rule(
        "window", input="a", window="1m", slide="10s", functions=["avg", "max"], output="{tag}.{function}_1m"
    )
    derived = play(stage, rule, samples, 302)
    rolling = frame_of(samples, "a").rolling("60s", closed="left")
    for function, wanted in (("avg", rolling.mean()), ("max", rolling.max())):
        ours = {pd.Timestamp(time): value for name, time, value, _ in derived if name == f"a.{function}_1m"}
        theirs = wanted[wanted.index.second % 10 == 0]
        shared = [stamp for stamp in theirs.index if stamp in ours and stamp >= pd.Timestamp(START_NS + 60 * SECOND)]
        assert len(shared) >= 23
        assert [ours[stamp] for stamp in shared] == pytest.approx([theirs[stamp] for stamp in shared])


@settings(max_examples=15, deadline=None)
@given(samples_of, st.integers(1, 119))
def test_a_rule_that_is_saved_and_loaded_goes_on_as_if_nothing_had_happened(samples: list[Sample], cut: int) -> None:
    options: dict[str, Any] = {
        "input": ["a", "b"],
        "window": "30s",
        "slide": "10s",
        "functions": [*FUNCTIONS, "total"],
        "total": {"of": "counter"},
    }
    stage = Stage({"a": ValueType.FLOAT64, "b": ValueType.FLOAT64})
    whole = play(stage, stage.rule("window", **options), samples, 122)
    first = stage.rule("window", **options)
    head = play(stage, first, [row for row in samples if row[0] < cut * 1000], cut - 1)
    second = stage.rule("window", **options)
    second.load(first.save())
    tail: list[Row] = []
    left = sorted(row for row in samples if row[0] >= cut * 1000)
    for at in range(cut, 123):
        tail += stage.rows(second.tick(START_NS + at * SECOND))
        for row in [row for row in left if at * 1000 <= row[0] < (at + 1) * 1000]:
            time = START_NS + row[0] * 1_000_000
            tail += stage.rows(second.take(stage.batch([(row[1], row[2], GOOD)], time)))
    assert repr(head + tail) == repr(whole)


def series(stage: Stage, rule: Rule, name: str, samples: Sequence[Sample], seconds: int) -> list[tuple[Any, int]]:
    return [(value, quality) for tag, _, value, quality in play(stage, rule, samples, seconds) if tag == name]


def test_quality_tells_the_share_of_good_values() -> None:
    stage = Stage({"a": ValueType.FLOAT64})
    rule = stage.rule("window", input="a", window="10s", functions=["avg", "count"], good_share=0.75)
    rows: list[Sample] = [(at * 1000, "a", 1.0, True) for at in range(10)]
    rows += [(10_000 + at * 1000, "a", 1.0, at >= 2) for at in range(10)]  # 8 of 10
    rows += [(20_000 + at * 1000, "a", 1.0, at >= 5) for at in range(10)]  # 5 of 10
    rows += [(30_000 + at * 1000, "a", 1.0, False) for at in range(10)]
    found = series(stage, rule, "a.avg", rows, 51)
    assert [quality for _, quality in found] == [
        Quality.GOOD, Quality.GOOD, Quality.UNCERTAIN_SUB_NORMAL, Quality.BAD_NO_DATA, Quality.BAD_NO_DATA,
    ]  # fmt: skip
    again = stage.rule("window", "s", input="a", window="10s", functions=["count"], output="n")
    assert series(stage, again, "n", rows, 51) == [(10.0, 0), (8.0, 0), (5.0, 0), (0.0, 0), (0.0, 0)]


def test_a_bad_row_ends_what_a_value_stands_for() -> None:
    stage = Stage({"a": ValueType.FLOAT64})
    rule = stage.rule("window", input="a", window="10s", functions=["twa", "total"], total={"of": "flow"})
    rows: list[Sample] = [(0, "a", 10.0, True), (4_000, "a", 0.0, False), (8_000, "a", 20.0, True)]
    assert [value for value, _ in series(stage, rule, "a.twa", rows, 11)] == [pytest.approx((10 * 4 + 20 * 2) / 6)]
    again = stage.rule("window", "s", input="a", window="10s", functions=["total"], output="t", total={"of": "flow"})
    assert [value for value, _ in series(stage, again, "t", rows, 21)] == pytest.approx([80.0, 280.0])


def test_a_totaliser_counts_over_roll_overs_and_outlives_a_changed_row() -> None:
    stage = Stage({"a": ValueType.FLOAT64, "b": ValueType.FLOAT64})
    counter = {"of": "counter", "rollover": 65_536}
    rule = stage.rule("window", input="a", window="10s", functions=["total"], total=counter)
    rows: list[Sample] = [(at * 1000, "a", float((65_500 + 10 * at) % 65_536), True) for at in range(20)]
    assert [value for value, _ in series(stage, rule, "a.total", rows, 21)] == [90.0, 190.0]
    wider: Any = stage.rule("window", input=["a", "b"], window="1m", functions=["total"], total=counter)
    wider.load(rule.save())
    assert orjson.dumps(wider.totals.save()["values"]) == b'{"a":190.0,"b":0.0}'


def test_rows_that_come_too_late_or_from_the_future_are_left_out_and_told() -> None:
    stage = Stage({"a": ValueType.FLOAT64})
    rule = stage.rule("window", input="a", window="10s", functions=["count"], by="source_time", lateness="5s")
    for second in range(31):
        rule.tick(START_NS + second * SECOND)
    now = START_NS + 30 * SECOND
    rule.take(stage.batch([("a", 1.0, GOOD)] * 3, now, [now - 25 * SECOND, now + 3600 * SECOND, now]))
    assert stage.rows(rule.tick(now + 20 * SECOND))[0][2] == 0.0
    rule.tick(now + 700 * SECOND)
    assert stage.log.events == ["rule_rows_late"]


def test_a_gap_makes_open_windows_uncertain() -> None:
    stage = Stage({"a": ValueType.FLOAT64})
    rule: Any = stage.rule("window", input="a", window="10s", functions=["avg"])
    rule.tick(START_NS)
    rule.take(stage.batch([("a", 1.0, GOOD)], START_NS + 1))
    rule.lose(Gap(Position(2), Position(5), "disk_full", "", "", 0))
    assert stage.rows(rule.tick(START_NS + 11 * SECOND))[0][2:] == (1.0, Quality.UNCERTAIN_SUB_NORMAL)


def test_percentiles_beyond_the_bound_are_uncertain_and_the_state_stays_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window, "SAMPLES_MAX", 50)
    stage = Stage({"a": ValueType.FLOAT64})
    rule = stage.rule("window", input="a", window="10s", functions=["p50", "avg"])
    rows: list[Sample] = [(at * 100, "a", float(at), True) for at in range(100)]
    found = {name: (value, quality) for name, _, value, quality in play(stage, rule, rows, 11)}
    assert found == {"a.p50": (24.5, Quality.UNCERTAIN_SUB_NORMAL), "a.avg": (49.5, Quality.GOOD)}


def test_the_largest_state_keeps_its_bound() -> None:
    tags = {f"line.of.a.plant.with.long.names.{number:04}": ValueType.FLOAT64 for number in range(1_250)}
    stage = Stage(tags)
    rule = stage.rule("window", input="*", window="2s", slide="1s", functions=["p50"], lateness="1s")
    dice = np.random.default_rng(1)
    for second in range(20):
        rule.tick(START_NS + second * SECOND)
        for step in range(9):
            rows = [(name, value, GOOD) for name, value in zip(tags, dice.random(1_250).tolist(), strict=True)]
            rule.take(stage.batch(rows, START_NS + second * SECOND + step))
    assert 400_000 < len(rule.save()) < STATE_BYTES_MAX


def test_a_silence_longer_than_a_window_is_skipped_and_a_clock_set_back_begins_anew() -> None:
    stage = Stage({"a": ValueType.FLOAT64})
    rule = stage.rule("window", input="a", window="10s", functions=["count"])
    rule.tick(START_NS)
    rule.take(stage.batch([("a", 1.0, GOOD)], START_NS + 5))
    jumped = stage.rows(rule.tick(START_NS + 86_400 * SECOND))
    assert [row[2] for row in jumped] == [1.0, 0.0]
    assert stage.rows(rule.tick(START_NS + 100 * SECOND)) == []
    rule.take(stage.batch([("a", 1.0, GOOD)], START_NS + 101 * SECOND))
    assert [row[2] for row in stage.rows(rule.tick(START_NS + 111 * SECOND))] == [1.0]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"slide": "7s"}, "multiple"),
        ({"functions": ["median"]}, "p1 to p99"),
        ({"functions": []}, "1 to"),
        ({"input": "text"}, "string"),
        ({"input": "nobody"}, "no tag nobody"),
        ({"input": "x.*"}, "no tag matches"),
        ({"input": ["a", "b"], "output": "{function}"}, "one name twice"),
        ({"window": "1d", "slide": "1s"}, "at most"),
        ({"lateness": "2h"}, "at most"),
        ({"window": "10ms"}, "too short"),
    ],
)
def test_a_row_that_cannot_work_says_why(options: dict[str, Any], word: str) -> None:
    stage = Stage({"a": ValueType.FLOAT64, "b": ValueType.FLOAT64, "text": ValueType.STRING})
    row: dict[str, Any] = {"input": "a", "window": "1m", "functions": ["avg"], **options}
    with pytest.raises(Misconfigured, match=word):
        stage.rule("window", **row)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_state_of_any_bytes_is_refused_or_taken(data: bytes, cut: int) -> None:
    stage = Stage({"a": ValueType.FLOAT64})
    made = stage.rule("window", input="a", window="10s", functions=["avg"])
    made.tick(START_NS + 1)
    for state in (data, made.save()[:cut] + data):
        rule = stage.rule("window", input="a", window="10s", functions=["avg"])
        try:
            rule.load(state)
        except FrameBroken:
            continue
