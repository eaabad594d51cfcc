"""Lanes: the live stream of an outbox and, beside it, the back-fill of what live rows have overtaken.

Each lane is in order of positions; between them live goes first. While rows are owed, half of the windows in flight
is kept for back-fill and it takes no more, so that neither starves the other. Live rows overtake only once every
live window under way has been acknowledged: then the owed range begins exactly where they ended.

Choosing what leaves next and booking what has landed live here; sending and its failures are the outbox's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from framegate.contract.frame import Position
from framegate.contract.owed import OwedRange
from framegate.contract.ports import Clock, FrameSource
from framegate.northbound.backlog import Backlog
from framegate.northbound.flight import Flight, Flights
from framegate.northbound.options import BacklogOrder, OutboxOptions
from framegate.northbound.pace import Pace
from framegate.northbound.reader import Reader


class Lanes:
    """Both lanes of one outbox. With nothing owed, and in order, there is only the live one.

    on_overtaken  told which rows have become back-fill
    """

    __slots__ = (
        "_backfill",
        "_backfill_reader",
        "_clock",
        "_flights_max",
        "_is_live_first",
        "_is_turning",
        "_live",
        "_on_overtaken",
        "_pace",
        "_rows_max",
        "_source",
        "backlog",
        "reader",
    )

    def __init__(
        self,
        reader: Reader,
        backfill: Reader,
        backlog: Backlog,
        source: FrameSource,
        options: OutboxOptions,
        clock: Clock,
        *,
        on_overtaken: Callable[[OwedRange], None],
    ) -> None:
        """The live reader stands at the backlog's live position; the other one is set to each range by itself."""
        self.reader, self.backlog = reader, backlog
        self._backfill_reader, self._source, self._clock = backfill, source, clock
        self._backfill_reader.begin(Position(0), Position(0))
        self._live, self._backfill = Flights(), Flights()
        self._flights_max = options.windows_in_flight
        self._rows_max = options.window_rows
        self._is_live_first = options.backlog is BacklogOrder.LIVE_FIRST
        self._is_turning = False  # live rows are about to overtake, and wait for those under way
        self._on_overtaken = on_overtaken
        self._pace = Pace(options.window_rows)

    def __len__(self) -> int:
        return len(self._live) + len(self._backfill)

    def waiting(self) -> Sequence[Flight]:
        """Flights to be offered, or offered again: live ones first."""
        waiting = self._live.waiting()
        return [*waiting, *self._backfill.waiting()] if self._backfill else waiting

    @property
    def has_room(self) -> bool:
        return len(self) < self._flights_max

    @property
    def may_linger(self) -> bool:
        """Whether there are rows, too few to fill a window, and nothing else to do meanwhile."""
        return not self.backlog.is_owed and 0 < self.reader.backlog_rows < self._rows_max

    def reconnected(self) -> None:
        """A connection stands; what was under way is about to be offered again."""
        self.backlog.reconnected()
        self._pace.begin()
        now = self._clock.monotonic()
        for flight in self._backfill:
            flight.sent_at = now

    def next(self) -> Flight | None:
        """The next flight to start; None while there is no room for it, or nothing to send. Raises StoreFailed."""
        if not self.has_room:
            return None
        if not self._is_live_first and not self.backlog.is_owed:
            return self._next_live()
        is_turning = self._is_live_first and self._turns()
        kept = max(1, self._flights_max // 2) if self.backlog.is_owed else 0
        flight = None
        if not is_turning and len(self._live) < max(1, self._flights_max - kept):
            flight = self._next_live()
        if flight is None and len(self._backfill) < kept:
            flight = self._next_backfill()
        return flight

    def land(self, flight: Flight) -> bool:
        """Book an answered flight and those it held up; whether anything has moved that is worth a commit."""
        position = flight.lane.land()
        if position is None:
            return False
        if flight.lane is self._live:
            self.backlog.live_landed(position)
        else:
            self.backlog.backfill_landed(position)
        return True

    def answered(self, flight: Flight) -> None:
        """The remote has acknowledged a window."""
        if flight.lane is self._backfill:
            self._pace.answered(flight.rows, self._clock.monotonic() - flight.sent_at)

    # -----------------------------------------------------------------------------------------------------------

    def _next_live(self) -> Flight | None:
        flight = self.reader.next()
        if flight is not None:
            self._live.add(flight)
        return flight

    def _next_backfill(self) -> Flight | None:
        reader = self._backfill_reader
        if reader.position == reader.limit:
            following = self.backlog.range_after(reader.position)
            if following is None:
                return None
            reader.begin(*following)
        reader.window_rows = self._pace.rows
        flight = reader.next()
        if flight is not None:
            flight.sent_at = self._clock.monotonic()
            self._backfill.add(flight)
        return flight

    def _turns(self) -> bool:
        """Let live rows overtake when that is due; True while they wait for live windows under way."""
        backlog = self.backlog
        if not self._is_turning:
            lag_rows = self.reader.backlog_rows
            self._is_turning = backlog.is_behind(lag_rows, self._rows_max, self._clock.monotonic())
        if not self._is_turning or self._live:
            return self._is_turning
        self._is_turning = False
        assert self.reader.position == backlog.live
        fresh = backlog.overtake(self._source.durable)
        self.reader.begin(fresh.last)
        self._on_overtaken(fresh)
        return False
