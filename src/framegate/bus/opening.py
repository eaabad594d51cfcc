"""Opening the store: try it in a child, open it, recover it; or set it aside, salvage it and go on behind the loss.

    data/store/              RocksDB
    data/store.new/          what is being carried over from a damaged one
    data/store.damaged-<n>/  what was set aside, the newest QUARANTINES_MAX of them
    data/hwm                 high-water mark
    data/ballast             space held back for a full disk

Blocks for as long as the disk takes: runs in a thread, and every step has its deadline. What an open disk holds, and
where its rows go on, is found in recovery.py.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import TypedDict

import orjson

from framegate.bus.ballast import Ballast
from framegate.bus.fault import DAMAGED, FULL, UNWRITABLE, damaged
from framegate.bus.highwater import HighWaterFile
from framegate.bus.options import StoreOptions
from framegate.bus.probe import HUNG, probe, run_child
from framegate.bus.recovery import Opened, load
from framegate.bus.rocks import RocksDisk, fault_of
from framegate.contract.errors import StoreFailed
from framegate.contract.ports import Clock, Log
from framegate.endpoint.durable import sync_folder

STORE, FRESH, HIGH_WATER, BALLAST = "store", "store.new", "hwm", "ballast"
QUARANTINES_MAX = 3
SALVAGE_BUDGETS_S = {"skip": 4.0, "repair": 2.0, "tables": 2.0}
SALVAGE_START_S = 5.0  # a child's start, on top of its budget: a slow or busy box must not lose rows that can be read


class Kept(TypedDict):
    """What salvage.py answers.

    rows, lost  carried over, and missing between them
    holes       first, last and reason of each stretch that is missing
    letters     what was wrong with dead letters that are lost
    """

    rows: int
    lost: int
    holes: list[tuple[int, int, str]]
    letters: list[str]


def open_disk(folder: Path, options: StoreOptions, clock: Clock, log: Log) -> Opened:
    """Everything that lies in a data folder, verified; raises StoreFailed."""
    _prepare(folder)
    high_water = HighWaterFile(folder / HIGH_WATER)
    ballast = Ballast(folder / BALLAST, options.ballast_bytes)
    try:
        opened = _open_or_salvage(folder, options, high_water, ballast, clock, log)
    except StoreFailed:
        high_water.close()
        raise
    shutil.rmtree(folder / FRESH, ignore_errors=True)  # half of one, from a process that died on it
    return opened


def reopen_disk(disk: RocksDisk, ballast: Ballast, options: StoreOptions) -> None:
    """Close, try in a child, open again; the ballast goes when there is no room for that. Raises StoreFailed."""
    disk.close()
    if disk.bytes_free() < options.ballast_bytes:
        ballast.give_up()
    text = probe(disk.path)
    if text:
        raise fault_of(text, disk.path)
    disk.open()


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise _unwritable(folder, f"user {os.geteuid()} may not write there, it belongs to user {folder.stat().st_uid}")
    _finish(folder)


def _finish(folder: Path) -> None:
    """If a process died while it set a store aside: once that is out of the way, what was carried over is whole."""
    store, fresh = folder / STORE, folder / FRESH
    if store.exists() or not fresh.exists():
        return
    try:
        fresh.rename(store)
        sync_folder(folder)
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from error


def _unwritable(folder: Path, why: str) -> StoreFailed:
    text = f"data folder {folder}: {why}; give the gateway's user the folder and its files, or choose another --home"
    return StoreFailed(text, code=UNWRITABLE)


def _open_or_salvage(
    folder: Path, options: StoreOptions, high_water: HighWaterFile, ballast: Ballast, clock: Clock, log: Log
) -> Opened:
    try:
        return _open(folder, options, high_water, ballast, clock, log)
    except StoreFailed as error:
        if error.stable_code == FULL and ballast.is_held:
            ballast.give_up()
            return _open(folder, options, high_water, ballast, clock, log)
        if error.stable_code != DAMAGED:
            raise
        reason = error.text
    lost = _set_aside(folder, high_water, reason, log)
    opened = _open(folder, options, high_water, ballast, clock, log)
    opened.books.gaps.rows["damage"] += lost  # those gaps came with the store
    return opened


def _open(
    folder: Path, options: StoreOptions, high_water: HighWaterFile, ballast: Ballast, clock: Clock, log: Log
) -> Opened:
    store = folder / STORE
    is_new = _is_new(store, high_water)
    if not is_new:
        text = probe(store)
        if text:
            raise fault_of(text, store)
    disk = RocksDisk(store, options.write_buffer_bytes, options.bucket_bytes, create=is_new)
    try:
        if is_new:
            sync_folder(folder)
        books, recovered = load(disk, options, high_water.mark, clock, log)
    except StoreFailed:
        disk.close()
        raise
    return Opened(disk, books, high_water, ballast, recovered, partial(reopen_disk, disk, ballast, options))


def _is_new(store: Path, high_water: HighWaterFile) -> bool:
    """Whether there is no store yet; raises StoreFailed E3003 for the remains of one."""
    if (store / "CURRENT").exists():
        return False
    remains = [file.name for file in store.iterdir()] if store.exists() else []
    if any(name.endswith(".sst") for name in remains) or (remains and high_water.mark.position):
        # RocksDB would quietly begin a new, empty store here.
        raise damaged(f"store {store}", "its file CURRENT is missing")
    if remains:  # its first creation was cut short, before any row was durable
        shutil.rmtree(store)
    return True


def _set_aside(folder: Path, high_water: HighWaterFile, reason: str, log: Log) -> int:
    """Carry over what can be read of a damaged store, and only then move it out of the way.

    returns  rows that gaps stand for
    """
    mark = high_water.mark
    store, fresh = folder / STORE, folder / FRESH
    aside = folder / f"store.damaged-{max(quarantines(folder), default=0) + 1}"
    first = max(mark.trim, min(mark.cursors.values(), default=0) + 1)
    try:
        kept = _salvage(store, fresh, first, mark.tags, can_read_log=HUNG not in reason)
        store.rename(aside)
        if kept is not None:
            fresh.rename(store)
        sync_folder(folder)
        for number in quarantines(folder)[:-QUARANTINES_MAX]:
            shutil.rmtree(folder / f"store.damaged-{number}")
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from error
    answer: Kept = kept or {"rows": 0, "lost": 0, "holes": [], "letters": ["none of them can be read"]}
    log.error("wal_quarantined", folder=str(aside), reason=reason, rows_kept=answer["rows"])
    for start, stop, why in answer["holes"]:
        log.error("wal_damage", first_pos=start, last_pos=stop, reason=why)
    for why in answer["letters"]:
        log.error("dead_letter_damaged", reason=why)
    return answer["lost"]


def _salvage(store: Path, fresh: Path, first: int, tags: int, *, can_read_log: bool) -> Kept | None:
    """What a child could carry over, by the gentlest way that works; None if nothing."""
    for mode, budget_s in SALVAGE_BUDGETS_S.items():
        if mode != "tables" and not can_read_log:  # opening hung, most likely in its log
            continue
        arguments = (str(store), str(fresh), mode, str(first), str(tags), str(budget_s))
        done = run_child("framegate.bus.salvage", *arguments, deadline_s=budget_s + SALVAGE_START_S)
        if done is not None and done[0] == 0:
            answer: Kept = orjson.loads(done[1].strip().rpartition("\n")[2])
            return answer
    for leftover in (fresh, fresh.with_name(fresh.name + ".work")):
        shutil.rmtree(leftover, ignore_errors=True)
    return None


def quarantines(folder: Path) -> list[int]:
    """Numbers of the damaged stores that were set aside, oldest first."""
    numbers = (path.name.removeprefix("store.damaged-") for path in folder.glob("store.damaged-*"))
    return sorted(int(number) for number in numbers if number.isdecimal())
