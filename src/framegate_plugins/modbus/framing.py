"""How a PDU travels: MBAP (TCP, TLS, UDP), RTU with CRC-16, ASCII with LRC. Pure; bytes in, frames out.

A decoder takes whatever arrived, hands out whole frames, keeps the rest, and after garbage finds the next frame by
itself. It never holds more than one frame; GARBAGE_BYTES_MAX without any frame between raise FrameBroken, and
the line is better closed. Whether a frame is the answer that was waited for is `client.py`'s affair.

Source: MODBUS Messaging on TCP/IP V1.0b, 3.1.3; MODBUS over Serial Line V1.02, 2.5.1 (RTU), 2.5.2 (ASCII), 6.2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

from framegate.contract.errors import FrameBroken
from framegate_plugins.modbus.codec import EXCEPTION_BIT

MBAP_BYTES = 7
MBAP_LENGTH_MAX = 254  # unit id and a PDU of 253 bytes
MBAP_REQUEST_LENGTH_MAX = 260  # a client that asks for a little too much still gets the exception that says so
RTU_BYTES_MIN = 4  # unit, function, CRC
RTU_BYTES_MAX = 256
ASCII_CHARACTERS_MAX = 513  # 2.5.2.1: colon, 2 * 255 characters, CR, LF
GARBAGE_BYTES_MAX = 4096  # of one line, since its last whole frame

FrameSize: TypeAlias = Callable[[bytes, int], int]
"""(buffer, offset) -> bytes of the RTU frame that begins there; 0: more bytes needed to tell; -1: no frame."""


class Frame(NamedTuple):
    """One frame; `transaction` is 0 where the framing has no ids."""

    transaction: int
    unit: int
    pdu: bytes


class Decoder(Protocol):
    """Incremental, resynchronising decoder of one direction of one line."""

    skipped: int
    """Bytes thrown away since the decoder was made."""
    rest: bytes
    """A frame that has begun."""

    def feed(self, data: bytes) -> list[Frame]:
        """Frames completed by these bytes. Raises FrameBroken after too much garbage."""

    def reset(self) -> None:
        """Forget `rest`."""


class Framing(Protocol):
    """One way to wrap a PDU."""

    name: ClassVar[str]
    has_ids: ClassVar[bool]
    """True where an answer names its request, so that a late one can be told from the next one."""

    def wrap(self, transaction: int, unit: int, pdu: bytes) -> bytes: ...
    def answers(self) -> Decoder:
        """A decoder for what servers send."""

    def requests(self) -> Decoder:
        """A decoder for what clients send."""


# -- MBAP -----------------------------------------------------------------------------------------------------


class Mbap:
    """The seven-byte header of Modbus TCP."""

    name: ClassVar[str] = "tcp"
    has_ids: ClassVar[bool] = True

    def wrap(self, transaction: int, unit: int, pdu: bytes) -> bytes:
        return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu

    def answers(self) -> Decoder:
        return MbapDecoder()

    def requests(self) -> Decoder:
        return MbapDecoder(MBAP_REQUEST_LENGTH_MAX)


class MbapDecoder:
    """Finds headers by protocol id 0 and a length that a PDU can have."""

    def __init__(self, length_max: int = MBAP_LENGTH_MAX) -> None:
        self.skipped = 0
        self._length_max = length_max
        self._garbage = 0
        self.rest = b""

    def reset(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        data = self.rest + data if self.rest else data
        frames: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= MBAP_BYTES:
            size = (data[at + 4] << 8) | data[at + 5]
            if data[at + 2] or data[at + 3] or not 2 <= size <= self._length_max:
                at = self._skip(data, at)
                continue
            stop = at + 6 + size
            if stop > end:
                break
            frames.append(Frame((data[at] << 8) | data[at + 1], data[at + 6], data[at + MBAP_BYTES : stop]))
            self._garbage = 0
            at = stop
        self.rest = data[at:]
        return frames

    def _skip(self, data: bytes, at: int) -> int:
        """Where the next header may begin: two bytes before the next pair of zeros, or near the end."""
        zeros = data.find(b"\0\0", at + 3)
        following = zeros - 2 if zeros >= 0 else max(at + 1, len(data) - 3)
        self.skipped += following - at
        self._garbage += following - at
        if self._garbage > GARBAGE_BYTES_MAX:
            raise FrameBroken(f"{self._garbage} bytes hold no Modbus TCP frame", code="E5004")
        return following


# -- RTU ------------------------------------------------------------------------------------------------------


class Rtu:
    """Unit, PDU, CRC; frames are told apart by their length, which the function code gives away."""

    name: ClassVar[str] = "rtu"
    has_ids: ClassVar[bool] = False

    def wrap(self, transaction: int, unit: int, pdu: bytes) -> bytes:
        body = bytes((unit,)) + pdu
        return body + crc16(body).to_bytes(2, "little")

    def answers(self) -> Decoder:
        return RtuDecoder(answer_size)

    def requests(self) -> Decoder:
        return RtuDecoder(request_size)


class RtuDecoder:
    """Tries every offset; a frame counts when its CRC is right.

    While a frame is still incomplete, later offsets are tried too: a stray byte in front of an answer must not
    make it wait for the length that the stray byte promised.
    """

    def __init__(self, size_of: FrameSize) -> None:
        self.skipped = 0
        self._size_of = size_of
        self._garbage = 0
        self.rest = b""

    def reset(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        data = self.rest + data if self.rest else data
        frames: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= RTU_BYTES_MIN:
            size = self._whole(data, at)
            if size == 0:
                later = next((i for i in range(at + 1, end - RTU_BYTES_MIN + 1) if self._whole(data, i) > 0), at)
                if later == at:
                    break
                self._count(later - at)
                at = later
                continue
            if size < 0:
                self._count(1)
                at += 1
                continue
            frames.append(Frame(0, data[at], data[at + 1 : at + size - 2]))
            self._garbage = 0
            at += size
        self.rest = data[at:]
        return frames

    def _whole(self, data: bytes, at: int) -> int:
        """Size of a whole frame with a right CRC at this offset; 0: not yet whole; -1: none begins here."""
        size = self._size_of(data, at)
        if size <= 0:
            return size
        if at + size > len(data):
            return 0
        return size if crc16(data[at : at + size]) == 0 else -1

    def _count(self, skipped: int) -> None:
        self.skipped += skipped
        self._garbage += skipped
        if self._garbage > GARBAGE_BYTES_MAX:
            raise FrameBroken(f"{self._garbage} bytes hold no RTU frame with a right CRC", code="E5004")


def answer_size(data: bytes, at: int) -> int:
    """FrameSize of what servers send."""
    function = data[at + 1]
    if function & EXCEPTION_BIT:
        return 5 if function & ~EXCEPTION_BIT in _ANSWER_BYTES or function & ~EXCEPTION_BIT in _COUNTED else -1
    if function in _COUNTED:
        size = 5 + data[at + 2]
        return size if size <= RTU_BYTES_MAX else -1
    return _ANSWER_BYTES.get(function, -1)


def request_size(data: bytes, at: int) -> int:
    """FrameSize of what clients send; a function that is not known gets its answer if it came alone and whole."""
    function = data[at + 1]
    position = _REQUEST_COUNT_AT.get(function)
    if position is None:
        is_alone = at == 0 and len(data) <= RTU_BYTES_MAX and not function & EXCEPTION_BIT
        return _REQUEST_BYTES.get(function, len(data) if is_alone else -1)
    if at + position >= len(data):
        return 0
    size = position + 3 + data[at + position]
    return size if size <= RTU_BYTES_MAX else -1


_COUNTED = frozenset({1, 2, 3, 4, 23})  # answers that carry their byte count
_ANSWER_BYTES = {5: 8, 6: 8, 15: 8, 16: 8, 22: 10}
_REQUEST_BYTES = {1: 8, 2: 8, 3: 8, 4: 8, 5: 8, 6: 8, 22: 10, 43: 7}  # 43: read device identification, 6.21
_REQUEST_COUNT_AT = {15: 6, 16: 6, 23: 10}  # offset of the byte count


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC_TABLE = _crc_table()


def crc16(data: bytes) -> int:
    """CRC-16/MODBUS; of a frame with its own CRC behind it (low byte first) it is 0."""
    crc, table = 0xFFFF, _CRC_TABLE
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc


# -- ASCII ----------------------------------------------------------------------------------------------------


class Ascii:
    """Colon, two hexadecimal characters per byte, LRC, CR LF."""

    name: ClassVar[str] = "ascii"
    has_ids: ClassVar[bool] = False

    def wrap(self, transaction: int, unit: int, pdu: bytes) -> bytes:
        body = bytes((unit,)) + pdu
        return b":" + (body + bytes((lrc(body),))).hex().upper().encode() + b"\r\n"

    def answers(self) -> Decoder:
        return AsciiDecoder()

    def requests(self) -> Decoder:
        return AsciiDecoder()


class AsciiDecoder:
    """A colon always begins a frame; whatever stood before it is garbage."""

    def __init__(self) -> None:
        self.skipped = 0
        self._garbage = 0
        self.rest = b""

    def reset(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        *lines, rest = (self.rest + data).split(b"\r\n")
        frames = [frame for line in lines if (frame := self._frame(line)) is not None]
        start = rest.rfind(b":")
        keep = rest[start:] if start >= 0 else b""
        if len(keep) > ASCII_CHARACTERS_MAX:
            keep = b""
        # A CR may be the first half of the end of a frame whose colon was lost; nothing of it is needed.
        self._count(len(rest) - len(keep))
        self.rest = keep
        return frames

    def _frame(self, line: bytes) -> Frame | None:
        start = line.rfind(b":")
        try:
            body = bytes.fromhex(line[start + 1 :].decode("ascii")) if start >= 0 else b""
        except ValueError:
            body = b""
        # fromhex tolerates blanks, a frame does not
        if len(body) < 3 or 2 * len(body) != len(line) - start - 1 or lrc(body) != 0:
            self._count(len(line) + 2)
            return None
        self._count(start)
        self._garbage = 0
        return Frame(0, body[0], body[1:-1])

    def _count(self, skipped: int) -> None:
        self.skipped += skipped
        self._garbage += skipped
        if self._garbage > GARBAGE_BYTES_MAX:
            raise FrameBroken(f"{self._garbage} bytes hold no ASCII frame with a right LRC", code="E5004")


def lrc(data: bytes) -> int:
    """Two's complement of the sum of bytes; of a body with its own LRC behind it, 0 (6.2.1)."""
    return -sum(data) & 0xFF


FRAMINGS: dict[str, Framing] = {"tcp": Mbap(), "rtu": Rtu(), "ascii": Ascii()}
