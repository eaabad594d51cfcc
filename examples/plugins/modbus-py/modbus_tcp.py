"""Modbus TCP, as much of it as reading and writing registers and coils takes: addresses, merged reads, frames.

Pure: bytes in, bytes out. Source: MODBUS Application Protocol V1.1b3; MODBUS Messaging on TCP/IP V1.0b.
"""

import struct

READ_COILS, READ_DISCRETE, READ_HOLDING, READ_INPUT = 1, 2, 3, 4
WRITE_COIL, WRITE_REGISTER, WRITE_REGISTERS = 5, 6, 16
SPACES = {"coil": READ_COILS, "discrete": READ_DISCRETE, "holding": READ_HOLDING, "input": READ_INPUT}
BITS = (READ_COILS, READ_DISCRETE)
COUNT_MAX = {READ_COILS: 2000, READ_DISCRETE: 2000, READ_HOLDING: 125, READ_INPUT: 125}
GAP_MAX = 8  # registers or bits that are read along rather than asked around
HEADER = struct.Struct(">HHHB")  # transaction, protocol 0, length of what follows, unit
PDU_BYTES_MAX = 253
FORMATS = {
    "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "float32": ">f",
    "int64": ">q", "uint64": ">Q", "float64": ">d",
}  # fmt: skip


class Broken(Exception):
    """Bytes that are no answer to what was asked."""


def address_of(text, type_):
    """("holding", 17) of "holding:17"; raises ValueError with what would be right."""
    space, _, number = text.partition(":")
    if space not in SPACES or not number.isdigit() or int(number) > 65535:
        raise ValueError(f"{text!r} is no address; write coil, discrete, holding or input, and 0 to 65535: holding:17")
    if (SPACES[space] in BITS) != (type_ == "bool"):
        raise ValueError(f"{text} cannot be {type_}; coil and discrete are bool, registers are numbers")
    if type_ != "bool" and type_ not in FORMATS:
        raise ValueError(f"type {type_} is not known here; take one of bool, {', '.join(FORMATS)}")
    return SPACES[space], int(number)


def width(type_):
    """Registers, or bits, that a value takes."""
    return 1 if type_ == "bool" else struct.calcsize(FORMATS[type_]) // 2


def merged(places):
    """Reads that cover (function, first, count) places: [(function, first, count)], as few as the gaps allow."""
    reads = []
    for function, first, count in sorted(places):
        if reads:
            last_function, begin, covered = reads[-1]
            end = begin + covered
            longer = max(end, first + count) - begin
            if function == last_function and first <= end + GAP_MAX and longer <= COUNT_MAX[function]:
                reads[-1] = (function, begin, longer)
                continue
        reads.append((function, first, count))
    return reads


def frame(transaction, unit, pdu):
    return HEADER.pack(transaction, 0, len(pdu) + 1, unit) + pdu


def read_request(function, first, count):
    return struct.pack(">BHH", function, first, count)


def write_request(function, first, type_, value):
    if type_ == "bool":
        return struct.pack(">BHH", WRITE_COIL, first, 0xFF00 if value else 0)
    words = struct.pack(FORMATS[type_], value)
    if len(words) == 2:
        return struct.pack(">BH", WRITE_REGISTER, first) + words
    return struct.pack(">BHHB", WRITE_REGISTERS, first, len(words) // 2, len(words)) + words


def pdu_of(buffer, transaction, unit):
    """The answer's PDU at the head of a buffer, and the bytes behind it; None: more is needed. Raises Broken."""
    if len(buffer) < HEADER.size:
        return None
    answered, protocol, length, from_unit = HEADER.unpack_from(buffer)
    if protocol or not 3 <= length <= PDU_BYTES_MAX + 1:
        raise Broken("no Modbus TCP header")
    if len(buffer) < 6 + length:
        return None
    if answered != transaction or from_unit != unit:
        raise Broken("the answer to another request")
    return buffer[HEADER.size : 6 + length], buffer[6 + length :]


def value_of(function, data, offset, type_):
    """One value out of a read's data; offset in registers or bits."""
    if function in BITS:
        return bool(data[offset // 8] >> (offset % 8) & 1)
    return struct.unpack_from(FORMATS[type_], data, 2 * offset)[0]


def data_of(pdu, function, count):
    """The data of a read's answer; raises Broken, and Refused of an exception response."""
    if pdu[0] == function | 0x80 and len(pdu) == 2:
        raise Refused(pdu[1])
    size = (count + 7) // 8 if function in BITS else 2 * count
    if pdu[0] != function or len(pdu) != 2 + size or pdu[1] != size:
        raise Broken("an answer of the wrong length")
    return pdu[2:]


class Refused(Exception):
    """An exception response; `code` as in V1.1b3, 7."""

    def __init__(self, code):
        super().__init__(f"exception {code}")
        self.code = code
