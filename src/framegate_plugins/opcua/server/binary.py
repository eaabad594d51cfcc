"""Primitives of OPC UA Binary: a reader that a client cannot make allocate, and writers.

Every array is counted against the bytes that are left before one element of it is read, and against one budget of
elements for the whole message: what a message claims to hold never costs more than what it is.
Structures are in requests.py and answers.py. Source: OPC UA Part 6, 5.2.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple, TypeAlias, TypeVar
from uuid import UUID

from framegate.contract.errors import FrameBroken
from framegate_plugins.opcua.times import EPOCH_TICKS, TICK_NS, ticks_of_ns
from framegate_plugins.opcua.wire import FIXED

ELEMENTS_MAX: Final = 100_000
"""Elements of all arrays of one message."""
DEPTH_MAX: Final = 8
"""Variants, DataValues and diagnostics inside each other."""

T = TypeVar("T")
Identifier: TypeAlias = int | str | bytes | UUID


class NodeId(NamedTuple):
    """Namespace index and identifier: a number, a text, a GUID or opaque bytes."""

    namespace: int
    identifier: Identifier


class Variant(NamedTuple):
    """A value with its builtin type (Part 6, 5.1.2); `value` is a tuple where it is an array. Type 0: no value."""

    type: int
    value: object
    is_array: bool = False


class DataValue(NamedTuple):
    """value None: none was sent; times in ns UTC, None: not sent."""

    value: Variant | None
    status: int = 0
    source_time: int | None = None
    server_time: int | None = None


class Extension(NamedTuple):
    """A structure that is not looked into here: the NodeId of its encoding, and its bytes."""

    type: NodeId
    body: bytes


NULL: Final = NodeId(0, 0)

_U8, _U16, _U32, _U64 = Struct("<B"), Struct("<H"), Struct("<I"), Struct("<Q")
_I8, _I16, _I32, _I64 = Struct("<b"), Struct("<h"), Struct("<i"), Struct("<q")
_F32, _F64, _BOOL = Struct("<f"), Struct("<d"), Struct("<?")
_DATE_TIME: Final = 13
_NUMERIC = {**FIXED, _DATE_TIME: _I64}
"""Builtin types that have one fixed size, DateTime in ticks among them."""


def _broken(what: str) -> FrameBroken:
    return FrameBroken(f"OPC UA message: {what}", code="E2770")


class Reader:
    """Reads one message from its beginning to its end. Every method raises FrameBroken E2770."""

    __slots__ = ("_at", "_data", "_depth", "_elements", "_end")

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._end = data, 0, len(data)
        self._elements, self._depth = ELEMENTS_MAX, 0

    @property
    def left(self) -> int:
        return self._end - self._at

    def take(self, size: int) -> bytes:
        at = self._at
        if size < 0 or size > self._end - at:
            raise _broken(f"{size} bytes are announced at byte {at}, {self._end - at} are left")
        self._at = at + size
        return self._data[at : self._at]

    def number(self, form: Struct) -> int:
        at = self._at
        if form.size > self._end - at:
            raise _broken(f"it ends within a number at byte {at}")
        self._at = at + form.size
        found: int = form.unpack_from(self._data, at)[0]
        return found

    def u8(self) -> int:
        return self.number(_U8)

    def u16(self) -> int:
        return self.number(_U16)

    def u32(self) -> int:
        return self.number(_U32)

    def i32(self) -> int:
        return self.number(_I32)

    def i64(self) -> int:
        return self.number(_I64)

    def f64(self) -> float:
        return self.number(_F64)

    def flag(self) -> bool:
        return self.number(_U8) != 0

    def octets(self) -> bytes | None:
        """A ByteString; None where it is null."""
        size = self.number(_I32)
        return None if size < 0 else self.take(size)

    def text(self) -> str | None:
        """A String; None where it is null."""
        data = self.octets()
        try:
            return None if data is None else data.decode("utf-8")
        except UnicodeDecodeError:
            raise _broken(f"a text before byte {self._at} is not UTF-8") from None

    def words(self) -> str:
        """A String; "" where it is null."""
        return self.text() or ""

    def many(self, read: Callable[[], T], bytes_min: int) -> tuple[T, ...]:
        """An array, element by element; bytes_min: the least that one takes. A null array is an empty one."""
        count = self.number(_I32)
        if count <= 0:
            return ()
        if count * bytes_min > self.left or count > self._elements:
            raise _broken(f"{count} elements are announced at byte {self._at}: more than it can hold, or than is taken")
        self._elements -= count
        return tuple(read() for _ in range(count))

    def guid(self) -> UUID:
        return UUID(bytes_le=self.take(16))

    def node_id(self) -> NodeId:
        """A NodeId or an ExpandedNodeId without URI and server (those are BadNodeIdUnknown here, as NodeId -1)."""
        mask = self.u8()
        found = self._node_id(mask & 0x3F)
        if mask & 0x80:
            self.octets()
        if mask & 0x40:
            self.u32()
        return NodeId(-1, 0) if mask & 0xC0 else found

    def _node_id(self, form: int) -> NodeId:
        if form == 0:
            return NodeId(0, self.u8())
        if form == 1:
            return NodeId(self.u8(), self.u16())
        namespace = self.u16()
        if form == 2:
            return NodeId(namespace, self.u32())
        if form == 3:
            return NodeId(namespace, self.words())
        if form == 4:
            return NodeId(namespace, self.guid())
        if form == 5:
            return NodeId(namespace, self.octets() or b"")
        raise _broken(f"a NodeId before byte {self._at} has the form {form}")

    def qualified_name(self) -> tuple[int, str]:
        return self.u16(), self.words()

    def localized_text(self) -> str:
        """The text without its locale."""
        mask = self.u8()
        if mask & 1:
            self.octets()
        return self.words() if mask & 2 else ""

    def extension(self) -> Extension:
        """An ExtensionObject; its XML form is taken as bytes as well."""
        kind, form = self.node_id(), self.u8()
        return Extension(kind, (self.octets() or b"") if form in {1, 2} else b"")

    def variant(self) -> Variant:
        mask = self.u8()
        kind, is_array = mask & 0x3F, bool(mask & 0x80)
        if kind > 25:
            raise _broken(f"a Variant before byte {self._at} has the type {kind}")
        read, bytes_min = self._builtin(kind)
        self._enter()
        value: object = self.many(read, bytes_min) if is_array else read()
        self._depth -= 1
        if mask & 0x40:
            self.many(self.i32, 4)  # dimensions: a tag has none, so an array is refused as a whole
        return Variant(kind, value, is_array)

    def data_value(self) -> DataValue:
        mask = self.u8()
        self._enter()
        value = self.variant() if mask & 1 else None
        self._depth -= 1
        status = self.u32() if mask & 2 else 0
        source = self._time() if mask & 4 else None
        if mask & 0x10:
            self.u16()
        server = self._time() if mask & 8 else None
        if mask & 0x20:
            self.u16()
        return DataValue(value, status, source, server)

    def _time(self) -> int:
        return (self.i64() - EPOCH_TICKS) * TICK_NS

    def _builtin(self, kind: int) -> tuple[Callable[[], object], int]:
        form = _NUMERIC.get(kind)
        if form is not None:
            return (lambda: self.number(form)), form.size
        return {
            # An element of type Null takes no byte at all: an array of them is held to one byte each.
            0: ((lambda: None), 1), 12: (self.text, 4), 14: (self.guid, 16), 15: (self.octets, 4), 16: (self.octets, 4),
            17: (self.node_id, 2), 18: (self.node_id, 2), 20: (self.qualified_name, 6), 21: (self.localized_text, 1),
            22: (self.extension, 3), 23: (self.data_value, 1), 24: (self.variant, 1), 25: (self._diagnostics, 1),
        }[kind]  # fmt: skip

    def _diagnostics(self) -> None:
        """DiagnosticInfo: passed over. Part 6, 5.2.2.12."""
        mask = self.u8()
        for bit in (1, 2, 8, 4):  # symbolic id, namespace, locale, localized text
            if mask & bit:
                self.i32()
        if mask & 0x10:
            self.octets()
        if mask & 0x20:
            self.u32()
        if mask & 0x40:
            self._enter()
            self._diagnostics()
            self._depth -= 1

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _broken(f"values lie more than {DEPTH_MAX} deep inside each other")


# -- writing ----------------------------------------------------------------------------------------------------

u8, u16, u32, u64 = _U8.pack, _U16.pack, _U32.pack, _U64.pack
i8, i16, i32, i64 = _I8.pack, _I16.pack, _I32.pack, _I64.pack
f32, f64, flag = _F32.pack, _F64.pack, _BOOL.pack

NO_ARRAY: Final = _I32.pack(-1)
NO_EXTENSION: Final = b"\x00\x00\x00"


def time(ns: int) -> bytes:
    return _I64.pack(ticks_of_ns(ns))


def octets(data: bytes | None) -> bytes:
    return NO_ARRAY if data is None else _I32.pack(len(data)) + data


def text(words: str | None) -> bytes:
    return octets(None if words is None else words.encode("utf-8", "replace"))


def many(elements: list[bytes] | tuple[bytes, ...]) -> bytes:
    return _I32.pack(len(elements)) + b"".join(elements)


def node_id(node: NodeId) -> bytes:
    """In the shortest form."""
    namespace, identifier = node
    if isinstance(identifier, int):
        if namespace == 0 and identifier < 256:
            return b"\x00" + _U8.pack(identifier)
        if namespace < 256 and identifier < 65_536:
            return b"\x01" + _U8.pack(namespace) + _U16.pack(identifier)
        return b"\x02" + _U16.pack(namespace) + _U32.pack(identifier)
    if isinstance(identifier, str):
        return b"\x03" + _U16.pack(namespace) + text(identifier)
    if isinstance(identifier, UUID):
        return b"\x04" + _U16.pack(namespace) + identifier.bytes_le
    return b"\x05" + _U16.pack(namespace) + octets(identifier)


def qualified_name(namespace: int, name: str) -> bytes:
    return _U16.pack(namespace) + text(name)


def localized_text(words: str) -> bytes:
    return b"\x02" + text(words) if words else b"\x00"


def extension(encoding: int, body: bytes) -> bytes:
    """An ExtensionObject of namespace 0. encoding: identifier of its Default Binary."""
    return node_id(NodeId(0, encoding)) + b"\x01" + octets(body)


def variant(kind: int, body: bytes) -> bytes:
    """A scalar of a builtin type, encoded already."""
    return _U8.pack(kind) + body


def variant_array(kind: int, elements: list[bytes]) -> bytes:
    return _U8.pack(kind | 0x80) + many(elements)
