"""Dead letters: what is kept comes back, bounds hold and say so, no cursor passes a letter that is gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rocksdict import AccessType, Rdict

from framegate.bus import inspect, letters, rocks, tuning
from framegate.bus.bus import Bus
from framegate.bus.fault import IO, STALLED
from framegate.bus.letters import LetterBook, decode_letter, encode_letter, key_of_letter
from framegate.bus.rocks import RocksDisk
from framegate.bus.salvage import salvage
from framegate.bus.store import Store
from framegate.contract.errors import FrameBroken, StoreFailed
from framegate.contract.frame import Batch, Position
from framegate.contract.letter import DeadLetter
from framegate.observe.face import LetterRow
from framegate.observe.metrics import Metrics

OpenAt = Callable[..., Awaitable[Store]]
LETTER = DeadLetter("cloud", Position(5), 4, b"t/topic", b"\x00payload\xff", "application/json", "no", 100, 100, 6)


def at(position: int, connector: str = "cloud", size: int = 10) -> DeadLetter:
    """Set aside in order of positions."""
    return replace(
        LETTER, connector=connector, position=Position(position), payload=bytes(size), since_ns=position, tried_ns=1
    )


class Losses:
    def __init__(self, book: LetterBook) -> None:
        self.found: list[tuple[str, str]] = []
        book.on_loss = self.take

    def take(self, row: LetterRow, why: str) -> None:
        self.found.append((row.id, why))


@pytest.fixture
def disk(tmp_path: Path) -> RocksDisk:
    return RocksDisk(tmp_path / "store", 1 << 20, create=True)


@pytest.fixture
def book(disk: RocksDisk) -> LetterBook:
    return LetterBook(disk)


@given(
    st.builds(
        DeadLetter,
        st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", fullmatch=True),
        st.integers(1, 2**64 - 1).map(Position),
        st.integers(0, 10_000),
        st.binary(max_size=100),
        st.binary(max_size=1000),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**63 - 1),
        st.integers(1, 1_000),
    )
)
def test_letter_encoded_comes_back_as_it_was(letter: DeadLetter) -> None:
    key = key_of_letter(letter.connector, letter.position)
    assert decode_letter(key, encode_letter(key, letter)) == letter


def test_letter_cut_or_flipped_anywhere_is_refused() -> None:
    key = key_of_letter(LETTER.connector, LETTER.position)
    data = encode_letter(key, LETTER)
    for end in range(len(data)):
        with pytest.raises(FrameBroken, match="E3010 letter"):
            decode_letter(key, data[:end])
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        with pytest.raises(FrameBroken, match="E3010 letter"):
            decode_letter(key, bytes(flipped))
    with pytest.raises(FrameBroken, match="E3010 letter"):
        decode_letter(key_of_letter("other", 5), data)


async def test_store_reopened_has_its_letters(tmp_path: Path, open_at: OpenAt) -> None:
    store = await open_at(tmp_path)
    for letter in (at(7), LETTER, at(1, "other")):
        store.letters.keep(letter)
    await store.wal.flush()
    await store.close()
    again = (await open_at(tmp_path)).letters
    assert [row.id for row in again.rows()] == ["cloud/5", "cloud/7", "other/1"]
    assert [row.id for row in again.rows("", ("cloud", 5), 1)] == ["cloud/7"]
    assert [row.id for row in again.rows("other")] == ["other/1"]
    assert again.letter(again.rows()[0]) == LETTER
    assert (len(again), again.count("cloud"), again.size) == (3, 2, len(LETTER.payload) + 20)


async def test_letters_beside_a_running_store_are_read_from_its_files(tmp_path: Path, open_at: OpenAt) -> None:
    store = await open_at(tmp_path)
    store.letters.keep(LETTER)
    await store.wal.flush()
    with inspect.letters(tmp_path) as book:
        assert [book.letter(row) for row in book.rows()] == [LETTER]


def test_letter_that_is_not_written_yet_is_to_be_asked_for_again(book: LetterBook) -> None:
    book.keep(LETTER)
    with pytest.raises(StoreFailed, match=f"{STALLED} letter cloud/5: it is being written"):
        book.letter(book.rows()[0])


def test_letter_kept_again_replaces_the_old_one_and_its_first_moment_stays(disk: RocksDisk, book: LetterBook) -> None:
    book.keep(LETTER)
    book.keep(replace(LETTER, payload=b"new", since_ns=900, tried_ns=900, tries=7))
    disk.write(book.take_changes())
    [row] = book.rows()
    assert (row.tries, row.since_ns, row.tried_ns, book.size) == (7, 100, 900, 3)
    assert book.letter(row).payload == b"new"


def test_letter_removed_is_gone_for_good(disk: RocksDisk, book: LetterBook) -> None:
    book.keep(LETTER)
    [row] = book.rows()
    book.remove(row)
    book.remove(row)
    disk.write(book.take_changes())
    again = LetterBook(disk)
    again.load()
    assert (len(book), book.size, len(again)) == (0, 0, 0)


def test_letters_beyond_their_number_cost_the_oldest_of_the_connector_that_holds_most(
    book: LetterBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "LETTERS_MAX", 4)
    losses = Losses(book)
    book.keep(at(1, "quiet"))
    for position in range(10, 16):
        book.keep(at(position, "noisy"))
    assert losses.found == [("noisy/10", "full"), ("noisy/11", "full"), ("noisy/12", "full")]
    assert [row.id for row in book.rows()] == ["noisy/13", "noisy/14", "noisy/15", "quiet/1"]


def test_letters_beyond_their_bytes_cost_the_oldest_of_the_connector_that_holds_most(
    book: LetterBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "LETTERS_BYTES_MAX", 1_000)
    losses = Losses(book)
    for position in range(20):
        book.keep(at(position, "small", 10))
    book.keep(at(50, "large", 400))
    book.keep(at(51, "large", 500))
    assert losses.found == [("large/50", "full")]
    book.keep(at(52, "huge", 900))  # the only one of its connector: it is kept, and others go
    assert book.row("huge", 52) is not None
    assert losses.found[1] == ("large/51", "full")
    assert book.size <= 1_000


def test_letter_too_large_is_told_and_not_kept(book: LetterBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "LETTER_BYTES_MAX", 100)
    losses = Losses(book)
    book.keep(at(1, size=100))
    assert (losses.found, len(book), list(book.take_changes())) == ([("cloud/1", "too_large")], 0, [])


def test_letters_that_wait_for_the_disk_are_bounded_as_letters_are(
    disk: RocksDisk, book: LetterBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "LETTERS_MAX", 3)
    for position in range(100):
        book.keep(at(position))
    changes = book.take_changes()
    assert len(changes) == 3
    disk.write(changes)
    book.keep(at(200))
    assert sorted(data is None for _, _, data in book.take_changes()) == [False, True], "one in, a stored one out"


async def test_lost_letters_are_counted_and_logged(
    tmp_path: Path, open_at: OpenAt, log: Any, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "LETTERS_MAX", 1)
    store = await open_at(tmp_path)
    store.letters.keep(at(1))
    store.letters.keep(at(2))
    assert metrics.counter("edge_dead_letters_lost_total", reason="full").value == 1
    assert ("error", "dead_letter_lost", {"connector": "cloud", "pos": 1, "rows": 4, "reason": "full"}) in log.lines
    assert metrics.gauge("edge_dead_letters").sample() == 1
    assert metrics.gauge("edge_dead_letters_bytes").sample() == 10


async def test_damaged_letter_is_told_once_and_costs_no_other(
    tmp_path: Path, open_at: OpenAt, log: Any, metrics: Metrics
) -> None:
    store = await open_at(tmp_path)
    for position in (1, 2, 3):
        store.letters.keep(at(position))
    await store.wal.flush()
    store.disk.write([("letters", key_of_letter("cloud", 2), b"damaged")])
    await store.close()
    again = await open_at(tmp_path)
    assert [row.position for row in again.letters.rows()] == [1, 3]
    assert [event for event in log.events() if event == "dead_letter_damaged"] == ["dead_letter_damaged"]
    assert metrics.counter("edge_dead_letters_lost_total", reason="damaged").value == 1
    await again.wal.flush()
    await again.close()
    await open_at(tmp_path)
    assert log.events().count("dead_letter_damaged") == 1


async def test_damaged_store_keeps_the_letters_that_can_be_read(tmp_path: Path, open_at: OpenAt) -> None:
    """Salvaged here and not in a child, whose deadline is no matter of this test."""
    store = await open_at(tmp_path)
    for position in (1, 2, 3):
        store.letters.keep(at(position))
    await store.wal.flush()
    store.disk.write([("letters", key_of_letter("cloud", 2), b"damaged")])
    await store.close()
    next((tmp_path / "store").glob("MANIFEST-*")).unlink()
    answer = salvage(tmp_path / "store", tmp_path / "fresh", "repair", 1, 0, 60.0)
    assert answer["letters"] == [f"letter {key_of_letter('cloud', 2).hex()}: its check sum is wrong"]
    book = LetterBook(RocksDisk(tmp_path / "fresh"))
    book.load()
    assert [book.letter(row) for row in book.rows()] == [at(1), at(3)]


async def test_store_of_an_earlier_release_opens_and_gets_a_place_for_letters(
    tmp_path: Path,
    open_at: OpenAt,
    bus_on: Callable[..., Bus],
    batch: Callable[..., Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Made without the family `letters`, as releases before it did."""
    earlier = tuple(family for family in tuning.SMALL_FAMILIES if family != "letters")
    with monkeypatch.context() as patch:
        for module in (tuning, rocks):
            patch.setattr(module, "SMALL_FAMILIES", earlier)
        store = await open_at(tmp_path)
        bus_on(store).publish([batch(10)])
        await store.wal.flush()
        await store.close()
    with inspect.letters(tmp_path) as book:
        assert book.rows() == []
    assert inspect.stat(tmp_path).rows == 10
    families = Rdict.list_cf(str(tmp_path / "store"), tuning.store_options(1 << 20, create=False))
    assert "letters" not in families, "looking changes nothing"
    store = await open_at(tmp_path)
    assert store.wal.durable == 10
    store.letters.keep(LETTER)
    await store.wal.flush()
    await store.close()
    assert (await open_at(tmp_path)).letters.count("cloud") == 1
    # A release before letters opens every family it finds.
    monkeypatch.setattr(rocks, "SMALL_FAMILIES", earlier)
    RocksDisk(tmp_path / "store", access=AccessType.read_only(False), log_folder=str(tmp_path / "scratch")).close()


async def test_cursor_that_was_not_written_stays_out_of_the_mark_at_the_end(
    tmp_path: Path,
    open_at: OpenAt,
    bus_on: Callable[..., Bus],
    batch: Callable[..., Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk takes nothing more when the gateway ends: the cursor must not outlive the letter it passed."""
    store = await open_at(tmp_path)
    bus_on(store).publish([batch(10)])
    store.cursors.commit("cloud", Position(4))
    await store.wal.flush()

    def refuse(*_: Any) -> None:
        raise StoreFailed("EIO", code=IO)

    monkeypatch.setattr(store.disk, "write", refuse)
    monkeypatch.setattr(store.wal, "_begin_repair", lambda: None)
    monkeypatch.setattr("framegate.bus.wal.CLOSE_DEADLINE_S", 0.1)
    store.letters.keep(LETTER)
    store.cursors.commit("cloud", Position(8))
    await store.close()
    again = await open_at(tmp_path)
    assert (again.letters.count("cloud"), again.cursors.load("cloud")) == (0, 4)
