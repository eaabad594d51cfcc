"""Carrying over: from a store that cannot be trusted into a new one, whatever of it can be read.

Names, cursors, gaps, dead letters, rewinds and states of rules go first, then the rows from the oldest one that is
still needed on, in order of position, each verified; every hole between them becomes a gap in the new store. Which
disks these are, how long it may take and what brought them here is decided by salvage.py, or by a simulation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import google_crc32c

from framegate.bus.books import TWIN_PREFIX, Books, trim_of
from framegate.bus.fault import STALLED
from framegate.bus.mark import NO_MARK
from framegate.bus.options import StoreOptions
from framegate.bus.owed import PREFIX as OWED_PREFIX
from framegate.bus.record import RECORD_ROWS_MAX, encode, key_of
from framegate.bus.recovery import POSITION_MAX
from framegate.bus.replay import Replay
from framegate.bus.rewinds import REWIND_PREFIX
from framegate.bus.rules import PREFIX as RULE_PREFIX
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Position
from framegate.contract.ports import Change, Disk, Family

WRITE_RECORDS = 256  # per write into the new store
HOLES_MAX = 100  # holes that are named one by one in the answer; every one is in the new store
_SMALL: tuple[Family, ...] = ("catalogue", "cursors", "gaps", "commands")


def carry_over(
    old: Disk,
    new: Disk,
    first: int,
    tags: int,
    *,
    is_over: Callable[[], bool],
    now_ns: Callable[[], int],
    wait: Callable[[], None],
) -> dict[str, object]:
    """Copy rows from `first` on, and everything small; returns what was kept and what was not. The caller syncs.

    tags     highest tag id ever given
    is_over  asked once per record: the time for this is spent
    wait     called before a stalled write is tried again
    raises   StoreFailed - the new store cannot be written, or the old one cannot be read at all
    """
    _copy_small(old, new, wait)
    letters = _copy_letters(old, new, wait)
    for prefix in (REWIND_PREFIX, RULE_PREFIX):
        _copy_entries(old, new, prefix, wait)
    return {**_copy_rows(old, new, first, tags, is_over, now_ns, wait), "letters": letters}


def _copy_rows(
    old: Disk,
    new: Disk,
    first: int,
    tags: int,
    is_over: Callable[[], bool],
    now_ns: Callable[[], int],
    wait: Callable[[], None],
) -> dict[str, object]:
    books = Books(new, StoreOptions())
    books.load(NO_MARK._replace(tags=tags))
    replay = Replay(old, books.layouts.column, _not_asked, books.catalogue.holds)
    first = max(first, _trim_of(old))
    rows, expected, trim = 0, first, first
    holes: list[tuple[int, int, str]] = []
    frames: list[Change] = []
    for placed in replay.readable(max(1, first - RECORD_ROWS_MAX + 1), POSITION_MAX - 1):
        if placed.last < expected:
            continue
        if placed.first > expected:
            holes += [(start, stop, replay.why) for start, stop in books.gaps.uncovered(expected, placed.first - 1)]
            books.gaps.add(expected, placed.first - 1, "damage", replay.why, now_ns())
        trim = min(trim, placed.first)
        key = key_of(placed.first)
        data = encode(key, placed.batch, books.layouts.number(placed.batch.tag))
        frames.append(("frames", key, data))
        if (mark := books.marks.note(placed.first, len(data), placed.batch.gateway_time)) is not None:
            frames.append(mark)
        rows += len(placed.batch.tag)
        expected = placed.last + 1
        if len(frames) >= WRITE_RECORDS:
            _write(new, [*books.take_changes(), *frames], wait)
            frames.clear()
        if is_over():
            break
    books.trim_to(Position(trim))
    _write(new, [*books.take_changes(), *frames], wait)
    lost = sum(stop - start + 1 for start, stop, _ in holes)
    return {"rows": rows, "lost": lost, "holes": holes[:HOLES_MAX]}


def _trim_of(old: Disk) -> int:
    """First position that the old store kept; 1 where it cannot say. What is missing below it was not damaged.

    The mark outside the store, from which the caller has `first`, is up to a second older after a power cut.
    """
    try:
        return trim_of(old)
    except StoreFailed:
        return 1


def _not_asked(first: int, last: int, why: str) -> None:
    """`readable` tells of no holes."""


def _copy_small(old: Disk, new: Disk, wait: Callable[[], None]) -> None:
    """Every entry of the small families that can be read and, where it has a check sum, passes it."""
    for family in _SMALL:
        for key, data in _readable(old, family, b""):
            if family == "commands" or _is_whole(key, data):
                _write(new, [(family, key, data)], wait)
            if family == "catalogue" and _is_whole(key, data):
                _write(new, [("meta", TWIN_PREFIX + key, data)], wait)
    for key, data in _readable(old, "meta", TWIN_PREFIX):
        name = key.removeprefix(TWIN_PREFIX)
        if key.startswith(TWIN_PREFIX) and _is_whole(name, data):
            _write(new, [("catalogue", name, data), ("meta", key, data)], wait)
    for key, data in _readable(old, "meta", OWED_PREFIX):
        if key.startswith(OWED_PREFIX) and _is_whole(key, data):
            _write(new, [("meta", key, data)], wait)


def _copy_letters(old: Disk, new: Disk, wait: Callable[[], None]) -> list[str]:
    """Dead letters up to the first damaged block; returns what was wrong with those that are lost."""
    broken: list[str] = []
    try:
        for key, data in old.scan("letters", b""):
            if _is_whole(key, data):
                _write(new, [("letters", key, data)], wait)
            else:
                broken.append(f"letter {key.hex()}: its check sum is wrong")
    except StoreFailed as error:
        broken.append(f"dead letters cannot be read to their end: {error.text}")
    return broken[:HOLES_MAX]


def _copy_entries(old: Disk, new: Disk, prefix: bytes, wait: Callable[[], None]) -> None:
    for key, data in _readable(old, "meta", prefix):
        if key.startswith(prefix) and _is_whole(key, data):
            _write(new, [("meta", key, data)], wait)


def _readable(disk: Disk, family: Family, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    with contextlib.suppress(StoreFailed):  # behind damage: names have a twin, cursors the high-water mark
        yield from disk.scan(family, start)


def _is_whole(key: bytes, data: bytes) -> bool:
    return bool(google_crc32c.value(key + data[:-4]) == int.from_bytes(data[-4:], "little"))


def _write(disk: Disk, changes: list[Change], wait: Callable[[], None]) -> None:
    while True:  # bounded by whoever set the time
        try:
            disk.write(changes)
        except StoreFailed as error:
            if error.stable_code != STALLED:
                raise
            wait()
        else:
            return
