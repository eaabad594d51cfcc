"""Carrying over: what was deleted on purpose is not damage, what is missing without a reason is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from framegate.bus.books import Books
from framegate.bus.carry import carry_over
from framegate.bus.mark import NO_MARK
from framegate.bus.options import StoreOptions
from framegate.bus.record import encode, key_of
from framegate.bus.rocks import RocksDisk
from framegate.contract.frame import Batch, Position, ValueType, uniform_quality, uniform_time
from framegate.contract.ports import Change

TRIM, HEAD, DAMAGED = 11, 20, 15


@pytest.fixture
def old(tmp_path: Path) -> Iterator[RocksDisk]:
    """A store that has deleted the rows below TRIM, and has lost one behind it; one record per row."""
    disk = RocksDisk(tmp_path / "old", create=True)
    books = Books(disk, StoreOptions())
    books.load(NO_MARK)
    assert books.catalogue.intern("t", "d", ValueType.INT64, "", "R") == 1
    tag = np.ones(1, np.int32)
    layout = books.layouts.number(tag)
    frames: list[Change] = []
    for first in range(TRIM, HEAD + 1):
        batch = Batch(tag, np.array([first]), uniform_quality(0), uniform_time(0), 1)
        frames.append(("frames", key_of(first), encode(key_of(first), batch, layout)))
    books.trim_to(Position(TRIM))
    disk.write([*books.take_changes(), *(change for change in frames if change[1] != key_of(DAMAGED))])
    yield disk
    disk.close()


def carried(old: RocksDisk, folder: Path) -> tuple[list[tuple[int, int]], int, object]:
    """Gaps and beginning of the new store, and the rows called lost; told of a mark from before the deletion."""
    new = RocksDisk(folder / "new", create=True)
    answer = carry_over(old, new, 1, 1, is_over=lambda: False, now_ns=lambda: 0, wait=lambda: None)
    books = Books(new, StoreOptions())
    books.load(NO_MARK._replace(tags=1))
    new.close()
    return [(gap.first, gap.last) for gap in books.gaps.all()], books.trim, answer["lost"]


def test_rows_deleted_after_the_newest_mark_was_written_are_not_called_damaged(old: RocksDisk, tmp_path: Path) -> None:
    assert carried(old, tmp_path) == ([(DAMAGED, DAMAGED)], TRIM, 1)


def test_store_that_cannot_say_what_it_deleted_names_all_that_is_missing(old: RocksDisk, tmp_path: Path) -> None:
    old.write([("meta", b"trim", b"torn")])
    assert carried(old, tmp_path) == ([(1, TRIM - 1), (DAMAGED, DAMAGED)], 1, TRIM)


def test_rows_whose_names_are_lost_are_named_in_a_gap(old: RocksDisk, tmp_path: Path) -> None:
    nameless = Batch(np.full(1, 2, np.int32), np.zeros(1), uniform_quality(0), uniform_time(0), 1)
    old.write([("frames", key_of(17), encode(key_of(17), nameless, 0))])
    assert carried(old, tmp_path) == ([(DAMAGED, DAMAGED), (17, 17)], TRIM, 2)
