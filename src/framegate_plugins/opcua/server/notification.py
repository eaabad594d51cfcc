"""One DataChangeNotification while it is filled, and the bytes of many values at once.

Values of one width are written as one numpy record array for each type and set of fields: that costs a twentieth of
writing them one by one. Source: OPC UA Part 4, 7.25.2; Part 6, 5.2.2.16 and 5.2.2.17.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import Int64Column, UInt32Column
from framegate_plugins.opcua.records import record
from framegate_plugins.opcua.server import binary
from framegate_plugins.opcua.server.newest import Flags, Indexes
from framegate_plugins.opcua.server.status import BAD, BAD_ENCODING_LIMITS_EXCEEDED, BAD_OUT_OF_RANGE
from framegate_plugins.opcua.server.tag_node import BOTH_TIMES, SERVER_ONLY, SOURCE_ONLY
from framegate_plugins.opcua.times import EPOCH_TICKS, TICK_NS
from framegate_plugins.opcua.wire import FIXED, SERVER_BIT, SOURCE_BIT, STATUS_BIT, VALUE_BIT

VALUE_BYTES_MAX: Final = 34
"""Of one MonitoredItemNotification whose value has a fixed width: handle, mask, type, 8 bytes, status, two times."""
_FLOAT, _DOUBLE = 10, 11


class Values(NamedTuple):
    """Values of items, all of types of one width.

    handle          uint32[rows], of the client
    type            uint8[rows], builtin types
    word            uint64[rows]: float64, int64 or uint64 as its 8 bytes, a Boolean as 0 or 1
    status          uint32[rows]
    source, server  int64[rows], ns UTC, 0: none
    times           uint8[rows], TimestampsToReturn
    """

    handle: UInt32Column
    type: npt.NDArray[np.uint8]
    word: npt.NDArray[np.uint64]
    status: UInt32Column
    source: Int64Column
    server: Int64Column
    times: npt.NDArray[np.uint8]

    def at(self, chosen: Indexes | Flags) -> Values:
        columns: list[Any] = [column[chosen] for column in self]
        return Values(*columns)


class Notification:
    """The values of one notification, within bounds. values_left, bytes_left: what it still takes."""

    def __init__(self, values_max: int, bytes_max: int) -> None:
        self.values_left, self.bytes_left, self._bytes_max = values_max, bytes_max, bytes_max
        self._count, self._parts = 0, list[bytes]()

    @property
    def has_room(self) -> bool:
        return self.values_left > 0 and self.bytes_left > 0

    @property
    def rows_left(self) -> int:
        """Values of one width that it still takes."""
        return min(self.values_left, -(-self.bytes_left // VALUE_BYTES_MAX)) if self.has_room else 0

    def add(self, handle: int, value: bytes) -> None:
        """One DataValue; one that is larger than the client takes is told as such."""
        if len(value) + 4 > self._bytes_max:
            value = b"\x02" + binary.u32(BAD_ENCODING_LIMITS_EXCEEDED)
        self._add(1, binary.u32(handle) + value)

    def add_values(self, values: Values) -> None:
        for part in encoded(values):
            self._add(0, part)
        self._add(len(values.handle), b"")

    def encoded(self) -> bytes:
        """DataChangeNotification."""
        return binary.i32(self._count) + b"".join(self._parts) + binary.NO_ARRAY

    def _add(self, count: int, part: bytes) -> None:
        self._count += count
        self.values_left -= count
        self.bytes_left -= len(part)
        self._parts.append(part)


def encoded(values: Values) -> Iterator[bytes]:
    """MonitoredItemNotifications, those of one type and one set of fields together.

    A value that its type cannot hold is BadOutOfRange; one whose status is Bad is left out.
    """
    for kind in np.unique(values.type).tolist():
        chosen = values.type == kind
        of_kind = values if chosen.all() else values.at(chosen)
        value, fits = _fitted(of_kind.word, kind)
        status = of_kind.status
        if not fits.all():
            status = np.where(fits | (status & BAD != 0), status, np.uint32(BAD_OUT_OF_RANGE))
        mask = _masks(of_kind, status)
        for each in np.unique(mask).tolist():
            rows = np.flatnonzero(mask == each)
            yield _records(of_kind.at(rows), value[rows], status[rows], kind, each).tobytes()


def _masks(values: Values, status: UInt32Column) -> npt.NDArray[np.uint8]:
    """Of each DataValue: which fields it has (Part 6, 5.2.2.17)."""
    has_source = (values.source != 0) & ((values.times == SOURCE_ONLY) | (values.times == BOTH_TIMES))
    has_server = (values.server != 0) & ((values.times == SERVER_ONLY) | (values.times == BOTH_TIMES))
    mask = np.zeros(len(status), np.uint8)
    fields = (
        (VALUE_BIT, status & BAD == 0),
        (STATUS_BIT, status != 0),
        (SOURCE_BIT, has_source),
        (SERVER_BIT, has_server),
    )
    for bit, has in fields:
        mask |= np.where(has, np.uint8(bit), np.uint8(0))
    return mask


def _fitted(word: npt.NDArray[np.uint64], kind: int) -> tuple[npt.NDArray[Any], Flags]:
    """Values as their builtin type has them, and which of them it can hold."""
    if kind in {_FLOAT, _DOUBLE}:
        value = word.view(np.float64)
        if kind == _DOUBLE:
            return value, np.ones(len(word), np.bool_)
        with np.errstate(over="ignore", invalid="ignore"):
            single = value.astype(np.float32)
        return single, np.isfinite(single) | ~np.isfinite(value)
    form = np.dtype(FIXED[kind].format[-1])
    if form.kind == "b" or form == np.uint64:
        return word.astype(np.uint8) if form.kind == "b" else word, np.ones(len(word), np.bool_)
    whole, bounds = word.view(np.int64), np.iinfo(form)
    return whole.astype(form), (whole >= bounds.min) & (whole <= bounds.max)


def _records(
    values: Values, value: npt.NDArray[Any], status: UInt32Column, kind: int, mask: int
) -> npt.NDArray[np.void]:
    records = np.empty(len(status), record(mask, kind, has_handle=True))
    records["handle"], records["mask"] = values.handle, mask
    if mask & VALUE_BIT:
        records["kind"], records["value"] = kind, value
    if mask & STATUS_BIT:
        records["status"] = status
    if mask & SOURCE_BIT:
        records["source"] = _ticks(values.source)
    if mask & SERVER_BIT:
        records["server"] = _ticks(values.server)
    return records


def _ticks(ns: Int64Column) -> Int64Column:
    """As times.ticks_of_ns has them."""
    return np.maximum(0, ns // TICK_NS + EPOCH_TICKS)
