"""The engine: who is given which rows, what happens to rules that fail, and the order of rows and ticks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, Placed, Position, TagId, ValueType, uniform_quality, uniform_time
from framegate.contract.quality import Quality
from framegate.mapper.rules import engine as module
from framegate.mapper.rules.engine import Engine, Entry
from framegate.mapper.rules.rule import FAULTS_MAX
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import FakeClock

from .conftest import SECOND, START_NS, Stage


class Recorder:
    """A rule that notes what it is told, and fails when asked to."""

    def __init__(self, name: str, inputs: Sequence[int] = ()) -> None:
        self.name, self.inputs = name, [TagId(tag) for tag in inputs]
        self.heard: list[Any] = []
        self.error: Exception | None = None
        self.answer: Sequence[Batch] = ()
        self.state = b""

    def take(self, batch: Batch) -> Sequence[Batch]:
        self.heard.append(batch.value.tolist())
        if self.error is not None:
            raise self.error
        return self.answer

    def tick(self, now_ns: int) -> Sequence[Batch]:
        self.heard.append((now_ns - START_NS) // SECOND)
        return ()

    def save(self) -> bytes:
        return self.state

    def load(self, state: bytes) -> None:
        """Nothing to take."""

    def close(self) -> None:
        """Nothing is held."""


class Scene:
    def __init__(self, *rules: Recorder, outputs: Sequence[int] = ()) -> None:
        self.stage = Stage({"a": ValueType.FLOAT64, "b": ValueType.FLOAT64})
        self.derived = self.stage.names.intern("d", "rule/x", ValueType.FLOAT64, "", "R")
        self.words = self.stage.names.intern("w", "rule/x", ValueType.STRING, "", "R")
        self.entries = [Entry(rule, "test", [TagId(tag) for tag in outputs], Metrics()) for rule in rules]
        self.clock = FakeClock()
        self.engine = Engine(self.entries, self.stage.names, self.clock, self.stage.log)
        self.last = 0

    def batch(self, tag: int, *values: float, second: float = 0.0) -> Batch:
        now = START_NS + round(second * SECOND)
        column = np.array(values)
        return Batch(np.full(len(values), tag, np.int32), column, uniform_quality(0), uniform_time(now), now)

    def feed(self, batch: Batch) -> None:
        self.engine.feed(Placed(Position(self.last + 1), batch))
        self.last += len(batch.tag)
        self.engine.reach(Position(self.last))


def test_rows_go_to_those_that_name_their_tag_and_derived_ones_only_to_those() -> None:
    one, every, derived = Recorder("one", [1]), Recorder("every"), Recorder("derived", [3])
    scene = Scene(one, every, derived)
    one.answer = [scene.batch(3, 7.0)]
    for tag in (1, 2, scene.derived):  # the last one as it comes again by the log
        scene.feed(scene.batch(tag, float(tag)))
    assert [row for row in one.heard if row != 0] == [[1.0]]
    assert [row for row in every.heard if row != 0] == [[1.0], [2.0]]
    assert [row for row in derived.heard if row != 0] == [[7.0]]
    assert [entry.is_bound for entry in scene.entries] == [True, False, True]


def test_rules_that_feed_each_other_without_end_are_stopped() -> None:
    rule = Recorder("r", [1, 3])
    scene = Scene(rule)
    rule.answer = [scene.batch(3, 7.0)]
    scene.feed(scene.batch(1, 1.0))
    assert len(rule.heard) == 2 + module.CHAIN_MAX
    assert "E5025" in scene.entries[0].error


def test_each_second_is_told_once_and_before_the_rows_of_that_second() -> None:
    rule = Recorder("r", [1])
    scene = Scene(rule)
    for second in (0.5, 0.7, 3.2):
        scene.feed(scene.batch(1, second, second=second))
    scene.engine.advance(START_NS + 4 * SECOND)
    scene.engine.advance(START_NS + 4 * SECOND + 1)
    assert rule.heard == [0, [0.5], [0.7], 1, 2, 3, [3.2], 4]


def test_a_long_silence_is_one_tick_and_a_clock_set_back_goes_on_from_there() -> None:
    rule = Recorder("r", [1])
    scene = Scene(rule)
    for second in (0, 5_000, 4_995, 100, 101):
        scene.feed(scene.batch(1, second=second))
    assert [row for row in rule.heard if row != []] == [0, 5_000, 100, 101]


def test_a_rule_is_not_given_rows_that_its_state_knows() -> None:
    rule = Recorder("r", [1])
    scene = Scene(rule)
    scene.entries[0].position, scene.entries[0].ticked_ns = Position(3), START_NS
    scene.feed(scene.batch(1, 1.0, 2.0))
    scene.feed(scene.batch(1, 3.0, 4.0))
    assert rule.heard == [[4.0]]


@pytest.mark.parametrize("error", [Misconfigured("no"), ZeroDivisionError("bug")])
def test_a_rule_that_fails_is_switched_off_and_what_it_published_is_bad(error: Exception) -> None:
    weak, strong = Recorder("weak", [1]), Recorder("strong", [1])
    weak.error = error
    scene = Scene(weak, strong, outputs=[3, 4])
    for value in range(5):
        scene.feed(scene.batch(1, float(value)))
    assert len([row for row in weak.heard if row != 0]) == FAULTS_MAX
    assert len([row for row in strong.heard if row != 0]) == 5
    rows = scene.stage.rows(scene.engine.outputs)[:2]
    assert [(name, value, quality) for name, _, value, quality in rows] == [
        ("d", 0.0, Quality.BAD_CONFIGURATION_ERROR),
        ("w", None, Quality.BAD_CONFIGURATION_ERROR),
    ]
    assert scene.stage.log.events == ["rule_failed"] * 3 + ["rule_off"]


async def test_failures_far_apart_leave_a_rule_on() -> None:
    rule = Recorder("r", [1])
    rule.error = Misconfigured("no")
    scene = Scene(rule)
    for value in range(5):
        scene.feed(scene.batch(1, float(value)))
        await scene.clock.advance(module.FAULT_FORGOTTEN_S + 1)
    assert not scene.entries[0].is_off
    assert scene.entries[0].faults.value == 5


def test_a_rule_that_answers_without_end_or_keeps_too_much_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTPUT_ROWS_MAX", 10)
    monkeypatch.setattr(module, "STATE_BYTES_MAX", 10)
    loud, fat = Recorder("loud", [1]), Recorder("fat", [1])
    scene = Scene(loud, fat)
    loud.answer, fat.state = [scene.batch(3, *([1.0] * 11))], bytes(11)
    scene.feed(scene.batch(1, 1.0))
    assert scene.engine.outputs == []
    assert "E5031" in scene.entries[0].error
    assert scene.engine.saved(scene.entries) == {scene.entries[0]: b""}
    assert scene.entries[1].is_off
