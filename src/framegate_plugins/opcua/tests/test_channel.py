"""The channel against a peer that means no good: what it announces, what it cuts, what it makes up."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
from asyncua import ua
from asyncua.crypto.security_policies import SecurityPolicyNone
from asyncua.ua.ua_binary import uatcp_to_binary
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract.errors import NoReply, NotConnected
from framegate_plugins.opcua.channel import CHUNK_BYTES_MAX, REQUESTS_MAX, Channel

ACKNOWLEDGE: Any = ua.MessageType.Acknowledge
ERROR: Any = ua.MessageType.Error


class Wire:
    """A line that keeps what is written."""

    url = "tcp://127.0.0.1:4840"
    is_datagram = False

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def write_pending(self) -> int:
        return 0

    def gather(self, size: int) -> None:
        """A hint."""

    def close(self) -> None:
        self.is_closed = True


def made() -> tuple[Channel, Wire]:
    policy: Any = SecurityPolicyNone
    channel, wire = Channel(policy()), Wire()
    channel.line_made(wire)
    return channel, wire


def acknowledge(**fields: int) -> bytes:
    return uatcp_to_binary(ACKNOWLEDGE, ua.Acknowledge(**{name: ua.UInt32(value) for name, value in fields.items()}))


@pytest.mark.parametrize("size", [0, 7, CHUNK_BYTES_MAX + 1, 2**32 - 1])
def test_chunk_of_an_impossible_size_fails_the_channel_before_it_is_kept(size: int) -> None:
    channel, wire = made()
    tracemalloc.start()
    channel.data_received(b"MSGF" + size.to_bytes(4, "little"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert channel.error is not None
    assert "announced" in channel.error.text
    assert wire.is_closed
    assert peak < 256 * 1024


@given(st.lists(st.binary(max_size=80), max_size=6))
def test_arbitrary_bytes_fail_the_channel_and_nothing_else(pieces: list[bytes]) -> None:
    channel, _ = made()
    for piece in pieces:
        channel.data_received(piece)


@given(
    st.sampled_from([b"MSGF", b"OPNF", b"ACKF", b"ERRF", b"HELF", b"CLOF", b"MSGC", b"MSGA"]), st.binary(max_size=60)
)
def test_whole_chunk_of_arbitrary_bytes_fails_the_channel_and_nothing_else(kind: bytes, body: bytes) -> None:
    channel, _ = made()
    channel.data_received(kind + (8 + len(body)).to_bytes(4, "little") + body)


async def test_answer_in_single_bytes_is_taken_and_the_servers_limits_do_not_become_ours() -> None:
    channel, wire = made()
    greeting = asyncio.create_task(channel.greet("opc.tcp://127.0.0.1:4840", 5.0))
    await asyncio.sleep(0)
    assert wire.written[:4] == b"HELF"
    for byte in acknowledge(ReceiveBufferSize=10, SendBufferSize=2**31, MaxMessageSize=0, MaxChunkCount=0):
        channel.data_received(bytes((byte,)))
    await greeting
    assert channel._limits.max_recv_buffer == CHUNK_BYTES_MAX
    assert channel._limits.max_send_buffer == 8_192
    assert channel._limits.max_message_size > 0
    assert channel._limits.max_chunk_count > 0


async def test_error_message_ends_whoever_waits_with_its_name() -> None:
    channel, wire = made()
    greeting = asyncio.create_task(channel.greet("opc.tcp://127.0.0.1:4840", 5.0))
    await asyncio.sleep(0)
    status = ua.StatusCode(ua.UInt32(0x807D0000))
    channel.data_received(uatcp_to_binary(ERROR, ua.ErrorMessage(Error=status, Reason=ua.String("no such"))))
    with pytest.raises(NotConnected, match=r"BadTcpServerTooBusy: no such"):
        await greeting
    assert wire.is_closed


async def test_silence_is_no_reply_and_a_lost_line_is_told_once() -> None:
    channel, _ = made()
    with pytest.raises(NoReply, match="E2722"):
        await channel.greet("opc.tcp://127.0.0.1:4840", 0.01)
    told: list[NotConnected] = []
    channel.when_lost(told.append)
    channel.line_lost(NotConnected("cut"))
    channel.line_lost(NotConnected("again"))
    assert [error.text for error in told] == ["cut"]
    with pytest.raises(NotConnected, match="cut"):
        await channel.greet("opc.tcp://127.0.0.1:4840", 1.0)


async def test_requests_under_way_are_bounded() -> None:
    channel, _ = made()
    for _ in range(REQUESTS_MAX):
        channel.begin(ua.ReadRequest(), 1.0)
    with pytest.raises(NoReply, match="requests wait"):
        channel.begin(ua.ReadRequest(), 1.0)
    channel.close()
