"""Values of many nodes, from the bytes of one message to batches. No sockets here.

Neighbours in a message that have one type and the same fields are taken as one numpy record array: that is how values
of one scan stand in notifications, and it costs a tenth of decoding them one by one. Everything else is decoded singly;
the two are tested against each other. Rows of one tag keep their order: a tag has one kind, and kinds are kept apart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import (
    Batch,
    Int32Column,
    Int64Column,
    Kind,
    UInt32Column,
    Value,
    ValueColumn,
    ValueType,
    uniform_quality,
    uniform_time,
)
from framegate.contract.quality import Quality, is_bad
from framegate_plugins.opcua.options import SourceTime
from framegate_plugins.opcua.points import Point
from framegate_plugins.opcua.records import record
from framegate_plugins.opcua.times import EPOCH_TICKS, NS_TICKS_MAX, NS_TICKS_MIN, TICK_NS
from framegate_plugins.opcua.values import NATURAL, fit
from framegate_plugins.opcua.wire import (
    FIXED,
    SERVER_BIT,
    SOURCE_BIT,
    STATUS_BIT,
    VALUE_BIT,
    Reader,
    Sample,
    Unpack,
)

RUN_MIN: Final = 8
"""Neighbours that are worth one numpy array."""
WINDOW_MAX: Final = 65_536
LAYOUTS_MAX: Final = 64
"""Sequences of tags that are remembered, so that a server that tells the same tags again costs no new layout."""
_EMPTY: Final = {Kind.FLOAT: float("nan"), Kind.INT: 0, Kind.UINT: 0, Kind.BOOL: False, Kind.OBJECT: None}
_KINDS: Final = tuple(Kind)
_TYPES: Final = tuple(ValueType)
_HANDLE_BYTES: Final = 4

Indexes = npt.NDArray[np.int64]


def _fits() -> npt.NDArray[np.bool_]:
    """bool[variant type, type of the tag]: every value of the one is one of the other, and none has to be looked at."""
    table = np.zeros((64, len(_TYPES)), np.bool_)
    for variant, natural in NATURAL.items():
        if variant.value not in FIXED:
            continue
        for column, type_ in enumerate(_TYPES):
            if natural is ValueType.BOOL or type_ is ValueType.BOOL:
                table[variant.value, column] = natural is type_
            elif type_.kind is Kind.FLOAT:
                table[variant.value, column] = True
            elif natural.kind in {Kind.INT, Kind.UINT} and type_.kind in {Kind.INT, Kind.UINT}:
                inner, outer = np.iinfo(natural.value), np.iinfo(type_.value)
                table[variant.value, column] = outer.min <= inner.min and inner.max <= outer.max
    return table


_FITS: Final = _fits()


class Columns:
    """Decodes values of these points; the client handle of a monitored item is its place among them.

    structures  how bodies of structures are read; a session learns them
    misfits     name of a tag -> why its last value could not be held; a person has to correct its type
    kind, type  uint8[points], numbers in Kind and ValueType
    """

    def __init__(self, points: Sequence[Point], source_time: SourceTime) -> None:
        self.points = points
        self.structures: Mapping[str, Unpack] = {}
        self.read_types = [point.read_type for point in points]
        self.kinds = [point.type.kind for point in points]
        self.misfits: dict[str, str] = {}
        self.misfits_told: set[str] = set()
        self._source_time = source_time
        self._ids = np.array([point.id for point in points], np.int32)
        self.kind = np.array([_KINDS.index(kind) for kind in self.kinds], np.uint8)
        self.type = np.array([_TYPES.index(type_) for type_ in self.read_types], np.uint8)
        self._tags: OrderedDict[bytes, Int32Column] = OrderedDict()

    def changes(self, reader: Reader, now_ns: int) -> tuple[list[Batch], Indexes]:
        """A DataChangeNotification's MonitoredItems, from their count on; raises FrameBroken.

        returns  batches, and the places that were told of, int64[rows]
        """
        rows = _Rows(self)
        left = reader.count(_HANDLE_BYTES + 1)
        window = 2 * RUN_MIN
        while left > 0:
            taken = rows.take_run(reader, min(left, window), None)
            if taken:
                window = min(WINDOW_MAX, 2 * window) if taken == window else 2 * RUN_MIN
            else:
                handle = reader.u32()
                rows.take_one(reader, handle)
                taken = 1
            left -= taken
        return rows.batches(now_ns), rows.places()

    def values(self, reader: Reader, places: Indexes, now_ns: int) -> list[Batch]:
        """A Read's results for the points at these places, from their count on; raises FrameBroken."""
        rows = _Rows(self)
        left = min(reader.count(), len(places))
        at = 0
        while at < left:
            taken = rows.take_run(reader, left - at, places[at:left])
            if not taken:
                rows.take_one(reader, int(places[at]))
                taken = 1
            at += taken
        if left < len(places):
            rows.take_all(places[left:], Quality.BAD_NO_DATA)
        return rows.batches(now_ns)

    def bad(self, places: Indexes, status: int, now_ns: int) -> list[Batch]:
        """The points at these places, Bad."""
        rows = _Rows(self)
        rows.take_all(places, status)
        return rows.batches(now_ns)

    def tag(self, places: Indexes) -> Int32Column:
        """Ids in this order: the same array for the same order."""
        key = places.tobytes()
        found = self._tags.get(key)
        if found is None:
            found = self._ids[places]
            found.flags.writeable = False
            self._tags[key] = found
            if len(self._tags) > LAYOUTS_MAX:
                self._tags.popitem(last=False)
        else:
            self._tags.move_to_end(key)
        return found

    def held(self, place: int, value: Value) -> Value:
        """The value that the tag is for: the member, where it names one. raises ValueError"""
        point = self.points[place]
        if self.read_types[place] is point.type:
            return value
        if point.element is not None and isinstance(value, list) and value:
            # A server that does not know ranges of monitored items sends the whole array.
            value = value[0] if len(value) == 1 else value[point.element] if point.element < len(value) else None
        for step in point.member:
            if isinstance(step, int):
                if not isinstance(value, list) or step >= len(value):
                    raise ValueError(f"there is no element {step}")
                value = value[step]
            else:
                if not isinstance(value, dict) or step not in value:
                    raise ValueError(f"there is no member {step}")
                value = value[step]
        return fit(value, point.type)

    def times(self, source: Int64Column, server: Int64Column, now_ns: int) -> Int64Column:
        """ns UTC of the time that the row asks for; where there is none the next best, at last the gateway's."""
        if self._source_time == "gateway":
            return uniform_time(now_ns)
        chosen = source if self._source_time == "source" else server
        other = server if self._source_time == "source" else source
        usable = (chosen > 0) & (chosen >= NS_TICKS_MIN) & (chosen <= NS_TICKS_MAX)
        if not usable.all():
            chosen = np.where(usable, chosen, other)
            usable = (chosen > 0) & (chosen >= NS_TICKS_MIN) & (chosen <= NS_TICKS_MAX)
        ns = (chosen - EPOCH_TICKS) * TICK_NS if usable.all() else _mixed(chosen, usable, now_ns)
        if len(ns) > 1 and (ns == ns[0]).all():
            return uniform_time(int(ns[0]))
        ns.flags.writeable = False
        return ns


def _mixed(ticks: Int64Column, usable: npt.NDArray[np.bool_], now_ns: int) -> Int64Column:
    ns = np.full(len(ticks), now_ns, np.int64)
    ns[usable] = (ticks[usable] - EPOCH_TICKS) * TICK_NS
    return ns


_Piece = tuple[Indexes, ValueColumn, UInt32Column, Int64Column, Int64Column]


class _Rows:
    """Rows of one message while it is read: pieces by kind, and single rows that wait to become one."""

    __slots__ = ("_columns", "_pieces", "_single")

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._pieces: dict[Kind, list[_Piece]] = {}
        self._single: dict[Kind, list[tuple[int, Value, int, int, int]]] = {}

    def take_run(self, reader: Reader, left: int, places: Indexes | None) -> int:
        """As many neighbours of one form as there are, if that is worth it; returns how many, 0 for none.

        places  of the points, where no handles stand in the message
        """
        data, at = reader.data, reader.at
        head = 0 if places is not None else _HANDLE_BYTES
        if left < RUN_MIN or at + head + 2 > len(data):
            return 0
        mask, kind = data[at + head], data[at + head + 1]
        if not mask & VALUE_BIT or kind not in FIXED:
            return 0
        form = record(mask & 0x3F, kind, has_handle=places is None)
        count = min(left, (len(data) - at) // form.itemsize)
        last = at + (RUN_MIN - 1) * form.itemsize + head
        if count < RUN_MIN or data[last] != mask or data[last + 1] != kind:
            return 0
        records = np.frombuffer(data, form, count, at)
        same = (records["mask"] == mask) & (records["kind"] == kind)
        if not same.all():
            count = int(same.argmin())
            records = records[:count]
        where = records["handle"].astype(np.int64) if places is None else places[:count]
        columns = self._columns
        if count < RUN_MIN or int(where.max()) >= len(columns.points) or not _FITS[kind, columns.type[where]].all():
            return 0
        self._take(records, where, mask)
        reader.at = at + count * form.itemsize
        return count

    def _take(self, records: npt.NDArray[Any], where: Indexes, mask: int) -> None:
        count = len(records)
        status = records["status"].astype(np.uint32) if mask & STATUS_BIT else np.zeros(count, np.uint32)
        source = records["source"].astype(np.int64) if mask & SOURCE_BIT else np.zeros(count, np.int64)
        server = records["server"].astype(np.int64) if mask & SERVER_BIT else np.zeros(count, np.int64)
        kinds = self._columns.kind[where]
        first = int(kinds[0])
        if (kinds == first).all():
            self._add(_KINDS[first], where, records["value"], status, source, server)
            return
        for number in np.unique(kinds).tolist():
            rows = np.flatnonzero(kinds == number)
            self._add(_KINDS[number], where[rows], records["value"][rows], status[rows], source[rows], server[rows])

    def _add(
        self,
        kind: Kind,
        where: Indexes,
        value: npt.NDArray[Any],
        status: UInt32Column,
        source: Int64Column,
        server: Int64Column,
    ) -> None:
        self._settle(kind)
        column = value != 0 if kind is Kind.BOOL else value.astype(kind.value)
        self._pieces.setdefault(kind, []).append((where, column, status, source, server))

    def take_one(self, reader: Reader, place: int) -> None:
        """One DataValue; that of a point that is not known is read past."""
        columns = self._columns
        if place >= len(columns.points):
            reader.sample()
            return
        reader.structures = columns.structures
        sample, error = reader.sample(columns.read_types[place])
        if error is None and not is_bad(sample.status):
            try:
                sample = sample._replace(value=columns.held(place, sample.value))
            except ValueError as wrong:
                error = wrong
        if error is not None and not is_bad(sample.status):
            columns.misfits[columns.points[place].name] = str(error)
            sample = sample._replace(value=None, status=int(Quality.BAD_TYPE_MISMATCH))
        self._keep(place, sample)

    def take_all(self, places: Indexes, status: int) -> None:
        for place in places.tolist():
            self._keep(place, Sample(None, status, 0, 0))

    def _keep(self, place: int, sample: Sample) -> None:
        kind = self._columns.kinds[place]
        value, status = sample.value, sample.status
        if value is None or is_bad(status):
            if not is_bad(status) and kind is not Kind.OBJECT:
                status = int(Quality.BAD_NO_DATA)
            value = _EMPTY[kind]
        self._single.setdefault(kind, []).append((place, value, status, sample.source, sample.server))

    def _settle(self, kind: Kind) -> None:
        """Single rows become a piece, in their turn."""
        rows = self._single.pop(kind, None)
        if rows is None:
            return
        places, values, statuses, sources, servers = zip(*rows, strict=True)
        column: Any = np.empty(len(rows), kind.value)
        if kind is Kind.OBJECT:
            for row, value in enumerate(values):
                column[row] = value  # one by one: numpy would take lists apart
        else:
            column[:] = values
        piece = (
            np.array(places, np.int64),
            column,
            np.array(statuses, np.uint32),
            np.array(sources, np.int64),
            np.array(servers, np.int64),
        )
        self._pieces.setdefault(kind, []).append(piece)

    def places(self) -> Indexes:
        told = [piece[0] for pieces in self._pieces.values() for piece in pieces]
        return np.concatenate(told) if told else np.zeros(0, np.int64)

    def batches(self, now_ns: int) -> list[Batch]:
        for kind in list(self._single):
            self._settle(kind)
        made = []
        for pieces in self._pieces.values():
            where, value, status, source, server = (
                pieces[0] if len(pieces) == 1 else map(np.concatenate, zip(*pieces, strict=True))
            )
            value.flags.writeable = False
            quality = uniform_quality(int(status[0])) if (status == status[0]).all() else status
            quality.flags.writeable = False
            columns = self._columns
            time = columns.times(source, server, now_ns)
            made.append(Batch(columns.tag(where), value, quality, time, now_ns))
        return made
