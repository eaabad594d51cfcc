"""Traffic of a line, kept for inspection: a ring of the last chunks, with direction and time.

Turned on by `capture: 1000` in a row of endpoints.yml. A chunk is what one read or one write carried, cut at
CHUNK_BYTES_MAX; it may hold whatever the protocol sends, logins too, so it is shown to engineers only.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

from framegate.contract.ports import Clock, Session
from framegate.endpoint.line import Between

CHUNK_BYTES_MAX = 2048


class Chunk(NamedTuple):
    """time: ns UTC; size: bytes on the line, of which `data` holds the first CHUNK_BYTES_MAX."""

    time: int
    direction: Literal["in", "out"]
    size: int
    data: bytes


class Capture(Between):
    """Between a line and its session: remembers what passes."""

    def __init__(self, session: Session, ring: deque[Chunk], clock: Clock) -> None:
        super().__init__(session)
        self._ring = ring
        self._clock = clock
        self._deliver = session.data_received
        self.data_received = self._record_and_deliver

    def write(self, data: bytes) -> None:
        self.line.write(data)
        self._ring.append(Chunk(self._clock.now_ns(), "out", len(data), bytes(data[:CHUNK_BYTES_MAX])))

    def _record_and_deliver(self, data: bytes) -> None:
        self._ring.append(Chunk(self._clock.now_ns(), "in", len(data), bytes(data[:CHUNK_BYTES_MAX])))
        self._deliver(data)
