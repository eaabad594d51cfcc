"""Packet identifiers: which come next, and which a burst of acknowledgements names."""

from __future__ import annotations

import pytest

from framegate_plugins.mqtt.identifiers import MESSAGE_ID_MAX, PUBREC, next_ids, plain_pubacks, short_answer

PLAIN = b"\x40\x02\x00\x05"
NO_SUBSCRIBER = b"\x40\x03\x00\x06\x10"


def test_next_ids_follow_the_last_one() -> None:
    assert list(next_ids(0, 3, {}, ())) == [1, 2, 3]


def test_next_ids_wrap_behind_the_highest_and_leave_out_zero() -> None:
    assert list(next_ids(MESSAGE_ID_MAX - 1, 3, {}, ())) == [MESSAGE_ID_MAX, 1, 2]


@pytest.mark.parametrize(("taken", "also_taken"), [({2: None}, ()), ({}, (2,))])
def test_next_ids_pass_over_those_under_way(taken: dict[int, object], also_taken: tuple[int, ...]) -> None:
    assert list(next_ids(0, 3, taken, also_taken)) == [1, 3, 4]


def test_pubacks_end_before_anything_else() -> None:
    assert plain_pubacks(PLAIN + PLAIN + NO_SUBSCRIBER + PLAIN, 0) == [5, 5]


def test_pubacks_leave_what_has_not_come_whole() -> None:
    assert plain_pubacks(b"\xd0\x00" + PLAIN + PLAIN[:3], 2) == [5]


@pytest.mark.parametrize("data", [b"", b"\x40", PLAIN[:3], b"\xd0\x00\x40\x02"])
def test_pubacks_of_nothing_whole_are_none(data: bytes) -> None:
    assert plain_pubacks(data, 0) == []


def test_short_answer_carries_its_reason() -> None:
    assert short_answer(PLAIN + NO_SUBSCRIBER, 4) == (0x40, 6, 0x10, 9)


def test_short_answer_of_qos_2_is_read() -> None:
    assert short_answer(bytes((PUBREC, 2, 1, 0)), 0) == (PUBREC, 256, 0, 4)


@pytest.mark.parametrize("data", [PLAIN[:3], NO_SUBSCRIBER[:4], b"\x40\x04\x00\x06\x10\x00", b"\xe0\x00\x00\x00"])
def test_short_answer_leaves_the_rest_to_the_codec(data: bytes) -> None:
    assert short_answer(data, 0) is None
