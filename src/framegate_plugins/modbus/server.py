"""The server side of a bridge: clients, what bounds them, and the order of answers.

    line -> inbox -> frames, FRAMES_PER_TURN a turn of the loop -> Responder -> answers, or writes under way

Reads are answered at once, writes as they end. With transaction ids (TCP, TLS, UDP) a master knows which answer is
which; without (RTU, ASCII) a master that sends anything before a write was answered has given up on it, and gets no
answer to it any more: it would take it for that of its next request, or it would collide with another unit's on the
bus. While an inbox holds bytes nothing more is read from its client: who asks faster than it may, or does not take its
answers, waits in its own kernel buffers.

Source: MODBUS Messaging on TCP/IP V1.0b, 4.3 and 4.4; MODBUS over Serial Line V1.02, 2.1 and 2.5.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from framegate.contract.bridge import BridgeHealth
from framegate.contract.errors import FrameBroken, NotConnected
from framegate.contract.ports import Line
from framegate.endpoint.line import OpenLine
from framegate_plugins.modbus.bridge_options import BridgeOptions
from framegate_plugins.modbus.bridge_writes import Writes
from framegate_plugins.modbus.codec import DEVICE_BUSY, PATH_UNAVAILABLE, encode_exception
from framegate_plugins.modbus.framing import Frame, Framing
from framegate_plugins.modbus.request_rate import Bucket, RequestRate
from framegate_plugins.modbus.responder import Pending, Responder

FRAMES_PER_TURN: Final = 32
PIECE_BYTES: Final = 512
"""Bytes of an inbox that are looked at together: at most 64 frames."""
REQUEST_BYTES_MIN: Final = 8
"""So many bytes that are no frame cost a host as much as a request: to find that out is work, too."""
DATAGRAM_BYTES_MAX: Final = 1_024
ANSWERS_BYTES_MAX: Final = 64 * 1024
"""Answers that a client has not taken yet; nothing more is answered beyond."""
DRAIN_S: Final = 0.02
STALL_S: Final = 10.0
"""How long a client may leave its answers untaken."""
FRAME_S: Final = 5.0
"""How long a request may take from its first byte to its last."""
FRAGMENT_S: Final = 0.1
"""Silence on a serial line after which what has come is no beginning of a frame any more."""
WATCH_S: Final = 1.0
WRITES_PER_HOST_MAX: Final = 64
WRITES_MAX: Final = 256
"""Requests of all clients together that wait for their writes."""
_BROADCAST: Final = 0
_ANY_UNIT: Final = frozenset((0, 255))
"""On TCP, of a device that is no gateway to others (Messaging, 4.4.2)."""


@dataclass(slots=True)
class Counts:
    """Since the bridge was opened."""

    requests: int = 0
    writes: int = 0
    refused: int = 0


class Server:
    """All clients of one bridge."""

    def __init__(
        self,
        options: BridgeOptions,
        framing: Framing,
        responder: Responder,
        writes: Writes,
        on_refused: Callable[[str, str], None],
        on_bus_lost: Callable[[NotConnected], None],
    ) -> None:
        self.options, self.framing, self.responder, self.writes = options, framing, responder, writes
        self.counts = Counts()
        self.clients: set[Client] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._peers: Counter[str] = Counter()
        self._rate = RequestRate(options.limits.requests_per_s)
        self._on_refused = on_refused
        self.on_bus_lost = on_bus_lost
        self._watch: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look after clients from now on."""
        self._watch = asyncio.get_running_loop().call_later(WATCH_S, self._look)

    async def stop(self) -> None:
        """Answer nothing more; what has been handed to the desk goes its way."""
        if self._watch is not None:
            self._watch.cancel()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def make_client(self) -> Client:
        return Client(self)

    def health(self) -> BridgeHealth:
        counts = self.counts
        return BridgeHealth(len(self.clients), counts.requests, counts.writes, counts.refused)

    def admit(self, client: Client, line: OpenLine, bucket: Bucket) -> bool:
        """Whether there is room for one more client, and for one more of its host."""
        limits = self.options.limits
        if line.peer and bucket.left(asyncio.get_running_loop().time()) <= 0:
            return self.refuse(line.peer, f"more than requests_per_s, {limits.requests_per_s}, came from this host")
        if len(self.clients) >= limits.clients:
            return self.refuse(
                line.peer, f"{limits.clients} clients are connected, the most that option clients allows"
            )
        if line.peer and not line.is_datagram and self._peers[line.peer] >= limits.clients_per_peer:
            text = f"{limits.clients_per_peer} clients of this host are connected, the most of clients_per_peer"
            return self.refuse(line.peer, text)
        self.clients.add(client)
        self._peers[line.peer] += 1
        bucket.users += 1
        bucket.spend()
        return True

    def bucket(self, peer: str) -> Bucket:
        return self._rate.bucket(peer, asyncio.get_running_loop().time())

    def refuse(self, peer: str, reason: str) -> bool:
        """Count and tell that somebody was turned away; False."""
        self.counts.refused += 1
        self._on_refused(peer, reason)
        return False

    def forget(self, client: Client, peer: str, bucket: Bucket) -> None:
        bucket.users -= 1
        self.clients.discard(client)
        self._peers[peer] -= 1
        if self._peers[peer] <= 0:
            del self._peers[peer]

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for client in list(self.clients):
            client.look(now)
        self._rate.tidy(now)
        self._watch = asyncio.get_running_loop().call_later(WATCH_S, self._look)


class Client:
    """One master's connection, or the serial line with all masters on it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._limits = server.options.limits
        self._framing = server.framing
        self._decoder = server.framing.requests()
        self._loop = asyncio.get_running_loop()
        self._line: OpenLine | None = None
        self._peer = ""
        self._is_bus = False  # a serial line: other units may be on it
        self._inbox = b""
        self._frames: deque[Frame] = deque()
        self._is_paused = False
        self._next: asyncio.Handle | None = None
        self._writing = 0
        self._heard_count = 0  # chunks and frames, so that a write knows whether its master has gone on
        self._heard = self._taken = self._loop.time()
        self._begun = 0.0  # when the frame began that is not whole yet; 0: none

    # -- the line -------------------------------------------------------------------------------------------------

    def line_made(self, line: Line) -> None:
        open_line = cast(OpenLine, line)  # a listener makes nothing else
        self._bucket = self._server.bucket(open_line.peer)
        if not self._server.admit(self, open_line, self._bucket):
            line.close()
            return
        self._line, self._peer = open_line, open_line.peer
        self._is_bus = open_line.url.startswith("serial")

    def line_lost(self, error: NotConnected) -> None:
        if self._line is not None:
            self._leave()
            if self._is_bus:
                self._server.on_bus_lost(error)

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        if self._line is None:
            return
        if self._line.is_datagram:
            self._inbox, data = b"", data[:DATAGRAM_BYTES_MAX]
            self._decoder.reset()
        elif self._is_bus and now - self._heard > FRAGMENT_S:
            self._decoder.reset()
        self._heard = now
        self._heard_count += 1
        self._inbox = self._inbox + data if self._inbox else data
        if self._next is None:
            self._serve()
        else:
            self._pause(self._line)

    def look(self, now: float) -> None:
        """Hang up on a client that is silent, sends a request for ever, or does not take its answers."""
        line = self._line
        if line is None or line.is_datagram or self._is_bus:
            return
        if line.write_pending() <= ANSWERS_BYTES_MAX:
            self._taken = now
        if self._inbox or self._frames:  # it is we who do not look at what it has sent
            self._begun, self._heard = now if self._begun else 0.0, now
        if self._begun and now - self._begun > FRAME_S:
            self._hang_up(f"a request was not whole after {FRAME_S:g} s")
        elif now - self._taken > STALL_S:
            self._hang_up(f"{ANSWERS_BYTES_MAX} bytes of answers were not taken for {STALL_S:g} s")
        elif not self._writing and now - self._heard > self._limits.idle_s:
            self._hang_up("")

    def _hang_up(self, reason: str) -> None:
        if reason:
            self._server.refuse(self._peer, reason)
        self._leave().close()

    def _leave(self) -> OpenLine:
        """Forget the line, and what came on it."""
        line, self._line = self._line, None
        assert line is not None
        self._server.forget(self, self._peer, self._bucket)
        self._inbox = b""
        self._frames.clear()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        return line

    # -- requests -------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Answer what has come, one piece of it, and come back for the rest."""
        self._next = None
        line = self._line
        if line is None:
            return
        answers: list[bytes] = []
        budget = min(FRAMES_PER_TURN, self._allowance(line))
        if budget > 0 and not self._frames:
            self._decode()
        while self._frames and budget > 0:
            answers.append(self._answer(self._frames.popleft()))
            budget -= 1
        self._send(b"".join(answers))
        if self._frames or self._inbox:
            self._pause(line)
            self._next = self._loop.call_later(0.0 if self._allowance(line) > 0 else DRAIN_S, self._serve)
        elif self._is_paused:
            self._is_paused = False
            line.resume_reading()

    def _pause(self, line: OpenLine) -> None:
        if not self._is_paused:
            self._is_paused = True
            line.pause_reading()

    def _allowance(self, line: OpenLine) -> int:
        """Requests that may be answered now."""
        if line.write_pending() > ANSWERS_BYTES_MAX:
            return 0
        if self._is_bus:
            return FRAMES_PER_TURN
        return self._bucket.left(self._loop.time())

    def _decode(self) -> None:
        """Take the frames of the inbox's next piece; hang up where it holds no Modbus."""
        piece, self._inbox = self._inbox[:PIECE_BYTES], self._inbox[PIECE_BYTES:]
        skipped = self._decoder.skipped
        try:
            frames = self._decoder.feed(piece)
        except FrameBroken as error:
            self._lose_track(error.text)
            return
        finally:
            self._bucket.spend((self._decoder.skipped - skipped) / REQUEST_BYTES_MIN)
        if self._framing.has_ids and self._decoder.skipped:
            # No check sum: what looks like a request behind lost bytes may be data of another one.
            self._lose_track("bytes that are no Modbus TCP frame")
            return
        self._frames.extend(frames)
        if not self._decoder.rest:
            self._begun = 0.0
        elif self._frames or not self._begun:
            self._begun = self._loop.time()

    def _lose_track(self, reason: str) -> None:
        """Hang up; begin anew where there is nobody to hang up on."""
        self._decoder = self._framing.requests()
        if self._line is not None and self._line.is_datagram:
            self._inbox = b""
        elif not self._is_bus:
            self._hang_up(reason)

    def _answer(self, frame: Frame) -> bytes:
        """Frame to send for a request; b"" for none, or for one that comes later."""
        self._bucket.spend()
        self._heard_count += 1
        is_broadcast = not self._framing.has_ids and frame.unit == _BROADCAST
        if not is_broadcast and frame.unit != self._server.options.unit:
            if not self._framing.has_ids:
                return b""  # somebody else's
            if frame.unit not in _ANY_UNIT:
                return self._wrapped(frame, encode_exception(frame.pdu[0], PATH_UNAVAILABLE))
        self._server.counts.requests += 1
        answer = self._server.responder.ask(frame.pdu)
        if isinstance(answer, Pending):
            return self._begin(frame, answer, is_broadcast=is_broadcast)
        return b"" if is_broadcast else self._wrapped(frame, answer)

    def _begin(self, frame: Frame, pending: Pending, *, is_broadcast: bool) -> bytes:
        server = self._server
        is_full = self._bucket.writes >= WRITES_PER_HOST_MAX or len(server.tasks) >= WRITES_MAX
        if is_full or self._writing >= self._limits.writes:
            return b"" if is_broadcast else self._wrapped(frame, encode_exception(frame.pdu[0], DEVICE_BUSY))
        server.counts.writes += 1
        self._writing += 1
        self._bucket.writes += 1
        task = self._loop.create_task(self._write(frame, pending, self._heard_count, is_broadcast=is_broadcast))
        server.tasks.add(task)
        task.add_done_callback(server.tasks.discard)
        return b""

    async def _write(self, frame: Frame, pending: Pending, heard_count: int, *, is_broadcast: bool) -> None:
        try:
            exception = await self._server.writes.carry_out(pending.writes)
        finally:
            self._writing -= 1
            self._bucket.writes -= 1
        is_awaited = self._framing.has_ids or heard_count == self._heard_count
        if is_awaited and not is_broadcast:
            self._send(self._wrapped(frame, self._server.responder.finish(pending.request, exception)))

    def _wrapped(self, frame: Frame, pdu: bytes) -> bytes:
        return self._framing.wrap(frame.transaction, frame.unit, pdu)

    def _send(self, data: bytes) -> None:
        line = self._line
        if line is None or not data:
            return
        if self._is_bus and line.silence_s:
            self._loop.call_later(line.silence_s, self._write_out, data)  # 2.5.1.1: frames stand 3.5 characters apart
        else:
            self._write_out(data)

    def _write_out(self, data: bytes) -> None:
        if self._line is not None:
            with contextlib.suppress(NotConnected):  # line_lost comes next
                self._line.write(data)
