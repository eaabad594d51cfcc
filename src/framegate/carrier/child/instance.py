"""One instance of a native driver, and the gateway's calls made on it. Calls come from one thread, one at a time."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from framegate.carrier.child.abi import TEXT_BYTES_MAX, Columns, Library, Status, host_struct
from framegate.carrier.child.channel import Channels
from framegate.carrier.child.wire import CELL_BYTES, ROWS_MAX, Message

GROUPS_MAX = 64
"""Plans that one instance knows at once; the gateway reuses their numbers."""
HEAP_BYTES = 64 * 1024
HEAP_ROW_BYTES = 64
HEAP_BYTES_MAX = 4 << 20
"""Room for texts of one scan: HEAP_BYTES, and HEAP_ROW_BYTES for each row."""
CONNECT_BUDGET_MS = 10_000
OTHER_BUDGET_MS = 1_000
UNTOUCHED = -(2**31)
"""Status of a written row that the driver did not set."""
Parts: TypeAlias = Sequence[bytes | memoryview]


class Answer(NamedTuple):
    status: int
    rows: int
    parts: Parts


class Instance:
    """A driver for one device."""

    def __init__(self, library: Library, channels: Channels) -> None:
        self._table = library.table
        self._channels = channels
        self._host = host_struct(channels)
        self._self = ctypes.c_void_p()
        self._text = ctypes.create_string_buffer(TEXT_BYTES_MAX)
        self._groups: dict[int, int] = {}
        self._columns = Columns(1, HEAP_BYTES)

    def create(self, options: bytes) -> Answer:
        self._channels.begin(OTHER_BUDGET_MS)
        host, instance = ctypes.byref(self._host), ctypes.byref(self._self)
        return self._told(
            self._table.create(ctypes.cast(host, ctypes.c_void_p), options, len(options), instance, *self._words())
        )

    def answer(self, kind: int, number: int, rows: int, body: memoryview) -> Answer:
        """Make a call of wire.Message; see there for what its numbers mean."""
        if kind == Message.POLL:
            return self._poll(number, rows)
        if kind == Message.WRITE:
            return self._write(rows, number, body)
        if kind == Message.PLAN:
            return self._plan(number, rows, bytes(body))
        if kind == Message.CONNECT:
            self._channels.begin(CONNECT_BUDGET_MS)
            return self._told(self._table.connect(self._self, number, *self._words()))
        return Answer(Status.UNSUPPORTED, 0, ())

    def leave(self) -> None:
        """disconnect, then destroy."""
        self._channels.begin(OTHER_BUDGET_MS)
        self._table.disconnect(self._self)
        self._table.destroy(self._self)

    def _plan(self, group: int, rows: int, tags: bytes) -> Answer:
        if not 0 <= group < GROUPS_MAX or rows > ROWS_MAX:
            return Answer(Status.INVALID, 0, ())
        self._channels.begin(OTHER_BUDGET_MS)
        told = self._told(self._table.plan(self._self, group, tags, len(tags), *self._words()))
        self._groups[group] = rows
        return told

    def _poll(self, group: int, budget_ms: int) -> Answer:
        columns = self._roomy(self._groups.get(group, 0))
        columns.begin()
        self._channels.begin(budget_ms)
        status = self._table.poll(self._self, group, ctypes.addressof(columns.struct), budget_ms)
        return Answer(status, columns.struct.n, columns.packed())

    def _write(self, rows: int, budget_ms: int, body: memoryview) -> Answer:
        if rows > ROWS_MAX or len(body) < rows * CELL_BYTES:
            return Answer(Status.INVALID, 0, ())
        columns = Columns(rows, len(body) - rows * CELL_BYTES)
        columns.fill(rows, body)
        statuses = (ctypes.c_int32 * max(1, rows))(*(UNTOUCHED,) * rows)
        self._channels.begin(budget_ms)
        status = self._table.write(self._self, ctypes.addressof(columns.struct), ctypes.addressof(statuses), budget_ms)
        return Answer(status, rows, (memoryview(statuses).cast("B")[: 4 * rows],))

    def _roomy(self, rows: int) -> Columns:
        if rows > self._columns.capacity:
            self._columns = Columns(rows, min(HEAP_BYTES_MAX, HEAP_BYTES + HEAP_ROW_BYTES * rows))
        # A group sees room for its own rows only, whatever another one needs.
        self._columns.struct.cap = rows
        return self._columns

    def _words(self) -> tuple[int, int]:
        self._text[0] = b"\0"
        return ctypes.addressof(self._text), TEXT_BYTES_MAX

    def _told(self, status: int) -> Answer:
        return Answer(status, 0, (self._text.value,))
