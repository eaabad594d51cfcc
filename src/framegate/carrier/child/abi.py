"""contract/driver.h as ctypes sees it: structures, the library, and what a host offers a driver.

Only the standard library is used here: the process of a native driver has nothing else.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int32, c_int64, c_uint8, c_uint32, c_uint64, c_void_p
from enum import IntEnum, unique
from typing import Any, Protocol

DRIVER_API = 1
TEXT_BYTES_MAX = 4_096
"""Of a reason that create, plan or connect write."""


@unique
class Status(IntEnum):
    """What a call came to; see the header for their meanings."""

    OK = 0
    TIMEOUT = -1
    CLOSED = -2
    REFUSED = -3
    INVALID = -4
    UNSUPPORTED = -5
    INTERNAL = -6
    CANCELLED = -7
    NOT_SENT = -8
    BUSY = -9


@unique
class Cell(IntEnum):
    """What a cell holds."""

    NULL = 0
    BOOL = 1
    I64 = 2
    U64 = 3
    F64 = 4
    STR = 5
    BYTES = 6


class BatchStruct(ctypes.Structure):
    """edge_batch"""

    _fields_ = (
        ("size", c_uint32), ("cap", c_uint32), ("n", c_uint32), ("heap_cap", c_uint32), ("heap_len", c_uint32),
        ("flags", c_uint32), ("tag", c_void_p), ("ts_ns", c_void_p), ("value", c_void_p), ("kind", c_void_p),
        ("quality", c_void_p), ("heap", c_void_p),
    )  # fmt: skip


SEND = CFUNCTYPE(c_int32, c_void_p, c_uint32, c_void_p, c_uint32)
RECV = CFUNCTYPE(c_int32, c_void_p, c_uint32, c_void_p, c_uint32, c_uint32)
LOG = CFUNCTYPE(None, c_void_p, c_int32, c_void_p, c_uint32)
NOW = CFUNCTYPE(c_int64, c_void_p)
CANCELLED = CFUNCTYPE(c_int32, c_void_p)


class HostStruct(ctypes.Structure):
    """edge_host"""

    _fields_ = (
        ("size", c_uint32), ("api", c_uint32), ("ctx", c_void_p), ("send", SEND), ("recv", RECV), ("log", LOG),
        ("now_ns", NOW), ("cancelled", CANCELLED),
    )  # fmt: skip


_CREATE = CFUNCTYPE(c_int32, c_void_p, c_char_p, c_uint32, POINTER(c_void_p), c_void_p, c_uint32)
_PLAN = CFUNCTYPE(c_int32, c_void_p, c_uint32, c_char_p, c_uint32, c_void_p, c_uint32)
_CONNECT = CFUNCTYPE(c_int32, c_void_p, c_uint32, c_void_p, c_uint32)
_POLL = CFUNCTYPE(c_int32, c_void_p, c_uint32, c_void_p, c_uint32)
_WRITE = CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p, c_uint32)
_LEAVE = CFUNCTYPE(None, c_void_p)


class VtableStruct(ctypes.Structure):
    """edge_vtable"""

    _fields_ = (
        ("size", c_uint32), ("api", c_uint32), ("meta_json", c_char_p), ("create", _CREATE), ("plan", _PLAN),
        ("connect", _CONNECT), ("poll", _POLL), ("write", _WRITE), ("disconnect", _LEAVE), ("destroy", _LEAVE),
    )  # fmt: skip


class Offers(Protocol):
    """What a host offers; statuses and byte counts as in the header."""

    def send(self, channel: int, address: int, size: int) -> int: ...
    def recv(self, channel: int, address: int, capacity: int, timeout_ms: int) -> int: ...
    def log(self, level: int, text: bytes) -> None: ...
    def now_ns(self) -> int: ...
    def is_cancelled(self) -> bool: ...


class LibraryRefused(Exception):
    """The library cannot be loaded, or is none of ours."""


class Library:
    """A loaded driver library and its table of calls."""

    def __init__(self, path: str, loaded: Callable[[], None]) -> None:
        """Load it; `loaded` is called between loading it and the first call into it.

        raises LibraryRefused - in words
        """
        try:
            self._dll = ctypes.CDLL(path)
        except OSError as error:
            raise LibraryRefused(f"cannot be loaded ({str(error).partition(': ')[2] or error})") from error
        loaded()
        try:
            entry: Any = self._dll.edge_driver_entry
        except AttributeError as error:
            raise LibraryRefused("has no function edge_driver_entry") from error
        entry.argtypes, entry.restype = (c_uint32,), POINTER(VtableStruct)
        table = entry(DRIVER_API)
        if not table:
            raise LibraryRefused(f"refuses a host of driver_api {DRIVER_API}")
        self.table = table.contents
        if self.table.size < ctypes.sizeof(VtableStruct) or self.table.api != DRIVER_API:
            raise LibraryRefused(
                f"gave a table of {self.table.size} bytes for driver_api {self.table.api}; this host wants "
                f"{ctypes.sizeof(VtableStruct)} bytes and {DRIVER_API}"
            )
        missing = [name for name, kind in VtableStruct._fields_[3:] if not getattr(self.table, name)]
        if missing:
            raise LibraryRefused(f"gave a table without {', '.join(missing)}")


def host_struct(offers: Offers) -> HostStruct:
    """The table of what a host offers; keep it as long as a driver may call."""

    def log(_: object, level: int, text: int | None, size: int) -> None:
        offers.log(level, ctypes.string_at(text, min(size, TEXT_BYTES_MAX)) if text else b"")

    host = HostStruct(size=ctypes.sizeof(HostStruct), api=DRIVER_API)
    host.send = SEND(lambda _, channel, data, size: offers.send(channel, data or 0, size))
    host.recv = RECV(lambda _, channel, data, room, timeout: offers.recv(channel, data or 0, room, timeout))
    host.log = LOG(log)
    host.now_ns = NOW(lambda _: offers.now_ns())
    host.cancelled = CANCELLED(lambda _: int(offers.is_cancelled()))
    return host


class Columns:
    """Columns of a batch that a driver fills or reads, with room for so many rows and bytes of text."""

    def __init__(self, capacity: int, heap_bytes: int) -> None:
        self.capacity = capacity
        self.value = (c_uint64 * capacity)()
        self.time = (c_int64 * capacity)()
        self.tag = (c_uint32 * capacity)()
        self.quality = (c_uint32 * capacity)()
        self.kind = (c_uint8 * capacity)()
        self.heap = (c_uint8 * max(1, heap_bytes))()
        self.struct = BatchStruct(
            size=ctypes.sizeof(BatchStruct), cap=capacity, heap_cap=heap_bytes,
            tag=ctypes.addressof(self.tag), ts_ns=ctypes.addressof(self.time), value=ctypes.addressof(self.value),
            kind=ctypes.addressof(self.kind), quality=ctypes.addressof(self.quality),
            heap=ctypes.addressof(self.heap),
        )  # fmt: skip
        self._views = (
            (memoryview(self.value).cast("B"), 8), (memoryview(self.time).cast("B"), 8),
            (memoryview(self.tag).cast("B"), 4), (memoryview(self.quality).cast("B"), 4),
            (memoryview(self.kind).cast("B"), 1),
        )  # fmt: skip
        self._heap = memoryview(self.heap).cast("B")

    def begin(self) -> None:
        """No rows."""
        self.struct.n = self.struct.heap_len = self.struct.flags = 0

    @property
    def rows(self) -> int:
        """Rows that the driver says it has filled, at most as many as there is room for."""
        return min(int(self.struct.n), self.capacity)

    def packed(self) -> list[memoryview]:
        """The columns of those rows one behind the other, and their texts."""
        rows, heap_bytes = self.rows, min(int(self.struct.heap_len), len(self._heap))
        return [view[: rows * width] for view, width in self._views] + [self._heap[:heap_bytes]]

    def fill(self, rows: int, body: memoryview) -> None:
        """Rows that the gateway has packed the same way."""
        at = 0
        for view, width in self._views:
            view[: rows * width] = body[at : at + rows * width]
            at += rows * width
        heap = body[at:]
        self._heap[: len(heap)] = heap
        self.struct.n, self.struct.heap_len = rows, len(heap)
