"""The protocol, without a line: tags -> requests, answers -> values. Pure, so it is tested alone.

request   function u8 (1 read, 2 write), sequence u8, first register u16, number of registers or value u16
answer    function and sequence as asked, status u8 (0: done), size u8, then `size` bytes: registers, high byte first
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

READ, WRITE = 1, 2
NO_SUCH_REGISTER = 1
HEAD_BYTES = 4
COUNT_MAX = 120
REGISTERS = 0x10000
FORMATS: Mapping[str, str] = {"uint16": ">H", "int16": ">h", "uint32": ">I", "int32": ">i", "float32": ">f"}
"""Types a tag may have; 32 bits are two registers, high word first."""


class Point(NamedTuple):
    """One tag: where it is and how it is read."""

    id: int
    register: int
    format: str

    @property
    def registers(self) -> int:
        return struct.calcsize(self.format) // 2


class Block(NamedTuple):
    """Registers that are read with one request, and the points in them."""

    first: int
    count: int
    points: tuple[Point, ...]


def blocks_of(points: Sequence[Point]) -> Iterator[Block]:
    """Points that touch are read at once: a gap may hold registers that the device does not have."""
    group: list[Point] = []
    first = end = 0
    for point in sorted(points, key=lambda point: point.register):
        point_end = point.register + point.registers
        if group and (point.register > end or max(end, point_end) - first > COUNT_MAX):
            yield Block(first, end - first, tuple(group))
            group = []
        if not group:
            first = end = point.register
        group.append(point)
        end = max(end, point_end)
    if group:
        yield Block(first, end - first, tuple(group))


def request(function: int, sequence: int, first: int, argument: int) -> bytes:
    return struct.pack(">BBHH", function, sequence, first, argument)


def values_of(block: Block, data: bytes) -> list[float | int]:
    """Values of the block's points, in their order.

    raises ValueError - the answer has not as many bytes as were asked for
    """
    if len(data) != 2 * block.count:
        raise ValueError(f"{len(data)} bytes came for {block.count} registers")
    return [struct.unpack_from(point.format, data, 2 * (point.register - block.first))[0] for point in block.points]
