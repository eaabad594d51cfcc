"""Batches of a Python driver as the columns of wire.py, and commands out of such columns.

One row per tag: where a driver brings a tag more than once, its last row counts, since the others are older.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from framegate.carrier.child.abi import Cell
from framegate.carrier.child.wire import CELL_BYTES
from framegate.contract.command import Write
from framegate.contract.driver import BoundTag
from framegate.contract.frame import Batch, Kind, TagId, Value, ValueType
from framegate.contract.quality import is_bad

_CELL = {Kind.FLOAT: Cell.F64, Kind.INT: Cell.I64, Kind.UINT: Cell.U64, Kind.BOOL: Cell.BOOL}
_TYPE = {Kind.FLOAT: np.float64, Kind.INT: np.int64, Kind.UINT: np.uint64, Kind.BOOL: np.uint64}


def packed(batches: Sequence[Batch], tags: Mapping[TagId, BoundTag]) -> tuple[int, list[bytes]]:
    """How many rows, and their columns."""
    values, times, ids, qualities, kinds = [], [], [], [], []
    heap = bytearray()
    for batch in batches:
        rows = len(batch.tag)
        if batch.kind is Kind.OBJECT:
            value, kind = _texts(batch, tags, heap)
        else:
            value = batch.value.astype(_TYPE[batch.kind]).view(np.uint64)
            kind = np.full(rows, _CELL[batch.kind], np.uint8)
        values.append(value)
        kinds.append(kind)
        ids.append(batch.tag.astype(np.uint32))
        times.append(np.broadcast_to(batch.source_time, rows))
        qualities.append(np.broadcast_to(batch.quality, rows))
    if not ids:
        return 0, []
    tag = np.concatenate(ids)
    last = len(tag) - 1 - np.unique(tag[::-1], return_index=True)[1]
    kept = slice(None) if len(last) == len(tag) else np.sort(last)
    columns = [np.concatenate(column)[kept].tobytes() for column in (values, times, ids, qualities, kinds)]
    return len(last), [*columns, bytes(heap)]


def _texts(batch: Batch, tags: Mapping[TagId, BoundTag], heap: bytearray) -> tuple[Any, Any]:
    """Cells and kinds of a column of objects, whose bytes go to the heap."""
    cells = np.zeros(batch.rows, np.uint64)
    kinds = np.zeros(batch.rows, np.uint8)
    quality = np.broadcast_to(batch.quality, batch.rows).tolist()
    for row, (id_, value, status) in enumerate(zip(batch.tag.tolist(), batch.value.tolist(), quality, strict=True)):
        if is_bad(status):
            continue
        data = value if isinstance(value, bytes) else _text(value, tags[id_].type)
        kinds[row] = Cell.BYTES if isinstance(value, bytes) else Cell.STR
        cells[row] = len(heap) | len(data) << 32
        heap += data
    return cells, kinds


def _text(value: Value, type_: ValueType) -> bytes:
    if type_ is ValueType.JSON or not isinstance(value, str):
        return json.dumps(value, default=str).encode()
    return value.encode("utf-8", "replace")


def writes_in(rows: int, body: bytes, tags: Mapping[TagId, BoundTag], expires: float) -> list[Write]:
    """Commands that the gateway has packed; raises KeyError - a tag that no plan named."""
    heap = body[CELL_BYTES * rows :]
    ids = np.frombuffer(body, np.uint32, rows, 16 * rows).tolist()
    kinds = body[24 * rows : 25 * rows]
    writes = []
    for row, (id_, kind) in enumerate(zip(ids, kinds, strict=True)):
        cell = body[8 * row : 8 * row + 8]
        writes.append(Write(TagId(id_), _value(Cell(kind), cell, heap, tags[TagId(id_)].type), expires))
    return writes


def _value(kind: Cell, cell: bytes, heap: bytes, type_: ValueType) -> Value:
    if kind is Cell.F64:
        return float(np.frombuffer(cell, np.float64)[0])
    number = int.from_bytes(cell, "little")
    if kind is Cell.BOOL:
        return bool(number)
    if kind is Cell.U64:
        return number
    if kind is Cell.I64:
        return int.from_bytes(cell, "little", signed=True)
    data = heap[number & 0xFFFF_FFFF : (number & 0xFFFF_FFFF) + (number >> 32)]
    if kind is Cell.BYTES:
        return data
    value: Value = json.loads(data) if type_ is ValueType.JSON else data.decode()
    return value
