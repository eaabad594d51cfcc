"""The audit log on the loop: notes that share a write, disks that hang, kills."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from framegate.access import audit
from framegate.access.audit import AuditLog
from framegate.access.audit_check import check_chain
from framegate.access.audit_file import AuditFile
from framegate.access.chain import note_of
from framegate.contract.errors import StoreFailed
from framegate.testing.fakes import CollectingLog, FakeClock

from .audit_folder import entry, write
from .test_audit_files import failing


async def test_many_notes_share_a_write_and_are_durable_when_it_returns(
    folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    sound = AuditFile.append

    def append(self: AuditFile, notes: Any) -> None:
        groups.append(len(notes))
        assert threading.current_thread().name == "edge-audit"
        sound(self, notes)

    monkeypatch.setattr(AuditFile, "append", append)
    log = AuditLog(folder, clock, CollectingLog())
    await asyncio.gather(*(log.note(entry(number)) for number in range(500)))
    assert check_chain(folder).records == 500
    assert len(groups) < 50
    assert max(groups) <= audit.GROUP_MAX
    assert [note["target"] for note in await log.recent(2)] == ["pump499.speed", "pump498.speed"]
    await log.close()


async def test_failed_write_is_told_to_everyone_who_waits(
    folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(folder, clock, CollectingLog())
    with monkeypatch.context() as patch:
        failing(patch, "pwrite", times=10)
        results = await asyncio.gather(*(log.note(entry()) for _ in range(5)), return_exceptions=True)
    assert [getattr(result, "stable_code", "") for result in results] == ["E4306"] * 5
    await log.note(entry())
    await log.close()
    assert check_chain(folder).records == 1


async def test_disk_that_hangs_is_not_waited_for_and_notes_are_bounded(
    folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(audit, "NOTE_S_MAX", 0.05)
    monkeypatch.setattr(audit, "WAITING_MAX", 10)
    monkeypatch.setattr(AuditFile, "append", lambda *_: goes_on.wait(30))
    log = AuditLog(folder, clock, CollectingLog())
    for _ in range(3):
        results = await asyncio.gather(*(log.note(entry()) for _ in range(10)), return_exceptions=True)
        assert {getattr(result, "stable_code", "") for result in results} == {"E4306"}
    assert log._queue.qsize() <= 10
    goes_on.set()
    await log.close()


async def test_bug_in_the_thread_is_told_and_ends_nothing(
    folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(folder, clock, CollectingLog())
    with monkeypatch.context() as patch:
        patch.setattr(AuditFile, "append", lambda *_: 1 // 0)
        with pytest.raises(StoreFailed, match="please report"):
            await log.note(entry())
    await log.note(entry())
    await log.close()
    assert check_chain(folder).records == 1


async def test_cancelled_note_harms_nobody(folder: Path, clock: FakeClock) -> None:
    log = AuditLog(folder, clock, CollectingLog())
    task = asyncio.create_task(log.note(entry()))
    await asyncio.sleep(0)
    task.cancel()
    await log.note(entry(1))
    await log.close()
    assert check_chain(folder).findings == []


WRITER = """
import asyncio, sys
from pathlib import Path
from framegate.access.audit import AuditLog
from framegate.contract.access import AuditEntry
from framegate.endpoint.clock import SystemClock
from framegate.observe.log import make_log

async def main():
    log = AuditLog(Path(sys.argv[1]), SystemClock(), make_log(level="error"))
    async def one(number):
        await log.note(AuditEntry("a", "x", str(number), "ok", details={"pad": "x" * 300}))
        print(number, flush=True)
    for start in range(0, 1_000_000, 8):
        await asyncio.gather(*(one(start + step) for step in range(8)))

asyncio.run(main())
"""


def test_kill_between_notes_leaves_a_chain_that_holds_with_everything_acknowledged(
    folder: Path, clock: FakeClock
) -> None:
    acknowledged: list[str] = []
    for round_ in range(4):
        base = len(acknowledged)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                acknowledged.append(line.strip())
                if len(acknowledged) - base > 40 + 37 * round_:
                    writer.kill()
                    break
            acknowledged.extend(line.strip() for line in writer.stdout if line.endswith("\n"))
        verdict = check_chain(folder)
        assert verdict.findings == []
    write(folder, clock, 1)
    verdict = check_chain(folder)
    assert (verdict.findings, verdict.torn) == ([], 0)
    kept = [json.loads(line)["target"] for line in (folder / "audit.jsonl").read_bytes().splitlines()]
    assert len(acknowledged) > 300
    for target in set(acknowledged):
        assert kept.count(target) >= acknowledged.count(target)


def test_lines_are_synced_before_the_head_promises_them_and_that_before_the_answer(
    folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(folder, clock, 1)
    calls: list[tuple[str, str]] = []

    def watched(name: str) -> None:
        sound = getattr(os, name)

        def call(handle: int, *rest: Any) -> Any:
            calls.append((name, Path(f"/proc/self/fd/{handle}").readlink().name))
            return sound(handle, *rest)

        monkeypatch.setattr(os, name, call)

    watched("pwrite")
    watched("fsync")
    file.append([note_of(entry(number), clock.now_ns()) for number in range(5)])
    lines, head = "audit.jsonl", "audit.head"
    assert calls == [("pwrite", lines), ("fsync", lines), ("pwrite", head)]
