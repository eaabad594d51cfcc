"""RocksDB as the Disk of the durable log.

A write never syncs and never waits: a stall is an error to try again. rocksdict holds the GIL in write and get, and
lets it go in flush_wal and compact_range; those two belong into a thread. An iterator ends without a word at
damage, so its status is asked after every scan; a live one keeps the store's lock, so none outlives its scan.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from rocksdict import AccessType, ColumnFamily, DBRecoveryMode, Rdict, ReadOptions, WriteBatch, WriteOptions

from framegate.bus.buckets import Buckets
from framegate.bus.fault import CLOSED, DAMAGED, FORMAT, FULL, IO, STALLED, TAKEN, UNWRITABLE
from framegate.bus.tuning import (
    BUCKET_PREFIX,
    END_KEY,
    SMALL_FAMILIES,
    bucket_options,
    family_options,
    store_options,
)
from framegate.contract.errors import StoreFailed
from framegate.contract.ports import Change, Family

# Texts of RocksDB, in the order in which they are looked for; each names one way to go on.
_SIGNS = (
    ("Write stall", STALLED),
    ("No space left", FULL),
    ("Disk quota exceeded", FULL),
    ("LOCK: ", TAKEN),
    ("Permission denied", UNWRITABLE),
    ("Read-only file system", UNWRITABLE),
    ("Column families not opened", FORMAT),
    ("Corruption", DAMAGED),
    ("No such file", DAMAGED),
    ("does not exist", DAMAGED),
    ("Invalid argument", DAMAGED),
)
_NEXT_STEP = {
    STALLED: "the log tries again",
    FULL: "free space on this file system",
    TAKEN: "stop the other process; one data folder belongs to one gateway",
    UNWRITABLE: "give the gateway's user the folder and its files",
    FORMAT: "a newer release wrote it; start that release",
    DAMAGED: "run `edge wal verify` and check the disk",
    IO: "check the disk's health",
}


def fault_of(text: str, path: Path) -> StoreFailed:
    """What a text of RocksDB means for the log."""
    code = next((code for sign, code in _SIGNS if sign in text), IO)
    return StoreFailed(f"durable log {path}: {text}; {_NEXT_STEP[code]}", code=code)


class _Open(NamedTuple):
    """The handles of an open store; forgotten as one, or RocksDB keeps its lock."""

    db: Rdict
    families: Mapping[str, Rdict]
    handles: Mapping[str, ColumnFamily]
    frames: Buckets

    def small(self, family: Family) -> Sequence[Rdict]:
        """The rows of a small family; none in a store of an earlier release that was opened to read only."""
        return [self.families[family]] if family in self.families else []


class RocksDisk:
    """Satisfies contract.ports.Disk; raises StoreFailed with the codes of fault.py.

    bucket_bytes  rows that are deleted as one, see buckets.py
    access        read-write, or read-only beside a running gateway: what it had written when this was opened
    recovery      mode for a damaged store; the default refuses to open one
    log_folder    where RocksDB's information log goes when it must not go into the store
    """

    def __init__(
        self,
        path: Path,
        write_buffer_bytes: int = 8 << 20,
        bucket_bytes: int = 64 << 20,
        *,
        create: bool = False,
        access: AccessType | None = None,
        recovery: DBRecoveryMode | None = None,
        log_folder: str = "",
    ) -> None:
        self.path = path
        self._write_buffer_bytes, self._bucket_bytes = write_buffer_bytes, bucket_bytes
        self._create, self._access = create, access
        self._recovery, self._log_folder = recovery, log_folder
        self._no_slowdown = WriteOptions()
        self._no_slowdown.no_slowdown = True
        self._open: _Open | None = None
        self.open()

    def open(self) -> None:
        """Open, also again after close()."""
        buffer = self._write_buffer_bytes
        options = store_options(buffer, create=self._create, recovery=self._recovery, log_folder=self._log_folder)
        path = str(self.path)
        try:
            families = family_options(path, buffer, is_read_only=self._access is not None)
            db = Rdict(path, options, families, self._access or AccessType.read_write())
            buckets = [name for name in families if name.startswith(BUCKET_PREFIX)]
            self._open = _Open(
                db,
                {family: db.get_column_family(family) for family in SMALL_FAMILIES if family in families},
                {family: db.get_column_family_handle(family) for family in SMALL_FAMILIES if family in families},
                Buckets(db, buckets, bucket_options(buffer), self._bucket_bytes),
            )
            if self._access is None:
                self._found(self._open)
        except Exception as error:  # noqa: BLE001 - rocksdict raises bare Exception
            self._refuse(error)

    def _found(self, store: _Open) -> None:
        """Give each new family a file: a repair forgets those without, with their rows in the log."""
        for family in store.families.values():
            if family.get(END_KEY) is None:
                family.put(END_KEY, b"")
                family.flush()
        if store.frames.is_without:
            store.frames.prepare()

    def write(self, changes: Sequence[Change]) -> None:
        """Apply all changes or none; they survive a process crash now, a power cut after the next sync()."""
        store = self._opened()
        batch = WriteBatch(raw_mode=True)  # a batch is used up even by a write that fails
        put, handles, frames = batch.put, store.handles, store.frames
        bucket: ColumnFamily | None = None  # rows of one write lie in one bucket, unless they are written again
        for family, key, value in changes:
            if family == "frames":
                handle = bucket or frames.handle_for(key)
                if bucket is None and frames.is_newest(handle):
                    bucket = handle
            else:
                handle = handles[family]
            if value is None:
                batch.delete(key, handle)
            else:
                put(key, value, handle)
        frames.grow(batch.size_in_bytes())
        try:
            store.db.write(batch, self._no_slowdown)
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(error)

    def sync(self) -> None:
        """Everything written before the call survives a power cut when it returns."""
        store = self._opened()
        try:
            store.db.flush_wal(True)
            if store.frames.is_spare_due:
                store.frames.prepare()
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(error)

    def get(self, family: Family, key: bytes) -> bytes | None:
        assert family != "frames", "rows are scanned, never looked up"
        store = self._opened()
        try:
            value: bytes | None = store.families[family].get(key)
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(error)
        return value

    def scan(self, family: Family, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < stop, in key order. A damaged store raises instead of ending early."""
        store = self._opened()
        stop = stop or END_KEY
        for rows in store.frames.between(start, stop) if family == "frames" else store.small(family):
            options = ReadOptions()
            options.set_iterate_upper_bound(min(stop, END_KEY))
            entries = rows.iter(options)
            try:
                entries.seek(start)
                while entries.valid():
                    yield entries.key(), entries.value()
                    entries.next()
                entries.status()
            except Exception as error:  # noqa: BLE001 - as above
                self._refuse(error)
            finally:
                del entries

    def drop_range(self, family: Family, start: bytes, stop: bytes) -> None:
        """Delete start <= key < stop and give the space back.

        Of the frames whole buckets go, from the oldest on; rows below `stop` in the bucket at its edge go with that.
        """
        store = self._opened()
        try:
            if family == "frames":
                store.frames.drop_below(stop)
            else:
                store.families[family].delete_range(start, stop, self._no_slowdown)
                store.families[family].compact_range(start, stop)  # the deletion alone frees nothing
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(error)

    def bytes_used(self) -> int:
        total = 0
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    # RocksDB reserves room ahead of its log: blocks count, not the length.
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:  # a file was deleted between listing and asking
            pass
        except OSError as error:
            self._refuse(error)
        return total

    def bytes_free(self) -> int:
        """Space the file system still offers."""
        try:
            status = os.statvfs(self.path)
        except OSError as error:
            self._refuse(error)
        return status.f_bavail * status.f_frsize

    def close(self) -> None:
        """Idempotent; raises nothing, as nothing could be done about it."""
        store, self._open = self._open, None
        if store is not None:
            with contextlib.suppress(Exception):  # rocksdict raises bare Exception; what counts was synced before
                store.db.close()

    def _opened(self) -> _Open:
        if self._open is None:
            raise StoreFailed("durable log: it is closed or being reopened; try again", code=CLOSED)
        return self._open

    def _refuse(self, error: Exception) -> NoReturn:
        raise fault_of(str(error), self.path) from error
