"""Modbus PDUs as bytes, both ways: requests, answers, exception answers. Pure; knows no line and no framing.

A `Request` is what a client asks and a server is asked; `encode_request` and `decode_request` are each other's
inverse. Data of registers and coils stays in wire order here (big-endian registers, least significant bit first):
`tags.py` and `columns.py` give it a meaning.

Source: MODBUS Application Protocol Specification V1.1b3, sections 4.1, 6 and 7.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, unique

from framegate.contract.errors import DeviceRefused, FrameBroken, FrameShort
from framegate.contract.quality import Quality

PDU_BYTES_MAX = 253  # 4.1: 256 bytes of RS-485 ADU less unit id and CRC
READ_REGISTERS_MAX = 125  # 6.3
READ_BITS_MAX = 2000  # 6.1
WRITE_REGISTERS_MAX = 123  # 6.12
WRITE_BITS_MAX = 1968  # 6.11
READ_WRITE_REGISTERS_MAX = 121  # 6.17, registers written; up to 125 are read
ADDRESS_MAX = 65535
EXCEPTION_BIT = 0x80  # 7: an exception answer repeats the function code with this bit set
COIL_ON = 0xFF00  # 6.5


@unique
class Function(IntEnum):
    """Function codes that this codec speaks."""

    READ_COILS = 1
    READ_DISCRETE_INPUTS = 2
    READ_HOLDING_REGISTERS = 3
    READ_INPUT_REGISTERS = 4
    WRITE_SINGLE_COIL = 5
    WRITE_SINGLE_REGISTER = 6
    WRITE_MULTIPLE_COILS = 15
    WRITE_MULTIPLE_REGISTERS = 16
    MASK_WRITE_REGISTER = 22
    READ_WRITE_REGISTERS = 23


BIT_READS = frozenset({Function.READ_COILS, Function.READ_DISCRETE_INPUTS})
_PURE_READS = BIT_READS | {Function.READ_HOLDING_REGISTERS, Function.READ_INPUT_REGISTERS}
READS = _PURE_READS | {Function.READ_WRITE_REGISTERS}


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a device.

    address, count  what is read, or for a pure write what is written (count is 1 for 5, 6 and 22)
    data            bytes to write in wire order; 5: ff 00 or 00 00; 22: and-mask, or-mask; b"" for pure reads
    write_address   function 23 only: first register written; its count is len(data) // 2
    """

    function: Function
    address: int
    count: int = 1
    data: bytes = b""
    write_address: int = 0

    @property
    def answer_bytes(self) -> int:
        """Data bytes that the answer to a read carries."""
        return (self.count + 7) // 8 if self.function in BIT_READS else 2 * self.count


@dataclass(frozen=True, slots=True)
class ExceptionMeaning:
    """One exception code.

    surely_unapplied  a write answered with it has certainly not reached the process
    """

    name: str
    quality: Quality
    surely_unapplied: bool


EXCEPTIONS: dict[int, ExceptionMeaning] = {
    1: ExceptionMeaning("illegal function", Quality.BAD_NOT_SUPPORTED, surely_unapplied=True),
    2: ExceptionMeaning("illegal data address", Quality.BAD_NODE_ID_UNKNOWN, surely_unapplied=True),
    3: ExceptionMeaning("illegal data value", Quality.BAD_OUT_OF_RANGE, surely_unapplied=True),
    # 7: "while the server was attempting to perform the action": a part of it may have been done.
    4: ExceptionMeaning("server device failure", Quality.BAD_DEVICE_FAILURE, surely_unapplied=False),
    5: ExceptionMeaning("acknowledge, still working", Quality.BAD_RESOURCE_UNAVAILABLE, surely_unapplied=False),
    6: ExceptionMeaning("server device busy", Quality.BAD_RESOURCE_UNAVAILABLE, surely_unapplied=True),
    7: ExceptionMeaning("negative acknowledge", Quality.BAD_NOT_SUPPORTED, surely_unapplied=True),
    8: ExceptionMeaning("memory parity error", Quality.BAD_DEVICE_FAILURE, surely_unapplied=False),
    10: ExceptionMeaning("gateway path unavailable", Quality.BAD_NO_COMMUNICATION, surely_unapplied=True),
    11: ExceptionMeaning("gateway target failed to respond", Quality.BAD_NO_COMMUNICATION, surely_unapplied=False),
}
_UNLISTED = ExceptionMeaning("vendor-specific exception", Quality.BAD_UNEXPECTED_ERROR, surely_unapplied=False)
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE, DEVICE_BUSY = 1, 2, 3, 4, 6
PATH_UNAVAILABLE = 10
PATIENCE_CODES = frozenset({5, 6})  # ask again a little later
GATEWAY_SILENCE = 11  # the gateway answers, the device behind it does not


class ExceptionReply(DeviceRefused):
    """The device answered with an exception code."""

    def __init__(self, function: int, exception: int) -> None:
        meaning = EXCEPTIONS.get(exception, _UNLISTED)
        super().__init__(
            f"device refuses function {function}: exception {exception:02X}, {meaning.name}",
            quality=meaning.quality,
            code="E5001",
        )
        self.exception = exception
        self.surely_unapplied = meaning.surely_unapplied


class RequestWrong(FrameBroken):
    """A whole PDU that is no request of ours; `exception` is the code that a server answers it with (7)."""

    code = "E5002"

    def __init__(self, text: str, exception: int) -> None:
        super().__init__(text)
        self.exception = exception


def encode_request(request: Request) -> bytes:
    """PDU of a request; limits are asserted, since planners and writers obey them."""
    function, address, count, data = request.function, request.address, request.count, request.data
    assert 0 <= address <= ADDRESS_MAX
    if function in {Function.WRITE_SINGLE_COIL, Function.WRITE_SINGLE_REGISTER}:
        assert len(data) == 2
        return struct.pack(">BH", function, address) + data
    if function == Function.MASK_WRITE_REGISTER:
        assert len(data) == 4
        return struct.pack(">BH", function, address) + data
    assert 1 <= count <= limit_of(function)
    assert address + count - 1 <= ADDRESS_MAX
    if function in {Function.WRITE_MULTIPLE_COILS, Function.WRITE_MULTIPLE_REGISTERS}:
        return struct.pack(">BHHB", function, address, count, len(data)) + data
    if function == Function.READ_WRITE_REGISTERS:
        words = len(data) // 2
        assert 1 <= words <= READ_WRITE_REGISTERS_MAX
        return struct.pack(">BHHHHB", function, address, count, request.write_address, words, len(data)) + data
    return struct.pack(">BHH", function, address, count)


def limit_of(function: Function) -> int:
    """Most items (registers or bits) that one request of this function may name."""
    if function in BIT_READS:
        return READ_BITS_MAX
    if function == Function.WRITE_MULTIPLE_COILS:
        return WRITE_BITS_MAX
    if function == Function.WRITE_MULTIPLE_REGISTERS:
        return WRITE_REGISTERS_MAX
    return READ_REGISTERS_MAX


def decode_request(pdu: bytes) -> Request:
    """The request that a PDU asks.

    raises FrameShort - more bytes needed; RequestWrong - unknown function, wrong length, or counts beyond the limits
    """
    function = _function_of(pdu)
    if function in _PURE_READS:
        address, count = struct.unpack(">HH", _request_of(pdu, 5)[1:5])
        _check_range(function, address, count, limit_of(function))
        return Request(function, address, count)
    if function in {Function.WRITE_SINGLE_COIL, Function.WRITE_SINGLE_REGISTER}:
        (address,) = struct.unpack(">H", _request_of(pdu, 5)[1:3])
        if function == Function.WRITE_SINGLE_COIL and pdu[3:5] not in {b"\xff\x00", b"\x00\x00"}:
            raise RequestWrong("function 5 writes a value other than FF00 and 0000", ILLEGAL_VALUE)
        return Request(function, address, 1, pdu[3:5])
    if function == Function.MASK_WRITE_REGISTER:
        (address,) = struct.unpack(">H", _request_of(pdu, 7)[1:3])
        return Request(function, address, 1, pdu[3:7])
    if function == Function.READ_WRITE_REGISTERS:
        address, count, write_address, words, size = struct.unpack(">HHHHB", _at_least(pdu, 10)[1:10])
        # 6.17: counts before addresses, both times
        _check_count(function, count, READ_REGISTERS_MAX)
        _check_count(function, words, READ_WRITE_REGISTERS_MAX)
        request = Request(function, address, count, _data(pdu, 10, size, 2 * words), write_address)
        _check_range(function, write_address, words, READ_WRITE_REGISTERS_MAX)
    else:
        address, count, size = struct.unpack(">HHB", _at_least(pdu, 6)[1:6])
        expected = (count + 7) // 8 if function == Function.WRITE_MULTIPLE_COILS else 2 * count
        request = Request(function, address, count, _data(pdu, 6, size, expected))
    _check_range(function, request.address, request.count, limit_of(function))
    return request


def encode_answer(request: Request, data: bytes = b"") -> bytes:
    """PDU of a positive answer; `data` is what a read returns, in wire order."""
    if request.function in READS:
        assert len(data) == request.answer_bytes
        return bytes((request.function, len(data))) + data
    if request.function in {Function.WRITE_MULTIPLE_COILS, Function.WRITE_MULTIPLE_REGISTERS}:
        return struct.pack(">BHH", request.function, request.address, request.count)
    return encode_request(request)


def encode_exception(function: int, exception: int) -> bytes:
    """PDU of an exception answer."""
    return bytes((function | EXCEPTION_BIT, exception))


def decode_answer(request: Request, pdu: bytes) -> bytes:
    """Data of the answer to a request: what a read returned, b"" for a write that was echoed rightly.

    raises ExceptionReply - the device refused; FrameShort - more bytes needed
           FrameBroken    - the answer does not fit the request: other function, size or echo
    """
    if not pdu:
        raise FrameShort("an answer without a function code", code="E5003")
    if pdu[0] == request.function | EXCEPTION_BIT:
        raise ExceptionReply(request.function, _exactly(pdu, 2)[1])
    if pdu[0] != request.function:
        raise FrameBroken(f"answer of function {pdu[0]} to a request of function {request.function}", code="E5002")
    if request.function in READS:
        size = _at_least(pdu, 2)[1]
        if size != request.answer_bytes:
            raise FrameBroken(f"answer carries {size} data bytes, {request.answer_bytes} were asked", code="E5002")
        return _exactly(pdu, 2 + size)[2:]
    echo = encode_answer(request)
    if _exactly(pdu, len(echo)) != echo:
        raise FrameBroken("the answer to a write does not repeat it", code="E5002")
    return b""


def coil_data(state: bool) -> bytes:
    """Data of function 5."""
    return struct.pack(">H", COIL_ON if state else 0)


def mask_data(and_mask: int, or_mask: int) -> bytes:
    """Data of function 22: result = (register & and_mask) | (or_mask & ~and_mask)."""
    return struct.pack(">HH", and_mask, or_mask)


def pack_bits(states: list[bool]) -> bytes:
    """Coils as bytes, first coil in the least significant bit of the first byte (6.11)."""
    packed = bytearray((len(states) + 7) // 8)
    for index, state in enumerate(states):
        packed[index >> 3] |= state << (index & 7)
    return bytes(packed)


def _function_of(pdu: bytes) -> Function:
    if not pdu:
        raise FrameShort("a request without a function code", code="E5003")
    try:
        return Function(pdu[0])
    except ValueError:
        raise RequestWrong(f"function {pdu[0]} is not spoken here", ILLEGAL_FUNCTION) from None


def _check_range(function: Function, address: int, count: int, count_max: int) -> None:
    _check_count(function, count, count_max)
    if address + count - 1 > ADDRESS_MAX:
        raise RequestWrong(f"function {function.value} names {count} items from {address}", ILLEGAL_ADDRESS)


def _check_count(function: Function, count: int, count_max: int) -> None:
    if not 1 <= count <= count_max:
        raise RequestWrong(f"function {function.value} names {count} items, of at most {count_max}", ILLEGAL_VALUE)


def _data(pdu: bytes, start: int, size: int, expected: int) -> bytes:
    if size != expected:
        raise RequestWrong(f"byte count {size} where the item count means {expected}", ILLEGAL_VALUE)
    return _request_of(pdu, start + size)[start:]


def _request_of(pdu: bytes, size: int) -> bytes:
    """A request of so many bytes."""
    if len(pdu) > size:
        raise RequestWrong(f"a request of {len(pdu)} bytes where {size} are right", ILLEGAL_VALUE)
    return _at_least(pdu, size)


def _at_least(pdu: bytes, size: int) -> bytes:
    if len(pdu) < size:
        raise FrameShort(f"a PDU of {len(pdu)} bytes where {size} are needed", code="E5003")
    return pdu


def _exactly(pdu: bytes, size: int) -> bytes:
    if len(pdu) > size:
        raise FrameBroken(f"a PDU of {len(pdu)} bytes where {size} are right", code="E5002")
    return _at_least(pdu, size)
