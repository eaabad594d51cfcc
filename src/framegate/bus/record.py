"""Records: one batch as one value of the store, under its first position as a big-endian u64 key. Pure.

    header   24 bytes: version, kind, flags, 0, rows u32, layout u32, quality u32, gateway time i64
    times    one source time i64, or one per row
    values   8 bytes a row; booleans as bits; objects as length u32 and objects.py's form
    quality  nothing when uniform; runs (count u32, then rows u32 and status u32 each); or u32 per row
    tags     nothing when a layout holds them; i32 per row when the layout is 0
    check    CRC32C over key and all of the above

All numbers are little-endian. Times come first so that eight-byte columns lie aligned. Which tag columns become a
layout is decided in layout.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import google_crc32c
import numpy as np

from framegate.bus.fault import RECORD
from framegate.bus.objects import pack_objects, unpack_objects
from framegate.contract.errors import FrameBroken
from framegate.contract.frame import (
    Batch,
    Int32Column,
    Int64Column,
    Placed,
    Position,
    UInt32Column,
    ValueColumn,
    uniform_quality,
)

RECORD_ROWS_MAX = 4096  # longer batches are split before they are placed
KEY_BYTES = 8
VERSION = 1
_HEADER = struct.Struct("<BBBBIIIq")
_RUN_ROWS_WORTH = 4  # a run costs two words, so runs pay when there are fewer than rows / 4
_NUMBERS = {"d": 1, "l": 2, "L": 3, "?": 4, "O": 5}
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f8"), 2: np.dtype("<i8"), 3: np.dtype("<u8")}
_BOOL, _OBJECT = 4, 5
_QUALITY_RUNS, _QUALITY_FULL, _TIME_FULL = 1, 2, 4
_UNIFORM_LENGTH = 1


def key_of(position: int) -> bytes:
    """Key of the record that begins at a position; keys sort as positions do."""
    return position.to_bytes(KEY_BYTES, "big")


def position_of(key: bytes) -> Position:
    return Position(int.from_bytes(key, "big"))


def encode(key: bytes, batch: Batch, layout: int) -> bytes:
    """The record of a batch; `layout` 0 writes its tags into the record. Raises TypeError for a foreign object."""
    value, quality, time = batch.value, batch.quality, batch.source_time
    number = _NUMBERS[value.dtype.char]
    if number < _BOOL:
        columns = value.tobytes()
    elif number == _BOOL:
        columns = np.packbits(value.view(np.bool_)).tobytes()
    else:
        content = pack_objects(value.tolist())
        columns = len(content).to_bytes(4, "little") + content
    flags, status, statuses = 0, 0, b""
    if len(quality) == _UNIFORM_LENGTH:
        status = quality.item(0)
    else:
        flags, statuses = _quality_bytes(quality)
    if len(time) != _UNIFORM_LENGTH:
        flags |= _TIME_FULL
    header = _HEADER.pack(VERSION, number, flags, 0, len(batch.tag), layout, status, batch.gateway_time)
    tags = b"" if layout else batch.tag.tobytes()
    data = b"".join((key, header, time.tobytes(), columns, statuses, tags))
    check: int = google_crc32c.value(data)
    return data[KEY_BYTES:] + check.to_bytes(4, "little")


def decode(key: bytes, data: bytes, layout: Callable[[int], Int32Column]) -> Placed:
    """The batch of a record, its columns as views into `data`.

    layout  the tag column of a layout's number; raises FrameBroken for one that does not exist
    raises  FrameBroken E3010 - check sum, length or a value is wrong
    """
    if google_crc32c.value(key + data[:-4]) != int.from_bytes(data[-4:], "little") or len(key) != KEY_BYTES:
        raise FrameBroken(f"record {key.hex()}: its check sum is wrong", code=RECORD)
    try:
        return Placed(position_of(key), _batch(data, layout))
    except (struct.error, ValueError, KeyError) as error:
        raise FrameBroken(f"record {key.hex()}: {error}", code=RECORD) from error


def _batch(data: bytes, layout: Callable[[int], Int32Column]) -> Batch:
    version, number, flags, _, rows, layout_number, status, gateway_time = _HEADER.unpack_from(data)
    if version != VERSION or not 0 < rows <= RECORD_ROWS_MAX:
        raise ValueError(f"version {version}, {rows} rows")
    offset = _HEADER.size
    times = rows if flags & _TIME_FULL else 1
    time: Int64Column = np.frombuffer(data, "<i8", times, offset)
    value, offset = _value(data, offset + 8 * times, number, rows)
    quality, offset = _quality(data, offset, flags, rows, status)
    if layout_number:
        tag = layout(layout_number)
    else:
        tag = np.frombuffer(data, "<i4", rows, offset)
        offset += 4 * rows
    if len(tag) != rows or offset != len(data) - 4:
        raise ValueError("columns differ in length")
    return Batch(tag, value, quality, time, gateway_time)


def _value(data: bytes, offset: int, number: int, rows: int) -> tuple[ValueColumn, int]:
    if number < _BOOL:
        return np.frombuffer(data, _DTYPES[number], rows, offset), offset + 8 * rows
    if number == _BOOL:
        size = (rows + 7) // 8
        bits = np.unpackbits(np.frombuffer(data, np.uint8, size, offset), count=rows).view(np.bool_)
        bits.flags.writeable = False
        return bits, offset + size
    if number != _OBJECT:
        raise ValueError(f"kind {number}")
    size = int.from_bytes(data[offset : offset + 4], "little")
    column = np.empty(rows, dtype=np.object_)
    for row, item in enumerate(unpack_objects(data[offset + 4 : offset + 4 + size], rows)):
        column[row] = item  # one by one: numpy would take lists apart
    column.flags.writeable = False
    return column, offset + 4 + size


def _quality_bytes(quality: UInt32Column) -> tuple[int, bytes]:
    """Flag and bytes of a quality column that is not declared uniform: runs, or all of it."""
    starts = np.flatnonzero(quality[1:] != quality[:-1]) + 1
    if len(starts) >= len(quality) // _RUN_ROWS_WORTH:
        return _QUALITY_FULL, quality.tobytes()
    bounds = np.concatenate(([0], starts, [len(quality)]))
    runs = np.empty((len(starts) + 1, 2), dtype="<u4")
    runs[:, 0] = np.diff(bounds)
    runs[:, 1] = quality[bounds[:-1]]
    return _QUALITY_RUNS, len(runs).to_bytes(4, "little") + runs.tobytes()


def _quality(data: bytes, offset: int, flags: int, rows: int, status: int) -> tuple[UInt32Column, int]:
    if flags & _QUALITY_FULL:
        return np.frombuffer(data, "<u4", rows, offset), offset + 4 * rows
    if not flags & _QUALITY_RUNS:
        return uniform_quality(status), offset
    count = int.from_bytes(data[offset : offset + 4], "little")
    runs = np.frombuffer(data, "<u4", 2 * count, offset + 4).reshape(count, 2)
    if int(runs[:, 0].sum(dtype=np.uint64)) != rows:
        raise ValueError("runs of quality do not add up")
    quality: UInt32Column = np.repeat(runs[:, 1], runs[:, 0])
    quality.flags.writeable = False
    return quality, offset + 4 + 8 * count
