"""What a session keeps: of each unit, of each request under way, and its one timer. `client.py` acts on them."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from framegate.contract.errors import FrameBroken
from framegate_plugins.modbus.exchange import Exchange


@dataclass(slots=True)
class LineCounts:
    """What happened on a line since it was opened."""

    requests: int = 0
    answers: int = 0
    timeouts: int = 0
    strays: int = 0
    """Frames that fit no request: late, doubled, or from the wrong unit."""
    broken: int = 0
    """Answers that did not fit their request."""


class Alarm:
    """One timer for everything a line waits for; it rings at the earliest time asked for.

    It is left to ring when what it was set for has come by itself: a ring in vain once per time-out is cheaper than a
    timer set and cancelled with every scan.

    at  loop time of the next ring; inf while it is off
    """

    __slots__ = ("_handle", "_ring", "at")

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self.at = math.inf

    def by(self, at: float) -> None:
        """Ring at this time or earlier."""
        if at < self.at:
            self.off()
            self.at = at
            self._handle = asyncio.get_running_loop().call_at(at, self._rung)

    def off(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self.at = math.inf

    def _rung(self) -> None:
        self._handle = None
        self.at = math.inf
        self._ring()


class Lane:
    """One unit's requests, writes before reads."""

    __slots__ = ("flying", "is_silent", "not_before", "pipeline", "reads", "unit", "writes")

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self.writes: deque[Exchange] = deque()
        self.reads: deque[Exchange] = deque()
        self.flying = 0
        self.pipeline = 1
        self.not_before = 0.0
        self.is_silent = False

    def next(self) -> Exchange | None:
        """The exchange whose request is to be sent next."""
        for exchange in self.writes:
            if exchange.has_work:
                return exchange
        for exchange in self.reads:
            if exchange.has_work:
                return exchange
        return None

    def take_out(self, exchange: Exchange) -> None:
        """It is over, one way or another: nothing more of it is sent."""
        self.remove(exchange)
        if exchange.is_silent:
            self.is_silent = True
        exchange.forget()

    def remove(self, exchange: Exchange) -> None:
        lane = self.writes if exchange.is_write else self.reads
        if exchange in lane:
            lane.remove(exchange)


class Flight:
    """One request under way."""

    __slots__ = ("deadline", "exchange", "holds", "index", "lane", "misfit", "sent", "transaction")

    def __init__(self, lane: Lane, exchange: Exchange, index: int, transaction: int, sent: float) -> None:
        self.lane = lane
        self.exchange = exchange
        self.index = index
        self.transaction = transaction
        self.sent = sent
        self.deadline = sent + exchange.timeout_s
        self.holds = True
        self.misfit: FrameBroken | None = None
