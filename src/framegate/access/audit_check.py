"""Reads the audit chain: does it hold from its first record to the last one promised, and what are the newest records?

Needs no gateway. Works on a copy of the folder as well, as evidence is looked at elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from framegate.access.audit_file import ACTIVE, LOCK, elder_files, raw_lines, read_head
from framegate.access.chain import (
    BROKEN,
    DROPPED,
    FINDINGS_MAX,
    GENESIS,
    HEAD_NAME,
    START,
    Finding,
    Link,
    read_line,
    reads_as,
)
from framegate.contract.errors import Misconfigured
from framegate.endpoint.durable import locked, why

RECORDS_MAX = 1_000
"""Records that one look at the newest gives."""


@dataclass(slots=True)
class Verdict:
    """What was found. first: number of the eldest record kept; torn: bytes that a power cut has left half written."""

    files: int = 0
    records: int = 0
    first: int = 0
    last: Link = START
    torn: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, file: str, line: int, text: str) -> None:
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(file, line, text))


def check_chain(folder: Path) -> Verdict:
    """Follow the chain through every file. Raises Misconfigured E4308 - there is none, or it cannot be read."""
    try:
        with _snapshot(folder) as (head, files):
            if not files and head is None:
                raise FileNotFoundError(2, "no such audit log")
            return _Check(head, files).run()
    except OSError as error:
        text = f"audit log {folder}: cannot be read ({why(error)}); name the folder that has {ACTIVE}"
        raise Misconfigured(text, code="E4308") from error


def recent(
    folder: Path, limit: int, before: int = 0, is_wanted: Callable[[Mapping[str, Any]], bool] | None = None
) -> list[Mapping[str, Any]]:
    """The newest records, newest first, at most RECORDS_MAX; lines that cannot be read are passed over.

    before     only records of a lower number; 0 = all
    is_wanted  which of them
    """
    found: list[Mapping[str, Any]] = []
    limit = min(limit, RECORDS_MAX)
    with contextlib.suppress(FileNotFoundError):
        paths = [*elder_files(folder), folder / ACTIVE]
        while paths and len(found) < limit:
            with contextlib.suppress(FileNotFoundError), paths.pop().open("rb") as file:
                kept = [note for note in _records(file) if not before or note["seq"] < before]
                wanted = kept if is_wanted is None else [note for note in kept if is_wanted(note)]
                found += wanted[::-1][: limit - len(found)]
    return found


def _records(file: IO[bytes]) -> Iterator[Mapping[str, Any]]:
    for raw in raw_lines(file):
        with contextlib.suppress(ValueError, RecursionError):
            yield read_line(raw.rstrip(b"\n"))


@contextlib.contextmanager
def _snapshot(folder: Path) -> Iterator[tuple[Link | None, list[tuple[str, IO[bytes], int]]]]:
    """Head and open files (name, file, bytes) as they were at one moment; a gateway may go on meanwhile."""
    with ExitStack() as stack:
        with ExitStack() as moment:
            with contextlib.suppress(OSError):  # a copy elsewhere: nobody writes there
                if (folder / LOCK).exists():
                    moment.enter_context(locked(folder / LOCK))
            head = read_head(folder / HEAD_NAME)
            files: list[tuple[str, IO[bytes], int]] = []
            for path in (*elder_files(folder), folder / ACTIVE):
                with contextlib.suppress(FileNotFoundError):
                    file = stack.enter_context(path.open("rb"))
                    files.append((path.name, file, path.stat().st_size))
        yield head, files


class _Check:
    """One walk along the chain."""

    def __init__(self, head: Link | None, files: list[tuple[str, IO[bytes], int]]) -> None:
        self._head, self._files = head, files
        self._verdict = Verdict(files=len(files))
        self._begin: Link | None = None
        self._dropped: set[Link] = set()

    def run(self) -> Verdict:
        verdict = self._verdict
        for name, file, size in self._files:
            self._follow(name, file, size, is_last=name == self._files[-1][0])
        self._judge_begin()
        last, head = verdict.last, self._head
        name = self._files[-1][0] if self._files else ACTIVE
        if head is None:
            verdict.add(HEAD_NAME, 1, "the file is gone or unreadable: nobody knows where the log should end")
        elif last.seq < head.seq:
            verdict.add(name, 0, f"records {last.seq + 1:,} to {head.seq:,} are missing at the end")
        return verdict

    def _follow(self, name: str, file: IO[bytes], size: int, *, is_last: bool) -> None:
        verdict, head = self._verdict, self._head
        for number, raw in enumerate(raw_lines(file, size), 1):
            if verdict.torn:
                verdict.torn += len(raw)
                continue
            here, reason, note = reads_as(raw, verdict.last)
            if self._begin is None and note:
                self._begin = Link(note["seq"] - 1, note["prev"])
                verdict.first, reason = note["seq"], ""
            if reason and is_last and head is not None and verdict.last.seq >= head.seq and not verdict.findings:
                verdict.torn = len(raw)
                continue
            if reason:
                verdict.add(name, number, reason)
            if head is not None and here.seq == head.seq and here.sha256 != head.sha256:
                verdict.add(name, number, f"record {here.seq} is not the one that {HEAD_NAME} names: it was changed")
            self._heed(name, number, note)
            verdict.last, verdict.records = here, verdict.records + 1

    def _heed(self, name: str, number: int, note: Mapping[str, Any]) -> None:
        """What the audit log itself has noted."""
        details = note.get("details")
        if not isinstance(details, Mapping):
            return
        if note.get("action") == DROPPED:
            self._dropped.add(Link(details.get("seq", 0), str(details.get("sha256"))))
        elif note.get("action") == BROKEN:
            self._verdict.add(name, number, f"the log was found broken here: {details.get('reason')}")

    def _judge_begin(self) -> None:
        """The eldest record is the first ever, or a later one says that those before it were dropped."""
        begin = self._begin
        if begin is None or begin == Link(0, GENESIS) or begin in self._dropped:
            return
        text = f"the log begins with record {begin.seq + 1:,}, and no record says that those before it were dropped"
        if begin.seq == 0:
            text = "the first record does not begin a chain: it was changed"
        self._verdict.add(self._files[0][0], 1, text)
