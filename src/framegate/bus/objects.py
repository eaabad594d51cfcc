"""Objects in bytes: the values of a column that is neither numbers nor booleans, without loss.

One value is a tag byte, then its content; lengths and counts are u32, little-endian. Text, bytes, lists, mappings,
None, booleans, floats (NaN payloads too) and integers of any size come back as what they were. Own format, because JSON
has no bytes and the gateway has no other use for a general serialiser.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from framegate.bus.fault import RECORD
from framegate.contract.errors import FrameBroken
from framegate.contract.frame import Value

DEPTH_MAX = 32  # lists and mappings within each other
_LENGTH = struct.Struct("<I")
_FLOAT = struct.Struct("<d")
_NONE, _FALSE, _TRUE, _INT, _FLOAT_TAG, _TEXT, _BYTES, _LIST, _MAP = range(9)


def pack_objects(values: Sequence[object]) -> bytes:
    """Every value of a column, one after the other; raises TypeError for what is no Value."""
    parts: list[bytes] = []
    for value in values:
        _pack(value, parts, 0)
    return b"".join(parts)


def unpack_objects(data: bytes, count: int) -> list[Value]:
    """`count` values that fill `data` to its end; raises FrameBroken E3010."""
    values: list[Value] = []
    offset = 0
    try:
        for _ in range(count):
            value, offset = _unpack(data, offset, 0)
            values.append(value)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise FrameBroken(f"object column: {error}", code=RECORD) from error
    if offset != len(data):
        raise FrameBroken(f"object column: {len(data) - offset} bytes left over", code=RECORD)
    return values


def _pack(value: object, parts: list[bytes], depth: int) -> None:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple | dict):
        _pack_members(value, parts, depth)
    elif value is None or isinstance(value, bool):
        parts.append(bytes((_NONE if value is None else _TRUE if value else _FALSE,)))
    elif isinstance(value, float):
        parts += (bytes((_FLOAT_TAG,)), _FLOAT.pack(value))
    else:
        tag, content = _content(value)
        parts += (bytes((tag,)), _LENGTH.pack(len(content)), content)


def _pack_members(
    value: list[object] | tuple[object, ...] | dict[object, object], parts: list[bytes], depth: int
) -> None:
    """A list, or a mapping with its keys and values in turn."""
    if depth >= DEPTH_MAX:
        raise TypeError(f"lists and mappings nest deeper than {DEPTH_MAX}")
    parts += (bytes((_MAP if isinstance(value, dict) else _LIST,)), _LENGTH.pack(len(value)))
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{type(key).__name__} is no key of a mapping")
        value = [member for pair in value.items() for member in pair]
    for item in value:
        _pack(item, parts, depth + 1)


def _content(value: object) -> tuple[int, bytes]:
    """Tag and bytes of a value that has a length."""
    if isinstance(value, int):
        return _INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    if isinstance(value, str):
        return _TEXT, value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes | bytearray | memoryview):
        return _BYTES, bytes(value)
    raise TypeError(f"{type(value).__name__} is no value of a tag")


def _unpack(data: bytes, offset: int, depth: int) -> tuple[Value, int]:
    tag = data[offset]
    offset += 1
    if tag in (_NONE, _FALSE, _TRUE):
        return None if tag == _NONE else tag == _TRUE, offset
    if tag == _FLOAT_TAG:
        number: float = _FLOAT.unpack_from(data, offset)[0]
        return number, offset + 8
    if tag not in (_INT, _TEXT, _BYTES, _LIST, _MAP) or depth > DEPTH_MAX:
        raise FrameBroken(f"object column: byte {tag} at offset {offset - 1} starts no value", code=RECORD)
    length: int = _LENGTH.unpack_from(data, offset)[0]
    offset += 4
    if length > len(data) - offset:  # a list's items take at least a byte each
        raise FrameBroken(f"object column: length {length} at offset {offset - 4} passes the end", code=RECORD)
    if tag in (_LIST, _MAP):
        return (_unpack_list if tag == _LIST else _unpack_mapping)(data, offset, length, depth)
    content = data[offset : offset + length]
    offset += length
    if tag == _INT:
        return int.from_bytes(content, "little", signed=True), offset
    return (content if tag == _BYTES else content.decode("utf-8", "surrogatepass")), offset


def _unpack_list(data: bytes, offset: int, length: int, depth: int) -> tuple[Value, int]:
    items: list[Value] = []
    for _ in range(length):
        item, offset = _unpack(data, offset, depth + 1)
        items.append(item)
    return items, offset


def _unpack_mapping(data: bytes, offset: int, length: int, depth: int) -> tuple[Value, int]:
    mapping: dict[str, Value] = {}
    for _ in range(length):
        key, offset = _unpack(data, offset, depth + 1)
        if not isinstance(key, str):
            raise FrameBroken(f"object column: a key at offset {offset} is no text", code=RECORD)
        mapping[key], offset = _unpack(data, offset, depth + 1)
    return mapping, offset
