"""Salvage: carry what can still be read out of a damaged store into a new one. Runs in a child process with a deadline.

`python -m framegate.bus.salvage SOURCE TARGET MODE FIRST TAGS BUDGET_S` never touches SOURCE: it works on a copy,
tables by hard link. MODE is how the copy is made to open: "skip" leaves out broken log records, "repair" has
RocksDB rebuild its list of files first, "tables" does so without its log. Rows from FIRST on are copied in order of
position until the budget is spent; each hole between them becomes a gap. The answer is one line of JSON: rows
copied, and the holes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import orjson
from rocksdict import DBRecoveryMode, Rdict

from framegate.bus.books import TWIN_PREFIX, Books
from framegate.bus.fault import STALLED
from framegate.bus.mark import NO_MARK
from framegate.bus.options import StoreOptions
from framegate.bus.owed import PREFIX as OWED_PREFIX
from framegate.bus.record import RECORD_ROWS_MAX, encode, key_of
from framegate.bus.recovery import POSITION_MAX
from framegate.bus.replay import Replay
from framegate.bus.rocks import RocksDisk, fault_of
from framegate.bus.tuning import store_options
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Position
from framegate.contract.ports import Change, Family

MODES = ("skip", "repair", "tables")
WRITE_RECORDS = 256  # per write into the new store
REPAIR_BUFFER_BYTES = 8 << 20
STALL_WAIT_S = 0.01
HOLES_MAX = 100  # holes that are named one by one in the answer; every one is in the new store
_SMALL: tuple[Family, ...] = ("catalogue", "cursors", "gaps", "commands")


def salvage(source: Path, target: Path, mode: str, first: int, tags: int, budget_s: float) -> dict[str, object]:
    """Copy rows from `first` on; returns what was kept and what was not. Raises StoreFailed, OSError."""
    until = time.monotonic() + budget_s
    work = target.with_name(target.name + ".work")
    _copy_files(source, work, with_log=mode != "tables")
    try:
        if mode != "skip":
            _repair(work)
        old = RocksDisk(work, recovery=DBRecoveryMode.skip_any_corrupted_record())
        new = RocksDisk(target, create=True)
        try:
            _copy_small(old, new)
            answer = _copy_rows(old, new, first, tags, until)
            new.sync()
        finally:
            new.close()
            old.close()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return answer


def _copy_rows(old: RocksDisk, new: RocksDisk, first: int, tags: int, until: float) -> dict[str, object]:
    books = Books(new, StoreOptions())
    books.load(NO_MARK._replace(tags=tags))
    replay = Replay(old, books.layouts.column, _not_asked)
    rows, expected, trim = 0, first, first
    holes: list[tuple[int, int, str]] = []
    frames: list[Change] = []
    for placed in replay.readable(max(1, first - RECORD_ROWS_MAX + 1), POSITION_MAX - 1):
        if placed.last < expected:
            continue
        if placed.first > expected:
            holes += [(start, stop, replay.why) for start, stop in books.gaps.uncovered(expected, placed.first - 1)]
            books.gaps.add(expected, placed.first - 1, "damage", replay.why, time.time_ns())
        trim = min(trim, placed.first)
        key = key_of(placed.first)
        data = encode(key, placed.batch, books.layouts.number(placed.batch.tag))
        books.marks.note(placed.first, len(data), placed.batch.gateway_time)
        frames.append(("frames", key, data))
        rows += len(placed.batch.tag)
        expected = placed.last + 1
        if len(frames) >= WRITE_RECORDS:
            _write(new, [*books.take_changes(), *frames])
            frames.clear()
        if time.monotonic() > until:
            break
    books.trim_to(Position(trim))
    _write(new, [*books.take_changes(), *frames])
    return {"rows": rows, "holes": holes[:HOLES_MAX]}


def _not_asked(first: int, last: int, why: str) -> None:
    """`readable` tells of no holes."""


def _copy_files(source: Path, work: Path, *, with_log: bool) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for file in source.iterdir():
        if file.suffix == ".sst":  # never changed once written
            os.link(file, work / file.name)
        elif file.name != "LOCK" and (with_log or file.suffix != ".log"):
            shutil.copyfile(file, work / file.name)
    lists = sorted(path.name for path in work.glob("MANIFEST-*"))
    if lists:  # CURRENT names the newest; it may be what is damaged
        (work / "CURRENT").write_text(f"{lists[-1]}\n", encoding="ascii")


def _repair(work: Path) -> None:
    try:
        Rdict.repair(str(work), store_options(REPAIR_BUFFER_BYTES, create=False))
    except Exception as error:
        raise fault_of(str(error), work) from error


def _copy_small(old: RocksDisk, new: RocksDisk) -> None:
    """Every entry of the small families that can be read and, where it has a check sum, passes it."""
    for family in _SMALL:
        for key, data in _readable(old, family, b""):
            if family == "commands" or _is_whole(key, data):
                _write(new, [(family, key, data)])
            if family == "catalogue" and _is_whole(key, data):
                _write(new, [("meta", TWIN_PREFIX + key, data)])
    for key, data in _readable(old, "meta", TWIN_PREFIX):
        name = key.removeprefix(TWIN_PREFIX)
        if key.startswith(TWIN_PREFIX) and _is_whole(name, data):
            _write(new, [("catalogue", name, data), ("meta", key, data)])
    for key, data in _readable(old, "meta", OWED_PREFIX):
        if key.startswith(OWED_PREFIX) and _is_whole(key, data):
            _write(new, [("meta", key, data)])


def _readable(disk: RocksDisk, family: Family, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    with contextlib.suppress(StoreFailed):  # behind damage: names have a twin, cursors the high-water mark
        yield from disk.scan(family, start)


def _is_whole(key: bytes, data: bytes) -> bool:
    return bool(google_crc32c.value(key + data[:-4]) == int.from_bytes(data[-4:], "little"))


def _write(disk: RocksDisk, changes: list[Change]) -> None:
    while True:  # bounded by the deadline of this process
        try:
            disk.write(changes)
        except StoreFailed as error:
            if error.stable_code != STALLED:
                raise
            time.sleep(STALL_WAIT_S)
        else:
            return


def main() -> int:
    """Salvage as the command line says."""
    source, target, mode, first, tags, budget_s = sys.argv[1:]
    shutil.rmtree(target, ignore_errors=True)
    try:
        answer = salvage(Path(source), Path(target), mode, int(first), int(tags), float(budget_s))
    except (StoreFailed, OSError) as error:
        print(" ".join(str(error).split()))  # noqa: T201 - the answer of this process
        return 1
    print(orjson.dumps(answer).decode())  # noqa: T201 - as above
    return 0


if __name__ == "__main__":
    sys.exit(main())
