"""RocksDB's own log file, as far as damage to it has to be known. Pure: bytes in, places out.

Records lie in blocks of 32 KiB and never span two. A damaged byte can turn a record's type into one of a recycled log,
which this store never writes; RocksDB 9 and 10 then read that place for ever, in every recovery mode. With a plain type
in its place the check sum is wrong, which RocksDB notices and steps over.

Source: RocksDB, db/log_format.h and log::Reader::ReadPhysicalRecord.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

BLOCK_BYTES = 32 << 10
_HEADER = struct.Struct("<IHB")  # check sum, length, type
_TYPE_AT = 6
_PLAIN = 1
_RECYCLED = frozenset((5, 6, 7, 8, 11))


def endless_records(content: bytes | bytearray) -> Iterator[int]:
    """Offsets of the type bytes at which RocksDB would read for ever."""
    unpack, header_bytes = _HEADER.unpack_from, _HEADER.size
    for block in range(0, len(content), BLOCK_BYTES):
        at, end = block, min(block + BLOCK_BYTES, len(content))
        while at + header_bytes <= end:
            _, size, kind = unpack(content, at)
            if kind in _RECYCLED:
                yield at + _TYPE_AT
            at += header_bytes + size


def disarmed(content: bytes) -> bytes:
    """The same log with those records as plainly broken ones."""
    copy = bytearray(content)
    for at in endless_records(content):
        copy[at] = _PLAIN
    return bytes(copy)
