"""Recovery: from an open disk to the books and the position at which rows go on, with a gap for whatever is missing.

The end of the log is read record by record from the last mark on; its front is looked at; both are compared with
the gaps, the cursors and the high-water mark outside the store (I2, I6). Rows in the middle are verified when they
are read, as every row is. Positions are never reused: rows go on behind the highest that was ever given out.

Where the disk comes from is opening.py's business, or a simulation's: both go on here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from framegate.bus.books import Books
from framegate.bus.mark import HighWater, HighWaterMark
from framegate.bus.options import StoreOptions
from framegate.bus.replay import Replay
from framegate.contract.frame import Position
from framegate.contract.ports import Clock, Disk, Log

POSITION_MAX = 2**64 - 2


@dataclass(frozen=True, slots=True)
class Recovered:
    """head: last position ever given out; lost: rows that new gaps stand for."""

    head: Position
    lost: int


class Spare(Protocol):
    """Space held back for a full disk."""

    @property
    def is_held(self) -> bool: ...

    def take(self, bytes_free: int, reserve: int) -> None:
        """Hold the space back if there is plenty."""

    def give_up(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A store that is ready to take rows.

    reopen  closes, verifies and opens the disk again; may block; raises StoreFailed
    """

    disk: Disk
    books: Books
    high_water: HighWater
    ballast: Spare
    recovered: Recovered
    reopen: Callable[[], None]


def load(disk: Disk, options: StoreOptions, mark: HighWaterMark, clock: Clock, log: Log) -> tuple[Books, Recovered]:
    """The books of a disk, and what was found of its log; raises StoreFailed."""
    books = Books(disk, options)
    for connector in books.load(mark):
        log.error("wal_cursor_damaged", connector=connector)
    for reason in books.letters.broken:
        log.error("dead_letter_damaged", reason=reason)
    return books, recover(disk, books, mark.position, clock, log)


def recover(disk: Disk, books: Books, high_water: int, clock: Clock, log: Log) -> Recovered:
    """Find the head of the log and note what is missing in the books; raises StoreFailed."""
    lost = 0

    def missing(first: int, last: int, why: str) -> None:
        nonlocal lost
        rows = books.gaps.add(first, last, "damage", why, clock.now_ns())
        if rows:
            lost += rows
            log.error("wal_damage", first_pos=first, last_pos=last, reason=why)

    replay = Replay(disk, books.layouts.column, missing, books.is_named)
    last = last_record(replay, books)
    head = max(
        last, books.gaps.last_position(), books.cursors.ceiling(), Position(high_water), Position(books.trim - 1)
    )
    books.marks.cut(head)
    if last < head and head >= books.trim:
        missing(max(last + 1, books.trim), head, "the end of the log is gone")
    gap = books.gaps.after(books.trim - 1)
    if books.trim <= last and (gap is None or gap.first > books.trim):
        replay.read(books.trim - 1, 1, last if gap is None else min(last, gap.first - 1))
    return Recovered(Position(head), lost)


def last_record(replay: Replay, books: Books) -> Position:
    """Last position of the newest readable record, trim - 1 without one; the replay's on_missing is told of holes."""
    start = max(books.marks.last_at(Position(POSITION_MAX)), books.trim)
    last = None
    for placed in replay.readable(start, POSITION_MAX - 1):
        expected = start if last is None else last + 1
        if placed.first > expected:
            replay.on_missing(expected, placed.first - 1, replay.why)
        last = placed.last
    if last is None:  # nothing after the last mark can be read: look at all of it
        last = Position(books.trim - 1)
        for placed in replay.readable(books.trim, start - 1):
            last = placed.last
    return last


def check_tail(disk: Disk, books: Books, durable: Position) -> list[tuple[int, int, str]]:
    """After a failed sync: durable rows since the last mark that are not there, as first, last and reason."""
    lost: list[tuple[int, int, str]] = []

    def missing(first: int, last: int, why: str) -> None:
        lost.append((first, last, why))

    replay = Replay(disk, books.layouts.column, missing, books.is_named)
    start = max(books.marks.last_at(durable), books.trim)
    for first, last in books.gaps.uncovered(start, durable):
        for _ in replay.verified(first, last):
            pass
    return lost
