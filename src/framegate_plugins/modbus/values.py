"""One value -> the bytes of a write, and back. Pure; what `columns.py` does for many tags at once."""

from __future__ import annotations

import math
import struct

from framegate.contract.frame import Value, ValueType
from framegate_plugins.modbus.codec import Function, Request, coil_data, mask_data
from framegate_plugins.modbus.tags import Point

WHOLE_TOLERANCE = 1e-6
"""How far from a whole number a value may lie and still be written to an integer: scaling leaves such dust."""
_PACK = {ValueType.FLOAT32: ">f", ValueType.FLOAT64: ">d"}


class ValueWrong(ValueError):
    """A value that its tag cannot hold, in words."""


def write_request(point: Point, value: Value) -> Request:
    """The smallest request that writes this value and touches nothing else.

    raises ValueWrong
    """
    if point.area.is_bits:
        return Request(Function.WRITE_SINGLE_COIL, point.offset, 1, coil_data(_state(value)))
    if point.bit is not None:
        return _masked(point, 1 << point.bit, (1 << point.bit) if _state(value) else 0)
    data = value_bytes(point, value)
    if len(data) == 1:
        # One byte of a register: its neighbour must survive. `source` says which half.
        shift = 0 if point.source[0] else 8
        return Request(
            Function.MASK_WRITE_REGISTER, point.offset, 1, mask_data(0xFFFF ^ 0xFF << shift, data[0] << shift)
        )
    registers = bytearray(2 * point.count)
    for offset, byte in zip(point.source, data, strict=True):
        registers[offset] = byte
    function = Function.WRITE_SINGLE_REGISTER if point.count == 1 else Function.WRITE_MULTIPLE_REGISTERS
    return Request(function, point.offset, point.count, bytes(registers))


def value_bytes(point: Point, value: Value) -> bytes:
    """The value's bytes, most significant (or first) first.

    raises ValueWrong
    """
    kind = point.type
    if kind is ValueType.BOOL:
        return b"\0\1" if _state(value) else b"\0\0"
    if kind is ValueType.BYTES:
        return _filled(point, value if isinstance(value, bytes) else _no("bytes", value))
    if kind is ValueType.STRING:
        return _text_bytes(point, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueWrong(f"{value!r} is no number")
    if kind in _PACK:
        try:
            return struct.pack(_PACK[kind], value)
        except OverflowError:
            raise ValueWrong(f"{value!r} does not fit {kind.value}") from None
    size = len(point.source)
    try:
        return _whole(value).to_bytes(size, "big", signed=kind.value.startswith("int"))
    except OverflowError:
        raise ValueWrong(f"{value!r} does not fit {kind.value}") from None


def value_from(point: Point, data: bytes) -> Value:
    """The value in the registers of a point.

    data    2 * point.count bytes in wire order; in the bit areas one byte, 0 for off
    raises  ValueWrong - bytes that are no text in the point's encoding
    """
    kind = point.type
    if point.area.is_bits:
        return data != b"\0"
    own = bytes(data[offset] for offset in point.source)
    if kind is ValueType.BOOL:
        number = int.from_bytes(own, "big")
        return number != 0 if point.bit is None else bool(number >> point.bit & 1)
    if kind is ValueType.BYTES:
        return own
    if kind is ValueType.STRING:
        try:
            return text_from(own, point.encoding)
        except UnicodeDecodeError as error:
            raise ValueWrong(f"the bytes are no text in {point.encoding}: {error.reason}") from None
    if kind in _PACK:
        number_: float = struct.unpack(_PACK[kind], own)[0]
        return number_
    return int.from_bytes(own, "big", signed=kind.value.startswith("int"))


def text_from(data: bytes, encoding: str) -> str:
    """Text up to its first NUL, without the blanks that fill it up.

    raises UnicodeDecodeError
    """
    text = data[: len(data) & ~1 if encoding.startswith("utf-16") else None].decode(encoding)
    return text.partition("\0")[0].rstrip(" ")


def _masked(point: Point, mask: int, bits: int) -> Request:
    if point.source == (1, 0):
        # byte_order little: bit 0 of the value is bit 8 on the wire
        mask, bits = (int.from_bytes(number.to_bytes(2, "big"), "little") for number in (mask, bits))
    return Request(Function.MASK_WRITE_REGISTER, point.offset, 1, mask_data(0xFFFF ^ mask, bits))


def _text_bytes(point: Point, value: Value) -> bytes:
    if not isinstance(value, str):
        _no("text", value)
    try:
        return _filled(point, str(value).encode(point.encoding))
    except UnicodeEncodeError as error:
        raise ValueWrong(f"{value!r} cannot be written in {point.encoding}: {error.reason}") from None


def _filled(point: Point, data: bytes) -> bytes:
    size = len(point.source)
    if len(data) > size:
        raise ValueWrong(f"{len(data)} bytes do not fit length {size}")
    return data.ljust(size, b"\0")


def _state(value: Value) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in {0, 1}:
        return bool(value)
    raise ValueWrong(f"{value!r} is neither true nor false")


def _whole(value: float) -> int:
    if isinstance(value, int):
        return value
    if not math.isfinite(value) or abs(value - round(value)) > WHOLE_TOLERANCE:
        raise ValueWrong(f"{value!r} is no whole number")
    return round(value)


def _no(wanted: str, value: Value) -> bytes:
    raise ValueWrong(f"{value!r} is no {wanted}")
