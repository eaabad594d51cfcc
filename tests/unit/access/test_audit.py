"""The audit chain: whatever is changed is found, whatever a crash has left half is not blamed on anybody."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framegate.access import chain
from framegate.access.audit_check import check_chain, recent
from framegate.access.audit_file import AuditFile, read_head
from framegate.access.chain import hash_of, note_of
from framegate.contract.access import AuditEntry
from framegate.testing.fakes import CollectingLog, FakeClock

from .audit_folder import Lines, entry, texts, write


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
