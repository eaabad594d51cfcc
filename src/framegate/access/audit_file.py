"""The files of the audit log: lines are appended, synced, noted in audit.head, and only then acknowledged.

    audit.000000000001.jsonl ... audit.jsonl     the chain in files of 8 MiB, named by their first record
    audit.head                                   number and hash of the last record that was promised

They lie in HOME/access. After a crash, lines behind the head are kept if they follow, else they were torn by a power
cut and go. Lines up to the head that are missing or do not follow were changed by somebody: the chain goes on behind
them, and a record says so for ever. The gateway and the command line append in turn, under a lock. Blocking.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from framegate.access.chain import (
    BROKEN,
    DROPPED,
    GENESIS,
    HEAD_NAME,
    LINE_BYTES_MAX,
    START,
    TORN,
    End,
    Link,
    end_of,
    line_of,
    note_of,
    read_line,
    reads_as,
)
from framegate.access.durable import MODE, make_private_folder, replace_private
from framegate.contract.access import AuditEntry
from framegate.contract.errors import StoreFailed
from framegate.contract.ports import Clock, Log
from framegate.endpoint.durable import give_to_owner, locked, sync_folder, why

ACTIVE, LOCK = "audit.jsonl", ".audit.lock"
FILE_BYTES_MAX = 8 << 20
"""From here on the next records begin a new file."""
FILES_MAX = 32
"""Elder files; the eldest makes room, and a record says up to where records were dropped."""
ACTOR = "gateway"
_ELDER = re.compile(r"audit\.(\d{12})\.jsonl")
_HEAD = re.compile(rb"(\d{20}) ([0-9a-f]{64})\n")


@dataclass(frozen=True, slots=True)
class _Tail:
    """What this process left: whether the file still ends there tells if another one has appended since."""

    link: Link
    size: int
    inode: int


class AuditFile:
    """The chain of one home, for whoever appends. One thread at a time."""

    def __init__(self, folder: Path, clock: Clock, log: Log) -> None:
        self.folder = folder
        self._active, self._head = folder / ACTIVE, folder / HEAD_NAME
        self._clock, self._log = clock, log
        self._tail: _Tail | None = None

    def append(self, notes: Sequence[Mapping[str, Any]]) -> None:
        """Append records, durably, all or none acknowledged. Raises StoreFailed E4306."""
        try:
            make_private_folder(self.folder)
            with locked(self.folder / LOCK):
                tail, self._tail = self._tail, None
                self._tail = self._append(notes, tail)
        except (OSError, ValueError) as error:
            text = f"audit log {self._active}: cannot be written ({why(error)}); nothing is done that is not noted"
            raise StoreFailed(f"{text}. Correct space or rights", code="E4306") from error

    def _append(self, notes: Sequence[Mapping[str, Any]], tail: _Tail | None) -> _Tail:
        if tail is not None and self._is_as_left(tail):
            link, size = tail.link, tail.size
            own: list[Mapping[str, Any]] = []
        else:
            link, size, own = self._open()
        lines, last = _lines((*own, *notes), link)
        gone: list[Path] = []
        if size and size + sum(map(len, lines)) > FILE_BYTES_MAX:
            gone, dropped = self._rotate()
            lines, last = _lines((*dropped, *own, *notes), link)
            size = 0
        data = b"".join(lines)
        inode = self._write(data, size)
        write_head(self._head, last)
        for path in gone:
            path.unlink(missing_ok=True)
        return _Tail(last, size + len(data), inode)

    def _is_as_left(self, tail: _Tail) -> bool:
        try:
            stat = self._active.stat()
        except FileNotFoundError:
            return False
        return (stat.st_ino, stat.st_size) == (tail.inode, tail.size)

    def _open(self) -> tuple[Link, int, list[Mapping[str, Any]]]:
        """Where the chain goes on, the size of the newest file, and what has to be noted about its state."""
        elder = elder_files(self.folder)
        head = read_head(self._head)
        if head is None and not elder and not self._active.exists():
            head = START
            replace_private(self._head, _head_text(START))
        end = self._end(_last_of(elder[-1]) if elder else START, head)
        if end.torn:
            os.truncate(self._active, end.size)
            self._log.warning("access_audit_torn", bytes=end.torn)
        if end.flaw:
            self._log.error("access_audit_broken", reason=end.flaw)
        own = [self._own(TORN, {"bytes": end.torn})] if end.torn else []
        own += [self._own(BROKEN, {"reason": end.flaw})] if end.flaw else []
        return end.link, end.size, own

    def _end(self, start: Link, head: Link | None) -> End:
        try:
            with self._active.open("rb") as file:
                end = end_of(raw_lines(file), start, head)
                file.seek(max(end.size - 1, 0))
                is_finished = end.size == 0 or file.read(1) == b"\n"
        except FileNotFoundError:
            return end_of((), start, head)
        if not is_finished:  # half a line that had been promised: it stays, on a line of its own
            self._write(b"\n", end.size)
            end = replace(end, size=end.size + 1)
        return end

    def _rotate(self) -> tuple[list[Path], list[Mapping[str, Any]]]:
        """Give the newest file its number; the eldest that make room, and the records that say so."""
        with self._active.open("rb") as file:
            first = read_line(next(raw_lines(file)).rstrip(b"\n"))["seq"]
        self._active.rename(self.folder / f"audit.{first:012d}.jsonl")
        sync_folder(self.folder)
        elder = elder_files(self.folder)
        gone, dropped = elder[: max(len(elder) - FILES_MAX, 0)], []
        for path, following in itertools.pairwise(elder[: len(gone) + 1]):
            with following.open("rb") as file:
                note = read_line(next(raw_lines(file)).rstrip(b"\n"))
            details = {"file": path.name, "seq": note["seq"] - 1, "sha256": note["prev"]}
            dropped.append(self._own(DROPPED, details))
        return gone, dropped

    def _write(self, data: bytes, size: int) -> int:
        """Write behind `size` bytes of the newest file and sync, or take it back; returns its inode."""
        is_new = not self._active.exists()
        handle = os.open(self._active, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            try:
                rest, place = memoryview(data), size
                while rest:
                    written = os.pwrite(handle, rest, place)
                    rest, place = rest[written:], place + written
                os.fsync(handle)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, size)
                raise
            if is_new:
                give_to_owner(self._active)
                sync_folder(self.folder)
            return os.fstat(handle).st_ino
        finally:
            os.close(handle)

    def _own(self, action: str, details: Mapping[str, Any]) -> Mapping[str, Any]:
        return note_of(AuditEntry(ACTOR, action, ACTIVE, "ok", details=details), self._clock.now_ns())


def elder_files(folder: Path) -> list[Path]:
    """Files that are full, eldest first."""
    return sorted(path for path in folder.iterdir() if _ELDER.fullmatch(path.name))


def raw_lines(file: IO[bytes], bytes_max: int | None = None) -> Iterator[bytes]:
    """Lines with their newline, up to so many bytes of the file; one that is too long comes in unreadable pieces."""
    left = bytes_max
    while left is None or left > 0:
        raw = file.readline(LINE_BYTES_MAX + 2 if left is None else min(LINE_BYTES_MAX + 2, left))
        if not raw:
            return
        left = None if left is None else left - len(raw)
        yield raw


def read_head(path: Path) -> Link | None:
    """The last place that was promised; None where the file is gone or says nothing."""
    try:
        with path.open("rb") as file:
            match = _HEAD.fullmatch(file.read(len(_head_text(START)) + 1))
    except FileNotFoundError:
        return None
    return None if match is None else Link(int(match[1]), match[2].decode("ascii"))


def write_head(path: Path, link: Link) -> None:
    """Promise a place: overwritten where it stands, in one sector.

    The lines are synced, this is not: a power cut may bring an older head back, and lines that follow it are kept.
    """
    is_new = not path.exists()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, MODE)
    try:
        os.pwrite(handle, _head_text(link), 0)
        if is_new:
            os.fsync(handle)
    finally:
        os.close(handle)
    if is_new:
        give_to_owner(path)
        sync_folder(path.parent)


def _head_text(link: Link) -> bytes:
    return f"{link.seq:020d} {link.sha256}\n".encode("ascii")


def _lines(notes: Iterable[Mapping[str, Any]], link: Link) -> tuple[list[bytes], Link]:
    lines = []
    for note in notes:
        line, link = line_of(note, link)
        lines.append(line)
    return lines, link


def _last_of(path: Path) -> Link:
    """Place of the last line of a full file."""
    link = Link(0, GENESIS)
    with path.open("rb") as file:
        for raw in raw_lines(file):
            link = reads_as(raw, link)[0]
    return link
