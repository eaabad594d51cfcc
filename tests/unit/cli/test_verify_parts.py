"""Small parts of the experiments that a wrong verdict could hide in."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from framegate.cli.verify.backlog import Freshness
from framegate.cli.verify.experiment import Result
from framegate.cli.verify.hostile_devices import _judge_process
from framegate.cli.verify.site import judge, percentile
from framegate.cli.verify.stepping_gateway import LOOK_INTERVAL_S, SteppingClock
from framegate.testing.tally import Tally

DAY_NS = 86_400 * 1_000_000_000


def message(first: int, rows: int) -> bytes:
    frames = ",".join('{"tag":"t","value":1,"ts":1700000000000,"qos":0}' for _ in range(rows))
    return f'{{"gateway":"gw","pos":{first},"frames":[{frames}]}}'.encode()


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 51.0), (0.99, 100.0), (1.0, 100.0)], ids=["middle", "p99", "highest"]
)
def test_percentile_of_a_hundred_values(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected
    assert percentile([], share) == 0.0


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([(1, 10)], ""),
        ([(2, 9)], "1 rows of 10 were lost"),
        ([(1, 4), (9, 2), (5, 4)], "4 rows came out of order"),
        ([(1, 10), (1, 10)], "10 rows came again; at most 5 were promised"),
    ],
)
def test_judge_names_what_must_not_be(pieces: list[tuple[int, int]], words: str) -> None:
    tally, result = Tally(), Result()
    for piece in pieces:
        tally.take(message(*piece))
    judge(result, "cloud", tally, 10, 5)
    assert result.broken == ([f"cloud: {words}"] if words else [])


def test_freshness_is_of_what_was_read_in_between() -> None:
    freshness, now_ms = Freshness(), time.time_ns() // 1_000_000
    for age_ms in (4_000, 3_000, 1_000):
        freshness.note(now_ms - age_ms)
    ages = freshness.between(now_ms - 3_500, now_ms - 500)
    assert [round(age) for age in ages] == [3, 1]


def test_stepping_clock_goes_as_its_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "clock"
    file.write_text("86400 1.0")
    monotonic = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: monotonic)
    clock = SteppingClock(file)
    began = clock.now_ns()
    assert abs(began - time.time_ns() - DAY_NS) < 1_000_000_000
    file.write_text("0 100.0")
    assert clock.now_ns() == began, "it looks only now and then"
    monotonic += LOOK_INTERVAL_S
    again = clock.now_ns()
    assert abs(again - time.time_ns()) < 1_000_000_000
    monotonic += 2.0
    assert clock.now_ns() - again == 200 * 1_000_000_000


@pytest.mark.parametrize(("late_ticks", "is_broken"), [(0, False), (9, False), (20, True)])
def test_lag_is_judged_at_p99_of_the_ticks_in_between(late_ticks: int, is_broken: bool) -> None:
    before = {25.0: 500.0, 100.0: 500.0, 500.0: 900.0, float("inf"): 900.0}
    after = {25.0: 1_500.0 - late_ticks, 100.0: 1_500.0 - late_ticks, 500.0: 1_900.0, float("inf"): 1_900.0}
    result = Result()
    _judge_process(before, after, 1 << 20, result)
    assert bool(result.broken) == is_broken, result.broken
