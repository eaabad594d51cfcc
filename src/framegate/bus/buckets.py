"""Buckets: the frames lie in a row of RocksDB families, one after the other by position, so that deleting costs
nothing.

A bucket whose rows are no longer wanted is dropped as a whole: its files go at once, without a compaction, which
would rewrite what is kept and needs room that a full disk does not have. New rows go into the newest bucket; once
that has had its share the next one, prepared beforehand by the log's thread, takes over. Names count up; where a
bucket begins is read from its first key.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rocksdict import ColumnFamily, Options, Rdict

from framegate.bus.tuning import BUCKET_PREFIX, END_KEY

EMPTY = END_KEY  # sorts behind every key: a bucket without rows is the last


class Bucket(NamedTuple):
    """first: key of its first row, or EMPTY"""

    first: bytes
    name: str
    rows: Rdict
    handle: ColumnFamily


class Buckets:
    """The families that hold the frames of one open store. Raises what rocksdict raises."""

    def __init__(self, db: Rdict, names: Iterable[str], options: Options, bucket_bytes: int) -> None:
        self._db, self._options, self._bucket_bytes = db, options, bucket_bytes
        found = [self._opened(name) for name in sorted(names)]
        self._used = [bucket for bucket in found if bucket.first != EMPTY]
        self._spare = next((bucket for bucket in found if bucket.first == EMPTY), None)
        self._last = max((int(bucket.name.removeprefix(BUCKET_PREFIX)) for bucket in found), default=0)
        self._bytes = bucket_bytes // 2 if self._used else 0  # how full the newest is was not remembered
        self._retired: Bucket | None = None

    @property
    def is_without(self) -> bool:
        """Nowhere to put a row: the store is new."""
        return not self._used and self._spare is None

    @property
    def is_spare_due(self) -> bool:
        return self._spare is None and (not self._used or self._bytes > self._bucket_bytes // 2)

    def handle_for(self, key: bytes) -> ColumnFamily:
        """Family of a row's key; rows arrive in order, or again after a repair."""
        used = self._used
        if used and key < used[-1].first:
            return self._at(key).handle
        if self._spare is not None and (not used or self._bytes > self._bucket_bytes):
            if used:
                self._retired = used[-1]
            used.append(self._spare._replace(first=key))
            self._spare, self._bytes = None, 0
        return used[-1].handle

    def is_newest(self, handle: ColumnFamily) -> bool:
        """Whether every row from here on belongs to this family, until it has had its share."""
        return handle is self._used[-1].handle

    def grow(self, size: int) -> None:
        """So many bytes were written."""
        self._bytes += size

    def prepare(self) -> None:
        """Make a spare bucket when one will soon be needed, and have the one that was left written out. May block."""
        retired, self._retired = self._retired, None
        if retired is not None:
            retired.rows.flush(False)  # else RocksDB keeps its log for these rows
        if self.is_spare_due:
            self._last += 1
            name = f"{BUCKET_PREFIX}{self._last:010d}"
            self._db.create_column_family(name, self._options)
            bucket = self._opened(name)
            bucket.rows.put(END_KEY, b"")  # a file of its own: a repair forgets families without one
            bucket.rows.flush()
            self._spare = bucket

    def drop_below(self, stop: bytes) -> None:
        """Let every bucket go whose rows all lie below a key; the newest stays."""
        while len(self._used) > 1 and self._used[1].first <= stop:
            name = self._used.pop(0).name  # no reader may hold it: its files go when the last one lets go
            self._db.drop_column_family(name)

    def between(self, start: bytes, stop: bytes) -> Iterator[Rdict]:
        """The families that may hold keys from start up to stop, in order."""
        index = max(0, bisect_right(self._used, start, key=_first) - 1)
        for bucket in self._used[index:]:
            if bucket.first < stop:
                yield bucket.rows

    def _at(self, key: bytes) -> Bucket:
        return self._used[max(0, bisect_right(self._used, key, key=_first) - 1)]

    def _opened(self, name: str) -> Bucket:
        rows = self._db.get_column_family(name)
        entries = rows.iter()
        entries.seek(b"")
        first = entries.key() if entries.valid() else EMPTY
        entries.status()
        return Bucket(first, name, rows, self._db.get_column_family_handle(name))


def _first(bucket: Bucket) -> bytes:
    return bucket.first
