"""Every kept case and some new ones end as they may; the judge sees what it is there to see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

import pytest

from framegate.contract.errors import FrameBroken
from tools.fuzz import judge
from tools.fuzz.campaign import Campaign, Report
from tools.fuzz.target import Target, pieces
from tools.fuzz.targets import TARGETS, WORDS

NEW_CASES, NEW_CASES_S = 300, 0.4
SEED = 2026  # a change is judged by the same cases as the one before it; the command draws others
CAMPAIGN_CASES, CAMPAIGN_S = 1_000_000, 3.0  # `python -m tools.fuzz TARGET --cases 1000000` takes them all


def run(target: Target, cases: int, seconds_max: float = float("inf"), seed: int = SEED) -> Report:
    return asyncio.run(Campaign(target, seed, WORDS.get(target.name, ())).run(cases, seconds_max))


@pytest.mark.parametrize("name", TARGETS)
def test_kept_cases_and_some_new_ones_end_as_they_may(name: str) -> None:
    report = run(TARGETS[name], NEW_CASES, NEW_CASES_S)
    assert report.faults == {}
    assert report.shapes > 1, "the cases reach no more than one behaviour"


@pytest.mark.campaign
@pytest.mark.parametrize("name", TARGETS)
def test_many_new_cases_end_as_they_may(name: str) -> None:
    assert run(TARGETS[name], CAMPAIGN_CASES, CAMPAIGN_S).faults == {}


def never_ends(case: bytes) -> Hashable:
    while len(case) > 3:
        pass
    return None


def allocates_what_is_claimed(case: bytes) -> Hashable:
    return len(bytes(int.from_bytes(case[:4], "big") % (64 << 20)))


def trips(case: bytes) -> Hashable:
    if b"x" in case:
        return case[len(case) + 1]
    if not case:
        raise FrameBroken("declared")
    return len(case)


@pytest.mark.parametrize(
    ("flawed", "fault"),
    [(never_ends, "hang"), (allocates_what_is_claimed, "allocation"), (trips, "IndexError in trips")],
)
def test_judge_finds_what_it_is_for(
    flawed: Callable[[bytes], Hashable], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "CASE_S", 0.02)
    target = Target("flawed", flawed, (FrameBroken,), lambda: [b"\x00\x00\x00", b"abc"])
    report = run(target, 3_000, 3.0, seed=7)
    assert any(found.startswith(fault) for found in report.faults), report.faults
    assert min(map(len, report.faults.values())) <= 64, "cut down to what matters"


@pytest.mark.parametrize(
    ("case", "expected"),
    [(b"", []), (b"\xffabc", [b"abc"]), (b"\x00abc", [b"abc"]), (b"\x02abc", [b"ab", b"c"]), (b"\x01", [])],
)
def test_case_comes_in_pieces_of_its_first_byte(case: bytes, expected: list[bytes]) -> None:
    assert pieces(case) == expected
