"""Tags of a Modbus device: from a row of the tag table to a place, a width and a byte order. Pure.

A `Point` knows which bytes of which registers make its value; `columns.py` reads many at once, `values.py` turns one
value into bytes for a write. Grouping into requests is `planner.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from framegate.contract.driver import BoundTag
from framegate.contract.errors import Misconfigured, TagProblem
from framegate.contract.frame import TagId, ValueType
from framegate_plugins.modbus.address import Address, AddressWrong, Area, parse_address
from framegate_plugins.modbus.codec import ADDRESS_MAX
from framegate_plugins.modbus.options import Options

Encoding: TypeAlias = Literal["ascii", "utf-8", "latin-1", "utf-16-be", "utf-16-le", "gb18030", "shift_jis"]
ENCODINGS: tuple[str, ...] = ("ascii", "utf-8", "latin-1", "utf-16-be", "utf-16-le", "gb18030", "shift_jis")
LENGTH_MAX = 250  # bytes: the 125 registers that one request can read
_WIDTH = {
    ValueType.INT8: 1, ValueType.UINT8: 1,
    ValueType.INT16: 2, ValueType.UINT16: 2,
    ValueType.INT32: 4, ValueType.UINT32: 4, ValueType.FLOAT32: 4,
    ValueType.INT64: 8, ValueType.UINT64: 8, ValueType.FLOAT64: 8,
}  # fmt: skip
TEXT_TYPES = frozenset({ValueType.STRING, ValueType.BYTES})


@dataclass(frozen=True, slots=True)
class Point:
    """One tag's place in the device.

    count    registers (or bits, in the bit areas) that it takes
    source   byte offsets from its first register, most significant (or first) byte first; () in the bit areas
    bit      bit inside its register, for booleans there; None: the register as a whole, true unless 0
    """

    id: TagId
    name: str
    type: ValueType
    area: Area
    offset: int
    count: int
    source: tuple[int, ...] = ()
    bit: int | None = None
    encoding: str = "utf-8"

    @property
    def end(self) -> int:
        """First offset behind it."""
        return self.offset + self.count


def points_from(tags: Sequence[BoundTag], options: Options) -> list[Point]:
    """Points of these tags, in their order.

    raises Misconfigured - with a TagProblem for each tag that cannot be read this way
    """
    points: list[Point] = []
    problems: list[TagProblem] = []
    for tag in tags:
        try:
            points.append(_point(tag, options))
        except _TagWrong as wrong:
            problems.append(TagProblem(tag.name, wrong.key, wrong.code, f"tag {tag.name}: {wrong.text}"))
    if problems:
        rest = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise Misconfigured(f"{problems[0].text}{rest}", code="E5021", tag_problems=problems)
    return points


class _TagWrong(Exception):
    def __init__(self, key: str, text: str, code: str = "E5022") -> None:
        super().__init__(text)
        self.key, self.text, self.code = key, text, code


def _point(tag: BoundTag, options: Options) -> Point:
    try:
        address = parse_address(tag.address)
    except AddressWrong as wrong:
        raise _TagWrong("address", str(wrong), "E5021") from None
    if "W" in tag.access and not address.area.is_writable:
        raise _TagWrong("access", f"{address} can only be read; set access: R")
    point = _bit_point(tag, address) if address.area.is_bits else _register_point(tag, address, options)
    if point.end - 1 > ADDRESS_MAX:
        raise _TagWrong("address", f"address {tag.address} with {point.count} registers ends beyond {ADDRESS_MAX}")
    for area, first, last in options.limits.forbidden:
        if area == point.area and point.offset <= last and first < point.end:
            raise _TagWrong("address", f"{address} lies in the forbidden range {area.value}:{first}-{last}")
    if not point.area.is_bits and point.count > options.limits.registers_max:
        limit = options.limits.registers_max
        raise _TagWrong("address", f"{point.count} registers do not fit one request; max_registers is {limit}")
    return point


def _bit_point(tag: BoundTag, address: Address) -> Point:
    if tag.type is not ValueType.BOOL:
        raise _TagWrong("type", f"{address} is one bit; its type is bool, not {tag.type.value}")
    return Point(tag.id, tag.name, tag.type, address.area, address.offset, 1)


def _register_point(tag: BoundTag, address: Address, options: Options) -> Point:
    byte_order = _choice(tag.options, "byte_order", options.byte_order, ("big", "little"))
    word_order = _choice(tag.options, "word_order", options.word_order, ("big", "little"))
    bit = _bit(tag, address)
    encoding = "utf-8"
    if tag.type in TEXT_TYPES:
        size = _integer(tag.options, "length", 1, LENGTH_MAX)
        encoding = _choice(tag.options, "encoding", "utf-8", ENCODINGS)
    else:
        size = width_of(tag.type)
    if size == 1 and tag.type not in TEXT_TYPES:
        source: tuple[int, ...] = ((0 if address.byte == "h" else 1) ^ (byte_order == "little"),)
    elif address.byte is not None:
        raise _TagWrong("address", f"{address} is one byte; its type is int8 or uint8, not {tag.type.value}")
    else:
        source = source_bytes(size, byte_order, word_order)
    count = (size + 1) // 2
    return Point(tag.id, tag.name, tag.type, address.area, address.offset, count, source, bit, encoding)


def width_of(type_: ValueType) -> int:
    """Bytes of a value in registers; texts have none of their own."""
    return 2 if type_ is ValueType.BOOL else _WIDTH[type_]


def source_bytes(size: int, byte_order: str, word_order: str) -> tuple[int, ...]:
    """Offsets on the wire of a value's bytes, most significant first.

    big/big ABCD, big/little words CDAB, little/big BADC, little/little DCBA
    """
    words = (size + 1) // 2
    offsets = []
    for index in range(size):
        word = index // 2 if word_order == "big" else words - 1 - index // 2
        byte = index % 2 if byte_order == "big" else 1 - index % 2
        offsets.append(2 * word + byte)
    return tuple(offsets)


def _bit(tag: BoundTag, address: Address) -> int | None:
    bit = address.bit
    if "bit" in tag.options:
        if bit is not None:
            raise _TagWrong("bit", f"{address} already names a bit; leave one of the two out")
        bit = _integer(tag.options, "bit", 0, 15)
    if bit is not None and tag.type is not ValueType.BOOL:
        raise _TagWrong("type", f"bit {bit} of a register has type bool, not {tag.type.value}")
    return bit


def _choice(row: Mapping[str, Any], key: str, default: str, allowed: tuple[str, ...]) -> str:
    value = row.get(key, default)
    if value not in allowed:
        raise _TagWrong(key, f"{key} {value!r} is not one of {', '.join(allowed)}")
    return str(value)


def _integer(row: Mapping[str, Any], key: str, low: int, high: int) -> int:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        said = f"is {value!r}" if value is not None else "is missing"
        raise _TagWrong(key, f"{key} {said}; it is a whole number from {low} to {high}")
    return value
