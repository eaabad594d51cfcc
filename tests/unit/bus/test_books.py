"""Catalogue, layouts, cursors, gaps: what is stored comes back, ids stay, cursors never move back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from framegate.bus.catalogue import DurableCatalogue
from framegate.bus.cursor import DurableCursors
from framegate.bus.gaps import GapBook
from framegate.bus.highwater import SLOT_BYTES, HighWaterFile, read_mark
from framegate.bus.layout import SMALL_ROWS, Layouts
from framegate.bus.mark import NO_MARK, HighWaterMark
from framegate.bus.rocks import RocksDisk
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Position, ValueType
from framegate.contract.owed import Owed, OwedRange


@pytest.fixture
def disk(tmp_path: Path) -> RocksDisk:
    return RocksDisk(tmp_path / "store", 1 << 20, create=True)


@pytest.fixture
def catalogue(disk: RocksDisk) -> Callable[[], DurableCatalogue]:
    def make() -> DurableCatalogue:
        book = DurableCatalogue(disk)
        book.load()
        return book

    return make


def test_catalogue_reopened_keeps_ids_and_attributes(
    disk: RocksDisk, catalogue: Callable[[], DurableCatalogue]
) -> None:
    book = catalogue()
    ids = [book.intern(f"t{i}", f"d{i % 7}", ValueType.INT16, "bar", "RW") for i in range(10_000)]
    assert ids == list(range(1, 10_001))
    disk.write(book.take_changes())
    again = catalogue()
    assert [again.intern(f"t{i}", f"d{i % 7}", ValueType.INT16, "bar", "RW") for i in range(10_000)] == ids
    assert again.take_changes() == ()
    tag = again.tag(5)
    assert (tag.name, tag.device, tag.type, tag.unit, tag.access) == ("t4", "d4", ValueType.INT16, "bar", "RW")
    assert again.find("t9999") == again.tag(10_000)
    assert again.find("t") is None


def test_catalogue_changed_attribute_keeps_its_id_over_reopen(
    disk: RocksDisk, catalogue: Callable[[], DurableCatalogue]
) -> None:
    book = catalogue()
    old = book.intern("a", "d", ValueType.BOOL, "", "R")
    disk.write(book.take_changes())
    assert book.intern("a", "e", ValueType.FLOAT32, "m", "W") == old
    disk.write(book.take_changes())
    assert catalogue().tag(old) == book.tag(old)
    assert catalogue().tag(old).device == "e"


def test_catalogue_lost_entries_never_free_their_ids(disk: RocksDisk) -> None:
    book = DurableCatalogue(disk)
    book.load(at_least=40)
    assert book.intern("new", "d", ValueType.BOOL, "", "R") == 41
    assert list(book.names()) == [(41, "new")]
    with pytest.raises(KeyError):
        book.tag(40)


def test_catalogue_damaged_entry_raises(disk: RocksDisk, catalogue: Callable[[], DurableCatalogue]) -> None:
    book = catalogue()
    book.intern("a", "d", ValueType.BOOL, "", "R")
    [(family, key, data)] = book.take_changes()
    assert data is not None
    disk.write([(family, key, bytes([data[0] ^ 1]) + data[1:])])
    with pytest.raises(StoreFailed, match="E3003"):
        catalogue()


def test_layout_is_made_on_second_sight_and_survives_reopen(disk: RocksDisk) -> None:
    book = Layouts(disk)
    tag = np.arange(10, dtype=np.int32)
    assert [book.number(tag), book.number(tag.copy()), book.number(tag)] == [0, 1, 1]
    disk.write(book.take_changes())
    again = Layouts(disk)
    again.load()
    assert again.number(tag) == 1
    assert again.column(1).tolist() == tag.tolist()
    assert again.column(1) is again.column(1)
    other = np.arange(20, dtype=np.int32)
    assert [again.number(other), again.number(other)] == [0, 2]


def test_layout_of_a_short_column_is_never_made(disk: RocksDisk) -> None:
    book = Layouts(disk)
    tag = np.arange(SMALL_ROWS, dtype=np.int32)
    assert [book.number(tag) for _ in range(3)] == [0, 0, 0]
    assert not book.take_changes()


def test_layout_known_by_identity_cannot_change_any_more(disk: RocksDisk) -> None:
    book = Layouts(disk)
    tag = np.arange(10, dtype=np.int32)
    book.number(tag)
    book.number(tag)
    with pytest.raises(ValueError, match="read-only"):
        tag[0] = 99


def test_cursor_never_moves_back_and_survives_reopen(disk: RocksDisk) -> None:
    book = DurableCursors(disk)
    book.commit("c", Position(10))
    book.commit("c", Position(7))
    disk.write(book.take_changes())
    again = DurableCursors(disk)
    assert again.restore({}) == []
    assert (again.load("c"), again.load("d")) == (10, None)


def test_cursor_floor_counts_enabled_connectors_only(disk: RocksDisk) -> None:
    book = DurableCursors(disk)
    assert book.floor(Position(99)) == 99
    book.commit("fast", Position(50))
    book.commit("slow", Position(20))
    assert (book.floor(Position(99)), book.ceiling()) == (20, 50)
    book.release("slow")
    assert book.floor(Position(99)) == 50
    assert book.load("new") is None
    assert book.floor(Position(99)) == 0


def test_cursor_damaged_falls_back_to_the_copy_outside_the_store(disk: RocksDisk) -> None:
    disk.write([("cursors", b"a", b"damaged"), ("cursors", b"b", b"damaged")])
    book = DurableCursors(disk)
    assert book.restore({"a": Position(5)}) == ["b"]
    assert (book.load("a"), book.load("b")) == (5, None)


OWED = Owed(Position(90), (OwedRange(Position(10), Position(20)), OwedRange(Position(30), Position(70))))


def reopened(disk: RocksDisk, **known: Position) -> DurableCursors:
    book = DurableCursors(disk)
    assert book.restore(known) == []
    return book


def test_owed_ranges_survive_reopen_and_hold_back_what_is_owed(disk: RocksDisk) -> None:
    book = DurableCursors(disk)
    book.commit("c", Position(5))
    book.commit_owed("c", OWED)
    disk.write(book.take_changes())
    assert not book.take_changes()
    again = reopened(disk)
    assert (again.load("c"), again.load_owed("c")) == (10, OWED)
    assert (again.floor(Position(100)), again.ceiling(), again.undelivered("c", Position(100))) == (10, 90, 60)
    again.commit_owed("c", Owed(Position(95)))
    disk.write(again.take_changes())
    third = reopened(disk)
    assert (third.load("c"), third.load_owed("c"), list(disk.scan("meta", b"o", b"p"))) == (95, None, [])


def test_owed_ranges_are_unknown_to_an_older_release_which_begins_at_the_first_owed_row(disk: RocksDisk) -> None:
    book = DurableCursors(disk)
    book.commit_owed("c", OWED)
    changes = [change for change in book.take_changes() if change[0] == "cursors"]
    plain = DurableCursors(disk)
    plain.commit("c", Position(10))
    assert changes == plain.take_changes()


@pytest.mark.parametrize(
    ("cursor", "position", "owed"),
    [
        (15, 15, Owed(Position(90), (OwedRange(Position(15), Position(20)), OwedRange(Position(30), Position(70))))),
        (40, 40, Owed(Position(90), (OwedRange(Position(40), Position(70)),))),
        (70, 90, None),  # an older release went on in order, past everything that was owed
        (200, 200, None),
    ],
)
def test_owed_entry_older_than_its_cursor_still_counts_what_was_acknowledged(
    disk: RocksDisk, cursor: int, position: int, owed: Owed | None
) -> None:
    book = DurableCursors(disk)
    book.commit_owed("c", OWED)
    disk.write(book.take_changes())
    again = reopened(disk, c=Position(cursor))
    assert (again.load("c"), again.load_owed("c")) == (position, owed)


def test_owed_entry_damaged_or_of_a_rewound_cursor_means_repeats(disk: RocksDisk) -> None:
    book = DurableCursors(disk)
    book.commit_owed("c", OWED)
    (_, cursor_key, _), (_, owed_key, data) = book.take_changes()
    assert data is not None
    for at in range(len(data)):
        flipped = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        for wrong in (flipped, data[:at]):
            disk.write([("meta", owed_key, wrong)])
            again = reopened(disk, c=Position(10))
            assert (again.load("c"), again.load_owed("c")) == (10, None)
    disk.write([("meta", owed_key, data), ("cursors", cursor_key, None)])
    assert reopened(disk, c=Position(9)).load_owed("c") is None


def test_owed_ranges_go_with_a_forgotten_connector(disk: RocksDisk) -> None:
    book = DurableCursors(disk)
    book.commit_owed("c", OWED)
    disk.write(book.take_changes())
    book.forget("c")
    disk.write(book.take_changes())
    assert (reopened(disk).load("c"), list(disk.scan("meta", b"o", b"p"))) == (None, [])


def test_gap_neighbours_of_one_reason_become_one_gap(disk: RocksDisk) -> None:
    book = GapBook(disk)
    assert [book.add(first, first + 9, "disk_full", "x", 1) for first in (11, 21, 31)] == [10, 10, 10]
    assert [(gap.first, gap.last) for gap in book.all()] == [(11, 40)]
    disk.write(book.take_changes())
    again = GapBook(disk)
    again.load()
    assert again.all() == book.all()


def test_gap_over_rows_that_are_still_there_is_not_told_until_it_is_durable(disk: RocksDisk) -> None:
    book = GapBook(disk)
    book.add(1, 10, "retention", "", 1)
    book.doom(5, 30)
    book.add(5, 30, "retention", "", 2)
    [whole] = book.all()
    assert (whole.first, whole.last) == (1, 30)
    assert book.after(0) == whole._replace(last=Position(10))
    assert book.after(10) is None
    book.add(15, 17, "damage", "", 3)  # these cannot be read now
    assert book.after(10) == whole._replace(first=Position(15), last=Position(17))
    assert book.after(17) is None
    book.settle()
    assert (book.after(10), book.after(30)) == (whole, None)


def test_gap_over_older_gaps_counts_only_what_is_new(disk: RocksDisk) -> None:
    book = GapBook(disk)
    book.add(10, 19, "disk_full", "", 1)
    book.add(30, 39, "disk_full", "", 1)
    assert book.add(5, 50, "damage", "", 2) == 46 - 20
    assert [(gap.first, gap.last, gap.reason) for gap in book.all()] == [
        (5, 9, "damage"),
        (10, 19, "disk_full"),
        (20, 29, "damage"),
        (30, 39, "disk_full"),
        (40, 50, "damage"),
    ]
    assert [book.after(position) for position in (4, 9, 50)] == [book.all()[0], book.all()[1], None]
    assert book.uncovered(1, 60) == [(1, 4), (51, 60)]
    assert book.rows == {"retention": 0, "disk_full": 20, "damage": 26}


def test_high_water_torn_slot_falls_back_to_what_was_synced(tmp_path: Path) -> None:
    path = tmp_path / "hwm"
    file = HighWaterFile(path)
    assert file.mark == NO_MARK
    marks = [HighWaterMark(Position(n), n, Position(1), {"c": Position(n)}) for n in range(1, 6)]
    for mark in marks:  # the first is synced at once; the others come within its second, and spare it
        file.write(mark)
    file.close()
    assert read_mark(path) == marks[4]
    content = bytearray(path.read_bytes())
    content[SLOT_BYTES + 20] ^= 1
    path.write_bytes(content)
    assert read_mark(path) == marks[0]
    again = HighWaterFile(path)
    again.write(marks[4], force=True)
    again.close()
    assert read_mark(path) == marks[4]
