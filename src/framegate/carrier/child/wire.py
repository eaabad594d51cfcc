"""Messages between the gateway and the process of a driver, over one pair of SEQPACKET sockets.

The gateway calls, the process answers, one call at a time; CANCEL may come while a call is under way. Between calls
and during them the process may send BEAT and LOG. A message is one packet, or several of which all but the last are
marked; the columns of one scan of 2,000 rows fit one. Only the standard library is used here: both sides import it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum, unique
from typing import NamedTuple

PACKET_BYTES_MAX = 64 * 1024
"""Of one packet, header included; under the default bound of a socket's buffer."""
MESSAGE_BYTES_MAX = 16 << 20
"""Of one message: the columns of ROWS_MAX rows, and their texts."""
ROWS_MAX = 100_000
"""Tags of one plan, and so rows of one scan; also values of one write."""
TEXT_BYTES_MAX = 1_024
"""Of one log line, and of one reason."""
HEADER = struct.Struct("<BBHIiI")
"""kind, is_more, reserved, call, status or argument, rows or argument."""
BEAT_S = 0.5
"""How often a process says that a call goes on."""
START = struct.Struct("<QBH")
"""Bytes of memory, Grant flags, length of the name of the home folder; then that name, then options as JSON."""
NOT_LOADED = -1_000
"""Status of START where the library itself is at fault, and no driver was asked."""
ERROR = -1_001
"""Status of an answer that begins with an error as JSON: its LENGTH, then class, code, text, and wait_s or quality."""
LENGTH = struct.Struct("<I")
ERROR_BYTES_MAX = 16 * 1024
"""Of an error as JSON: a text of TEXT_BYTES_MAX characters, each of which may become an escape of 12 bytes."""
CELL_BYTES = 25
"""Of one row: value 8, time 8, tag 4, quality 4, kind 1. Columns stand in this order, the heap of texts behind them."""


@unique
class Message(IntEnum):
    """Kinds of messages; the upper ones are sent by the gateway.

    START       memory, permissions and options; with the file descriptors of the library and of the device's line
    PLAN        status: number of the group; text: tags as JSON
    CONNECT     status: channels
    POLL        status: number of the group; rows: budget, ms
    WRITE       rows: of the columns that follow; status: budget, ms
    DISCONNECT  the last call
    CANCEL      the caller has gone: end the call under way soon
    HELLO       the interpreter runs
    DONE        answer to a call: status, rows, content
    BEAT        the call under way makes progress
    LOG         status: level; a text
    """

    START = 1
    PLAN = 2
    CONNECT = 3
    POLL = 4
    WRITE = 5
    DISCONNECT = 6
    CANCEL = 7
    HELLO = 16
    DONE = 17
    BEAT = 18
    LOG = 19


class Grant(IntEnum):
    """What a driver may beside the least."""

    NETWORK = 1
    HOME = 2


class Header(NamedTuple):
    kind: int
    is_more: int
    reserved: int
    call: int
    status: int
    rows: int


def packets(kind: Message, call: int, status: int, rows: int, parts: Sequence[bytes | memoryview]) -> list[bytes]:
    """One message, cut into packets."""
    body = b"".join(parts)
    room = PACKET_BYTES_MAX - HEADER.size
    if len(body) <= room:
        return [HEADER.pack(kind, 0, 0, call, status, rows) + body]
    starts = range(0, len(body), room)
    return [
        HEADER.pack(kind, int(at + room < len(body)), 0, call, status, rows) + body[at : at + room] for at in starts
    ]


def header_of(packet: bytes) -> Header:
    """raises struct.error - a packet without a header."""
    return Header._make(HEADER.unpack_from(packet))
