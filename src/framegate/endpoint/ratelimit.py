"""A bound on the bytes per second of a line, each way, for radio links and for remotes that flood.

Turned on by `rate_limit: 64KiB` in a row of endpoints.yml. One second's worth may pass at once. Outgoing bytes
wait in order, up to the line's write buffer; incoming ones are left in the kernel, so that TCP slows the remote.
"""

from __future__ import annotations

import asyncio
from collections import deque

from framegate.contract.errors import NotConnected
from framegate.contract.ports import Clock, Session
from framegate.endpoint.line import Between
from framegate.endpoint.loss import over_rate


class Budget:
    """Bytes that may pass now; negative: a debt that time pays off."""

    def __init__(self, bytes_per_s: int, clock: Clock) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._left = float(bytes_per_s)
        self._at = clock.monotonic()

    def spend(self, size: int) -> float:
        """Take `size` bytes; seconds until the debt is paid, 0 if there is none."""
        now = self._clock.monotonic()
        self._left = min(float(self._rate), self._left + (now - self._at) * self._rate) - size
        self._at = now
        return max(0.0, -self._left / self._rate)


class RateLimit(Between):
    """Between a line and its session: lets bytes pass as the budget allows."""

    def __init__(self, session: Session, bytes_per_s: int, queue_bytes_max: int, clock: Clock) -> None:
        super().__init__(session)
        self._incoming = Budget(bytes_per_s, clock)
        self._outgoing = Budget(bytes_per_s, clock)
        self._queue: deque[bytes] = deque()
        self._queue_bytes = 0
        self._queue_bytes_max = queue_bytes_max
        self._pause: asyncio.TimerHandle | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._deliver = session.data_received
        self.data_received = self._deliver_and_pause

    def write(self, data: bytes) -> None:
        if self._rest is None or self.is_closing:  # a closing line raises its own error
            self._pass_on(data)
            return
        self._queue.append(data)
        self._queue_bytes += len(data)
        if self.write_pending() > self._queue_bytes_max:
            self.abort(over_rate(self.url, self._queue_bytes_max))

    def write_pending(self) -> int:
        return self._queue_bytes + self.line.write_pending()

    def close(self) -> None:
        while self._queue and not self.is_closing:
            self.line.write(self._queue.popleft())
        self._queue_bytes = 0
        self.line.close()

    def line_lost(self, error: NotConnected) -> None:
        for timer in (self._pause, self._rest):
            if timer is not None:
                timer.cancel()
        self._queue.clear()
        self._queue_bytes = 0
        super().line_lost(error)

    def _deliver_and_pause(self, data: bytes) -> None:
        debt_s = self._incoming.spend(len(data))
        if debt_s and self._pause is None:
            self.line.pause_reading()
            self._pause = asyncio.get_running_loop().call_later(debt_s, self._read_on)
        self._deliver(data)

    def _read_on(self) -> None:
        self._pause = None
        self.line.resume_reading()

    def _pass_on(self, data: bytes) -> None:
        self.line.write(data)
        debt_s = self._outgoing.spend(len(data))
        if debt_s:
            self._rest = asyncio.get_running_loop().call_later(debt_s, self._write_on)

    def _write_on(self) -> None:
        self._rest = None
        while self._queue and self._rest is None and not self.is_closing:
            data = self._queue.popleft()
            self._queue_bytes -= len(data)
            self._pass_on(data)
