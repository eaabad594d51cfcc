"""A device that answers as vectors say, on a real socket, and goes wrong in the way an exam asks for.

    async with ScriptedDevice() as device:
        device.exchanges = patterns(scan.exchanges)
        device.upset(Fault.FLIPPED, at=0, dice=Random(4711))       the next request gets a damaged answer
        ...
        device.calm()

After a damaged answer the connection ends (but not after silence, nor an answer that came twice): so a driver that
waits for bytes that never come is told at once, and thousands of rounds take seconds. What no exchange has is kept in
`strange`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Sequence
from enum import Enum, unique
from random import Random
from types import TracebackType
from typing import Self, cast

from framegate.testing.exam.vectors import Pattern

REQUEST_BYTES_MAX = 64 * 1024
STRANGE_MAX = 16
"""Requests kept that no exchange has."""
TOLD_BYTES = 48
GRACE_S = 0.002
"""Before a connection ends on which a damaged answer was sent."""
RANDOM_BYTES_MAX = 600
FLIPS_MAX = 8
FLOOD_BYTES = 256 * 1024
_RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


@unique
class Fault(Enum):
    """How one answer goes wrong; the value is told to people."""

    SILENT = "no answer"
    CLOSED = "the connection is closed in place of an answer"
    RESET = "the connection is reset in place of an answer"
    TRUNCATED = "a part of the answer, then the connection is closed"
    FLIPPED = "some bits of the answer flipped"
    RANDOM = "random bytes"
    LONGER = "the answer, and random bytes behind it"
    TWICE = "the answer twice"
    FLOOD = "256 KiB of random bytes"


class ScriptedDevice:
    """Serves 127.0.0.1:port, TCP or UDP.

    exchanges   what it knows
    slice_s     seconds between two bytes of an answer; None: all at once
    connects    connections so far
    """

    def __init__(self, *, is_datagram: bool = False) -> None:
        self.exchanges: Sequence[Pattern] = ()
        self.slice_s: float | None = None
        self.strange: list[str] = []
        self.connects = 0
        self.port = 0
        self.last_sent = b""
        self._is_datagram = is_datagram
        self._fault: Fault | None = None
        self._wait = 0
        self._dice = Random(0)  # noqa: S311 - what is drawn must be repeatable
        self._server: asyncio.Server | asyncio.DatagramTransport | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._serving)

    def told(self, fault: Fault) -> str:
        """What a disturbed driver was sent, for people."""
        return f"{fault.value}: {self.last_sent[:TOLD_BYTES].hex(' ')}"

    @property
    def url(self) -> str:
        return f"{'udp' if self._is_datagram else 'tcp'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        if self._is_datagram:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Datagrams(self), ("127.0.0.1", 0)
            )
            self._server = transport
            self.port = int(transport.get_extra_info("sockname")[1])
        else:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=REQUEST_BYTES_MAX)
            self._server = server
            self.port = int(server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def upset(self, fault: Fault, at: int, dice: Random) -> None:
        """Answer the request number `at` from now on wrongly; and every later one too where the fault is silence."""
        self._fault, self._wait, self._dice = fault, at, dice

    def calm(self) -> None:
        """Answer rightly again."""
        self._fault = None

    def take(self, buffer: bytearray) -> bytes | None:
        """Take one request off the buffer; its answer, None where more bytes are needed.

        raises LookupError - bytes that are the beginning of no request
        """
        for pattern in self.exchanges:
            answer = pattern.match(buffer)
            if answer is not None:
                del buffer[: len(pattern.request)]
                return answer
        if any(pattern.may_become(buffer) for pattern in self.exchanges):
            return None
        if len(self.strange) < STRANGE_MAX:
            self.strange.append(bytes(buffer[:64]).hex(" "))
        raise LookupError

    def fault_of_next(self) -> Fault | None:
        """The fault of the answer that is sent next, None: none."""
        if self._fault is None:
            return None
        if self._wait > 0:
            self._wait -= 1
            return None
        fault = self._fault
        if fault is not Fault.SILENT:
            self._fault = None
        return fault

    def damaged(self, answer: bytes, fault: Fault) -> bytes:
        """What is sent in place of an answer."""
        dice = self._dice
        sent = b""
        match fault:
            case Fault.TRUNCATED:
                sent = answer[: dice.randrange(len(answer) or 1)]
            case Fault.FLIPPED:
                sent = _flipped(answer, dice)
            case Fault.RANDOM:
                sent = dice.randbytes(dice.randint(1, RANDOM_BYTES_MAX))
            case Fault.LONGER:
                sent = answer + dice.randbytes(dice.randint(1, RANDOM_BYTES_MAX))
            case Fault.TWICE:
                sent = answer * 2
            case Fault.FLOOD:
                sent = dice.randbytes(FLOOD_BYTES)
            case Fault.SILENT | Fault.CLOSED | Fault.RESET:
                pass
        return sent

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._serving.add(task)
        self.connects += 1
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._answer_all(reader, writer)
        writer.transport.abort()
        self._serving.discard(task)

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer = bytearray()
        while len(buffer) < REQUEST_BYTES_MAX and (data := await reader.read(REQUEST_BYTES_MAX)):
            buffer += data
            while buffer:
                try:
                    answer = self.take(buffer)
                except LookupError:
                    return
                if answer is None:
                    break
                if not await self._send(writer, answer):
                    return

    async def _send(self, writer: asyncio.StreamWriter, answer: bytes) -> bool:
        """Whether the connection goes on."""
        fault = self.fault_of_next()
        if fault is Fault.SILENT:
            return True
        if fault is Fault.RESET:
            self.last_sent = b""
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
            return False
        self.last_sent = self.damaged(answer, fault) if fault else answer
        if self.slice_s is None:
            writer.write(self.last_sent)
        else:
            for byte in self.last_sent:
                writer.write(bytes((byte,)))
                await asyncio.sleep(self.slice_s)
        await writer.drain()
        if fault is None or fault is Fault.TWICE:
            return True
        await asyncio.sleep(GRACE_S)
        if writer.can_write_eof():
            writer.write_eof()
        return False


def _flipped(answer: bytes, dice: Random) -> bytes:
    flipped = bytearray(answer)
    for _ in range(dice.randint(1, FLIPS_MAX) if flipped else 0):
        flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
    return bytes(flipped)


class _Datagrams(asyncio.DatagramProtocol):
    """One request per datagram; a fault that needs a connection is silence here."""

    def __init__(self, device: ScriptedDevice) -> None:
        self._device = device
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        device = self._device
        with contextlib.suppress(LookupError):
            answer = device.take(bytearray(data))
            fault = device.fault_of_next()
            if answer is None or fault in {Fault.SILENT, Fault.CLOSED, Fault.RESET}:
                return
            device.last_sent = device.damaged(answer, fault) if fault else answer
            assert self._transport is not None
            self._transport.sendto(device.last_sent[:1472], addr)  # what fits into one Ethernet frame
