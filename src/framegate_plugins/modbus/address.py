"""Addresses as operators write them, and what they mean on the wire. Pure.

    4x00012  3x00012  1x00012  0x00012       area and number from 1, as manuals print them
    400012   40012    300012   10012  00012  the same without the x: five or six digits
    hr:11    ir:11    di:11    coil:11       area and offset from 0, as it travels
    hr:0x0B                                  the offset may be hexadecimal

and after a register: `.3` bit 3 (0 is the least significant), `.h` / `.l` the high / low byte.

Source: MODBUS Application Protocol Specification V1.1b3, 4.3 and 4.4 (numbers count from 1, addresses from 0).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, unique
from typing import Literal

from framegate_plugins.modbus.codec import ADDRESS_MAX, Function


@unique
class Area(Enum):
    """The four tables of a Modbus device; the value is the name in an address."""

    COILS = "coil"
    DISCRETE_INPUTS = "di"
    INPUT_REGISTERS = "ir"
    HOLDING_REGISTERS = "hr"

    @property
    def is_bits(self) -> bool:
        return self is Area.COILS or self is Area.DISCRETE_INPUTS

    @property
    def is_writable(self) -> bool:
        return self is Area.COILS or self is Area.HOLDING_REGISTERS

    @property
    def read_function(self) -> Function:
        return _READ_FUNCTION[self]


_READ_FUNCTION = {
    Area.COILS: Function.READ_COILS,
    Area.DISCRETE_INPUTS: Function.READ_DISCRETE_INPUTS,
    Area.INPUT_REGISTERS: Function.READ_INPUT_REGISTERS,
    Area.HOLDING_REGISTERS: Function.READ_HOLDING_REGISTERS,
}
_DIGIT = {
    "0": Area.COILS,
    "1": Area.DISCRETE_INPUTS,
    "3": Area.INPUT_REGISTERS,
    "4": Area.HOLDING_REGISTERS,
}
_WORD = {
    "coil": Area.COILS,
    "co": Area.COILS,
    "di": Area.DISCRETE_INPUTS,
    "discrete": Area.DISCRETE_INPUTS,
    "ir": Area.INPUT_REGISTERS,
    "input": Area.INPUT_REGISTERS,
    "hr": Area.HOLDING_REGISTERS,
    "holding": Area.HOLDING_REGISTERS,
}
_NUMBERED = re.compile(r"([0-9])[xX]([0-9]{1,6})", re.ASCII)
_CLASSIC = re.compile(r"([0-9])([0-9]{4,5})", re.ASCII)
_OFFSET = re.compile(r"([a-z]+):(0x[0-9a-f]{1,5}|[0-9]{1,6})", re.ASCII | re.IGNORECASE)
_SUFFIX = re.compile(r"\.([0-9]{1,2}|[hlHL])", re.ASCII)
_FORMS = "write it like 4x00012, 400012, hr:11 or coil:3"


class AddressWrong(ValueError):
    """An address that cannot be meant, in words that say what would be right."""


@dataclass(frozen=True, slots=True)
class Address:
    """One place in a device.

    offset  from 0, as it travels
    bit     0-15 inside a register
    byte    "h" or "l": one half of a register
    """

    area: Area
    offset: int
    bit: int | None = None
    byte: Literal["h", "l"] | None = None

    def __str__(self) -> str:
        suffix = f".{self.bit}" if self.bit is not None else f".{self.byte}" if self.byte else ""
        return f"{self.area.value}:{self.offset}{suffix}"


def parse_address(text: str) -> Address:
    """The place that an address names.

    raises AddressWrong
    """
    base, dot, _ = text.strip().partition(".")
    area, offset = _parse_base(base)
    if not dot:
        return Address(area, offset)
    match = _SUFFIX.fullmatch(text.strip()[len(base) :])
    if match is None:
        raise AddressWrong(f"address {text}: after the dot stands a bit from 0 to 15, or h or l for a byte")
    if area.is_bits:
        raise AddressWrong(f"address {text}: {area.value} is one bit wide and has no part")
    if match[1] in "hHlL":
        return Address(area, offset, byte="h" if match[1] in "hH" else "l")
    if int(match[1]) > 15:
        raise AddressWrong(f"address {text}: a register has bits 0 to 15")
    return Address(area, offset, bit=int(match[1]))


def parse_range(text: str) -> tuple[Area, int, int]:
    """Area, first and last offset of `hr:100-199`, `4x00101-4x00200` or one address.

    raises AddressWrong
    """
    first_text, dash, last_text = (part.strip() for part in text.partition("-"))
    area, first = _parse_base(first_text)
    if not dash:
        return area, first, first
    if last_text.isdecimal() and ":" in first_text:
        last_text = f"{area.value}:{last_text}"
    last_area, last = _parse_base(last_text)
    if last_area != area or last < first:
        raise AddressWrong(f"range {text}: the end must lie behind the start, in the same area")
    return area, first, last


def _parse_base(text: str) -> tuple[Area, int]:
    if match := _OFFSET.fullmatch(text):
        area = _WORD.get(match[1].lower())
        if area is None:
            raise AddressWrong(f"address {text}: the area {match[1]} is unknown; it is one of hr, ir, di, coil")
        offset = int(match[2], 0) if match[2][:2].lower() == "0x" else int(match[2])
        if offset > ADDRESS_MAX:
            raise AddressWrong(f"address {text} is beyond {ADDRESS_MAX}, the last one a device can have")
        return area, offset
    match = _NUMBERED.fullmatch(text) or _CLASSIC.fullmatch(text)
    if match is None:
        raise AddressWrong(f"address {text} cannot be read; {_FORMS}")
    area = _DIGIT.get(match[1])
    if area is None:
        raise AddressWrong(f"address {text}: areas are 0x coils, 1x discrete inputs, 3x input, 4x holding registers")
    number = int(match[2])
    if number == 0:
        raise AddressWrong(f"address {text}: numbers of this form count from 1; offset 0 is {area.value}:0")
    if number > ADDRESS_MAX + 1:
        raise AddressWrong(f"address {text} is beyond {ADDRESS_MAX + 1}, the last one a device can have")
    return area, number - 1
