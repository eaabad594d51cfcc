"""Rows of a gateway for those who look: out of the durable log, and the latest ones in columns.

Satisfies observe.api_face.FrameFace. Looks are made on the loop in small pieces, with a turn for everybody else between
two of them; nothing here changes anything.
"""

from __future__ import annotations

import asyncio
import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

import numpy as np

from framegate.bus.bus import Bus
from framegate.bus.store import Store
from framegate.contract.errors import DeviceRefused
from framegate.contract.frame import Batch, Gap, Int64Column, Placed, Position, TagId, Value
from framegate.contract.quality import Quality, is_bad
from framegate.observe.api_face import FrameRow, HistoryPage, LatestColumns

PIECE_ROWS: Final = 4_096
"""Rows read in one turn of the loop."""
HISTORY_ROWS_MAX: Final = 262_144
"""Rows that one look for the history of a tag goes through; the next look goes on from there."""
PIECE_NAMES: Final = 5_000
"""Names compared with a pattern in one turn of the loop, about 2 ms."""
_WILD = re.compile(r"[*?\[]")


class Frames:
    """Reads log and latest values. Used on the loop."""

    def __init__(self, bus: Bus, store: Store) -> None:
        self._bus, self._store = bus, store

    def bounds(self) -> tuple[int, int]:
        return int(self._store.wal.books.oldest), int(self._bus.durable)

    async def read(self, first: int, last: int, rows_max: int) -> Sequence[FrameRow | Gap]:
        found: list[FrameRow | Gap] = []
        after, last = first - 1, min(last, self._bus.durable)
        while after < last and len(found) < rows_max:
            pieces = self._bus.read(Position(after), min(PIECE_ROWS, last - after))
            if not pieces:
                break
            for piece in pieces:
                found += (
                    [self._clipped(piece, first, last)] if isinstance(piece, Gap) else self._rows(piece, after, last)
                )
            after = pieces[-1].last
            await asyncio.sleep(0)
        return found[:rows_max]

    async def history(self, tag: str, before: int, rows_max: int) -> HistoryPage:
        known = self._store.catalogue.find(tag)
        if known is None:
            text = f"tag {tag}: no such tag; `edge tags ls` or GET /api/v1/tags lists them"
            raise DeviceRefused(text, code="E4014", quality=Quality.BAD_NODE_ID_UNKNOWN)
        oldest, newest = self.bounds()
        stop = min(before - 1, newest) if before else newest
        lowest = max(oldest, stop - HISTORY_ROWS_MAX + 1)
        found: list[FrameRow] = []
        while stop >= lowest and len(found) < rows_max:
            start = max(lowest, stop - PIECE_ROWS + 1)
            found += reversed(list(self._of_tag(known.id, start, stop)))
            stop = start - 1
            await asyncio.sleep(0)
        kept = found[:rows_max]
        seen = kept[-1].position if len(found) >= rows_max else stop + 1
        return HistoryPage(tuple(kept), seen if seen > oldest else 0)

    async def match(self, pattern: str, may: Callable[[str], bool]) -> Int64Column:
        names = self._store.catalogue.names()
        fits = re.compile(fnmatch.translate(pattern)).match if _WILD.search(pattern) else None
        ids: list[int] = []
        seen = PIECE_NAMES
        while seen == PIECE_NAMES:
            piece = list(islice(names, PIECE_NAMES))
            seen = len(piece)
            ids += [
                tag_id
                for tag_id, name in piece
                if (fits(name) if fits is not None else name.startswith(pattern)) and may(name)
            ]
            await asyncio.sleep(0)
        return np.array(ids, np.int64)

    def latest(self, ids: Int64Column) -> LatestColumns:
        return self._bus.latest.columns(ids)

    # -- log ------------------------------------------------------------------------------------------------------

    def _of_tag(self, tag_id: TagId, first: int, last: int) -> Iterator[FrameRow]:
        """Rows of one tag in a range, oldest first."""
        after = first - 1
        while after < last:
            pieces = self._bus.read(Position(after), last - after)
            if not pieces:
                return
            for piece in pieces:
                if isinstance(piece, Placed):
                    hits = piece.first + np.flatnonzero(piece.batch.tag == tag_id)
                    for position in hits[(hits > after) & (hits <= last)].tolist():
                        yield self._row(piece.batch, position - piece.first, position)
            after = pieces[-1].last

    def _rows(self, placed: Placed, after: int, last: int) -> Iterator[FrameRow]:
        for position in range(max(placed.first, after + 1), min(placed.last, last) + 1):
            yield self._row(placed.batch, position - placed.first, position)

    def _row(self, batch: Batch, index: int, position: int) -> FrameRow:
        quality = int(batch.quality[index if len(batch.quality) > 1 else 0])
        value: Value = None
        if not is_bad(quality):
            value = batch.value[index] if batch.value.dtype.char == "O" else batch.value[index].item()
        return FrameRow(
            position=position,
            tag=self._store.catalogue.tag(int(batch.tag[index])).name,
            value=value,
            quality=quality,
            source_time=int(batch.source_time[index if len(batch.source_time) > 1 else 0]),
            gateway_time=batch.gateway_time,
        )

    @staticmethod
    def _clipped(gap: Gap, first: int, last: int) -> Gap:
        return gap._replace(first=Position(max(gap.first, first)), last=Position(min(gap.last, last)))
