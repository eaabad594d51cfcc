"""The audit chain: whatever is changed is found, whatever a crash has left half is not blamed on anybody."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framegate.access import audit, audit_file, chain
from framegate.access.audit import AuditLog
from framegate.access.audit_check import check_chain, recent
from framegate.access.audit_file import AuditFile, read_head
from framegate.access.chain import hash_of, note_of
from framegate.contract.access import AuditEntry
from framegate.contract.errors import Misconfigured, StoreFailed
from framegate.testing.fakes import CollectingLog, FakeClock

Lines = list[bytes]


def entry(number: int = 0, **details: Any) -> AuditEntry:
    return AuditEntry("rest:anna", "tags.write", f"pump{number}.speed", "ok", "10.0.0.7", details)


def write(folder: Path, clock: FakeClock, count: int, log: CollectingLog | None = None) -> AuditFile:
    """Append that many records, each in a write of its own, by a writer that knows nothing of earlier ones."""
    file = AuditFile(folder, clock, log or CollectingLog())
    for number in range(count):
        file.append([note_of(entry(number), clock.now_ns())])
    return file


def texts(folder: Path) -> list[str]:
    return [str(finding) for finding in check_chain(folder).findings]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "access"


def test_record_says_who_did_what_and_holds_the_hash_before_it(folder: Path, clock: FakeClock) -> None:
    write(folder, clock, 2)
    first, second = (folder / "audit.jsonl").read_bytes().splitlines()
    assert json.loads(second) == {
        "seq": 2,
        "prev": hash_of(first),
        "time": "2023-11-14T22:13:20.000Z",
        "actor": "rest:anna",
        "action": "tags.write",
        "target": "pump1.speed",
        "outcome": "ok",
        "peer": "10.0.0.7",
        "details": {},
    }
    assert json.loads(first)["prev"] == "0" * 64
    assert read_head(folder / "audit.head") == (2, hash_of(second))
    verdict = check_chain(folder)
    assert (verdict.records, verdict.first, verdict.last, verdict.torn, verdict.findings) == (
        2, 1, (2, hash_of(second)), 0, [],
    )  # fmt: skip
    assert (folder / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def rehashed(lines: Lines, start: int) -> Lines:
    """Lines from `start` on with hashes that fit again, as a careful forger would write them."""
    for index in range(start, len(lines)):
        note = json.loads(lines[index])
        note["prev"] = hash_of(lines[index - 1][:-1])
        lines[index] = json.dumps(note, separators=(",", ":")).encode() + b"\n"
    return lines


def edited(index: int) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines[:index], lines[index].replace(b"rest:anna", b"rest:bob_"), *lines[index + 1 :]]


FORGERIES: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "edit of the first": (edited(0), "audit.jsonl:2: record 2 does not hold the hash"),
    "edit in the middle": (edited(4), "audit.jsonl:6: record 6 does not hold the hash"),
    "edit of the last": (edited(9), "audit.jsonl:10: record 10 is not the one that audit.head names"),
    "edit and new hashes": (lambda lines: rehashed(edited(4)(lines), 5), "audit.jsonl:10: record 10 is not the one"),
    "one bit of a number": (lambda lines: [*lines[:3], lines[3].replace(b'"seq":4', b'"seq":5'), *lines[4:]], ":4: "),
    "deletion of the first": (lambda lines: lines[1:], "begins with record 2, and no record says"),
    "deletion in the middle": (lambda lines: lines[:4] + lines[5:], ":5: record 5 should stand here and 6 does: 1 are"),
    "deletion of the last": (lambda lines: lines[:-1], "records 10 to 10 are missing at the end"),
    "truncation": (lambda lines: lines[:3], "records 4 to 10 are missing at the end"),
    "truncation within a line": (lambda lines: [*lines[:5], lines[5][:20]], "audit.jsonl:6: the line has no end"),
    "truncation of everything": (lambda _: [], "records 1 to 10 are missing at the end"),
    "reorder": (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], ":4: record 4 should stand here and 5"),
    "insertion": (
        lambda lines: [*lines[:3], lines[2], *lines[3:]],
        ":4: record 4 should stand here and 3 does: it was",
    ),
    "insertion with new hashes": (
        lambda lines: rehashed([*lines[:3], lines[2], *lines[3:]], 3),
        ":4: record 4 should stand here and 3 does",
    ),
    "insertion at the front": (lambda lines: [b"{}\n", *lines], "audit.jsonl:1: the line of record 1 cannot be read"),
    "garbage": (lambda lines: [*lines[:3], b"\0" * 80 + b"\n", *lines[3:]], ":4: the line of record 4 cannot be read"),
    "empty line": (lambda lines: [*lines[:3], b"\n", *lines[3:]], ":4: the line of record 4 cannot be read"),
    "very long line": (lambda lines: [*lines[:3], b"x" * 200_000 + b"\n", *lines[3:]], ":4: "),
    "nested line": (lambda lines: [*lines[:3], b"[" * 60_000 + b"\n", *lines[3:]], ":4: the line of record 4"),
    "another chain": (
        lambda lines: rehashed([lines[0].replace(b"anna", b"bob"), *lines[1:]], 1),
        "audit.jsonl:10: record 10 is not the one",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgery_is_found_and_stays_found_when_the_log_goes_on(name: str, folder: Path, clock: FakeClock) -> None:
    forge, expected = FORGERIES[name]
    write(folder, clock, 10)
    path = folder / "audit.jsonl"
    path.write_bytes(b"".join(forge(path.read_bytes().splitlines(keepends=True))))
    found = texts(folder)
    assert any(expected in text for text in found), found
    write(folder, clock, 5)
    assert texts(folder)
    assert check_chain(folder).last.seq >= 15


@pytest.mark.parametrize("name", ["edit of the last", "truncation", "truncation within a line", "another chain"])
def test_forgery_before_a_start_is_told_and_noted(name: str, folder: Path, clock: FakeClock) -> None:
    write(folder, clock, 10)
    path, log = folder / "audit.jsonl", CollectingLog()
    path.write_bytes(b"".join(FORGERIES[name][0](path.read_bytes().splitlines(keepends=True))))
    write(folder, clock, 2, log)
    assert len(log.events("access_audit_broken")) == 1
    (noted,) = recent(folder, 10, is_wanted=lambda note: note["action"] == "audit.broken")
    assert noted["seq"] == 11
    assert noted["details"]["reason"] == log.events("access_audit_broken")[0]["reason"]


@pytest.mark.parametrize("damage", [b"", b"nonsense\n", None])
def test_head_that_is_lost_is_found(damage: bytes | None, folder: Path, clock: FakeClock) -> None:
    write(folder, clock, 3)
    head = folder / "audit.head"
    head.unlink() if damage is None else head.write_bytes(damage)
    assert any("audit.head" in text for text in texts(folder))
    write(folder, clock, 1)
    assert any("audit.head is gone" in text for text in texts(folder))


@pytest.mark.parametrize("rest", [b"\0" * 5000, b'{"seq":11,"pre', b"half\nand a half", b'{"seq":99}\n'])
def test_torn_line_behind_the_head_is_cut_off_and_blamed_on_nobody(rest: bytes, folder: Path, clock: FakeClock) -> None:
    write(folder, clock, 10)
    path, log = folder / "audit.jsonl", CollectingLog()
    whole = path.read_bytes()
    path.write_bytes(whole + rest)
    verdict = check_chain(folder)
    assert (verdict.findings, verdict.torn, verdict.last.seq) == ([], len(rest), 10)
    write(folder, clock, 1, log)
    assert log.events("access_audit_torn") == [{"bytes": len(rest)}]
    assert path.read_bytes().startswith(whole)
    assert [note["action"] for note in recent(folder, 2)] == ["tags.write", "audit.torn"]
    assert (texts(folder), check_chain(folder).torn) == ([], 0)


def test_every_cut_behind_the_head_is_torn_and_every_cut_before_it_is_found(folder: Path, clock: FakeClock) -> None:
    file = write(folder, clock, 2)
    path, head = folder / "audit.jsonl", folder / "audit.head"
    promised, size = head.read_bytes(), path.stat().st_size
    file.append([note_of(entry(3), clock.now_ns())])
    data = path.read_bytes()
    head.write_bytes(promised)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        verdict = check_chain(folder)
        assert bool(verdict.findings) == (cut < size), cut
        assert (verdict.torn > 0) == (cut > size), cut


def test_whole_line_behind_the_head_is_kept(folder: Path, clock: FakeClock) -> None:
    file = write(folder, clock, 2)
    promised = (folder / "audit.head").read_bytes()
    file.append([note_of(entry(3), clock.now_ns())])
    (folder / "audit.head").write_bytes(promised)
    log = CollectingLog()
    write(folder, clock, 1, log)
    assert (log.lines, check_chain(folder).records, texts(folder)) == ([], 4, [])


def test_two_processes_append_in_turn_to_one_chain(folder: Path, clock: FakeClock) -> None:
    def append(name: str) -> None:
        file = AuditFile(folder, clock, CollectingLog())
        for number in range(20):
            file.append([note_of(AuditEntry(name, "x", str(number), "ok"), clock.now_ns())])

    threads = [threading.Thread(target=append, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdict = check_chain(folder)
    assert (verdict.records, verdict.last.seq, verdict.findings) == (60, 60, [])


# -- files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of four records, of which three elder ones are kept."""
    monkeypatch.setattr(audit_file, "FILE_BYTES_MAX", 1_100)
    monkeypatch.setattr(audit_file, "FILES_MAX", 3)


@pytest.mark.usefixtures("small")
def test_chain_goes_on_from_file_to_file_and_the_eldest_make_room(folder: Path, clock: FakeClock) -> None:
    write(folder, clock, 9)
    assert [path.name for path in sorted(folder.glob("audit.0*"))] == [
        "audit.000000000001.jsonl",
        "audit.000000000005.jsonl",
    ]
    verdict = check_chain(folder)
    assert (verdict.files, verdict.first, verdict.records, verdict.findings) == (3, 1, 9, [])
    write(folder, clock, 40)
    verdict = check_chain(folder)
    assert (verdict.files, verdict.findings) == (4, [])
    assert verdict.first > 1
    assert verdict.last.seq - verdict.first + 1 == verdict.records
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 2_000


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_file_that_is_removed_is_missed(gone: int, folder: Path, clock: FakeClock) -> None:
    write(folder, clock, 45)
    path = [*sorted(folder.glob("audit.0*")), folder / "audit.jsonl"][gone]
    path.unlink()
    assert any("are missing" in text or "no record says" in text for text in texts(folder))
    write(folder, clock, 1)
    assert texts(folder)


@pytest.mark.usefixtures("small")
def test_crash_between_renaming_and_the_next_record_loses_nothing(folder: Path, clock: FakeClock) -> None:
    write(folder, clock, 4)
    (folder / "audit.jsonl").rename(folder / "audit.000000000001.jsonl")
    write(folder, clock, 1)
    assert (check_chain(folder).records, texts(folder)) == (5, [])


@pytest.mark.usefixtures("small")
def test_crash_before_old_files_are_removed_loses_nothing(
    folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        write(folder, clock, 20)
    assert texts(folder) == []
    write(folder, clock, 20)
    assert (texts(folder), len(list(folder.glob("audit.0*")))) == ([], 3)


def test_copy_of_the_folder_is_checked_and_none_is_told(folder: Path, clock: FakeClock, tmp_path: Path) -> None:
    write(folder, clock, 3)
    shutil.copytree(folder, tmp_path / "evidence", ignore=shutil.ignore_patterns(".*"))
    assert check_chain(tmp_path / "evidence").records == 3
    for nothing in (tmp_path / "config", tmp_path / "nowhere"):
        nothing.mkdir() if nothing.name == "config" else None
        with pytest.raises(Misconfigured) as error:
            check_chain(nothing)
        assert error.value.stable_code == "E4308"


def test_recent_gives_the_newest_within_bounds(folder: Path, clock: FakeClock) -> None:
    write(folder, clock, 9)
    assert [note["seq"] for note in recent(folder, 3)] == [9, 8, 7]
    assert [note["seq"] for note in recent(folder, 3, before=7)] == [6, 5, 4]
    assert [note["seq"] for note in recent(folder, 3, is_wanted=lambda note: note["seq"] % 4 == 0)] == [8, 4]
    assert recent(folder / "nowhere", 3) == []


# -- what a record holds ---------------------------------------------------------------------------------------


def test_secrets_are_masked_by_the_names_of_their_keys_at_any_depth() -> None:
    details = {
        "before": {"credentials": {"password": "hunter2"}, "tls": [{"key_password": "hunter2"}]},
        "Authorization": "Bearer hunter2",
        "api_key": "hunter2",
        "Set-Cookie": "sid=hunter2",
        "token": {"text": "hunter2"},
        "value": 42.0,
    }
    note = note_of(entry(0, **details), 0)
    assert "hunter2" not in json.dumps(note)
    assert note["details"]["value"] == 42.0


HOSTILE: dict[str, Any] = {
    "long text": "x" * 1_000_000,
    "line end": 'a\n{"seq":2}\n',
    "carriage return": "a\rb",
    "separator": "a\u2028b",
    "half a surrogate pair": "a\udc80b",
    "NUL": "\0",
    "NaN": float("nan"),
    "infinite": float("-inf"),
    "huge number": 10**5000,
    "bytes": b"\xff",
    "object": object(),
    "wide": {str(number): number for number in range(100_000)},
    "long list": list(range(100_000)),
    "number as key": {1: 2},
    "set": {1},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_details_make_one_bounded_line(name: str, folder: Path, clock: FakeClock) -> None:
    file = AuditFile(folder, clock, CollectingLog())
    file.append([note_of(AuditEntry("a\n" * 1000, "x", "t", "ok", details={"v": HOSTILE[name]}), clock.now_ns())])
    file.append([note_of(entry(1), clock.now_ns())])
    lines = (folder / "audit.jsonl").read_bytes().split(b"\n")
    assert (len(lines), lines[-1], max(map(len, lines)) <= chain.LINE_BYTES_MAX) == (3, b"", True)
    assert (check_chain(folder).records, texts(folder)) == (2, [])


def test_long_details_keep_their_beginning_and_say_what_the_whole_was(folder: Path, clock: FakeClock) -> None:
    commands = [[f"pump{number}.speed", number, "x" * 90] for number in range(1_000)]
    AuditFile(folder, clock, CollectingLog()).append([note_of(entry(0, commands=commands, key="k"), clock.now_ns())])
    (record,) = map(json.loads, (folder / "audit.jsonl").read_bytes().splitlines())
    kept = record["details"]
    details = note_of(entry(0, commands=commands, key="k"), clock.now_ns())["details"]
    whole = json.dumps(details, separators=(",", ":"))
    assert whole.startswith(kept["cut"])
    assert len(kept["cut"]) == chain.LINE_BYTES_MAX // 4
    assert (kept["items"], kept["bytes"]) == ({"commands": 1_000}, len(whole))
    assert kept["sha256"] == hashlib.sha256(whole.encode()).hexdigest()


def test_deep_details_are_cut(folder: Path, clock: FakeClock) -> None:
    deep: Any = "end"
    for _ in range(3_000):
        deep = {"a": [deep]}
    AuditFile(folder, clock, CollectingLog()).append([note_of(entry(0, deep=deep), clock.now_ns())])
    assert (check_chain(folder).records, texts(folder)) == (1, [])


# -- failing disks ---------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, call: str, times: int = 1) -> None:
    """The disk has no room for the next calls."""
    sound, left = getattr(os, call), [times]

    def fail(*arguments: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sound(*arguments)

    monkeypatch.setattr(os, call, fail)


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_full_disk_refuses_the_note_and_the_chain_goes_on_afterwards(
    call: str, folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(folder, clock, 2)
    failing(monkeypatch, call)
    with pytest.raises(StoreFailed) as error:
        file.append([note_of(entry(), clock.now_ns())])
    assert error.value.stable_code == "E4306"
    assert "no space left" in str(error.value)
    assert check_chain(folder).records == 2
    file.append([note_of(entry(), clock.now_ns())])
    assert (check_chain(folder).records, texts(folder)) == (3, [])


def test_short_writes_are_written_on(folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, place: sound(handle, bytes(data)[:90], place))
    write(folder, clock, 3)
    assert (check_chain(folder).records, texts(folder)) == (3, [])


# -- on the loop -----------------------------------------------------------------------------------------------


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
