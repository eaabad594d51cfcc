"""Flights: windows between the log and the remote's answer, and the prefix that may be committed.

Pure bookkeeping: no waiting, no I/O. Only the oldest unbroken run of answered windows moves the cursor; a later
answer waits for the earlier ones (invariant O2). After a loss the same Window objects are offered again, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum, unique

from framegate.contract.connector import Window
from framegate.contract.frame import Position


@unique
class FlightState(Enum):
    WAITING = "waiting"  # to be offered, or to be offered again
    SENDING = "sending"
    DONE = "done"  # acknowledged, set aside, or nothing to send


class Flight:
    """One window on its way, or a gap that only moves the cursor.

    window     None for a gap without a notice
    oldest_ns  gateway time of the oldest row
    refusals   times the remote refused it for good
    isolated   next message to send on its own; None while the window travels whole
    lane       the flights it belongs to, which are in order among themselves
    sent_at    monotonic seconds of its last offer
    """

    __slots__ = ("isolated", "lane", "last", "oldest_ns", "refusals", "rows", "sent_at", "state", "window")
    lane: Flights

    def __init__(self, window: Window | None, last: Position, rows: int, oldest_ns: int) -> None:
        self.window, self.last, self.rows, self.oldest_ns = window, last, rows, oldest_ns
        self.sent_at = 0.0
        self.state = FlightState.DONE if window is None else FlightState.WAITING
        self.refusals = 0
        self.isolated: int | None = None


class Flights:
    """Flights of one lane, in order of their positions."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: deque[Flight] = deque()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._open)

    def add(self, flight: Flight) -> None:
        assert not self._open or flight.last > self._open[-1].last
        flight.lane = self
        self._open.append(flight)

    def land(self) -> Position | None:
        """Drop the unbroken run of answered flights; the last position they cover, or None."""
        position = None
        while self._open and self._open[0].state is FlightState.DONE:
            position = self._open.popleft().last
        return position

    def waiting(self) -> Sequence[Flight]:
        return [flight for flight in self._open if flight.state is FlightState.WAITING]


def message_alone(window: Window, index: int) -> Window:
    """One message of a window as a window of its own."""
    first = window.position[index]
    return Window(
        Position(first),
        Position(max(first, first + window.rows[index] - 1)),
        [window.key[index]],
        [window.payload[index]],
        [first],
        [window.rows[index]],
        window.encoding,
        window.is_backfill,
    )
