"""The newest row of every tag, in columns: a row that comes costs no object of its own.

A tag's place is its number among those that are shown. Batches become Rows: of one kind, of places that are shown, each
place once, so that columns can be written and compared as a whole. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from framegate.contract.bridge import BridgeTag
from framegate.contract.frame import Batch, Int64Column, Kind, UInt32Column, ValueColumn
from framegate_plugins.opcua.server.status import BAD, BAD_OUT_OF_RANGE, BAD_WAITING_FOR_INITIAL_DATA

Indexes: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Row: TypeAlias = tuple[Any, int, int, int]
"""Value, StatusCode, source time and server time in ns UTC (0: none)."""
_KINDS: Final = tuple(Kind)


class Rows(NamedTuple):
    """Rows of one kind, each of another place.

    place   int64[rows]
    value   [rows]
    status  uint32[rows], StatusCodes
    source  int64[rows], ns UTC, 0: none; server the same
    """

    kind: Kind
    place: Indexes
    value: ValueColumn
    status: UInt32Column
    source: Int64Column
    server: Int64Column

    def at(self, chosen: Indexes | Flags) -> Rows:
        kind, place, value, status, source, server = self
        return Rows(kind, place[chosen], value[chosen], status[chosen], source[chosen], server[chosen])


class Cells:
    """One value each: numbers and Booleans as 8 bytes, everything else as an object."""

    __slots__ = ("_columns", "objects", "words")

    def __init__(self, count: int) -> None:
        self.words = np.zeros(count, np.uint64)
        self.objects = np.empty(count, np.object_)
        self._columns: dict[Kind, npt.NDArray[Any]] = {
            Kind.FLOAT: self.words.view(np.float64),
            Kind.INT: self.words.view(np.int64),
            Kind.UINT: self.words,
            Kind.BOOL: self.words,
            Kind.OBJECT: self.objects,
        }

    def of(self, kind: Kind) -> npt.NDArray[Any]:
        """The column that holds values of a kind; Booleans are 0 and 1."""
        return self._columns[kind]

    def value(self, kind: Kind, at: int) -> Any:
        found = self._columns[kind].item(at)
        return bool(found) if kind is Kind.BOOL else found

    def grown(self, count: int) -> Cells:
        """The same values, and room for more."""
        cells = Cells(count)
        cells.words[: len(self.words)] = self.words
        cells.objects[: len(self.objects)] = self.objects
        return cells


class Newest:
    """The newest row of each tag; of one that was never read BadWaitingForInitialData.

    kinds  Kind of each place
    """

    def __init__(self, tags: Sequence[BridgeTag]) -> None:
        self.kinds = [tag.type.kind for tag in tags]
        ids = np.array([tag.id for tag in tags], np.int64)
        self._place_of = np.full(int(ids.max()) + 1 if len(ids) else 1, -1, np.int64)
        self._place_of[ids] = np.arange(len(tags))
        self._kind = np.array([_KINDS.index(kind) for kind in self.kinds], np.uint8)
        self._cells = Cells(len(tags))
        self._status = np.full(len(tags), BAD_WAITING_FOR_INITIAL_DATA, np.uint32)
        self._source, self._server = np.zeros(len(tags), np.int64), np.zeros(len(tags), np.int64)
        self._turn = np.zeros(len(tags), np.int64)

    def row(self, place: int) -> Row:
        value = self._cells.value(self.kinds[place], place)
        return value, self._status.item(place), self._source.item(place), self._server.item(place)

    def update(self, batches: Sequence[Batch]) -> Iterator[Rows]:
        """Take the rows of the tags that are shown, and hand them out, those of one tag in their order."""
        for kind in dict.fromkeys(batch.kind for batch in batches):
            for rows in self._of_their_kind(self._joined(kind, [batch for batch in batches if batch.kind is kind])):
                for turn in self._turns(rows):
                    self._put(turn)
                    yield turn

    def rows(self, places: Indexes) -> Iterator[tuple[Indexes, Rows]]:
        """The newest rows of places, by kind, and which of the places they are."""
        kinds = self._kind[places]
        for number in np.unique(kinds).tolist():
            chosen = np.flatnonzero(kinds == number)
            where, kind = places[chosen], _KINDS[number]
            value = self._cells.of(kind)[where]
            yield chosen, Rows(kind, where, value, self._status[where], self._source[where], self._server[where])

    def _put(self, rows: Rows) -> None:
        where = rows.place
        self._cells.of(rows.kind)[where] = rows.value
        self._status[where], self._source[where], self._server[where] = rows.status, rows.source, rows.server

    def _joined(self, kind: Kind, batches: Sequence[Batch]) -> Rows:
        """Batches of one kind, without rows of tags that are not shown."""
        parts = [self._shown(kind, batch) for batch in batches]
        if len(parts) == 1:
            return parts[0]
        columns: list[Any] = [np.concatenate(column) for column in zip(*(part[1:] for part in parts), strict=True)]
        return Rows(kind, *columns)

    def _shown(self, kind: Kind, batch: Batch) -> Rows:
        rows = batch.rows
        tag = batch.tag
        if rows and int(tag.max()) >= len(self._place_of):
            tag = np.where(tag < len(self._place_of), tag, -1)
        place = np.where(tag >= 0, self._place_of[tag], -1)
        status = np.broadcast_to(batch.quality, rows)
        source = np.broadcast_to(batch.source_time, rows)
        found = Rows(kind, place, batch.value, status, source, np.full(rows, batch.gateway_time))
        is_shown = place >= 0
        return found if is_shown.all() else found.at(is_shown)

    def _of_their_kind(self, rows: Rows) -> Iterator[Rows]:
        """Rows by the kind of their tags. Integers are also numbers with a fraction, and everything is an object; a
        value of any other kind than its tag's is none that can be shown.
        """
        kinds = self._kind[rows.place]
        for number in np.unique(kinds).tolist():
            kind = _KINDS[number]
            if kind is rows.kind and (kinds == number).all():
                yield rows
                return
            part = rows.at(kinds == number)
            if kind is Kind.OBJECT or (kind is Kind.FLOAT and rows.kind is not Kind.OBJECT):
                part = part._replace(value=part.value.astype(kind.value))
            elif kind is not rows.kind:
                status = np.where(part.status & BAD, part.status, np.uint32(BAD_OUT_OF_RANGE))
                part = part._replace(value=np.zeros(len(status), kind.value), status=status)
            yield part._replace(kind=kind)

    def _turns(self, rows: Rows) -> Iterator[Rows]:
        """Rows in which no place occurs twice: the oldest of each place first."""
        while len(rows.place):
            numbers = np.arange(len(rows.place))
            self._turn[rows.place[::-1]] = numbers[::-1]  # of a place that occurs twice the last written one stays
            is_first = self._turn[rows.place] == numbers
            if is_first.all():
                yield rows
                return
            yield rows.at(is_first)
            rows = rows.at(~is_first)
