"""Values of the component model as wasmtime's C API has them, for the few types of contract/driver.wit.

A list is an array of values of 32 bytes or so, each with its kind: numpy writes and reads a whole list at once, which
the library does element by element in Python. Functions named `..._in` read a value and leave it to its owner; the
others make one, and whoever is given it deletes it.

Source: wasmtime 50, component/val.h of its C API.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import byref, c_void_p, cast, sizeof, string_at
from typing import Any

import numpy as np
from wasmtime import _ffi as ffi

from framegate.carrier.wasm.world import CELL_BYTES, Column, Errc, Rows

Value = ffi.wasmtime_component_val_t
_AT = Value.of.offset
CASES = ("reals", "ints", "uints", "bools", "texts", "blobs")
ERRC = ("timeout", "closed", "refused", "invalid", "unsupported", "internal", "cancelled", "not-sent", "busy")
_KINDS = {"<u1": ffi.WASMTIME_COMPONENT_U8, "<u4": ffi.WASMTIME_COMPONENT_U32, "<i8": ffi.WASMTIME_COMPONENT_S64,
          "<u8": ffi.WASMTIME_COMPONENT_U64, "<f8": ffi.WASMTIME_COMPONENT_F64}  # fmt: skip
_CELLS = {
    code: np.dtype({"names": ["kind", "of"], "formats": ["u1", code], "offsets": [0, _AT], "itemsize": sizeof(Value)})
    for code in _KINDS
}
_OF_COLUMN = {Column.REALS: "<f8", Column.INTS: "<i8", Column.UINTS: "<u8", Column.BOOLS: "<u1"}


def u32(number: int) -> Any:
    value = Value()
    value.kind, value.of.u32 = ffi.WASMTIME_COMPONENT_U32, number
    return value


def text(data: bytes) -> Any:
    value = Value()
    value.kind, value.of.string = ffi.WASMTIME_COMPONENT_STRING, ffi.bytes_to_capi(data)
    return value


def errc(error: Errc) -> Any:
    value = Value()
    value.kind = ffi.WASMTIME_COMPONENT_ENUM
    value.of.enumeration = ffi.str_to_capi(ERRC[error])
    return value


def numbers(data: bytes, code: str) -> Any:
    """A list of numbers."""
    value, listing = Value(), ffi.wasmtime_component_vallist_t()
    cells = np.frombuffer(data, code)
    ffi.wasmtime_component_vallist_new_uninit(byref(listing), len(cells))
    if len(cells):
        room = (ctypes.c_char * (len(cells) * sizeof(Value))).from_address(cast(listing.data, c_void_p).value or 0)
        view = np.ndarray((len(cells),), _CELLS[code], memoryview(room).cast("B"))
        view["kind"], view["of"] = _KINDS[code].value, cells
    value.kind, value.of.list = ffi.WASMTIME_COMPONENT_LIST, listing
    return value


def _list(cells: Sequence[bytes], make: Callable[[bytes], Any]) -> Any:
    """A list of texts or blobs."""
    value, listing = Value(), ffi.wasmtime_component_vallist_t()
    ffi.wasmtime_component_vallist_new_uninit(byref(listing), len(cells))
    for place, cell in enumerate(cells):
        listing.data[place] = make(cell)
    value.kind, value.of.list = ffi.WASMTIME_COMPONENT_LIST, listing
    return value


def batch(rows: Rows) -> Any:
    """A batch as arguments of `write` hold it."""
    if isinstance(rows.value, bytes):
        cells = numbers(rows.value, _OF_COLUMN[rows.column])
    else:
        cells = _list(rows.value, text if rows.column is Column.TEXTS else lambda cell: numbers(cell, "<u1"))
    column = Value()
    column.kind = ffi.WASMTIME_COMPONENT_VARIANT
    column.of.variant.discriminant = ffi.str_to_capi(CASES[rows.column])
    column.of.variant.val = ffi.wasmtime_component_val_new(byref(cells))
    fields = (
        ("tag", numbers(rows.tag, "<u4")),
        ("ts-ns", numbers(rows.ts_ns, "<i8")),
        ("quality", numbers(rows.quality, "<u4")),
        ("value", column),
    )
    value, record = Value(), ffi.wasmtime_component_valrecord_t()
    ffi.wasmtime_component_valrecord_new_uninit(byref(record), len(fields))
    for place, (name, field) in enumerate(fields):
        record.data[place].name, record.data[place].val = ffi.str_to_capi(name), field
    value.kind, value.of.record = ffi.WASMTIME_COMPONENT_RECORD, record
    return value


def set_result(result: Any, payload: Any | None, *, is_ok: bool) -> None:
    result[0].kind, result[0].of.result.is_ok = ffi.WASMTIME_COMPONENT_RESULT, is_ok
    result[0].of.result.val = None if payload is None else ffi.wasmtime_component_val_new(byref(payload))


def rows_in(value: Any) -> Rows:
    """A batch that a guest has emitted."""
    entries = value.of.record.data
    variant = entries[3].val.of.variant
    column = Column(CASES.index(string_at(variant.discriminant.data, variant.discriminant.size).decode()))
    cells = variant.val.contents
    if column in CELL_BYTES:
        data: bytes | Sequence[bytes] = numbers_in(cells, _OF_COLUMN[column])
    else:
        read = text_in if column is Column.TEXTS else _blob_in
        data = [read(cells.of.list.data[place]) for place in range(cells.of.list.size)]
    columns = [numbers_in(entries[place].val, code) for place, code in enumerate(("<u4", "<i8", "<u4"))]
    return Rows(columns[0], columns[1], columns[2], column, data)


def numbers_in(value: Any, code: str) -> bytes:
    """The cells of a list, without a gap."""
    listing = value.of.list
    if not listing.size:
        return b""
    raw = string_at(listing.data, listing.size * sizeof(Value))
    return np.frombuffer(raw, _CELLS[code])["of"].tobytes()


def _blob_in(value: Any) -> bytes:
    return numbers_in(value, "<u1")


def text_in(value: Any) -> bytes:
    """Of a text."""
    return string_at(value.of.string.data, value.of.string.size)


def errc_in(answer: Any) -> Errc:
    name = answer.of.result.val.contents.of.enumeration
    return Errc(ERRC.index(string_at(name.data, name.size).decode()))
