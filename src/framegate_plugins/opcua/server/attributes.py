"""Read: any attribute of any node, as a DataValue. Source: OPC UA Part 4, 5.10.2; Part 3, 5 (attributes)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from framegate_plugins.opcua.server import binary
from framegate_plugins.opcua.server.options import User
from framegate_plugins.opcua.server.requests import ReadValueId
from framegate_plugins.opcua.server.space import Node, Space
from framegate_plugins.opcua.server.status import (
    BAD_ATTRIBUTE_ID_INVALID,
    BAD_DATA_ENCODING_UNSUPPORTED,
    BAD_INDEX_RANGE_NO_DATA,
    BAD_NODE_ID_UNKNOWN,
    BAD_NOT_READABLE,
    GOOD,
)
from framegate_plugins.opcua.server.tag_node import NO_TIMES, TagNode, data_value

VALUE, USER_ACCESS_LEVEL = 13, 18
"""AttributeId."""
_ENCODINGS: Final = frozenset(("", "Default Binary"))


def fault(status: int) -> bytes:
    """A DataValue that is nothing but a StatusCode."""
    return data_value(b"", status, 0, 0, NO_TIMES)


class Attributes:
    """Reads a space."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def read(self, wanted: ReadValueId, times: int, user: User, now_ns: int) -> bytes:
        """A DataValue. times: TimestampsToReturn; now_ns: server time of what is not a tag's value."""
        node = self._space.find(wanted.node)
        refusal = refusal_of(wanted, node)
        if refusal:
            return fault(refusal)
        if isinstance(node, TagNode) and wanted.attribute == VALUE:
            return node.data_value(node.row, times)
        assert node is not None
        value = attribute_of(node, wanted.attribute, user)
        if value is None:
            return fault(BAD_ATTRIBUTE_ID_INVALID)
        is_value = wanted.attribute == VALUE
        return data_value(value, GOOD, now_ns if is_value else 0, now_ns, times)


def refusal_of(wanted: ReadValueId, node: Node | TagNode | None) -> int:
    """StatusCode of what keeps an attribute from being read or monitored; 0: nothing."""
    if node is None:
        return BAD_NODE_ID_UNKNOWN
    if wanted.encoding[1] not in _ENCODINGS or (wanted.encoding[1] and wanted.attribute != VALUE):
        return BAD_DATA_ENCODING_UNSUPPORTED
    if wanted.index_range:
        return BAD_INDEX_RANGE_NO_DATA  # a tag is no array
    if isinstance(node, TagNode) and wanted.attribute == VALUE and "R" not in node.tag.access:
        return BAD_NOT_READABLE
    return 0


def attribute_of(node: Node | TagNode, number: int, user: User) -> bytes | None:
    """An attribute as an encoded Variant; None: the node has none such. A tag's Value is not among them."""
    if number == USER_ACCESS_LEVEL and isinstance(node, TagNode):
        may = node.access_level if user.may_write(node.tag.name) else node.access_level & 1
        return binary.variant(3, binary.u8(may))
    make = _OF_EVERY_NODE.get(number)
    return make(node) if make is not None else node.attribute(number)


_OF_EVERY_NODE: Final[dict[int, Callable[[Node | TagNode], bytes]]] = {
    1: lambda node: binary.variant(17, binary.node_id(node.id)),
    2: lambda node: binary.variant(6, binary.i32(node.node_class)),
    3: lambda node: binary.variant(20, binary.qualified_name(*node.browse_name)),
    4: lambda node: binary.variant(21, binary.localized_text(node.browse_name[1])),
    6: lambda _: binary.variant(7, binary.u32(0)),
    7: lambda _: binary.variant(7, binary.u32(0)),
}
"""NodeId, NodeClass, BrowseName, DisplayName, WriteMask, UserWriteMask: nothing but values can be written."""
