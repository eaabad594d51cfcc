"""The high-water mark: what the store must at least hold, in a small file outside it.

It tells a store that lost its newest records from one that never had them (I6), and it holds the cursors a second
time, so that a damaged store never turns a connector into a new one. There are two slots, each with its own CRC, and
a write never touches the one that was synced last: however many were torn by a power cut, it is left. The mark is
written after each sync of the store, so a process crash finds it exact, a power cut at most SYNC_INTERVAL_S old, and
never ahead of the store.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import google_crc32c
import orjson

from framegate.bus.fault import IO, UNWRITABLE
from framegate.bus.mark import NO_MARK, HighWaterMark
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Position
from framegate.endpoint.durable import sync_folder

SYNC_INTERVAL_S = 1.0
SLOT_BYTES = 256 << 10  # room for the cursors of a thousand connectors
_HEADER = struct.Struct("<8sQQQQI")
_MAGIC = b"FGMARK1\n"
_CHECK_BYTES = 4


class HighWaterFile:
    """The file, open for as long as the store is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        is_new = not path.exists()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            if is_new:
                os.posix_fallocate(self._file, 0, 2 * SLOT_BYTES)  # a later write must not need room
                os.fsync(self._file)
                sync_folder(path.parent)
            else:
                os.fdatasync(self._file)  # a process that was killed leaves what no sync has covered
        except OSError as error:
            text = f"durable log {path}: {error.strerror}; give the gateway's user the folder, its files, and room"
            raise StoreFailed(text, code=UNWRITABLE) from error
        self._sequence, self.mark, newest = _read(self._file)
        self._slot = 1 - newest  # written next; the other one is synced
        self._synced_at = float("-inf")

    def write(self, mark: HighWaterMark, *, force: bool = False) -> None:
        """Survives the process at once and a power cut within a second; at once with `force`."""
        self._sequence += 1
        body = orjson.dumps(mark.cursors)
        header = _HEADER.pack(_MAGIC, self._sequence, mark.position, mark.tags, mark.trim, len(body))
        check: int = google_crc32c.value(header + body)
        slot = header + body + check.to_bytes(_CHECK_BYTES, "little")
        assert len(slot) <= SLOT_BYTES
        now = time.monotonic()
        try:
            os.pwrite(self._file, slot, self._slot * SLOT_BYTES)
            if force or now - self._synced_at >= SYNC_INTERVAL_S:
                os.fdatasync(self._file)
                self._synced_at, self._slot = now, 1 - self._slot
        except OSError as error:
            raise StoreFailed(f"durable log {self._path}: {error.strerror}; check the disk", code=IO) from error
        self.mark = mark

    def close(self) -> None:
        os.close(self._file)


def read_mark(path: Path) -> HighWaterMark:
    """The mark of a store that another process may have open."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return NO_MARK
    try:
        return read_mark_at(file)
    finally:
        os.close(file)


def read_mark_at(file: int) -> HighWaterMark:
    """The mark in an open file."""
    return _read(file)[1]


def _read(file: int) -> tuple[int, HighWaterMark, int]:
    """Sequence, mark and number of the newest whole slot."""
    newest = (0, NO_MARK, 1)
    for number in (0, 1):
        offset = number * SLOT_BYTES
        header = os.pread(file, _HEADER.size, offset)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            continue
        _, sequence, position, tags, trim, size = _HEADER.unpack(header)
        rest = os.pread(file, min(size, SLOT_BYTES) + _CHECK_BYTES, offset + _HEADER.size)
        body = rest[:-_CHECK_BYTES]
        is_whole = google_crc32c.value(header + body) == int.from_bytes(rest[-_CHECK_BYTES:], "little")
        cursors = _cursors(body) if is_whole and sequence > newest[0] else None
        if cursors is not None:
            newest = (sequence, HighWaterMark(Position(position), tags, Position(trim), cursors), number)
    return newest


def _cursors(body: bytes) -> dict[str, Position] | None:
    """Cursors of a slot; None where they are not as they were written."""
    try:
        cursors = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(cursors, dict) or not all(isinstance(place, int) for place in cursors.values()):
        return None
    return cursors
