"""One client's connection: chunks in, the secure channel, answers out. Nobody is trusted here.

    HELLO -> OPENING -> OPEN -> CLOSED

What a chunk announces is judged before it is waited for, and what it holds before it is decrypted: its kind must fit
the state, its size the bound of that kind, its rate the client's bucket (beyond it the socket is not read, and the
client waits). Certificates are judged, and channels opened, in a thread. asyncua keeps keys, padding, sequence numbers
and tokens. Source: OPC UA Part 6, 6.7 (secure conversation) and 7.1 (UA TCP).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, unique
from typing import Final, Protocol, cast

from framegate.contract.errors import FrameBroken
from framegate_plugins.opcua.server import answers, binary
from framegate_plugins.opcua.server.channel import ChannelRefused, SecureChannelState, Security, is_plain
from framegate_plugins.opcua.server.counts import Counts
from framegate_plugins.opcua.server.limits import (
    ACTIVATION_S,
    ANSWER_BYTES_MAX,
    CHUNK_BYTES_MAX,
    CHUNK_BYTES_MIN,
    CHUNKS_AT_ONCE_MAX,
    CHUNKS_MAX,
    HANDSHAKE_S,
    HELLO_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    OPEN_BYTES_MAX,
    SEND_BYTES_HIGH,
    SEND_BYTES_MAX,
    SEND_S,
    Bucket,
)
from framegate_plugins.opcua.server.services import Services
from framegate_plugins.opcua.server.session import Sessions
from framegate_plugins.opcua.server.status import (
    BAD_DECODING_ERROR,
    BAD_MAX_CONNECTIONS_REACHED,
    BAD_RESPONSE_TOO_LARGE,
    BAD_SECURITY_CHECKS_FAILED,
    BAD_SHUTDOWN,
    BAD_TCP_MESSAGE_TOO_LARGE,
    BAD_TCP_MESSAGE_TYPE_INVALID,
    BAD_TIMEOUT,
    GOOD,
)

HEADER_BYTES: Final = 8
"""Kind, F or C or A, and the size of the whole chunk."""


@unique
class State(Enum):
    HELLO = "waits for Hello"
    OPENING = "waits for a secure channel"
    OPEN = "serves"
    CLOSED = "is over"


_KINDS: Final[dict[State, dict[bytes, int]]] = {
    State.HELLO: {b"HEL": HELLO_BYTES_MAX},
    State.OPENING: {b"OPN": OPEN_BYTES_MAX},
    State.OPEN: {b"MSG": CHUNK_BYTES_MAX, b"OPN": OPEN_BYTES_MAX, b"CLO": CHUNK_BYTES_MAX},
    State.CLOSED: {},
}
"""What may come in each state, and how large it may be."""


class House(Protocol):
    """What connections share: the server."""

    security: Security
    services: Services
    sessions: Sessions
    counts: Counts
    requests_per_s: float

    def now_ns(self) -> int:
        """Wall time."""

    def admit(self, connection: Connection) -> str:
        """Why there is no place for one connection more; "": there is."""

    def leave(self, connection: Connection) -> None: ...

    def may_open(self, peer: str) -> bool:
        """Whether an address is within its rate of channels."""

    def open_in_thread(
        self, channel: SecureChannelState, chunk: bytes, done: Callable[[bytes | None, BaseException | None], None]
    ) -> None:
        """`channel.open(chunk)`; done is called on the loop with what it gave or raised."""


class Connection(asyncio.Protocol):
    """A client. It is the channel that sessions speak through."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._state = State.HELLO
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._channel: SecureChannelState | None = None
        self._bucket = Bucket(house.requests_per_s, 2.0 * house.requests_per_s, self._loop.time())
        self._is_busy = self._is_clogged = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._later: asyncio.Handle | None = None
        self._send_chunk_bytes = CHUNK_BYTES_MAX
        self.peer = ""
        self.answer_bytes_max = ANSWER_BYTES_MAX

    # -- the line -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if isinstance(name, tuple) and name else "local"
        self._transport.set_write_buffer_limits(high=SEND_BYTES_HIGH)
        why = self._house.admit(self)
        if why:
            self._end(BAD_MAX_CONNECTIONS_REACHED, why)
            return
        self._set_timer("handshake", HANDSHAKE_S, "no secure channel in time")
        self._set_timer("activation", ACTIVATION_S, "no login in time")

    def connection_lost(self, error: Exception | None) -> None:
        self._state = State.CLOSED
        self._buffer.clear()
        for timer in self._timers.values():
            timer.cancel()
        if self._later is not None:
            self._later.cancel()
        self._house.leave(self)
        self._house.sessions.lost(self)

    def pause_writing(self) -> None:
        self._is_clogged = True
        self._set_timer("send", SEND_S, "the client does not read what it asked for")
        self._read_or_not()

    def resume_writing(self) -> None:
        self._is_clogged = False
        self._drop_timer("send")
        self._read_or_not()
        self._work()

    def data_received(self, data: bytes) -> None:
        if self._state is not State.CLOSED:
            self._buffer += data
            self._work()

    def abort(self) -> None:
        """Hang up."""
        self._end(BAD_SHUTDOWN, "")

    # -- the channel of sessions --------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        return not self._is_clogged and self._state is State.OPEN

    @property
    def is_secure(self) -> bool:
        return self._channel is not None and self._channel.is_secure

    @property
    def certificate(self) -> bytes:
        return self._channel.certificate if self._channel is not None else b""

    @property
    def certificate_uri(self) -> str:
        return self._channel.certificate_uri if self._channel is not None else ""

    def sign(self, data: bytes) -> tuple[str, bytes]:
        assert self._channel is not None
        return self._channel.sign(data)

    def is_signed(self, data: bytes, signature: bytes) -> bool:
        return self._channel is not None and self._channel.is_signed(data, signature)

    def activated(self) -> None:
        self._drop_timer("activation")
        if self._channel is not None:
            self._channel.activated()

    def answer(self, request_id: int, encoding: int, handle: int, body: bytes) -> None:
        """A response; one that the client does not take is a fault."""
        message = answers.response(encoding, handle, GOOD, body, self._house.now_ns())
        if len(message) > self.answer_bytes_max:
            self.fault(request_id, handle, BAD_RESPONSE_TOO_LARGE)
        else:
            self._send(message, request_id)

    def fault(self, request_id: int, handle: int, status: int) -> None:
        """A ServiceFault."""
        self._send(answers.response(answers.SERVICE_FAULT, handle, status, b"", self._house.now_ns()), request_id)

    def _send(self, message: bytes, request_id: int) -> None:
        if self._state is not State.OPEN or self._channel is None or self._transport is None:
            return
        if self._transport.get_write_buffer_size() > SEND_BYTES_MAX:
            self._end(BAD_TIMEOUT, "the client reads more slowly than it asks")
        else:
            self._transport.write(self._channel.encode(message, request_id))

    # -- chunks -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Take chunks, as long as they are whole and there is leave."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        for _ in range(CHUNKS_AT_ONCE_MAX):
            if self._is_busy or self._is_clogged or self._state is State.CLOSED:
                return
            size = self._size()
            if not size:
                return
            if not self._bucket.take(self._loop.time()):
                self._later = self._loop.call_later(self._bucket.wait_s, self._work)
                self._read_or_not()
                return
            chunk = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._guarded(chunk)
        self._later = self._loop.call_soon(self._work)  # the others' turn
        self._read_or_not()

    def _size(self) -> int:
        """Of the chunk that has come whole; 0: none has. Ends the connection over one that will never be taken."""
        self._read_or_not()
        if len(self._buffer) < HEADER_BYTES:
            return 0
        kind, size = bytes(self._buffer[:3]), int.from_bytes(self._buffer[4:8], "little")
        most = _KINDS[self._state].get(kind)
        if most is None:
            self._end(BAD_TCP_MESSAGE_TYPE_INVALID, f"a message that has no place where a client {self._state.value}")
            return 0
        if not HEADER_BYTES < size <= most:
            self._end(BAD_TCP_MESSAGE_TOO_LARGE, f"a message of {size} bytes where it {self._state.value}")
            return 0
        return size if len(self._buffer) >= size else 0

    def _guarded(self, chunk: bytes) -> None:
        """The edge behind which a client's bytes can do no harm: whatever is wrong with them ends its connection."""
        try:
            self._take(chunk)
        except ChannelRefused as refusal:
            self._end(refusal.status, refusal.why)
        except FrameBroken as error:
            self._end(BAD_DECODING_ERROR, error.text)
        except Exception as error:  # noqa: BLE001 - asyncua and cryptography raise what they like over hostile bytes
            self._house.counts.unforeseen(error)
            self._end(BAD_SECURITY_CHECKS_FAILED, f"bytes that are no message ({type(error).__name__})")

    def _take(self, chunk: bytes) -> None:
        if self._state is State.HELLO:
            self._hello(chunk)
        elif chunk.startswith(b"OPN"):
            self._begin_opening(chunk)
        else:
            assert self._channel is not None
            message = self._channel.decode(chunk)
            if chunk.startswith(b"CLO"):
                self._end(GOOD, "")
            elif message is not None:
                self._house.services.serve(self, *message)

    def _hello(self, chunk: bytes) -> None:
        reader = binary.Reader(chunk[HEADER_BYTES:])
        reader.u32()  # protocol version: there is one
        receives, sends, message_bytes, _chunks = reader.u32(), reader.u32(), reader.u32(), reader.u32()
        if receives < CHUNK_BYTES_MIN or sends < CHUNK_BYTES_MIN:
            raise FrameBroken(f"OPC UA Hello: buffers below {CHUNK_BYTES_MIN} bytes", code="E2770")
        self._send_chunk_bytes = min(receives, CHUNK_BYTES_MAX)
        self.answer_bytes_max = min(message_bytes or ANSWER_BYTES_MAX, ANSWER_BYTES_MAX)
        granted = (0, min(sends, CHUNK_BYTES_MAX), self._send_chunk_bytes, MESSAGE_BYTES_MAX, CHUNKS_MAX)
        body = b"".join(map(binary.u32, granted))
        self._state = State.OPENING
        assert self._transport is not None
        self._transport.write(b"ACKF" + binary.u32(HEADER_BYTES + len(body)) + body)

    def _begin_opening(self, chunk: bytes) -> None:
        if not self._house.may_open(self.peer):
            raise ChannelRefused(BAD_SECURITY_CHECKS_FAILED, "channels are opened more often than an address may")
        is_renewal = self._state is State.OPEN
        if not is_renewal or self._channel is None:
            self._channel = SecureChannelState(self._house.security, self._send_chunk_bytes)
        if is_renewal or is_plain(chunk):
            # A renewal stays on the loop: answers on their way use the same keys and numbers. Without security there
            # is nothing to wait for.
            self._opened(self._channel.open(chunk), None)
            return
        self._is_busy = True
        self._read_or_not()
        self._house.open_in_thread(self._channel, chunk, self._opened)

    def _opened(self, answer: bytes | None, error: BaseException | None) -> None:
        """Back on the loop: the channel is open, or refused."""
        self._is_busy = False
        if self._state is State.CLOSED or self._transport is None or self._channel is None:
            return
        if answer is None:
            refusal = error if isinstance(error, ChannelRefused) else None
            why = refusal.why if refusal else f"a channel cannot be opened so ({type(error).__name__})"
            self._end(refusal.status if refusal else BAD_SECURITY_CHECKS_FAILED, why)
            return
        self._state = State.OPEN
        self._transport.write(answer)
        self._drop_timer("handshake")
        self._set_timer("channel", self._channel.lifetime_s * 1.25, "")
        self._read_or_not()
        self._work()

    # -- reading, timers, the end -------------------------------------------------------------------------------

    def _read_or_not(self) -> None:
        """Read the socket only while what comes can be worked on."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_busy or self._is_clogged or self._later is not None:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _set_timer(self, name: str, seconds: float, why: str) -> None:
        self._drop_timer(name)
        self._timers[name] = self._loop.call_later(seconds, self._end, BAD_TIMEOUT, why)

    def _drop_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _end(self, status: int, why: str) -> None:
        """Say why, as far as the client may know, and hang up. why: for our own log; "": nothing to tell."""
        if self._state is State.CLOSED or self._transport is None:
            return
        self._state = State.CLOSED
        if why:
            self._house.counts.refused(why, self.peer)
        if status != GOOD:
            body = binary.u32(status) + binary.text(None)
            self._transport.write(b"ERRF" + binary.u32(HEADER_BYTES + len(body)) + body)
        if self._transport.get_write_buffer_size() > SEND_BYTES_HIGH or status == BAD_TIMEOUT:
            self._transport.abort()
        else:
            self._transport.close()
