"""Stalls of the machine, as tests with deadlines ask for them."""

from __future__ import annotations

import time
from statistics import median

from framegate.testing.stalls import Stalls


class Held(Stalls):
    """Whose thread was late by so many seconds."""

    def __init__(self, *late: float) -> None:
        super().__init__()
        self._late.extend(late)


def test_periods_missed_counts_those_that_a_stall_covers() -> None:
    assert Held(0.001, 0.05).periods_missed(0.25) == 0
    assert Held(0.1).periods_missed(0.25) == 1
    assert Held(0.1, 2.0).periods_missed(0.25) == 1 + 9


def test_what_was_forgotten_counts_no_more() -> None:
    held = Held(3.0)
    assert held.worst() == 3.0
    held.forget()
    assert (held.worst(), held.periods_missed(0.25)) == (0.0, 0)


async def test_loop_that_stands_still_is_no_stall_of_the_machine() -> None:
    with Stalls() as machine:
        time.sleep(0.3)  # noqa: ASYNC251 - the loop stands still
        assert median(machine._late) < 0.3
