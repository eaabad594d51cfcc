"""What one guest is given: its device's sockets, a place for its rows, time, and a budget for each call.

Called in the guest's thread, but for `cancel`. A call has a deadline; what waits, waits no longer, and a guest that has
waited gets GRACE_S to come home. Floods are bounded: rows and bytes of a call, log lines of a call.

Source: contract/driver.wit, interface host.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from framegate.carrier.wasm.world import Errc, Rows, Violation
from framegate.contract.frame import Batch

GRACE_S = 0.03
"""A guest may take so long to come home once its time is over."""
COMPUTE_S_MAX = 2.5
"""A guest may compute so long from one wait to the next: beyond that it hangs, whatever time its call still has."""
ROWS_PER_CALL_MAX = 1 << 20
BYTES_PER_CALL_MAX = 32 << 20
"""Of emitted columns."""
RECV_BYTES_MAX = 1 << 20
"""Of one recv; a guest that asks for more gets less, as from any socket."""
LINES_PER_CALL_MAX = 8
LINE_BYTES_MAX = 512
_MS = 1000


class Line(NamedTuple):
    """What a guest logged. level: 0 debug .. 3 error."""

    level: int
    text: bytes


class Decoder(Protocol):
    """The rows of one plan."""

    def batches(self, rows: Rows, now_ns: int) -> Sequence[Batch]:
        """Raises Violation."""


class Desk:
    """The host of one guest; satisfies Host.

    now_ns  wall time, ns UTC
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self.now_ns = now_ns
        self.batches: list[Batch] = []
        self.lines: list[Line] = []
        self.lines_dropped = 0
        self.bytes_sent = 0  # of the call under way
        self._decoder: Decoder | None = None
        self._channels: list[_Channel] = []
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_cancelled = False
        self._deadline = 0.0
        self._send_deadline = 0.0
        self._has_waited = False
        self._rows = self._bytes = 0

    def attach(self, sockets: Sequence[socket.socket]) -> None:
        """The channels, from 0; the caller keeps the sockets and closes them."""
        self._channels = [_Channel(each, self._wake) for each in sockets]

    def begin(self, budget_s: float, decoder: Decoder | None = None, send_s: float | None = None) -> None:
        """A call begins.

        decoder  where rows go that it emits; None: it may not emit any
        send_s   nothing is sent any more after so long
        """
        self._deadline = time.monotonic() + budget_s
        self._send_deadline = self._deadline if send_s is None else min(self._deadline, time.monotonic() + send_s)
        self._decoder = decoder
        self._has_waited = False
        self._rows = self._bytes = self.bytes_sent = 0
        self.batches, self.lines, self.lines_dropped = [], [], 0

    def cancel(self) -> None:
        """Have the call under way end soon, and any later one. From any thread."""
        self._is_cancelled = True
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Idempotent."""
        wake, self._wake = self._wake, -1
        if wake >= 0:
            os.close(wake)

    # -- Host -----------------------------------------------------------------------------------------------------

    def send(self, channel: int, data: bytes) -> Errc | None:
        line = self._channel(channel)
        if line is None:
            return Errc.INVALID
        if self._is_cancelled or time.monotonic() >= self._send_deadline:
            return Errc.NOT_SENT
        left = memoryview(data)
        while left:
            try:
                sent = line.socket.send(left)
            except BlockingIOError:
                error = self._wait(line, select.POLLOUT, self._deadline)
                if error is not None:
                    return error
                continue
            except OSError:
                return Errc.CLOSED
            self.bytes_sent += sent
            left = left[sent:]
        return None

    def recv(self, channel: int, size_max: int, timeout_ms: int) -> bytes | Errc:
        line = self._channel(channel)
        if line is None or not size_max:
            return Errc.INVALID
        deadline = min(self._deadline, time.monotonic() + timeout_ms / _MS)
        if line.is_full:  # more may lie there than was asked for
            with contextlib.suppress(BlockingIOError):
                return line.receive(size_max)
        error = self._wait(line, select.POLLIN, deadline)
        if error is not None:
            return error
        try:
            return line.receive(size_max)
        except BlockingIOError:
            return Errc.TIMEOUT

    def emit(self, rows: Rows) -> None:
        if self._decoder is None:
            raise Violation("emitted rows outside of poll")
        self._rows += len(rows.tag) // 4
        self._bytes += len(rows.value) if isinstance(rows.value, bytes) else sum(map(len, rows.value))
        if self._rows > ROWS_PER_CALL_MAX or self._bytes > BYTES_PER_CALL_MAX:
            raise Violation(f"emitted more than {ROWS_PER_CALL_MAX} rows or {BYTES_PER_CALL_MAX} bytes in one poll")
        self.batches += self._decoder.batches(rows, self.now_ns())

    def log(self, level: int, text: bytes) -> None:
        if len(self.lines) >= LINES_PER_CALL_MAX:
            self.lines_dropped += 1
        else:
            self.lines.append(Line(level, text[:LINE_BYTES_MAX]))

    def cancelled(self) -> bool:
        return self._is_cancelled or time.monotonic() >= self._deadline

    def sleep(self, seconds: float) -> None:
        started = time.monotonic()
        left_s = min(seconds, self._deadline - started)
        if left_s > 0 and not self._is_cancelled:
            self._has_waited = True
            select.select((self._wake,), (), (), left_s)

    def extra_s(self) -> float:
        if not self._has_waited:
            return 0.0
        self._has_waited = False
        return computing_s(max(0.0, self._deadline - time.monotonic()))

    # -------------------------------------------------------------------------------------------------------------

    def _channel(self, number: int) -> _Channel | None:
        return self._channels[number] if number < len(self._channels) else None

    def _wait(self, line: _Channel, event: int, deadline: float) -> Errc | None:
        """Until the socket is ready; else why not. Once the time of the call is over, no wait prolongs it."""
        if self._is_cancelled:
            return Errc.CANCELLED
        left_s = max(0.0, deadline - time.monotonic())
        self._has_waited |= left_s > 0
        return None if line.ready(event, left_s) else Errc.CANCELLED if self._is_cancelled else Errc.TIMEOUT


def computing_s(left_s: float) -> float:
    """How long a guest may run before it waits or comes home, with so much of its call's time left."""
    return min(left_s, COMPUTE_S_MAX) + GRACE_S


class _Channel:
    """One socket, and the file descriptor that ends a wait for it."""

    def __init__(self, line: socket.socket, wake: int) -> None:
        line.setblocking(False)
        self.socket = line
        self.is_datagram = line.type == socket.SOCK_DGRAM
        self._polls = {}
        for event in (select.POLLIN, select.POLLOUT):
            poll = self._polls[event] = select.poll()
            poll.register(line, event)
            poll.register(wake, select.POLLIN)
        self._number = line.fileno()
        self.is_full = False  # the last piece was as long as was asked for

    def receive(self, size_max: int) -> bytes | Errc:
        """Raises BlockingIOError."""
        size = min(size_max, RECV_BYTES_MAX)
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            raise
        except OSError:
            return Errc.CLOSED
        self.is_full = len(data) == size
        return data or (b"" if self.is_datagram else Errc.CLOSED)

    def ready(self, event: int, seconds: float) -> bool:
        """Whether it is, or broke, within that time."""
        found = self._polls[event].poll(math.ceil(seconds * _MS))
        return any(number == self._number for number, _ in found)
