"""What a native driver is offered while one of its calls runs: the device's line, log lines, the clock.

A wait ends at the time-out that the driver names, at the end of the call's budget, or when the caller has gone,
whichever comes first. A line that has ended stays so: the gateway opens another.
"""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import time
from collections.abc import Callable, Sequence

from framegate.carrier.child.abi import Status
from framegate.carrier.child.wire import TEXT_BYTES_MAX

LINES_PER_CALL_MAX = 50
"""Log lines of one call; more are counted."""
_PASSING = frozenset((errno.EAGAIN, errno.EINTR))


class Channels:
    """Satisfies abi.Offers.

    lines      sockets to the device, non-blocking, by channel
    control    readable as soon as the caller has gone
    log_line   takes level and text
    is_waiting, moved  for who watches: a send or recv is under way; bytes so far
    """

    def __init__(self, lines: Sequence[socket.socket], control: int, log_line: Callable[[int, bytes], None]) -> None:
        self.lines = lines
        self.is_waiting = False
        self.moved = 0
        self._log_line = log_line
        self._logged = 0
        self._deadline = 0.0
        self._control = select.poll()
        self._control.register(control, select.POLLIN)
        self._readable: list[select.poll] = []
        self._writable: list[select.poll] = []
        for line in lines:
            for event, polls in ((select.POLLIN, self._readable), (select.POLLOUT, self._writable)):
                poll = select.poll()
                poll.register(line.fileno(), event)
                poll.register(control, select.POLLIN)
                polls.append(poll)
        self._control_fd = control

    def begin(self, budget_ms: int) -> None:
        """A call begins."""
        self._deadline = time.monotonic() + budget_ms / 1000
        if self._logged > LINES_PER_CALL_MAX:
            self._log_line(2, f"{self._logged - LINES_PER_CALL_MAX} log lines were left out".encode())
        self._logged = 0

    def send(self, channel: int, address: int, size: int) -> int:
        if channel >= len(self.lines):
            return Status.INVALID
        line = self.lines[channel]
        data = memoryview(ctypes.string_at(address, size)) if size else memoryview(b"")
        while data:
            try:
                sent = line.send(data)
            except OSError as error:
                if error.errno not in _PASSING:
                    return Status.CLOSED
                status = self._wait(self._writable[channel], self._left_ms())
                if status is not Status.OK:
                    return status
            else:
                self.moved += sent
                data = data[sent:]
        return Status.OK

    def recv(self, channel: int, address: int, capacity: int, timeout_ms: int) -> int:
        if channel >= len(self.lines) or not address or not capacity:
            return Status.INVALID
        line = self.lines[channel]
        room = (ctypes.c_char * capacity).from_address(address)
        end = time.monotonic() + timeout_ms / 1000
        while True:
            status = self._wait(self._readable[channel], min(self._left_ms(), (end - time.monotonic()) * 1000))
            if status is not Status.OK:
                return status
            try:
                taken = line.recv_into(room)
            except OSError as error:
                if error.errno not in _PASSING:
                    return Status.CLOSED
                continue
            self.moved += taken
            if taken == 0 and line.type == socket.SOCK_STREAM:
                return Status.CLOSED
            return taken

    def log(self, level: int, text: bytes) -> None:
        self._logged += 1
        if self._logged <= LINES_PER_CALL_MAX:
            self._log_line(min(3, max(0, level)), text[:TEXT_BYTES_MAX])

    def now_ns(self) -> int:
        return time.time_ns()

    def is_cancelled(self) -> bool:
        return bool(self._control.poll(0))

    def _left_ms(self) -> float:
        return (self._deadline - time.monotonic()) * 1000

    def _wait(self, poll: select.poll, limit_ms: float) -> Status:
        """Until the line is ready (OK), the time is over, or the caller has gone."""
        self.is_waiting = True
        ready = poll.poll(max(0.0, limit_ms))
        self.is_waiting = False
        if not ready:
            return Status.TIMEOUT
        return Status.CANCELLED if any(each == self._control_fd for each, _ in ready) else Status.OK
