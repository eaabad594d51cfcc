"""What sits on the line: one request at a time, and the answer that belongs to it."""

from __future__ import annotations

import asyncio

from framegate.contract.errors import FrameBroken, NoReply, NotConnected
from framegate.contract.ports import Line

from mydriver.registers import HEAD_BYTES, READ, WRITE, request


class RegisterLine:
    """Shared by every driver that leases this line; a lock keeps their requests apart."""

    def __init__(self) -> None:
        self._line: Line | None = None
        self._lock = asyncio.Lock()
        self._sequence = 0
        self._asked = b""  # function and sequence of the request under way
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @property
    def is_lost(self) -> bool:
        return self._line is None

    async def ask(self, function: int, first: int, argument: int, timeout_s: float) -> tuple[int, bytes]:
        """Send a request; returns status and data of its answer.

        raises NoReply, NotConnected, FrameBroken
        """
        async with self._lock:
            if self._line is None:
                raise NotConnected("the line is lost")
            self._sequence = (self._sequence + 1) % 256
            sent = request(function, self._sequence, first, argument)
            self._asked = sent[:2]
            answer = self._answer = asyncio.get_running_loop().create_future()
            try:
                self._line.write(sent)
                async with asyncio.timeout(timeout_s):
                    return await answer
            except TimeoutError:
                raise NoReply(f"no answer within {timeout_s:g} s; check power, wiring and address") from None
            finally:
                self._answer = None

    def line_made(self, line: Line) -> None:
        self._line = line

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= HEAD_BYTES:
            size = HEAD_BYTES + self._buffer[3]
            if self._buffer[0] not in {READ, WRITE}:
                self._fail(FrameBroken(f"bytes that are no answer: {self._buffer[:8].hex(' ')}"))
                return
            if len(self._buffer) < size:
                return
            frame = bytes(self._buffer[:size])
            del self._buffer[:size]
            # An answer to an earlier request comes late: it is passed over.
            if frame[:2] == self._asked and self._answer is not None and not self._answer.done():
                self._answer.set_result((frame[2], frame[HEAD_BYTES:]))

    def line_lost(self, error: NotConnected) -> None:
        self._line = None
        self._fail(error)

    def _fail(self, error: NotConnected | FrameBroken) -> None:
        """End the request under way; after bytes that make no sense the line is opened anew."""
        line, self._line = self._line, None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        if line is not None:
            line.close()
