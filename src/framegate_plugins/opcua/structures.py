"""Structures of one server: learnt from its type definitions, read to mappings and written from them.

asyncua keeps such classes for the whole process, by NodeIds that mean something else at another server; here each
session has its own. Source: OPC UA Part 3, 8.48 to 8.51 (definitions); Part 6, 5.2.6 and 5.2.7 (encoding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import pack_uatype

from framegate.contract.errors import FrameBroken
from framegate.contract.frame import Value
from framegate_plugins.opcua.session import Session
from framegate_plugins.opcua.values import DEPTH_MAX, wire
from framegate_plugins.opcua.wire import BROKEN, FIXED, Reader, Unpack, shaped

DEFINITIONS_MAX: Final = 1_000
FIELDS_MAX: Final = 1_000
_STRUCTURE_DEFINITION = "i=122"  # DefaultBinary encoding, Part 6, Annex A
_PLAIN, _OPTIONAL, _UNION = 0, 1, 2  # StructureType; 3 and 4 allow subtypes, and are given as type and bytes
_STRUCTURE, _ENUMERATION = 22, 29
_VARIANT = ua.VariantType.Variant.value
_INT32, _UINT32 = FIXED[ua.VariantType.Int32.value], FIXED[ua.VariantType.UInt32.value]
Base = Callable[[str], Any]
"""Number of the built-in type that a DataType goes back to; awaited."""


@dataclass(frozen=True, slots=True)
class Member:
    """One field. kind: number of its built-in type; inner: the structure it is, inline; rank: dimensions, 0: scalar."""

    name: str
    kind: int
    inner: Definition | None
    rank: int
    is_optional: bool

    def read(self, reader: Reader, depth: int) -> Value:
        if self.rank == 0:
            return self._one(reader, depth)
        sizes = reader.array(ua.VariantType.Int32.value) if self.rank > 1 else None
        if self.inner is None and sizes is None:
            return reader.array(self.kind, depth)
        count = _product(sizes) if sizes is not None else max(0, reader.count())
        items = [self._one(reader, depth) for _ in range(min(count, len(reader.data)))]
        return items if sizes is None else shaped(items, sizes)

    def _one(self, reader: Reader, depth: int) -> Value:
        return reader.scalar(self.kind, depth) if self.inner is None else self.inner.unpack(reader, depth + 1)

    def written(self, value: Value) -> bytes:
        """raises ValueError"""
        if self.rank == 0:
            return self._written_one(value)
        if self.rank > 1 or not isinstance(value, list):
            raise ValueError(f"{self.name}: a list of one dimension is wanted")
        return _INT32.pack(len(value)) + b"".join(map(self._written_one, value))

    def _written_one(self, value: Value) -> bytes:
        if self.inner is not None:
            if not isinstance(value, dict):
                raise ValueError(f"{self.name}: a mapping is wanted")
            return self.inner.packed(value)
        type_ = ua.VariantType(self.kind)
        return pack_uatype(type_, wire(value, type_))


@dataclass(slots=True)
class Definition:
    """One structure. encoding: NodeId of its binary encoding, as text."""

    name: str
    encoding: str
    shape: int
    members: list[Member] = field(default_factory=list)

    def unpack(self, reader: Reader, depth: int) -> Value:
        """The fields of a body; raises FrameBroken."""
        if depth > DEPTH_MAX:
            raise FrameBroken(f"structures nest deeper than {DEPTH_MAX}", code=BROKEN)
        if self.shape == _UNION:
            switch = reader.u32()
            member = self.members[switch - 1] if 0 < switch <= len(self.members) else None
            return {} if member is None else {member.name: member.read(reader, depth)}
        mask = reader.u32() if self.shape == _OPTIONAL else 0
        return {member.name: member.read(reader, depth) for member in self._present(mask)}

    def _present(self, mask: int) -> Iterator[Member]:
        bit = 1
        for member in self.members:
            if not member.is_optional:
                yield member
                continue
            if mask & bit:
                yield member
            bit <<= 1

    def packed(self, value: Mapping[str, Value]) -> bytes:
        """The body of a structure; raises ValueError for fields that are missing, unknown or do not fit."""
        unknown = value.keys() - {member.name for member in self.members}
        if unknown:
            raise ValueError(f"{self.name} has no {', '.join(sorted(unknown))}")
        if self.shape == _UNION:
            if len(value) != 1:
                raise ValueError(f"{self.name} is a union: exactly one of its fields is written")
            number, member = next(
                (number, member) for number, member in enumerate(self.members, 1) if member.name in value
            )
            return _UINT32.pack(number) + member.written(value[member.name])
        missing = [member.name for member in self.members if not member.is_optional and member.name not in value]
        if missing:
            raise ValueError(f"{self.name} lacks {', '.join(missing)}")
        body = b"".join(member.written(value[member.name]) for member in self.members if member.name in value)
        if self.shape != _OPTIONAL:
            return body
        optional = [member.name in value for member in self.members if member.is_optional]
        return _UINT32.pack(sum(1 << place for place, is_there in enumerate(optional) if is_there)) + body

    def build(self, value: Mapping[str, Value]) -> ua.ExtensionObject:
        """What is written to a variable of this type; raises ValueError."""
        return ua.ExtensionObject(TypeId=ua.NodeId.from_string(self.encoding), Body=ua.ByteString(self.packed(value)))


class Structures:
    """Definitions of one session, learnt as they are met.

    by_encoding  how bodies are read, by the text of the encoding's NodeId
    """

    def __init__(self, session: Session, base: Base) -> None:
        self._session, self._base = session, base
        self._known: dict[str, Definition | None] = {}
        self.by_encoding: dict[str, Unpack] = {}

    async def definition(self, data_type: str, depth: int = 0) -> Definition | None:
        """The structure of a DataType; None for one that the server does not define, or in a way not read here."""
        if data_type in self._known:
            return self._known[data_type]
        if len(self._known) >= DEFINITIONS_MAX or depth > DEPTH_MAX:
            return None
        node = ua.NodeId.from_string(data_type)
        ((content, _),) = await self._session.values([node], AttributeIds.DataTypeDefinition)
        body = content.get("Body") if isinstance(content, dict) and content["TypeId"] == _STRUCTURE_DEFINITION else None
        self._known[data_type] = None
        if not isinstance(body, bytes):
            return None
        reader = Reader(body)
        encoding = reader.node_id()
        reader.node_id()  # what it is derived from
        shape = int(reader.number(_INT32))
        count = reader.count()
        if shape not in {_PLAIN, _OPTIONAL, _UNION} or count > FIELDS_MAX:
            return None
        made = self._known[data_type] = Definition(data_type, encoding, shape)
        for _ in range(count):
            member = await self._member(reader, depth)
            if member is None:
                self._known[data_type] = None
                return None
            made.members.append(member)
        self.by_encoding[encoding] = made.unpack
        return made

    async def _member(self, reader: Reader, depth: int) -> Member | None:
        name = reader.text() or ""
        reader.localized()
        data_type = reader.node_id()
        rank = int(reader.number(_INT32))
        reader.array(ua.VariantType.UInt32.value)
        reader.skip(4)  # longest text
        is_optional = bool(reader.u8())
        kind = await self._base(data_type)
        inner = None
        if kind == _STRUCTURE and data_type != f"i={_STRUCTURE}":
            inner = await self.definition(data_type, depth + 1)
            if inner is None:
                return None
        kind = ua.VariantType.Int32.value if kind == _ENUMERATION else kind
        if not 0 < kind <= ua.VariantType.DiagnosticInfo.value:
            kind = _VARIANT  # Number, Integer, UInteger and BaseDataType are Variants inside of structures
        return Member(name, kind, inner, max(0, rank), is_optional)


def _product(sizes: list[Value]) -> int:
    total = 1
    for size in sizes:
        total *= max(0, size) if isinstance(size, int) else 0
    return total
