from __future__ import annotations

import time

from framegate.cli.start_watch import start_watched
from framegate.testing.fakes import CollectingLog


def stand_still(log: CollectingLog) -> None:
    end = time.monotonic() + 20
    while not log.lines and time.monotonic() < end:
        pass


def test_start_that_does_not_end_is_told_with_the_line_it_stands_in() -> None:
    log = CollectingLog()
    with start_watched(log, first_s=0.05):
        stand_still(log)
    (told,) = log.events("gateway_start_slow")
    file, _, line = str(told["at"]).rpartition(":")
    first = stand_still.__code__.co_firstlineno
    assert file == __file__
    assert first < int(line) <= first + 3


def test_start_in_time_is_not_talked_about() -> None:
    log = CollectingLog()
    with start_watched(log, first_s=60.0):
        pass
    assert log.lines == []
