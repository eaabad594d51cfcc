"""Alarms: the whole table of states and events, conditions with delays, operators, and what outlives a restart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from framegate.contract.errors import DeviceRefused, FrameBroken, Misconfigured
from framegate.contract.frame import ValueType
from framegate.contract.quality import Quality
from framegate.mapper.rules.alarm_states import ACTIONS, TRANSITIONS, Event, State, mermaid, next_state

from .conftest import SECOND, START_NS, Stage

GOOD, BAD = int(Quality.GOOD), int(Quality.BAD_TIMEOUT)

# The alarm state transition diagram of ANSI/ISA-18.2-2016 by its letters: A normal, B unacknowledged,
# C acknowledged, D returned to normal unacknowledged, E and F latched, G shelved, H suppressed by design, I out of
# service.
LETTERS = dict(zip("ABCDEFGHI", State, strict=True))
ISA_18_2 = {
    "A": "raise>B shelve>G suppress>H out-of-service>I",
    "B": "ack>C clear>D latch>E shelve>G suppress>H out-of-service>I",
    "C": "clear>A latch>F shelve>G suppress>H out-of-service>I",
    "D": "ack>A raise>B shelve>G suppress>H out-of-service>I",
    "E": "ack>F raise>B shelve>G suppress>H out-of-service>I",
    "F": "reset>A raise>B shelve>G suppress>H out-of-service>I",
    "G": "unshelve>A shelve>G suppress>H out-of-service>I",
    "H": "unsuppress>A out-of-service>I",
    "I": "return>A",
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("letter", ISA_18_2)
def test_every_state_answers_every_event_as_the_diagram_says(letter: str, event: Event) -> None:
    wanted = dict(pair.split(">") for pair in ISA_18_2[letter].split())
    target = wanted.get(event.value)
    assert next_state(LETTERS[letter], event) == (None if target is None else LETTERS[target])


def test_every_state_can_be_reached_and_left() -> None:
    targets = {target for row in TRANSITIONS.values() for target in row.values()}
    assert targets == set(State)
    assert all(TRANSITIONS[state] for state in State)
    assert mermaid().count("-->") == 1 + sum(map(len, TRANSITIONS.values()))


class Bench:
    """One alarm rule, fed second by second."""

    def __init__(self, type_: ValueType = ValueType.FLOAT64, **options: Any) -> None:
        self.stage = Stage({"t": type_, "sp": ValueType.FLOAT64})
        self.options = {"input": "t", **options}
        self.rule: Any = self.stage.rule("alarm", "tank", **self.options)
        self.told: list[dict[str, Any]] = []
        self.second = 0
        self.pass_time(1)
        self.told.clear()  # each alarm's first word

    @property
    def now(self) -> int:
        return START_NS + self.second * SECOND

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.second += 1
            self._keep(self.rule.tick(self.now))

    def give(self, *values: Any, tag: str = "t", quality: int = GOOD) -> None:
        """One value a second."""
        for value in values:
            self._keep(self.rule.take(self.stage.batch([(tag, value, quality)], self.now)))
            self.pass_time(1)

    def do(self, condition: str, action: str, seconds: float = 0, note: str = "") -> None:
        until = self.now + round(seconds * SECOND)
        self._keep(self.rule.operate(condition, action, self.now, "uid 7", note, until))

    def restart(self) -> None:
        state = self.rule.save()
        self.rule = self.stage.rule("alarm", "tank", **self.options)
        self.rule.load(state)

    def states(self, condition: str = "high") -> list[str]:
        return [row["state"] for row in self.told if row["condition"] == condition]

    def _keep(self, batches: Any) -> None:
        rows = self.stage.rows(batches)
        assert all(name.startswith("alarm.tank.") for name, *_ in rows)
        self.told += [json.loads(value) for _, _, value, _ in rows]


def test_an_alarm_walks_from_normal_to_acknowledged_and_back_and_tells_each_step() -> None:
    bench = Bench(high=80.0, priority="high", message="Open the drain")
    bench.give(79.9, 80.0, 85.0)
    bench.do("high", "ack", note="on my way")
    bench.give(70.0)
    assert bench.states() == ["unack", "ack", "normal"]
    first, second, third = bench.told
    assert first == {
        "id": "tank.high", "condition": "high", "state": "unack", "active": True, "acknowledged": False,
        "priority": "high", "tag": "t", "value": 80.0, "limit": 80.0, "time": "2023-11-14T22:14:02.000Z",
        "by": "process", "note": "", "message": "Open the drain",
    }  # fmt: skip
    assert (second["by"], second["note"], second["value"]) == ("uid 7", "on my way", 85.0)
    assert (third["by"], third["active"]) == ("process", False)


def test_hysteresis_keeps_a_value_at_its_limit_from_chattering() -> None:
    bench = Bench(high=80.0, low=20.0, hysteresis=5.0)
    bench.give(80.0, 79.0, 75.1, 80.5, 75.0, 79.0, 20.0, 24.9, 25.0)
    assert bench.states("high") == ["unack", "rtn_unack"]
    assert bench.states("low") == ["unack", "rtn_unack"]


def test_delays_swallow_what_does_not_last() -> None:
    bench = Bench(high=80.0, on_delay="3s", off_delay="2s")
    bench.give(81.0, 81.0, 79.0, 81.0, 81.0)
    assert bench.states() == []
    bench.pass_time(1)  # no new value: time alone
    assert bench.states() == ["unack"]
    bench.give(70.0, 81.0, 70.0)
    assert bench.states() == ["unack"]
    bench.pass_time(1)
    assert bench.states() == ["unack", "rtn_unack"]


def test_a_latched_alarm_stands_until_it_is_acknowledged_and_reset() -> None:
    bench = Bench(high=80.0, latch=True)
    bench.give(90.0, 10.0)
    with pytest.raises(DeviceRefused, match="latched_unack; possible now: ack, shelve"):
        bench.do("high", "reset")
    bench.do("high", "ack")
    bench.do("high", "reset")
    assert bench.states() == ["unack", "latched_unack", "latched_ack", "normal"]


def test_shelving_ends_by_itself_and_a_condition_that_still_holds_is_raised_anew() -> None:
    bench = Bench(high=80.0)
    bench.give(90.0)
    bench.do("high", "shelve", 10)
    bench.give(10.0, 90.0)
    assert bench.states() == ["unack", "shelved"]
    bench.pass_time(8)
    assert bench.states() == ["unack", "shelved", "unack"]
    assert bench.told[-1]["by"] == "time"


@pytest.mark.parametrize("seconds", [0, -5, 8 * 86_400])
def test_shelving_for_nothing_or_for_ever_is_refused(seconds: int) -> None:
    with pytest.raises(DeviceRefused, match="E5035"):
        Bench(high=1.0).do("high", "shelve", seconds)


def test_suppressed_and_out_of_service_alarms_are_silent_and_come_back() -> None:
    bench = Bench(high=80.0)
    bench.do("high", "suppress")
    bench.give(90.0)
    bench.do("high", "out-of-service")
    bench.do("high", "return")
    assert bench.states() == ["suppressed", "out_of_service", "unack"]


def test_rate_of_change_deviation_discrete_and_stale() -> None:
    rate = Bench(rate_of_change={"limit": 10.0, "per": "5s"})
    rate.give(0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 10.0, 10.0)
    assert rate.states("rate_of_change") == ["unack", "rtn_unack"]

    away = Bench(deviation={"setpoint": "sp", "limit": 5.0})
    away.give(100.0)
    away.give(50.0, tag="sp")
    away.give(54.0, 55.0)
    assert away.states("deviation") == ["unack", "rtn_unack", "unack"]

    fault = Bench(ValueType.BOOL, discrete=True)
    fault.give(False, True, False)
    assert fault.states("discrete") == ["unack", "rtn_unack"]

    silent = Bench(stale="5s")
    silent.give(1.0, 1.0)
    silent.give(1.0, 1.0, 1.0, 1.0, quality=BAD)
    assert silent.states("stale") == ["unack"]
    silent.give(1.0)
    assert silent.states("stale") == ["unack", "rtn_unack"]


def test_a_bad_value_neither_raises_nor_clears() -> None:
    bench = Bench(high=80.0)
    bench.give(90.0)
    bench.give(0.0, quality=BAD)
    bench.give(float("nan"))
    assert bench.states() == ["unack"]


def test_state_delays_and_shelving_outlive_a_restart() -> None:
    bench = Bench(high=80.0, low=10.0, on_delay="5s", stale="1h")
    bench.do("low", "shelve", 60, note="maintenance")
    bench.give(90.0, 90.0)
    bench.restart()
    bench.pass_time(2)
    assert bench.states() == []
    bench.restart()
    bench.pass_time(1)
    assert bench.states() == ["unack"]
    bench.restart()
    bench.do("high", "ack")
    assert bench.states() == ["unack", "ack"]
    bench.pass_time(60)
    assert bench.states("low") == ["shelved", "normal"]


def test_time_in_which_nobody_looked_counts_for_no_delay() -> None:
    bench = Bench(high=80.0, on_delay="30s", stale="40s")
    bench.give(90.0)
    bench.second += 3_600
    bench.pass_time(20)
    assert bench.told == []
    bench.pass_time(10)
    assert bench.states("high") == ["unack"]


def test_a_clock_that_is_set_back_does_not_stop_delays() -> None:
    bench = Bench(high=80.0, on_delay="5s")
    bench.give(90.0)
    bench.second -= 7_200
    bench.pass_time(6)
    assert bench.states() == ["unack"]


def test_what_cannot_be_operated_says_what_can() -> None:
    bench = Bench(high=80.0)
    with pytest.raises(DeviceRefused, match="it is normal; possible now: shelve, suppress, out-of-service"):
        bench.do("high", "ack")
    with pytest.raises(DeviceRefused, match="E5034"):
        bench.do("low", "ack")
    with pytest.raises(DeviceRefused):
        bench.do("high", "raise")
    assert set(ACTIONS) == {event.value for event in Event} - {"raise", "clear", "latch"}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "at least one of"),
        ({"input": "nobody", "high": 1.0}, "no tag nobody"),
        ({"stale": "10ms"}, "too short"),
        ({"input": "text", "high": 1.0}, "use discrete"),
        ({"deviation": {"setpoint": "text", "limit": 1.0}}, "must be a number"),
    ],
)
def test_a_row_that_cannot_work_says_why(options: dict[str, Any], word: str) -> None:
    stage = Stage({"t": ValueType.FLOAT64, "text": ValueType.STRING})
    with pytest.raises(Misconfigured, match=word):
        stage.rule("alarm", **{"input": "t", **options})


@pytest.mark.parametrize("state", [b"", b"{}", b'{"now":1,"value":2,"alarms":{"high":{}}}', b"[1]", b"\xff"])
def test_a_state_of_no_use_is_refused(state: bytes) -> None:
    with pytest.raises(FrameBroken, match="E5033"):
        Bench(high=1.0).rule.load(state)
