"""Decoding of DataValues straight from the bytes of a message to values of the gateway, within bounds.

asyncua decodes the services; what is read here are the many: values in Read responses and notifications. A peer's
lengths are believed only as far as bytes are there, nesting is bounded, and times keep their 100 ns. What stands in the
message is given back as values.py describes it. No sockets here. Source: OPC UA Part 6, 5.2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from asyncua import ua

from framegate.contract.errors import FrameBroken
from framegate.contract.frame import Value, ValueType
from framegate_plugins.opcua.times import ns_of_ticks, text_of_ticks
from framegate_plugins.opcua.values import DEPTH_MAX, fit

ARRAY_ITEMS_MAX: Final = 100_000
"""Of one array of any rank; a longer one is refused before anything is made of it."""
BROKEN: Final = "E2715"
_U8, _I8, _U16, _I16 = (struct.Struct(f"<{code}") for code in "BbHh")
_U32, _I32, _U64, _I64 = (struct.Struct(f"<{code}") for code in "IiQq")
_F32, _F64, _BOOL = (struct.Struct(f"<{code}") for code in "fd?")
_V = ua.VariantType
FIXED: Final[Mapping[int, struct.Struct]] = {
    _V.Boolean.value: _BOOL, _V.SByte.value: _I8, _V.Byte.value: _U8, _V.Int16.value: _I16, _V.UInt16.value: _U16,
    _V.Int32.value: _I32, _V.UInt32.value: _U32, _V.Int64.value: _I64, _V.UInt64.value: _U64, _V.Float.value: _F32,
    _V.Double.value: _F64, _V.StatusCode.value: _U32,
}  # fmt: skip
"""Types of one width, by their number in a Variant."""
ARRAY_BIT, DIMENSIONS_BIT, TYPE_BITS = 0x80, 0x40, 0x3F
VALUE_BIT, STATUS_BIT, SOURCE_BIT, SERVER_BIT, SOURCE_PICO_BIT, SERVER_PICO_BIT = (1 << bit for bit in range(6))
_DATETIME, _LOCALIZED = _V.DateTime.value, _V.LocalizedText.value
_NS_OF_NODE_ID: Final = {0: (_U8, False), 1: (_U16, True), 2: (_U32, True)}
Unpack: TypeAlias = Callable[["Reader", int], Value]
"""Makes a value of a structure's body, which the reader stands before; the number is the depth."""


class Sample(NamedTuple):
    """One DataValue. source, server: ticks, 0 where the peer sent none."""

    value: Value
    status: int
    source: int
    server: int


class Reader:
    """A place in a message, moving on.

    structures  how bodies of ExtensionObjects are read, by the text of their encoding's NodeId
    raises      FrameBroken E2715 from every method: the bytes are no such thing
    """

    __slots__ = ("at", "data", "structures")

    def __init__(self, data: bytes, at: int = 0, structures: Mapping[str, Unpack] | None = None) -> None:
        self.data, self.at = data, at
        self.structures = structures or {}

    def number(self, form: struct.Struct) -> Any:
        try:
            value = form.unpack_from(self.data, self.at)[0]
        except struct.error as error:
            raise _broken("it ends too early") from error
        self.at += form.size
        return value

    def u8(self) -> int:
        return int(self.number(_U8))

    def u32(self) -> int:
        return int(self.number(_U32))

    def count(self, item_bytes: int = 1) -> int:
        """Length of an array, -1 for none; raises where its items cannot be there."""
        length = int(self.number(_I32))
        if length > ARRAY_ITEMS_MAX or length * item_bytes > len(self.data) - self.at:
            raise _broken(f"an array of {length:,} items is announced; {ARRAY_ITEMS_MAX:,} are taken at most")
        return length

    def octets(self) -> bytes | None:
        length = int(self.number(_I32))
        if length < 0:
            return None
        if length > len(self.data) - self.at:
            raise _broken(f"{length:,} bytes are announced, {len(self.data) - self.at:,} are there")
        self.at += length
        return self.data[self.at - length : self.at]

    def text(self) -> str | None:
        octets = self.octets()
        return None if octets is None else octets.decode("utf-8", "replace")

    def skip(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise _broken("it ends too early")
        self.at += size

    def node_id(self) -> str:
        """A NodeId or ExpandedNodeId as OPC UA writes it."""
        mask = self.u8()
        kind = mask & 0x0F
        if kind == 0:
            space, identifier = 0, f"i={self.u8()}"
        elif kind == 1:
            space, identifier = self.u8(), f"i={self.number(_U16)}"
        else:
            space = int(self.number(_U16))
            identifier = self._identifier(kind)
        uri = self.text() if mask & 0x80 else None
        server = self.u32() if mask & 0x40 else 0
        return "".join(
            (f"svr={server};" if server else "", f"nsu={uri};" if uri else f"ns={space};" if space else "", identifier)
        )

    def _identifier(self, kind: int) -> str:
        if kind == 2:
            return f"i={self.u32()}"
        if kind == 3:
            return f"s={self.text() or ''}"
        if kind == 4:
            return f"g={self.guid()}"
        if kind == 5:
            return f"b={(self.octets() or b'').hex()}"
        raise _broken(f"{kind} is no kind of NodeId")

    def guid(self) -> str:
        self.skip(16)
        return str(UUID(bytes_le=self.data[self.at - 16 : self.at]))

    def localized(self) -> dict[str, Value]:
        mask = self.u8()
        locale = self.text() if mask & 1 else None
        return {"Locale": locale, "Text": self.text() if mask & 2 else None}

    def scalar(self, kind: int, depth: int = 0) -> Value:
        """One value of a built-in type, in natural form."""
        form = FIXED.get(kind)
        if form is not None:
            return self.number(form)  # type: ignore[no-any-return]  # of a struct of numbers
        if depth > DEPTH_MAX:
            raise _broken(f"values nest deeper than {DEPTH_MAX}")
        read = _SCALARS.get(kind)
        if read is None:
            raise _broken(f"{kind} is no built-in type")
        return read(self, depth)

    def array(self, kind: int, depth: int = 0) -> list[Value]:
        form = FIXED.get(kind)
        count = self.count(1 if form is None else form.size)
        if count <= 0:
            return []
        if form is None:
            return [self.scalar(kind, depth + 1) for _ in range(count)]
        items = list(struct.unpack_from(f"<{count}{form.format[-1]}", self.data, self.at))
        self.at += count * form.size
        return items

    def variant(self, depth: int = 0) -> tuple[int, bool, Value]:
        """Number of its type, whether it is an array, and its content in natural form."""
        mask = self.u8()
        kind = mask & TYPE_BITS
        if kind > _V.DiagnosticInfo.value:
            kind = _V.ByteString.value  # Part 6, 5.2.2.16: types to come are read as ByteString
        if not mask & ARRAY_BIT:
            return kind, False, None if kind == 0 else self.scalar(kind, depth)
        items = self.array(kind, depth)
        return kind, True, shaped(items, self.array(_V.Int32.value)) if mask & DIMENSIONS_BIT else items

    def value(self, type_: ValueType) -> Value:
        """A Variant as a tag of that type holds it.

        raises ValueError - the tag's type cannot hold it; it has been read all the same
        """
        if self.data[self.at : self.at + 1] == _DATETIME_BYTE and type_ is ValueType.INT64:
            self.at += 1
            return ns_of_ticks(int(self.number(_I64)))
        kind, is_array, content = self.variant()
        if type_ is ValueType.JSON:
            return content
        if is_array and isinstance(content, list):
            if len(content) != 1:
                raise ValueError(f"an array of {len(content)}: declare the tag json, or name one by index_range")
            content = content[0]
        if kind == _LOCALIZED and isinstance(content, dict):
            content = content["Text"]
        return fit(content, type_)

    def sample(self, type_: ValueType | None = None) -> tuple[Sample, ValueError | None]:
        """A DataValue. type_: of the tag; None: in natural form. The error says why a tag cannot hold the value."""
        mask = self.u8()
        value: Value = None
        error = None
        if mask & VALUE_BIT:
            try:
                value = self.variant()[2] if type_ is None else self.value(type_)
            except ValueError as wrong:
                error = wrong
        status = self.u32() if mask & STATUS_BIT else 0
        source = int(self.number(_I64)) if mask & SOURCE_BIT else 0
        self.skip(2 if mask & SOURCE_PICO_BIT else 0)
        server = int(self.number(_I64)) if mask & SERVER_BIT else 0
        self.skip(2 if mask & SERVER_PICO_BIT else 0)
        return Sample(value, status, source, server), error

    def nested_sample(self, depth: int) -> Value:
        """A DataValue inside a value."""
        mask = self.u8()
        found: dict[str, Value] = {"Value": self.variant(depth + 1)[2] if mask & VALUE_BIT else None}
        found["StatusCode"] = self.u32() if mask & STATUS_BIT else 0
        for bit, pico, name in ((SOURCE_BIT, SOURCE_PICO_BIT, "Source"), (SERVER_BIT, SERVER_PICO_BIT, "Server")):
            found[f"{name}Timestamp"] = text_of_ticks(int(self.number(_I64))) if mask & bit else None
            self.skip(2 if mask & pico else 0)
        return found

    def extension(self, depth: int) -> Value:
        """A structure: its fields where its type is known, else its type and its bytes."""
        name, mask = self.node_id(), self.u8()
        body = self.octets() if mask else None
        if name == "i=0" and body is None:
            return None
        unpack = self.structures.get(name) if mask == 1 else None
        if unpack is None or body is None:
            return {"TypeId": name, "Body": body if mask != 2 or body is None else body.decode("utf-8", "replace")}
        return unpack(Reader(body, 0, self.structures), depth + 1)

    def diagnostic(self, depth: int) -> Value:
        """Read past; what a server diagnoses is no value."""
        mask = self.u8()
        self.skip(4 * (mask & 0x0F).bit_count())
        if mask & 0x10:
            self.octets()
        self.skip(4 if mask & 0x20 else 0)
        if mask & 0x40:
            self.scalar(_V.DiagnosticInfo.value, depth + 1)
        return None


def shaped(items: list[Value], dimensions: Sequence[Value]) -> list[Value]:
    """A flat array as lists of lists; raises FrameBroken where the lengths do not multiply to it."""
    sizes = [int(size) for size in dimensions if isinstance(size, int)]
    total = 1
    for size in sizes:
        if size < 0:
            raise _broken("a dimension is negative")
        total = min(total * size, ARRAY_ITEMS_MAX + 1)
    if not sizes or total != len(items):
        raise _broken(f"dimensions {sizes[:DEPTH_MAX]} do not fit {len(items)} items")
    if len(sizes) > DEPTH_MAX:
        raise _broken(f"an array has more than {DEPTH_MAX} dimensions")
    for size in reversed(sizes[1:]):
        items = [items[start : start + size] for start in range(0, len(items), size)] if size else []
    return items


_DATETIME_BYTE: Final = bytes((_DATETIME,))
_SCALARS: Final[Mapping[int, Callable[[Reader, int], Value]]] = {
    _V.String.value: lambda reader, _: reader.text(),
    _DATETIME: lambda reader, _: text_of_ticks(int(reader.number(_I64))),
    _V.Guid.value: lambda reader, _: reader.guid(),
    _V.ByteString.value: lambda reader, _: reader.octets(),
    _V.XmlElement.value: lambda reader, _: reader.text(),
    _V.NodeId.value: lambda reader, _: reader.node_id(),
    _V.ExpandedNodeId.value: lambda reader, _: reader.node_id(),
    _V.QualifiedName.value: lambda reader, _: f"{reader.number(_U16)}:{reader.text()}",
    _LOCALIZED: lambda reader, _: reader.localized(),
    _V.ExtensionObject.value: lambda reader, depth: reader.extension(depth),
    _V.DataValue.value: lambda reader, depth: reader.nested_sample(depth),
    _V.Variant.value: lambda reader, depth: reader.variant(depth + 1)[2],
    _V.DiagnosticInfo.value: lambda reader, depth: reader.diagnostic(depth),
}


def _broken(why: str) -> FrameBroken:
    return FrameBroken(f"a message of the OPC UA server cannot be read: {why}; it is refused", code=BROKEN)
