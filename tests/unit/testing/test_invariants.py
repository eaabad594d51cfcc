"""Each check holds where the promise holds, and speaks up where it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from framegate.contract.frame import Batch, Gap, Placed, Position, uniform_quality, uniform_time
from framegate.testing.account import Account, Frame
from framegate.testing.simulation import invariants_log as near
from framegate.testing.simulation import invariants_remote as far
from framegate.testing.simulation.ledger import Ledger

TAGS = np.array([1, 2, 3], dtype=np.int32)
IDS = {"B1", "B2", "B3", *(f"I{n}" for n in range(1, 10)), *(f"O{n}" for n in range(1, 9)), "T1"}


def batch(start: float) -> Batch:
    return Batch(TAGS, np.arange(start, start + 3), uniform_quality(0), uniform_time(1), 1)


def ledger(*starts: float) -> Ledger:
    book = Ledger()
    for start in starts:
        book.take(book.head + 1, batch(start))
    return book


def gap(first: int, last: int, reason: Any = "damage") -> Gap:
    return Gap(Position(first), Position(last), reason, "", "", 0)


def placed(first: int, start: float) -> Placed:
    return Placed(Position(first), batch(start))


def account(*frames: Frame) -> Account:
    book = Account()
    for frame in frames:
        book._book(frame)
    return book


def frame(position: int, value: float = 0.0, tag: str = "a") -> Frame:
    return Frame(position, tag, value, 0, 0)


CASES: list[Any] = [
    (near.b1_every_scan_is_answered, ([1, 2], {1: True, 2: False}), ([1, 2], {1: True})),
    (near.b2_every_row_has_a_place, (5, 10, 15), (5, 10, 14)),
    (near.i1_durable_head_is_synced, (10, 10), (11, 10)),
    (near.i1_rows_read_back_identical, (ledger(0.0, 5.0), [placed(4, 5.0)]), (ledger(0.0, 5.0), [placed(4, 6.0)])),
    (near.i2_nothing_durable_is_forgotten, (10, 10), (9, 10)),
    (near.i2_log_has_no_hole, ([(3, 6)], [gap(3, 4)], [(5, 6)]), ([(3, 6)], [gap(3, 4)], [(6, 6)])),
    (near.i3_tail_is_whole, (ledger(0.0), [placed(1, 9.0)], 3), (ledger(0.0), [placed(1, 9.0)], 2)),
    (near.i4_nothing_leaves_before_it_is_durable, (10, 10), (11, 10)),
    (near.i4_what_has_left_is_never_reused, (10, 10), (9, 10)),
    (near.i6_gap_names_what_is_lost, ([gap(3, 4), gap(8, 9, "retention")], [(1, 5)]), ([gap(3, 6)], [(1, 5)])),
    (near.i7_gap_before_deletion, (9, {"c": 8, "d": 2}, [gap(3, 8)]), (10, {"c": 9, "d": 2}, [gap(3, 8)])),
    (near.i8_drops_are_counted_as_gaps, (5, 5, 5), (5, 5, 4)),
    (near.i8_full_disk_keeps_cursors, (7, 7), (6, 7)),
    (near.i9_record_has_its_names, ([1, 3], 3), ([1, 4], 3)),
    (near.t1_wall_clock_moves_no_timer, (100, 10.0, 10.0), (101, 10.0, 10.0)),
    (near.t1_wall_clock_step_is_told, (2, 1, 60.0), (1, 1, 60.0)),
    (far.o1_cursor_never_moves_back, (5, 5), (5, 4)),
    (far.o2_cursor_covers_what_was_answered, (2, 6, {3, 4}, [(5, 6)]), (2, 6, {3}, [(5, 6)])),
    (far.o3_everything_durable_has_arrived, ([],), ([4],)),
    (far.o3_cursor_reaches_the_end, (9, 9, 60.0), (8, 9, 60.0)),
    (far.o4_each_tag_in_order, (3, 2), (2, 3)),
    (far.o4_nothing_overtakes_a_failure, (5, 5), (6, 5)),
    (far.o5_rows_in_flight_are_bounded, (64, 64), (65, 64)),
    (far.o5_cursor_is_durable_in_time, (7, 7, 1.5), (6, 7, 1.5)),
    (far.o6_position_means_one_row, (account(frame(1), frame(1)),), (account(frame(1), frame(1, 2.0)),)),
    (far.o6_row_arrives_as_it_was_taken, (ledger(7.0), frame(2, 8.0), "a"), (ledger(7.0), frame(2, 9.0), "a")),
    (far.o7_only_poison_is_set_aside, ([4, 5], {5}, 4, 3), ([4, 5], {6}, 4, 3)),
    (far.o7_only_poison_is_set_aside, ([4, 5], {5}, 4, 3), ([4, 5], {5}, 3, 3)),
]


@pytest.mark.parametrize(("check", "holding", "broken"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_check_speaks_up_only_where_its_promise_is_broken(
    check: Callable[..., str], holding: tuple[Any, ...], broken: tuple[Any, ...]
) -> None:
    assert check(*holding) == ""
    assert check(*broken)


def test_failed_handle_is_never_believed() -> None:
    assert near.i5_failed_handle_is_not_believed(is_poisoned=False, durable=1) == ""
    assert near.i5_failed_handle_is_not_believed(is_poisoned=True, durable=1)


def test_every_promise_has_a_check_or_says_why_not() -> None:
    named = {name.partition("_")[0].upper() for module in (near, far) for name in dir(module) if name[1:2].isdigit()}
    unchecked = {**near.UNCHECKED, **far.UNCHECKED}
    assert named | set(unchecked) == IDS
    assert not named & set(unchecked)


def test_not_arrived_leaves_out_what_is_explained() -> None:
    assert far.not_arrived(2, 9, {3: 0, 4: 0}, [(6, 7)]) == [5, 8, 9]


def test_ledger_forgets_what_a_crash_took_and_keeps_what_it_left() -> None:
    book = ledger(0.0, 5.0, 9.0)
    book.forget_after(6)
    assert (book.head, book.row(7)) == (6, None)
    book.forget_after(10)  # the gateway knows of more than was read back, and goes on behind it
    assert (book.head, book.row(9)) == (10, None)
    assert book.differs(placed(4, 5.0)) == ""
    assert "were taken as 1 to 3" in book.differs(Placed(Position(2), batch(1.0)))


def test_ledger_compares_bit_by_bit() -> None:
    book = Ledger()
    bad = Batch(TAGS, np.array([np.nan, 0.0, -0.0]), uniform_quality(0), uniform_time(1), 1)
    book.take(1, bad)
    assert book.differs(Placed(Position(1), bad)) == ""
    other = Batch(TAGS, np.array([np.nan, 0.0, 0.0]), uniform_quality(0), uniform_time(1), 1)
    assert book.differs(Placed(Position(1), other)) == "row 1 has another value"
