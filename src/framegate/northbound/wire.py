"""Protobuf on the wire, as far as frames need it: varints, tags and length-delimited fields.

Source: Protocol Buffers documentation, "Encoding". Columns are packed fixed-width fields, so a numpy column's bytes
are a field's bytes as they stand (both little-endian).
"""

from __future__ import annotations

from struct import pack

VARINT, FIXED64, BYTES = 0, 1, 2  # wire types


def varint(number: int) -> bytes:
    """An unsigned integer in groups of seven bits, lowest first."""
    if number < 0x80:
        return bytes((number,))
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def tag_of(field: int, wire_type: int) -> bytes:
    return varint(field << 3 | wire_type)


def field_bytes(field: int, data: bytes) -> bytes:
    """A string, bytes, message or packed field."""
    return tag_of(field, BYTES) + varint(len(data)) + data


def field_fixed64(field: int, number: int) -> bytes:
    """A fixed64 or sfixed64 field; absent when zero, as proto3 has it."""
    return tag_of(field, FIXED64) + pack("<Q", number & 0xFFFF_FFFF_FFFF_FFFF) if number else b""


def field_varint(field: int, number: int) -> bytes:
    """An unsigned or enum field; absent when zero."""
    return tag_of(field, VARINT) + varint(number) if number else b""
