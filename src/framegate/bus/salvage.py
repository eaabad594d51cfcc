"""Salvage: carry what can still be read out of a damaged store into a new one. Runs in a child process with a deadline.

`python -m framegate.bus.salvage SOURCE TARGET MODE FIRST TAGS BUDGET_S` never touches SOURCE: it works on a copy,
tables by hard link. MODE is how the copy is made to open: "skip" leaves out broken log records, "repair" has
RocksDB rebuild its list of files first, "tables" does so without its log. What is copied from then on is carry.py's
business. The answer is one line of JSON: rows copied, and the holes.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import orjson
from rocksdict import DBRecoveryMode, Rdict

from framegate.bus.carry import carry_over
from framegate.bus.rocks import RocksDisk, fault_of
from framegate.bus.tuning import store_options
from framegate.contract.errors import StoreFailed

MODES = ("skip", "repair", "tables")
REPAIR_BUFFER_BYTES = 8 << 20
STALL_WAIT_S = 0.01


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
            answer = carry_over(
                old,
                new,
                first,
                tags,
                is_over=lambda: time.monotonic() > until,
                now_ns=time.time_ns,
                wait=lambda: time.sleep(STALL_WAIT_S),
            )
            new.sync()
        finally:
            new.close()
            old.close()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return answer


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
