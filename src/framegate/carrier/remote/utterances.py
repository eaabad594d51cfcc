"""What a driver's process says beside its answers: log lines, and whatever it writes to stdout and stderr.

All of it is bounded: so many lines a minute reach the log, the others are counted; the pipe is read at a pace, so that
a flood slows down its author and nobody else. The last lines are kept, for the day it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque

from framegate.contract.ports import Log

LINES_PER_MINUTE_MAX = 120
"""Day in, day out that is 70 MB at most; a driver that complains of every scan must not fill the disk."""
LINES_SPLIT_MAX = 30
"""Of what was read at once; more are a flood."""
LINE_BYTES_MAX = 400
LAST_LINES = 5
READ_BYTES = 64 * 1024
READ_PACE_S = 0.01
"""Between two reads; so at most 6.4 MB/s are taken from a flood."""
MESSAGES_PER_S_MAX = 1_000
"""Log lines and signs of life; more would keep the gateway busy."""
LAST_WORDS_S = 0.2
"""For the rest of the pipe, once the process has died."""
_PASSED_ON = ("debug", "info", "warning", "error")


class Utterances:
    """Of one process. Used on the loop."""

    def __init__(self, device: str, log: Log) -> None:
        self._device = device
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._pipe = -1
        self._rest = b""
        self._kept: deque[bytes] = deque(maxlen=LAST_LINES)
        self._second = self._minute = 0
        self._lines = 0
        self._messages = 0
        self._pause: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()

    def listen(self, pipe: int) -> None:
        """Read from this end of a pipe, and close it in the end."""
        os.set_blocking(pipe, False)
        self._pipe = pipe
        self._loop.add_reader(pipe, self._readable)

    def say(self, level: int, text: bytes) -> None:
        """A line for the log, unless there were too many."""
        self._turn()
        self._lines += 1
        if self._lines <= LINES_PER_MINUTE_MAX:
            words = text[:LINE_BYTES_MAX].decode(errors="replace")
            name = _PASSED_ON[min(3, max(0, level))]
            getattr(self._log, name)("driver_says", driver_id=self._device, text=words)

    def may_go_on(self) -> bool:
        """Count a message that is no answer; false: it is a flood of them."""
        self._turn()
        self._messages += 1
        return self._messages <= MESSAGES_PER_S_MAX

    async def last(self) -> str:
        """The last line it wrote; waits a moment for what is still in the pipe."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._ended.wait()
        lines = [line for line in (*self._kept, self._rest) if line.strip()]
        return lines[-1].decode(errors="replace").strip() if lines else ""

    def close(self) -> None:
        self._tell_left_out()
        if self._pause is not None:
            self._pause.cancel()
        if self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

    def _readable(self) -> None:
        try:
            data = os.read(self._pipe, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._pipe)
            self._ended.set()
            return
        *lines, rest = (self._rest + data).split(b"\n", LINES_SPLIT_MAX)
        for line in lines:
            self._kept.append(line[:LINE_BYTES_MAX])
            self.say(2, line)
        if len(lines) == LINES_SPLIT_MAX:  # a flood is counted, not split
            self._lines += rest.count(b"\n")
            *tail, rest = rest[-LAST_LINES * LINE_BYTES_MAX :].rsplit(b"\n", LAST_LINES)
            self._kept.extend(line[:LINE_BYTES_MAX] for line in tail)
        self._rest = rest[-LINE_BYTES_MAX:]
        self._loop.remove_reader(self._pipe)
        self._pause = self._loop.call_later(READ_PACE_S, self._resume)

    def _resume(self) -> None:
        if self._pipe >= 0:
            self._loop.add_reader(self._pipe, self._readable)

    def _turn(self) -> None:
        """A new second, and a new minute, begin their counts anew."""
        second = int(self._loop.time())
        if second != self._second:
            self._second, self._messages = second, 0
        if second // 60 != self._minute:
            self._tell_left_out()
            self._minute, self._lines = second // 60, 0

    def _tell_left_out(self) -> None:
        if self._lines > LINES_PER_MINUTE_MAX:
            left_out = self._lines - LINES_PER_MINUTE_MAX
            self._log.warning("driver_lines_left_out", driver_id=self._device, lines=left_out)
            self._lines = 0
