"""Reader: from a position in the log to the next flight, one encoded window at a time.

Slices at the cursor, keeps windows near their bounds in rows and bytes, turns gaps into notices, and speaks up when
positions are missing without a gap that explains them. It reads only what FrameSource calls durable (invariant I4),
or up to a limit below it: then what it makes is back-fill, and marked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from framegate.contract.connector import Window
from framegate.contract.frame import Gap, Placed, Position
from framegate.contract.ports import FrameSource
from framegate.northbound.encoder import Encoder
from framegate.northbound.flight import Flight
from framegate.northbound.options import OutboxOptions
from framegate.northbound.slices import after, part

_FIRST_GUESS_BYTES_PER_ROW = 64.0


class Reader:
    """Reads, slices and encodes for one outbox.

    position     last position that was turned into a flight
    limit        last position to read; None: whatever is durable
    window_rows  rows per window, about
    on_missing   told the first and last position of a stretch that is gone
    """

    __slots__ = (
        "_bytes_per_row",
        "_connector",
        "_encoder",
        "_on_missing",
        "_options",
        "_ready",
        "_source",
        "limit",
        "position",
        "window_rows",
    )

    def __init__(
        self,
        source: FrameSource,
        encoder: Encoder,
        options: OutboxOptions,
        position: Position,
        *,
        connector: str = "",
        on_missing: Callable[[Gap], None],
    ) -> None:
        self.position = position
        self.limit: Position | None = None
        self.window_rows = options.window_rows
        self._connector = connector
        self._source, self._encoder, self._options, self._on_missing = source, encoder, options, on_missing
        self._ready: deque[Sequence[Placed] | Gap] = deque()
        self._bytes_per_row = _FIRST_GUESS_BYTES_PER_ROW

    @property
    def backlog_rows(self) -> int:
        return self._source.durable - self.position

    def begin(self, position: Position, limit: Position | None = None) -> None:
        """Go on after another position."""
        self._ready.clear()
        self.position, self.limit = position, limit

    def next(self) -> Flight | None:
        """The next flight, or None at the end of what may be read. Raises StoreFailed."""
        if not self._ready:
            limit = self.limit
            if (self._source.durable if limit is None else limit) <= self.position:
                return None
            rows_max = self._rows_max()
            items = self._source.read(self.position, rows_max)
            if limit is not None:
                items = _up_to(limit, self.position, items)
            self._ready.extend(self._stretches(items, rows_max))
            if not self._ready:
                return None
        item = self._ready[0]
        flight = self._gap(item) if isinstance(item, Gap) else self._window(item)
        self._ready.popleft()
        self.position = flight.last
        return flight

    def _rows_max(self) -> int:
        fitting = int(self._options.window_bytes / self._bytes_per_row)
        return max(1, min(self.window_rows, fitting))

    def _stretches(self, items: Sequence[Placed | Gap], rows_max: int) -> Iterator[Sequence[Placed] | Gap]:
        """Items beyond the position, batches gathered to about rows_max rows."""
        gathered: list[Placed] = []
        rows = 0
        for item in items:
            if isinstance(item, Gap):
                if gathered:
                    yield gathered
                    gathered, rows = [], 0
                if item.last > self.position:
                    yield item._replace(first=Position(max(item.first, self.position + 1)))
                continue
            rest = after(item, self.position)
            for piece in () if rest is None else _pieces(rest, rows_max):
                gathered.append(piece)
                rows += len(piece.batch.tag)
                if rows >= rows_max:
                    yield gathered
                    gathered, rows = [], 0
        if gathered:
            yield gathered

    def _window(self, placed: Sequence[Placed]) -> Flight:
        window = self._marked(self._encoder.encode(placed))
        expected = self.position + 1
        if placed[0].first != expected:
            self._missing(expected, placed[0].first - 1)
        if placed[-1].last - placed[0].first + 1 != sum(window.rows):
            for left, right in pairwise(placed):
                if right.first != left.last + 1:
                    self._missing(left.last + 1, right.first - 1)
        rows = sum(window.rows)
        size = sum(map(len, window.payload))
        # Larger at once, smaller by and by: one window of long texts must not be followed by another as long.
        self._bytes_per_row = max(size / max(rows, 1), 0.9 * self._bytes_per_row, 1.0)
        return Flight(window, window.last, rows, min([entry.batch.gateway_time for entry in placed]))

    def _gap(self, gap: Gap) -> Flight:
        if gap.connector != self._connector:  # another one needed the rows when they went; now this one lacks them too
            gap = gap._replace(connector="")
        window = self._encoder.encode_gap(gap)
        self._on_missing(gap)
        return Flight(window and self._marked(window), gap.last, 0, gap.time)

    def _marked(self, window: Window) -> Window:
        return window if self.limit is None else replace(window, is_backfill=True)

    def _missing(self, first: int, last: int) -> None:
        self._on_missing(_missing(first, last))


def _missing(first: int, last: int) -> Gap:
    return Gap(Position(first), Position(last), "damage", "missing without a record", "", 0)


def _up_to(limit: Position, position: Position, items: Sequence[Placed | Gap]) -> Sequence[Placed | Gap]:
    """The part of items that lies after a position and not beyond a limit; a gap when all there is lies beyond."""
    found: list[Placed | Gap] = []
    for item in items:
        if item.first > limit:
            break
        if item.last <= limit:
            found.append(item)
        elif isinstance(item, Gap):
            found.append(item._replace(last=limit))
        else:
            found.append(part(item, 0, limit - item.first + 1))
    return found if found or not items else [_missing(position + 1, limit)]


def _pieces(placed: Placed, rows_max: int) -> Iterator[Placed]:
    """A batch as it is, or in pieces when it is far larger than a window."""
    rows = placed.batch.rows
    if rows <= 2 * rows_max:
        yield placed
        return
    for start in range(0, rows, rows_max):
        yield part(placed, start, min(start + rows_max, rows))
