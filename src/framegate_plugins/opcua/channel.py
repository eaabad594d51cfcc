"""One secure channel of OPC UA on one line: chunks, tokens, requests and their answers.

asyncua's SecureConnection encrypts, signs and checks; framing, bounds and deadlines are ours, since what a peer
announces must not be believed. Services live in session.py. A channel that has failed stays failed: every request under
way and every later one raises the same NotConnected. Source: OPC UA Part 6, 6.7 and 7.1; Part 4, 5.5.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from asyncua import ua
from asyncua.common.connection import SecureConnection, TransportLimits
from asyncua.common.utils import Buffer
from asyncua.crypto.security_policies import SecurityPolicy
from asyncua.ua.ua_binary import header_from_binary, struct_from_binary, struct_to_binary, uatcp_to_binary
from asyncua.ua.uaerrors import UaError

from framegate.contract.errors import DeviceRefused, FrameBroken, GatewayError, NoReply, NotConnected
from framegate.contract.ports import Line
from framegate_plugins.opcua.read_request import ReadRequest
from framegate_plugins.opcua.status import name_of
from framegate_plugins.opcua.wire import Reader

CHUNK_BYTES_MAX: Final = 65_536
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of one answer, all chunks; a server is told so in the Hello."""
CHUNKS_MAX: Final = 2_048
REQUESTS_MAX: Final = 64
"""Under way at once, publish requests included."""
LIFETIME_MS: Final = 3_600_000
"""Of a security token; a new one is asked for after three quarters of what the server grants."""
RENEW_SHARE: Final = 0.75
_HEADER_BYTES: Final = 8
_HELLO: Final[Any] = ua.MessageType.Hello  # bytes, though asyncua's hints say otherwise
_LOST, _CLOSED = "E2720", "E2721"


class Channel:
    """Satisfies contract.ports.Session.

    policy  asyncua's, with the keys of this channel
    """

    def __init__(self, policy: SecurityPolicy) -> None:
        self.policy = policy
        self.token = ua.NodeId()  # of the session, in every request
        self.error: NotConnected | None = None
        self._limits = TransportLimits(CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, CHUNKS_MAX, MESSAGE_BYTES_MAX)
        self._connection = SecureConnection(policy, self._limits)
        self._line: Line | None = None
        self._buffer = bytearray()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._opening: tuple[ua.OpenSecureChannelParameters, asyncio.Future[Any]] | None = None
        self._hello: asyncio.Future[ua.Acknowledge] | None = None
        self._number = 0
        self._lost: Callable[[NotConnected], None] | None = None

    # -- called by the line -------------------------------------------------------------------------------------

    def line_made(self, line: Line) -> None:
        self._line = line

    def line_lost(self, error: NotConnected) -> None:
        self.fail(error)

    def data_received(self, data: bytes) -> None:
        """Whole chunks are taken as they come."""
        if self.error is not None:
            return
        self._buffer += data
        try:
            self._take_chunks()
        except GatewayError as error:
            self.fail(NotConnected(f"{self.url}: {error.text}", code=_LOST))

    # -- used by the session ------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return "the OPC UA server" if self._line is None else self._line.url

    @property
    def lifetime_s(self) -> float:
        """What the server granted for the newest token."""
        connection = self._connection
        newest = connection.next_security_token if connection.next_security_token.TokenId else connection.security_token
        return float(newest.RevisedLifetime) / 1000

    async def greet(self, url: str, timeout_s: float) -> None:
        """Hello and Acknowledge. raises NotConnected, NoReply"""
        hello = ua.Hello(
            ReceiveBufferSize=ua.UInt32(CHUNK_BYTES_MAX),
            SendBufferSize=ua.UInt32(CHUNK_BYTES_MAX),
            MaxMessageSize=ua.UInt32(MESSAGE_BYTES_MAX),
            MaxChunkCount=ua.UInt32(CHUNKS_MAX),
            EndpointUrl=ua.String(url),
        )
        self._hello = asyncio.get_running_loop().create_future()
        self._write(uatcp_to_binary(_HELLO, hello))
        await self._within(self._hello, timeout_s, "the Hello")

    async def open(self, timeout_s: float) -> None:
        """Open the channel, or take a new token for it. raises NotConnected, NoReply"""
        is_renewal = self._connection.is_open()
        kind = ua.SecurityTokenRequestType.Renew if is_renewal else ua.SecurityTokenRequestType.Issue
        parameters = ua.OpenSecureChannelParameters(
            RequestType=kind,
            SecurityMode=self.policy.Mode,
            ClientNonce=ua.ByteString(os.urandom(self.policy.secure_channel_nonce_length)),
            RequestedLifetime=ua.UInt32(LIFETIME_MS),
        )
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._opening = parameters, answer
        request = ua.OpenSecureChannelRequest(Parameters=parameters)
        self._send(request, timeout_s, ua.MessageType.SecureOpen)
        await self._within(answer, timeout_s, "OpenSecureChannel")

    async def call(self, request: Any, timeout_s: float) -> Reader:
        """Send a request; the reader stands behind the header of the answer.

        raises NotConnected; NoReply E2722 - no answer in time; DeviceRefused E2723 - the whole service was refused,
               `quality` is its status; FrameBroken
        """
        number, answer = self.begin(request, timeout_s)
        what = type(request).__name__.removesuffix("Request")
        try:
            return self.answer_of(await self._within(answer, timeout_s, what), what)
        finally:
            self._waiting.pop(number, None)

    def when_lost(self, lost: Callable[[NotConnected], None]) -> None:
        """Call this once when the channel fails, now if it has."""
        self._lost = lost
        if self.error is not None:
            lost(self.error)

    def raise_if_failed(self) -> None:
        """raises NotConnected - the reason of its failure"""
        if self.error is not None:
            raise self.error

    def begin(self, request: Any, timeout_s: float) -> tuple[int, asyncio.Future[bytes]]:
        """Send a request and hand out its answer to come; `forget` it if it is no longer wanted."""
        if len(self._waiting) >= REQUESTS_MAX:
            raise NoReply(
                f"{self.url}: {REQUESTS_MAX} requests wait for their answers; the server is slow", code="E2722"
            )
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        number = self._send(request, timeout_s, ua.MessageType.SecureMessage)
        self._waiting[number] = answer
        return number, answer

    def forget(self, number: int) -> None:
        self._waiting.pop(number, None)

    def answer_of(self, body: bytes, what: str) -> Reader:
        """The reader of an answer, behind its header; raises DeviceRefused, FrameBroken."""
        reader = Reader(body)
        reader.node_id()
        reader.skip(12)  # time and handle
        status = reader.u32()
        reader.diagnostic(0)
        for _ in range(reader.count()):
            reader.octets()
        reader.extension(0)
        if status & 0x8000_0000:
            text = f"{self.url}: {what} was refused with {name_of(status)}"
            raise DeviceRefused(text, quality=status, code="E2723")
        return reader

    def close(self) -> None:
        """Say goodbye; the server closes the line."""
        if self.error is None and self._connection.is_open():
            with suppress(NotConnected):  # it is gone already
                self._send(ua.CloseSecureChannelRequest(), 1.0, ua.MessageType.SecureClose)
        self._lost = None
        self.fail(NotConnected(f"{self.url}: the channel was closed", code=_CLOSED))

    def fail(self, error: NotConnected) -> None:
        """Fail for good; the first reason counts."""
        if self.error is not None:
            return
        self.error = error
        waiting = [*self._waiting.values(), self._hello, *((self._opening[1],) if self._opening else ())]
        self._waiting.clear()
        for answer in waiting:
            if answer is not None and not answer.done():
                answer.set_exception(error)
                answer.exception()  # taken: whoever waits raises it, and nobody has to
        if self._line is not None:
            self._line.close()
        if self._lost is not None:
            self._lost(error)

    # -- inside -------------------------------------------------------------------------------------------------

    async def _within(self, answer: asyncio.Future[Any], timeout_s: float, what: str) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            text = f"{self.url}: no answer to {what} within {timeout_s:g} s; check server and network"
            raise NoReply(text, code="E2722") from error

    def _send(self, request: Any, timeout_s: float, kind: bytes) -> int:
        connection = self._connection
        if connection.next_security_token.TokenId != 0:
            connection.revolve_tokens()
        self._number = number = self._number % 0xFFFF_FFFF + 1
        header = request.RequestHeader
        header.AuthenticationToken = self.token
        header.RequestHandle = ua.UInt32(number)
        header.TimeoutHint = ua.UInt32(int(timeout_s * 1000))
        body = request.encode() if isinstance(request, ReadRequest) else struct_to_binary(request)
        data = connection.message_to_binary(body, kind, number)  # type: ignore[arg-type]
        self._write(data)
        return number

    def _write(self, data: bytes) -> None:
        self.raise_if_failed()
        if self._line is None:
            raise NotConnected("the OPC UA server: there is no line", code=_CLOSED)
        self._line.write(data)

    def _take_chunks(self) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= _HEADER_BYTES and self.error is None:
            size = int.from_bytes(buffer[at + 4 : at + 8], "little")
            if not _HEADER_BYTES <= size <= CHUNK_BYTES_MAX:
                raise FrameBroken(f"a chunk of {size:,} bytes is announced; {CHUNK_BYTES_MAX:,} are taken at most")
            if len(buffer) - at < size:
                break
            chunk = bytes(buffer[at : at + size])
            at += size
            try:
                self._take(chunk)
            except GatewayError:
                raise
            except Exception as error:  # the edge to asyncua: whatever its decoder makes of a peer's bytes
                why = getattr(error, "code", None)
                text = name_of(why) if isinstance(why, int) else f"{type(error).__name__}: {error}"
                raise FrameBroken(f"what the server sent cannot be used ({text})") from error
        del buffer[:at]

    def _take(self, chunk: bytes) -> None:
        """One chunk: the last of a message gives the message."""
        buffer = Buffer(chunk)
        header = header_from_binary(buffer)
        message = self._connection.receive_from_header_and_body(header, buffer)
        if message is None:
            return
        if isinstance(message, ua.Acknowledge):
            self._acknowledged(message)
        elif isinstance(message, ua.ErrorMessage):
            status = 0 if message.Error is None else int(message.Error.value)
            reason = f": {message.Reason[:200]}" if message.Reason else ""
            raise NotConnected(f"the server ends the connection with {name_of(status)}{reason}", code=_LOST)
        elif chunk[:3] == ua.MessageType.SecureOpen:
            self._opened(message.body())
        else:
            body = bytes(message.body())
            answer = self._waiting.pop(message.request_id(), None)
            if answer is not None and not answer.done():  # else it came too late, and nobody waits
                answer.set_result(body)

    def _acknowledged(self, message: ua.Acknowledge) -> None:
        """asyncua has taken the server's limits for ours; only what the server can receive is its business."""
        limits = self._limits
        limits.max_send_buffer = min(CHUNK_BYTES_MAX, max(8_192, int(message.ReceiveBufferSize)))
        limits.max_recv_buffer, limits.max_chunk_count = CHUNK_BYTES_MAX, CHUNKS_MAX
        limits.max_message_size = MESSAGE_BYTES_MAX
        if self._hello is not None and not self._hello.done():
            self._hello.set_result(message)

    def _opened(self, body: Buffer) -> None:
        opening, self._opening = self._opening, None
        if opening is None:
            raise UaError("an answer to an OpenSecureChannel that nobody sent")
        parameters, answer = opening
        response = struct_from_binary(ua.OpenSecureChannelResponse, body)
        response.ResponseHeader.ServiceResult.check()
        self._connection.set_channel(response.Parameters, parameters.RequestType, parameters.ClientNonce)
        if not answer.done():
            answer.set_result(response)
