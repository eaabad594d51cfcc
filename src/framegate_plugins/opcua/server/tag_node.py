"""One tag as a variable: its newest row, its type, how its values are written and read.

A value keeps its exact type: int16 is Int16, float32 is Float. A row whose quality is Bad has no value (Part 4, 7.7.1);
one that was never read has BadWaitingForInitialData. Source: OPC UA Part 3, 5.6 (variables), Part 6, 5.1.2 (types).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, cast

import orjson

from framegate.contract.bridge import BridgeTag
from framegate.contract.frame import Value, ValueType
from framegate_plugins.opcua.server import binary
from framegate_plugins.opcua.server.binary import NodeId, Variant
from framegate_plugins.opcua.server.newest import Newest, Row
from framegate_plugins.opcua.server.status import BAD, BAD_OUT_OF_RANGE
from framegate_plugins.opcua.server.units import eu_information
from framegate_plugins.opcua.wire import FIXED

TAGS: Final = 2
"""Namespace index of tags."""
SOURCE_ONLY, SERVER_ONLY, BOTH_TIMES, NO_TIMES = 0, 1, 2, 3
"""TimestampsToReturn (Part 4, 7.40)."""

_BASE_DATA_VARIABLE, _ANALOG_ITEM, _ANALOG_UNIT, _MULTI_STATE = 63, 2368, 17497, 2376
_RANGE, _EU_INFORMATION, _LOCALIZED_TEXT, _UINT32 = 884, 887, 21, 7
_RANGE_BINARY, _EU_INFORMATION_BINARY = 886, 889

_TYPES: Final[dict[ValueType, tuple[int, Callable[[Any], bytes]]]] = {
    ValueType.BOOL: (1, binary.flag),
    ValueType.INT8: (2, binary.i8),
    ValueType.UINT8: (3, binary.u8),
    ValueType.INT16: (4, binary.i16),
    ValueType.UINT16: (5, binary.u16),
    ValueType.INT32: (6, binary.i32),
    ValueType.UINT32: (7, binary.u32),
    ValueType.INT64: (8, binary.i64),
    ValueType.UINT64: (9, binary.u64),
    ValueType.FLOAT32: (10, binary.f32),
    ValueType.FLOAT64: (11, binary.f64),
    ValueType.STRING: (12, binary.text),
    ValueType.BYTES: (15, binary.octets),
    ValueType.JSON: (12, lambda value: binary.octets(orjson.dumps(value))),
}
"""Builtin type, and the encoder of its values; arrays and structures go as JSON text."""
_NOT_NUMBERS: Final = frozenset((1, 12, 15))


def variable_attribute(number: int, data_type: int, *, is_array: bool = False) -> bytes | None:
    """Attributes of a variable that can be read and nothing else, as encoded Variants; Description is empty."""
    made: dict[int, Callable[[], bytes]] = {
        5: lambda: binary.variant(21, binary.localized_text("")),
        14: lambda: binary.variant(17, binary.node_id(NodeId(0, data_type))),
        15: lambda: binary.variant(6, binary.i32(1 if is_array else -1)),
        16: lambda: binary.variant_array(7, [binary.u32(0)]) if is_array else binary.variant(0, b""),
        17: lambda: binary.variant(3, binary.u8(1)),
        18: lambda: binary.variant(3, binary.u8(1)),
        20: lambda: binary.variant(1, binary.flag(False)),
    }
    return made[number]() if number in made else None


class TagNode:
    """A tag. place: of its newest row."""

    __slots__ = ("_newest", "_pack", "browse_name", "data_type", "folder", "id", "place", "tag")
    node_class: Final = 2

    def __init__(self, tag: BridgeTag, name: str, folder: NodeId, newest: Newest, place: int) -> None:
        self.tag = tag
        self.id = NodeId(TAGS, tag.name)
        self.browse_name = (TAGS, name)
        self.folder = folder
        self.place = place
        self._newest = newest
        self.data_type, self._pack = _TYPES[tag.type]
        if self.is_numbered:
            self.data_type, self._pack = _UINT32, self._pack_text

    @property
    def row(self) -> Row:
        """The newest."""
        return self._newest.row(self.place)

    @property
    def fixed_type(self) -> int:
        """The builtin type of its values where they have one width and are shown as they are; else 0."""
        return self.data_type if self.data_type in FIXED and not self.is_numbered else 0

    @property
    def is_numbered(self) -> bool:
        """Shown as the place of its text in the enumeration."""
        return bool(self.tag.texts) and self.tag.options.get("enumeration") == "number"

    @property
    def is_number(self) -> bool:
        return self.data_type not in _NOT_NUMBERS

    @property
    def type_definition(self) -> NodeId:
        if self.is_numbered:
            return NodeId(0, _MULTI_STATE)
        if self.is_number and self.tag.span is not None:
            return NodeId(0, _ANALOG_ITEM)
        return NodeId(0, _ANALOG_UNIT if self.is_number and self.tag.unit else _BASE_DATA_VARIABLE)

    @property
    def properties(self) -> tuple[str, ...]:
        if self.tag.texts:
            return ("EnumStrings",)
        if not self.is_number:
            return ()
        return tuple(
            name
            for name, has in (("EURange", self.tag.span is not None), ("EngineeringUnits", bool(self.tag.unit)))
            if has
        )

    def property_value(self, name: str, namespace: str) -> tuple[int, bytes, bool]:
        """Data type, encoded Variant, and whether it is an array; `name` is one of `properties`."""
        if name == "EURange":
            low, high = self.tag.span or (0.0, 0.0)
            body = binary.f64(low) + binary.f64(high)
            return _RANGE, binary.variant(22, binary.extension(_RANGE_BINARY, body)), False
        if name == "EngineeringUnits":
            body = eu_information(self.tag.unit, namespace)
            return _EU_INFORMATION, binary.variant(22, binary.extension(_EU_INFORMATION_BINARY, body)), False
        texts = [binary.localized_text(words) for words in self.tag.texts]
        return _LOCALIZED_TEXT, binary.variant_array(21, texts), True

    @property
    def access_level(self) -> int:
        """Bit 0: may be read, bit 1: may be written (Part 3, 8.57)."""
        return ("R" in self.tag.access) | ("W" in self.tag.access) << 1

    def attribute(self, number: int) -> bytes | None:
        """Attributes of a variable, but Value and UserAccessLevel, which are the services'."""
        match number:
            case 5:
                return binary.variant(21, binary.localized_text(self.tag.description))
            case 17:
                return binary.variant(3, binary.u8(self.access_level))
            case 19:
                return binary.variant(11, binary.f64(0.0))  # rows are shown as they come
        return variable_attribute(number, self.data_type)

    def value_of(self, row: Row) -> tuple[bytes, int]:
        """The encoded Variant of a row and its StatusCode; b"" where it has no value."""
        value, status = row[0], row[1]
        if status & BAD:
            return b"", status
        try:
            return binary.u8(self.data_type) + self._pack(value), status
        except (struct.error, OverflowError, TypeError, ValueError, AttributeError):
            return b"", BAD_OUT_OF_RANGE  # the table's type and the value do not belong together

    def data_value(self, row: Row, times: int) -> bytes:
        """A row as an encoded DataValue. times: TimestampsToReturn."""
        value, status = self.value_of(row)
        return data_value(value, status, row[2], row[3], times)

    def parse(self, value: Variant) -> Value:
        """What a client wants written, as a command takes it.

        raises  TypeError - another type than the node's; ValueError - no text of the enumeration has that place,
                or a text is no JSON
        """
        if value.is_array or value.type != self.data_type:
            raise TypeError
        if self.is_numbered:
            place = value.value
            if not isinstance(place, int) or place >= len(self.tag.texts):
                raise ValueError
            return self.tag.texts[place]
        if not isinstance(value.value, bool | int | float | str | bytes):
            raise TypeError  # a null text or ByteString: nothing to write
        if self.tag.type is ValueType.JSON:
            return cast(Value, orjson.loads(cast(str, value.value)))
        return value.value

    def _pack_text(self, words: object) -> bytes:
        """raises ValueError: the enumeration has no such text"""
        return binary.u32(self.tag.texts.index(words))


def data_value(value: bytes, status: int, source_time: int, server_time: int, times: int) -> bytes:
    """An encoded DataValue, times to 100 ns.

    Picoseconds are left out: they would keep the nanosecond, but clients made with asyncua (2.1) expect them in
    another order than Part 6, 5.2.2.17 has them, and lose the place in the whole message.
    """
    mask, parts = 0, [b"", value]
    if value:
        mask = 1
    if status:
        mask |= 2
        parts.append(binary.u32(status))
    if source_time and times in {SOURCE_ONLY, BOTH_TIMES}:
        mask |= 4
        parts.append(binary.time(source_time))
    if server_time and times in {SERVER_ONLY, BOTH_TIMES}:
        mask |= 8
        parts.append(binary.time(server_time))
    parts[0] = binary.u8(mask)
    return b"".join(parts)
