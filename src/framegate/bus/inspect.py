"""Read-only facts of a durable log, for `edge wal stat`, `ls` and `verify`, and its dead letters for `edge dlq`.

Works beside a running gateway: it sees what that had written when it looked, durable or not, and changes nothing of
the log. A store that RocksDB refuses to open raises StoreFailed E3003; the gateway would set it aside at its next
start.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rocksdict import AccessType

from framegate.bus.books import Books
from framegate.bus.catalogue import DurableCatalogue
from framegate.bus.fault import DAMAGED, MISSING
from framegate.bus.highwater import read_mark
from framegate.bus.letters import LetterBook
from framegate.bus.mark import HighWaterMark
from framegate.bus.opening import HIGH_WATER, STORE, quarantines
from framegate.bus.options import StoreOptions
from framegate.bus.probe import probe
from framegate.bus.recovery import POSITION_MAX, last_record
from framegate.bus.replay import Replay
from framegate.bus.rewinds import Rewind
from framegate.bus.rocks import RocksDisk, fault_of
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, Gap, Kind, Position

OPEN_TRIES = 3  # a running gateway may delete a file between listing and opening
ENTRIES_MAX = 10_000
DAMAGED_STATUS = 1


@dataclass(frozen=True, slots=True)
class CursorStat:
    """Acknowledged position of one connector, and how many rows it is behind."""

    connector: str
    position: Position
    lag_rows: int


@dataclass(frozen=True, slots=True)
class StoreStat:
    """The log at one moment; times in ns UTC, 0 = no row.

    head         last position in the store;  durable: the same as the high-water mark outside it says
    trim         first position that is kept
    rows_lost    rows that the gaps still listed stand for
    quarantines  damaged stores that were set aside
    rewinds      cursors that operators have set back, oldest first
    """

    head: Position
    durable: Position
    trim: Position
    rows: int
    bytes: int
    oldest_ns: int
    newest_ns: int
    gaps: int
    rows_lost: int
    tags: int
    cursors: tuple[CursorStat, ...]
    quarantines: int
    rewinds: tuple[Rewind, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One record, or one gap, in order of position. `reason` is "" for a record.

    connector  of a gap: the only one that needed its rows; "" = every connector
    """

    first: Position
    last: Position
    time_ns: int
    kind: Kind | None
    device: str
    reason: str
    detail: str
    connector: str = ""


@dataclass(frozen=True, slots=True)
class Hole:
    """Positions that no record and no gap holds."""

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found; every record was read and its check sum compared."""

    first: Position
    last: Position
    high_water: Position
    records: int
    rows: int
    gaps: int
    holes: tuple[Hole, ...]

    @property
    def exit_status(self) -> int:
        """0: every position is a row or in a gap; 1: some are neither."""
        return DAMAGED_STATUS if self.holes else 0


def stat(folder: Path) -> StoreStat:
    """Facts of the log in a data folder; raises StoreFailed."""
    with _opened(folder) as (disk, books, mark):
        replay = Replay(disk, books.layouts.column, _ignored, books.is_named)
        head = last_record(replay, books)
        oldest = next(replay.readable(books.trim, POSITION_MAX - 1), None)
        newest = None
        for placed in replay.readable(books.marks.last_at(head), POSITION_MAX - 1):
            newest = placed
        lost = [gap.last - gap.first + 1 for gap in books.gaps.all()]
        kept = [stop - start + 1 for start, stop in books.gaps.uncovered(books.trim, head)]
        known = books.cursors
        cursors = [
            CursorStat(name, at, known.undelivered(name, Position(head)))
            for name, at in sorted(known.positions().items())
        ]
        return StoreStat(
            head=head,
            durable=mark.position,
            trim=books.trim,
            rows=sum(kept),
            bytes=disk.bytes_used(),
            oldest_ns=oldest.batch.gateway_time if oldest else 0,
            newest_ns=newest.batch.gateway_time if newest else 0,
            gaps=len(lost),
            rows_lost=sum(lost),
            tags=len(books.catalogue),
            cursors=tuple(cursors),
            quarantines=len(quarantines(folder)),
            rewinds=tuple(books.rewinds.all()),
        )


def ls(folder: Path, after: int = 0, limit: int = 100) -> tuple[Entry, ...]:
    """The next records and gaps after a position, in order; raises StoreFailed."""
    limit = min(limit, ENTRIES_MAX)
    with _opened(folder) as (disk, books, _):
        entries = [_gap_entry(gap) for gap in books.gaps.all() if gap.last > after][:limit]
        records = Replay(disk, books.layouts.column, _ignored, books.is_named).readable(
            max(after + 1, 1), POSITION_MAX - 1
        )
        for placed in islice(records, limit):
            batch = placed.batch
            device = _device(books, int(batch.tag[0]))
            entries.append(Entry(placed.first, placed.last, batch.gateway_time, batch.kind, device, "", ""))
    return tuple(sorted(entries, key=lambda entry: entry.first)[:limit])


def verify(folder: Path) -> Verdict:
    """Read every record of the log; raises StoreFailed when it cannot even be opened."""
    holes: list[Hole] = []
    records = rows = 0

    def missing(first: int, last: int, why: str) -> None:
        holes.extend(Hole(start, stop, why) for start, stop in books.gaps.uncovered(first, last))

    with _opened(folder) as (disk, books, mark):
        last = Position(max(mark.position, books.cursors.ceiling(), books.gaps.last_position(), books.trim - 1))
        replay = Replay(disk, books.layouts.column, missing, books.is_named)
        expected = int(books.trim)
        for placed in replay.readable(books.trim, POSITION_MAX - 1):
            if placed.first > expected:
                missing(expected, placed.first - 1, replay.why or "no record holds it")
            expected = placed.last + 1
            records += 1
            rows += len(placed.batch.tag)
        if expected <= last:
            missing(expected, last, replay.why or "the end of the log is gone")
        head = Position(max(last, expected - 1))
        return Verdict(books.trim, head, mark.position, records, rows, len(books.gaps), tuple(holes))


@contextmanager
def recorded(folder: Path) -> Iterator[tuple[DurableCatalogue, Iterator[Batch]]]:
    """Names and rows of a log in order of position, to be read only; raises StoreFailed."""
    with _opened(folder) as (disk, books, _), closing(_batches(disk, books)) as batches:
        yield books.catalogue, batches


@contextmanager
def letters(folder: Path) -> Iterator[LetterBook]:
    """The dead letters in a data folder, to be read only; raises StoreFailed."""
    with _opened(folder) as (_, books, _):
        yield books.letters


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[RocksDisk, Books, HighWaterMark]]:
    store = folder / STORE
    if not store.is_dir():
        raise StoreFailed(f"data folder {folder}: no durable log is here; check --home", code=MISSING)
    with tempfile.TemporaryDirectory(prefix="edge-wal-") as scratch:
        # The mark first: rows written meanwhile make the store look ahead of it, never behind.
        mark = read_mark(folder / HIGH_WATER)
        disk = _open(store, scratch)
        try:
            books = Books(disk, StoreOptions())
            books.load(mark)
            yield disk, books, mark
        finally:
            disk.close()


def _batches(disk: RocksDisk, books: Books) -> Generator[Batch, None, None]:
    for placed in Replay(disk, books.layouts.column, _ignored).readable(books.trim, POSITION_MAX - 1):
        yield placed.batch


def _open(store: Path, scratch: str) -> RocksDisk:
    for left in reversed(range(OPEN_TRIES)):
        text = probe(store, read_only=True)  # a flipped bit may make RocksDB spin for ever
        try:
            if text:
                raise fault_of(text, store)
            return RocksDisk(store, access=AccessType.read_only(False), log_folder=scratch)
        except StoreFailed as error:
            if error.stable_code != DAMAGED or left == 0:
                raise
    raise AssertionError("unreachable: the last try returns or raises")


def _gap_entry(gap: Gap) -> Entry:
    return Entry(gap.first, gap.last, gap.time, None, "", gap.reason, gap.detail, gap.connector)


def _device(books: Books, tag_id: int) -> str:
    try:
        return books.catalogue.tag(tag_id).device
    except KeyError:
        return ""


def _ignored(first: int, last: int, why: str) -> None:
    """Facts are told as they are; only `verify` looks for holes."""
