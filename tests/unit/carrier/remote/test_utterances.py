from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from framegate.carrier.remote.utterances import LINES_PER_MINUTE_MAX, MESSAGES_PER_S_MAX, Utterances
from framegate.testing.fakes import CollectingLog


@pytest.fixture
def now() -> list[float]:
    return [600.0]


@pytest.fixture
def words(now: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[Utterances, CollectingLog]:
    loop: Any = SimpleNamespace(time=lambda: now[0])
    monkeypatch.setattr("asyncio.get_running_loop", lambda: loop)
    log = CollectingLog()
    return Utterances("meter1", log), log


def test_driver_that_complains_of_every_scan_does_not_fill_the_log(
    words: tuple[Utterances, CollectingLog], now: list[float]
) -> None:
    said, log = words
    for _ in range(10 * 60 * 10):  # ten scans a second, for ten minutes
        said.say(2, b"the meter sent nonsense")
        now[0] += 0.1
    said.close()
    assert len(log.events("driver_says")) == 10 * LINES_PER_MINUTE_MAX
    assert sum(line["lines"] for line in log.events("driver_lines_left_out")) == 6_000 - 10 * LINES_PER_MINUTE_MAX


def test_messages_are_counted_by_the_second(words: tuple[Utterances, CollectingLog], now: list[float]) -> None:
    said, _ = words
    for _ in range(2):
        assert all(said.may_go_on() for _ in range(MESSAGES_PER_S_MAX))
        assert not said.may_go_on()
        now[0] += 1.0
