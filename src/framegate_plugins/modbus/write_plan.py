"""What a master's write means: values of tags, in engineering units. Pure.

A write has to cover whole tags, each of which may be written, and nothing else: an address without a tag, or with one
that can only be read, is an illegal address (02); a part of a wider value is an illegal value (03), because the other
part would be of another moment. Registers whose bits are tags are written bit by bit.

Function 22 writes the tags whose bits its and-mask clears. Bits of a tag that it keeps are taken from what is shown.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from framegate.contract.frame import Value, ValueType
from framegate_plugins.modbus.address import Area
from framegate_plugins.modbus.codec import (
    GATEWAY_SILENCE,
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    Function,
    Request,
)
from framegate_plugins.modbus.register_image import Refused, RegisterImage
from framegate_plugins.modbus.register_map import WHOLE_REGISTER, Entry, RegisterMap
from framegate_plugins.modbus.values import ValueWrong, value_from

SCALED_DIGITS = 15
"""A float64 holds so many decimal digits in any case."""


class TagWrite(NamedTuple):
    """A value for a tag."""

    tag: str
    value: Value


def writes_of(request: Request, entries: RegisterMap, image: RegisterImage) -> list[TagWrite]:
    """What a request writes, in the order of the addresses.

    raises Refused - 02, 03; 0B where function 22 needs a value that is bad
    """
    if request.function == Function.WRITE_SINGLE_COIL:
        return _coils(entries, request.address, [request.data[0] != 0])
    if request.function == Function.WRITE_MULTIPLE_COILS:
        states = [bool(request.data[bit >> 3] >> (bit & 7) & 1) for bit in range(request.count)]
        return _coils(entries, request.address, states)
    if request.function == Function.MASK_WRITE_REGISTER:
        return _masked(entries, image, request)
    offset = request.write_address if request.function == Function.READ_WRITE_REGISTERS else request.address
    return _registers(entries, offset, request.data)


def _coils(entries: RegisterMap, offset: int, states: Sequence[bool]) -> list[TagWrite]:
    found = [_writable(entries.at(Area.COILS, offset + number)) for number in range(len(states))]
    return [_write(owners[0], state) for owners, state in zip(found, states, strict=True)]


def _registers(entries: RegisterMap, offset: int, data: bytes) -> list[TagWrite]:
    end = offset + len(data) // 2
    owners: dict[int, Entry] = {}
    for place in range(offset, end):
        owners.update({entry.slot: entry for entry in _writable(entries.at(Area.HOLDING_REGISTERS, place))})
    if any(entry.point.offset < offset or entry.point.end > end for entry in owners.values()):
        raise Refused(ILLEGAL_VALUE)
    return [_decoded(entry, data[2 * (entry.point.offset - offset) :]) for entry in owners.values()]


def _masked(entries: RegisterMap, image: RegisterImage, request: Request) -> list[TagWrite]:
    kept, put = struct.unpack(">HH", request.data)
    owners = entries.at(Area.HOLDING_REGISTERS, request.address)
    if not owners:
        raise Refused(ILLEGAL_ADDRESS)
    touched = [entry for entry in owners if entry.mask & ~kept]
    if any(entry.point.count > 1 for entry in touched):
        raise Refused(ILLEGAL_VALUE)
    if touched:
        _writable(touched)
    if any(entry.mask & kept and not image.is_ready(entry) for entry in touched):
        raise Refused(GATEWAY_SILENCE)
    (now,) = struct.unpack(">H", image.registers(Area.HOLDING_REGISTERS, request.address, 1))
    register = (now & kept) | (put & ~kept & WHOLE_REGISTER)
    return [_decoded(entry, struct.pack(">H", register)) for entry in touched]


def _writable(entries: Sequence[Entry]) -> Sequence[Entry]:
    if not entries or not all(entry.is_writable for entry in entries):
        raise Refused(ILLEGAL_ADDRESS)
    return entries


def _decoded(entry: Entry, data: bytes) -> TagWrite:
    try:
        return _write(entry, value_from(entry.point, data))
    except ValueWrong:
        raise Refused(ILLEGAL_VALUE) from None


def _write(entry: Entry, value: Value) -> TagWrite:
    """A value as the tag's own type has it, where it was shown as another."""
    tag = entry.tag
    if entry.scale != 1.0 and isinstance(value, int):
        # Digits that the register cannot have are dust of the multiplication.
        value = float(f"{value * entry.scale:.{SCALED_DIGITS}g}")
    if tag.texts and isinstance(value, int):
        text = tag.enumeration.get(value)
        if text is None:
            raise Refused(ILLEGAL_VALUE)
        return TagWrite(tag.name, text)
    if tag.type is ValueType.BOOL and not isinstance(value, bool):
        if value not in {0, 1}:
            raise Refused(ILLEGAL_VALUE)
        return TagWrite(tag.name, bool(value))
    if isinstance(value, float) and tag.type.value.startswith(("int", "uint")):
        if not value.is_integer():
            raise Refused(ILLEGAL_VALUE)
        return TagWrite(tag.name, int(value))
    if tag.type.value.startswith("float") and isinstance(value, int):
        return TagWrite(tag.name, float(value))
    return TagWrite(tag.name, value)
