"""The standard nodes of namespace 0: types, and the Server object with the values that are true of this server.

They come from the tables that asyncua makes of the OPC Foundation's node set. What this server does not do - methods,
events, PubSub, diagnostics, files - is left out, so that nobody finds in the tree what would be refused.
Source: OPC UA Part 5, 6.3 (Server), Part 3 (types); asyncua.server.standard_address_space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from asyncua import ua
from asyncua.server.standard_address_space import standard_address_space as tables
from asyncua.ua.ua_binary import variant_to_binary

from framegate_plugins.opcua.server.binary import NULL, Identifier, NodeId
from framegate_plugins.opcua.server.space import (
    HAS_TYPE_DEFINITION,
    OBJECTS,
    Node,
    Reference,
)

ROOT: Final = NodeId(0, 84)
SERVER: Final = NodeId(0, 2253)
_METHOD: Final = 4
_SERVER_PARTS: Final = frozenset((2254, 2255, 2256, 2267, 2268, 2994))
"""Children of Server that are shown: ServerArray, NamespaceArray, ServerStatus, ServiceLevel, ServerCapabilities,
Auditing."""
_FIELDS: Final[Mapping[int, tuple[str, ua.VariantType]]] = {
    5: ("Description", ua.VariantType.LocalizedText),
    8: ("IsAbstract", ua.VariantType.Boolean),
    9: ("Symmetric", ua.VariantType.Boolean),
    10: ("InverseName", ua.VariantType.LocalizedText),
    12: ("EventNotifier", ua.VariantType.Byte),
    14: ("DataType", ua.VariantType.NodeId),
    15: ("ValueRank", ua.VariantType.Int32),
    16: ("ArrayDimensions", ua.VariantType.UInt32),
    17: ("AccessLevel", ua.VariantType.Byte),
    18: ("UserAccessLevel", ua.VariantType.Byte),
    19: ("MinimumSamplingInterval", ua.VariantType.Double),
    20: ("Historizing", ua.VariantType.Boolean),
}
"""Attribute -> field of asyncua's NodeAttributes."""


class StandardNode:
    """A node of namespace 0."""

    __slots__ = ("_attributes", "_references", "_value", "browse_name", "id", "node_class", "type_definition")

    def __init__(
        self,
        item: Any,
        references: Sequence[Reference],
        type_definition: NodeId | None,
        value: Callable[[], bytes] | None,
    ) -> None:
        self.id = _node_id(item.RequestedNewNodeId)
        self.node_class = int(item.NodeClass)
        self.browse_name = (item.BrowseName.NamespaceIndex, item.BrowseName.Name or "")
        self.type_definition = type_definition
        self._attributes, self._references, self._value = item.NodeAttributes, references, value

    def references(self) -> Sequence[Reference]:
        return self._references

    def attribute(self, number: int) -> bytes | None:
        if number == 13 and self._value is not None:
            return self._value()
        if number == 13:
            value = getattr(self._attributes, "Value", None)
            if value is None:
                return None
            return variant_to_binary(value if isinstance(value, ua.Variant) else ua.Variant(value))
        if number == 12 and self.id == SERVER:
            return variant_to_binary(ua.Variant(0, ua.VariantType.Byte))  # no events are sent
        name, kind = _FIELDS.get(number, ("", ua.VariantType.Null))
        if not name or not hasattr(self._attributes, name):
            return None
        found = getattr(self._attributes, name)
        return variant_to_binary(
            ua.Variant(found, kind, is_array=isinstance(found, list)) if found is not None else ua.Variant()
        )


class _Collector:
    """Takes what the tables add, as they would add it to a server of asyncua."""

    def __init__(self) -> None:
        self.items: dict[NodeId, Any] = {}
        self.references: dict[NodeId, dict[Reference, None]] = {}

    def add_nodes(self, items: Sequence[Any]) -> None:
        for item in items:
            node, parent = _node_id(item.RequestedNewNodeId), _node_id(item.ParentNodeId)
            self.items[node] = item
            if parent != NULL:
                self._refer(parent, item.ReferenceTypeId.Identifier, node, is_forward=True)
                self._refer(node, item.ReferenceTypeId.Identifier, parent, is_forward=False)

    def add_references(self, references: Sequence[Any]) -> None:
        for each in references:
            source, target = _node_id(each.SourceNodeId), _node_id(each.TargetNodeId)
            self._refer(source, each.ReferenceTypeId.Identifier, target, is_forward=bool(each.IsForward))

    def _refer(self, source: NodeId, kind: int, target: NodeId, *, is_forward: bool) -> None:
        self.references.setdefault(source, {})[Reference(kind, is_forward, target)] = None

    def shown(self) -> set[NodeId]:
        """Every node that is reached from the root, past what is left out."""
        found, ahead = {ROOT}, [ROOT]
        while ahead:
            node = ahead.pop()
            for reference in self.references.get(node, ()):
                target = reference.target
                if reference.is_forward and target not in found and self._is_shown(node, reference):
                    found.add(target)
                    ahead.append(target)
        return found

    def _is_shown(self, node: NodeId, reference: Reference) -> bool:
        item = self.items.get(reference.target)
        if item is None or int(item.NodeClass) == _METHOD:
            return False
        if reference.type == HAS_TYPE_DEFINITION:
            return True
        if node == OBJECTS:
            return reference.target == SERVER
        return node != SERVER or reference.target.identifier in _SERVER_PARTS


def standard_nodes(values: Mapping[int, Callable[[], bytes]]) -> dict[NodeId, Node]:
    """Namespace 0.

    values  number of a variable -> its value now, as an encoded Variant
    """
    collector = _Collector()
    cast(Any, tables).create_standard_address_space_Services(collector)
    shown = collector.shown()
    nodes: dict[NodeId, Node] = {}
    for node in shown:
        references = [each for each in collector.references.get(node, ()) if each.target in shown]
        kind = next((each.target for each in references if each.type == HAS_TYPE_DEFINITION and each.is_forward), None)
        value = values.get(node.identifier) if isinstance(node.identifier, int) else None
        nodes[node] = StandardNode(collector.items[node], references, kind, value)
    return nodes


def _node_id(node: ua.NodeId) -> NodeId:
    identifier: Identifier = node.Identifier
    return NodeId(node.NamespaceIndex, identifier)
