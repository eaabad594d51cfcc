"""One process with a driver in it, as the gateway sees it: started, called, watched, ended. Everything it says is a
stranger's word.

    process = ChildProcess("native", "meter1", context.log, crashed)
    await process.start()
    reply = await process.call(Message.POLL, ..., budget_s=8.0)     raises NotConnected when it dies or hangs
    await process.end()

A call that shows no sign of life, or is not done a moment after its budget, ends the process. The first reason for an
end is the one that every later call gets.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from functools import partial

from framegate.carrier.child.wire import (
    ERROR_BYTES_MAX,
    HEADER,
    MESSAGE_BYTES_MAX,
    PACKET_BYTES_MAX,
    Message,
    packets,
)
from framegate.carrier.remote.calls import GRACE_S, SILENT_S, Calls, Reply
from framegate.carrier.remote.processor import ProcessorWatch, processor_seconds
from framegate.carrier.remote.spawn import BARE, spawn
from framegate.carrier.remote.utterances import Utterances
from framegate.contract.errors import NotConnected
from framegate.contract.ports import Log
from framegate.endpoint.spawn import Process, ending_of

HELLO_S = 15.0
"""Until a fresh interpreter runs, on a busy machine."""
END_S = 0.4
"""For the last call of a process that is asked to end; then it is killed. A gateway that stops has 0.6 s for it."""
BURIAL_S = 0.4
"""For the system to tell that it has gone; what takes longer goes on behind."""
DEATH_S = 0.5
"""From the end of its line until it is known how it died."""
_DONE, _HELLO, _BEAT, _LOG = map(int, (Message.DONE, Message.HELLO, Message.BEAT, Message.LOG))


class ChildProcess:
    """Used on the loop.

    module   what it runs, a module of carrier.child
    crashed  called once when it ends or is ended unasked, with the reason
    flags    of its interpreter
    """

    def __init__(
        self, module: str, device: str, log: Log, crashed: Callable[[str], None], flags: Sequence[str] = BARE
    ) -> None:
        self._module, self._flags = module, flags
        self._device = device
        self._crashed = crashed
        self._log, self._words = log, Utterances(device, log)
        self._calls = Calls(self._hung)
        self._loop = asyncio.get_running_loop()
        self._process: Process | None = None
        self._watch: ProcessorWatch | None = None
        self._socket: socket.socket | None = None
        self._room = PACKET_BYTES_MAX
        self._parts: list[bytes] = []
        self._bytes = 0
        self._why, self._code = "", ""
        self._burial: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it; raises NotConnected E4510, E4511."""
        self._process, self._socket, words = await spawn(self._device, self._module, self._flags)
        self._words.listen(words)
        self._watch = ProcessorWatch(self._device, self._log, partial(processor_seconds, self._process.pid))
        self._loop.add_reader(self._socket.fileno(), self._readable)
        await self._calls.begin(HELLO_S, HELLO_S)

    async def call(
        self,
        kind: Message,
        status: int = 0,
        rows: int = 0,
        parts: Sequence[bytes | memoryview] = (),
        *,
        budget_s: float,
        fds: Sequence[int] = (),
        answer_bytes: int = PACKET_BYTES_MAX,
    ) -> Reply:
        """Make a call and have its answer.

        fds           file descriptors that the process gets as its own
        answer_bytes  most that the answer to this call can have beside an error; a longer one is none
        raises        NotConnected E4510 - it died; E4511 - it hung; E4512 - it said what cannot be
        """
        calls = self._calls
        if calls.is_busy:
            await calls.turn()
        if self._socket is None:
            raise self._gone()
        calls.number += 1
        self._room = min(PACKET_BYTES_MAX, HEADER.size + ERROR_BYTES_MAX + answer_bytes)
        answer = calls.begin(SILENT_S, budget_s + GRACE_S)
        try:
            if fds or parts:
                await self._send(packets(kind, calls.number, status, rows, parts), fds)
            else:
                self._send_now(HEADER.pack(kind, 0, 0, calls.number, status, rows))
            return await answer
        except asyncio.CancelledError:
            if calls.is_busy:
                self._send_now(HEADER.pack(Message.CANCEL, 0, 0, calls.number, 0, 0))
            raise

    async def end(self) -> None:
        """Have it make its last call and exit, or kill it. Never raises."""
        if self._socket is not None:
            self._crashed = _nobody
            with contextlib.suppress(NotConnected, TimeoutError):
                async with asyncio.timeout(END_S):
                    await self.call(Message.DISCONNECT, budget_s=END_S)
            self._stop(f"driver {self._device}: is closed", "E4510")
        if self._burial is not None:
            await asyncio.wait((self._burial,), timeout=BURIAL_S)

    def kill(self) -> None:
        """End it at once."""
        self._crashed = _nobody
        self._stop(f"driver {self._device}: is closed", "E4510")

    def lies(self, what: str) -> NotConnected:
        """End it: an answer of the right form holds what cannot be. Returns what to raise."""
        self._lies(what)
        return self._gone()

    # -- what it is told ----------------------------------------------------------------------------------

    def _send_now(self, packet: bytes) -> None:
        """A small packet always has room: the process reads before it answers. Who reads from it notices its end."""
        if self._socket is not None:
            try:  # noqa: SIM105 - on the way of every scan
                self._socket.send(packet)
            except OSError:
                pass

    async def _send(self, messages: list[bytes], fds: Sequence[int]) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):
            if fds:
                socket.send_fds(self._socket, [messages.pop(0)], list(fds))
            for packet in messages:
                await self._loop.sock_sendall(self._socket, packet)

    # -- what it says -------------------------------------------------------------------------------------

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            packet = self._socket.recv(self._room)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._loop.remove_reader(self._socket.fileno())
            self._mourn()
            return
        try:
            kind, is_more, _, call, status, rows = HEADER.unpack_from(packet)
        except struct.error:
            self._lies(f"a packet of {len(packet)} bytes")
            return
        calls = self._calls
        if kind != _DONE or not calls.is_busy or call != calls.number:
            self._overhear(kind, status, packet)
        elif is_more or self._parts:
            self._take(packet, status, rows, is_more=bool(is_more))
        else:
            calls.settle(Reply(status, rows, packet[HEADER.size :]))

    def _take(self, packet: bytes, status: int, rows: int, *, is_more: bool) -> None:
        """A piece of an answer of several."""
        self._parts.append(packet[HEADER.size :])
        self._bytes += len(packet)
        if self._bytes > MESSAGE_BYTES_MAX or (is_more and len(packet) < PACKET_BYTES_MAX):
            self._lies(f"an answer of more than {MESSAGE_BYTES_MAX} bytes, or in too small pieces")
        elif not is_more:
            whole = b"".join(self._parts)
            self._parts, self._bytes = [], 0
            self._calls.settle(Reply(status, rows, whole))

    def _overhear(self, kind: int, status: int, packet: bytes) -> None:
        """What is no answer to a call."""
        if not self._words.may_go_on():
            self._lies("more messages than a driver has reason for")
        elif kind == _BEAT:
            self._calls.heard(SILENT_S)
        elif kind == _LOG:
            self._words.say(status, packet[HEADER.size :])
        elif kind == _HELLO and self._calls.is_busy and self._calls.number == 0:
            self._calls.settle(Reply(0, 0, b""))
        else:
            self._lies(f"a packet of kind {kind} out of turn")

    # -- its end ------------------------------------------------------------------------------------------

    def _hung(self, what: str) -> None:
        self._fail(f"driver {self._device}: its process {what}; it is ended and started again", "E4511", what)

    def _lies(self, what: str) -> None:
        text = f"driver {self._device}: its process sent {what}; it is ended and started again, report it to its maker"
        self._fail(text, "E4512", f"sent {what}")

    def _mourn(self) -> None:
        """It has hung up, so it has died or is about to; see how."""
        if self._burial is None:
            self._burial = self._loop.create_task(self._ask_how(), name=f"end of driver {self._device}")

    async def _ask_how(self) -> None:
        assert self._process is not None
        how = "closed its line"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEATH_S):
                how = ending_of(await self._process.wait())
        last = await self._words.last()
        said = f"; its last words: {last}" if last else ""
        self._fail(f"driver {self._device}: its process {how}{said}; it is started again", "E4510", how)
        await self._reap()

    def _fail(self, text: str, code: str, how: str) -> None:
        if not self._why:
            crashed, self._crashed = self._crashed, _nobody
            crashed(how)
        self._stop(text, code)

    def _stop(self, why: str, code: str) -> None:
        """Out of use, for this reason unless there was one before; kills it."""
        if not self._why:
            self._why, self._code = why, code
        ours, self._socket = self._socket, None
        if ours is not None:
            self._loop.remove_reader(ours.fileno())
            ours.close()
        self._calls.fail(self._gone())
        if self._watch is not None:
            self._watch.end()
        if self._process is not None:
            self._process.kill()
        if self._burial is None:
            self._burial = self._loop.create_task(self._reap(), name=f"end of driver {self._device}")

    async def _reap(self) -> None:
        try:
            if self._process is not None:
                await self._process.wait()
        finally:
            self._words.close()

    def _gone(self) -> NotConnected:
        """A fresh error each time: one object raised often would grow its traceback."""
        return NotConnected(self._why, code=self._code)


def _nobody(reason: str) -> None:
    """Asked to end."""
