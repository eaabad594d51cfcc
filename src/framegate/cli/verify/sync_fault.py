"""A disk that fails: syncs that fail once or for a while, slow syncs, short writes, a file system gone read-only.

The faults are real for everything above the C library: a shim (faulty_disk.c, built here with the machine's own
compiler) is preloaded into an ordinary gateway and fails its calls. After a failed sync nothing more may be called
durable from that handle; the state must be seen at once; a slow disk must not slow the event loop; nothing is lost.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from framegate.cli.verify.experiment import Experiment, Result, Scratch
from framegate.cli.verify.rig import Rig, Wiring
from framegate.cli.verify.told import Told

SYNC_FAILS, SYNC_SLOW, WRITE_SHORT, READ_ONLY = 1, 2, 3, 4
WITHOUT_END = 1 << 40
VISIBLE_S_MAX = 1.0
LAG_MS_MAX = 50.0
RECOVER_S_MAX = 60.0  # the store is reopened at growing intervals of at most 30 s
COMPILE_S_MAX = 60.0
POLL_S = 0.01
ROWS_BEFORE, ROWS_AFTER = 200, 500
ROUNDS, ROUNDS_FULL = 1, 5
COMPILERS = ("cc", "gcc", "clang")
_FAULT, _ARGUMENT, _LEFT, _DONE, _FIRST_NS, _SYNCS, _NUMBERS = range(7)


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail.

    count      calls that fail; those after them work again
    lasts_s    how long the fault stays
    is_failure the log must say so, and must not move while it does
    """

    name: str
    number: int
    argument: int = 0
    count: int = WITHOUT_END
    lasts_s: float = 2.0
    is_failure: bool = True


FAULTS = (
    Fault("one sync fails", SYNC_FAILS, count=1),
    Fault("every sync fails", SYNC_FAILS, lasts_s=3.0),
    Fault("every sync takes 50 ms", SYNC_SLOW, 50, is_failure=False),
    Fault("one sync takes 5 s", SYNC_SLOW, 5_000, count=1, lasts_s=6.0, is_failure=False),
    Fault("every write is short", WRITE_SHORT, is_failure=False),
    Fault("read-only file system", READ_ONLY, lasts_s=3.0),
)


class Control:
    """The page that the shim reads; see faulty_disk.c."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(8 * _NUMBERS))
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._numbers = memoryview(mmap.mmap(file, 8 * _NUMBERS)).cast("Q")
        finally:
            os.close(file)

    def begin(self, fault: Fault) -> None:
        self._numbers[_ARGUMENT], self._numbers[_LEFT] = fault.argument, fault.count
        self._numbers[_FAULT] = fault.number  # last: the shim looks here first

    def end(self) -> None:
        self._numbers[_FAULT] = 0

    @property
    def done(self) -> int:
        return self._numbers[_DONE]

    @property
    def first_s(self) -> float:
        return self._numbers[_FIRST_NS] / 1e9


async def run(scratch: Scratch) -> Result:
    """Each fault `rounds` times, each on a gateway of its own."""
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        return Result(skipped=f"no C compiler ({', '.join(COMPILERS)}) to build the faulty disk with")
    library = scratch.folder / "faulty_disk.so"
    await asyncio.to_thread(_build, compiler, library)
    result = Result()
    visible, lags = 0.0, [0.0]
    for number in range(scratch.rounds):
        for fault in FAULTS:
            scratch.say(f"round {number + 1} of {scratch.rounds}: {fault.name}")
            folder = scratch.folder / f"{number}-{fault.name.replace(' ', '-')}"
            trial = Trial(fault, folder)
            await trial.run(library)
            result.rounds += 1
            result.add(trial.result, fault.name)
            result.figures |= trial.result.figures
            visible = max(visible, trial.visible_s)
            if fault.number == SYNC_SLOW:
                lags.append(trial.lag_ms)
            key = f"failed calls, {fault.name}"
            result.figures[key] = int(result.figures.get(key, 0)) + trial.faults
    result.figures["slowest visible failure, s"] = round(visible, 3)
    result.figures["event loop late with a slow disk, ms p99"] = round(max(lags), 1)
    return result


class Trial:
    """One gateway and one fault."""

    def __init__(self, fault: Fault, folder: Path) -> None:
        self.fault, self.folder = fault, folder
        self.result = Result()
        self.visible_s = 0.0
        self.lag_ms = 0.0
        self.faults = 0

    async def run(self, library: Path) -> None:
        async with Rig(self.folder, Wiring(tags=10)) as rig:
            control, told = Control(self.folder / "control"), Told(self.folder / "told")
            rig.gateway = _start(rig, library, control, told)
            await rig.delivered(ROWS_BEFORE)
            told.forget_lags()
            control.begin(self.fault)
            await self._watch(rig, control, told)
            control.end()
            lags = told.lags()
            self.lag_ms = lags[int(0.99 * len(lags))] / 1e3 if lags else 0.0
            lifted = time.monotonic()
            await rig.until(lambda: told.durable > rig.account.newest, "rows to be durable again", RECOVER_S_MAX)
            await rig.delivered(told.durable + ROWS_AFTER, RECOVER_S_MAX)
            self.result.slowest_recovery_s = time.monotonic() - lifted
            await rig.answer(lambda now: now.problem == "", "the log to be well again", RECOVER_S_MAX)
            self.faults = control.done
            rig.judge(self.result, rig.account.newest, losses=0)
            self._judge(rig)
            await rig.stop()

    async def _watch(self, rig: Rig, control: Control, told: Told) -> None:
        """As long as the fault lasts: nothing leaves before it is durable, and the failure is seen."""
        until = time.monotonic() + self.fault.lasts_s
        while time.monotonic() < until:
            if rig.account.newest > told.durable:
                self.result.broken.append("a row was sent before it was durable")
                return
            if self.fault.is_failure and control.done and not self.visible_s:
                await rig.answer(lambda now: now.problem != "" or _events(rig, "wal_failed") != [], "a word of it")
                self.visible_s = time.monotonic() - control.first_s
            await asyncio.sleep(POLL_S)

    def _judge(self, rig: Rig) -> None:
        broken = self.result.broken
        if not self.faults:
            broken.append("void: no call failed")
        if self.fault.number == SYNC_SLOW and self.lag_ms > LAG_MS_MAX:
            self.result.late(f"the event loop was {self.lag_ms:.0f} ms late (p99)")
        failed, recovered = _events(rig, "wal_failed"), _events(rig, "wal_recovered")
        if not self.fault.is_failure:
            if failed:
                broken.append(f"the log called itself failed: {failed[0]['reason']}")
            return
        if not failed or not recovered:
            broken.append(f"the log told of {len(failed)} failures and {len(recovered)} recoveries")
        elif self.visible_s > VISIBLE_S_MAX:
            self.result.late(f"the failure was to be seen after {self.visible_s:.1f} s only")
        for before, after in zip(failed, recovered, strict=False):
            if after["durable"] != before["durable"]:
                broken.append(f"rows {before['durable']:,} to {after['durable']:,} became durable on a failed handle")


def _start(rig: Rig, library: Path, control: Control, told: Told) -> subprocess.Popen[bytes]:
    request = {"home": str(rig.home), "told": str(told.path), "lag": True}
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "FAULTY_DISK_CONTROL": str(control.path),
        "FAULTY_DISK_PREFIX": str((rig.home / "data").resolve()),
    }
    command = [sys.executable, "-m", "framegate.cli.verify.doomed", json.dumps(request)]
    with rig.log_file.open("ab") as log:
        return subprocess.Popen(command, stderr=log, env=environment)


def _build(compiler: str, library: Path) -> None:
    with as_file(files("framegate.cli.verify") / "faulty_disk.c") as source:
        command: Sequence[str] = (compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl")
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_S_MAX)


def _events(rig: Rig, name: str) -> list[dict[str, Any]]:
    lines = rig.log_file.read_text(errors="replace").splitlines()
    return [event for line in lines if line.startswith("{") and (event := json.loads(line))["event"] == name]


EXPERIMENT = Experiment(
    name="sync_fault",
    promise="After a failed sync nothing is called durable before the store was opened anew and checked; it shows "
    f"within {VISIBLE_S_MAX:.0f} s, a slow disk delays the event loop by {LAG_MS_MAX:.0f} ms at most, nothing is lost.",
    run=run,
    rounds=ROUNDS,
    rounds_full=ROUNDS_FULL,
)
