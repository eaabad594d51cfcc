"""What a server's nodes are made of: the built-in type of a variable, the arguments of a method.

Learnt once per session and node, when it is first written. Source: OPC UA Part 3, 5.8 (DataTypes) and 8.6 (Argument).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from framegate.contract.errors import DeviceRefused
from framegate_plugins.opcua.points import Point
from framegate_plugins.opcua.session import Session, decoded
from framegate_plugins.opcua.status import name_of
from framegate_plugins.opcua.structures import Structures
from framegate_plugins.opcua.values import Build
from framegate_plugins.opcua.wire import FIXED, Reader

SUPERTYPES_MAX: Final = 32
_HAS_SUBTYPE, _HAS_PROPERTY = 45, 46
_ENUMERATION, _STRUCTURE = 29, 22
_ABSTRACT: Final = frozenset((24, 26, 27, 28))  # BaseDataType, Number, Integer, UInteger: the value tells its type
_REFERENCES_MAX: Final = 1_000


class Types:
    """Types of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._variables: dict[str, tuple[ua.VariantType | None, Build | None]] = {}
        self._methods: dict[str, list[ua.VariantType | None] | None] = {}
        self._base: dict[str, int] = {}
        self.structures = Structures(session, self.base)

    async def learn(self, points: Sequence[Point]) -> None:
        """Make sure that `of` and `arguments` know these. raises NotConnected, NoReply, FrameBroken"""
        space = self._session.namespaces
        nodes = {_key(point): node for point in points if (node := point.address.node(space)) is not None}
        variables = {key: node for key, node in nodes.items() if key not in self._variables and key[0] != "m"}
        if variables:
            found = await self._session.values(list(variables.values()), AttributeIds.DataType)
            for key, (data_type, _) in zip(variables, found, strict=True):
                self._variables[key] = await self._variable(data_type)
        for key, node in nodes.items():
            if key[0] == "m" and key not in self._methods:
                self._methods[key] = await self._input_arguments(node)

    async def learn_structures(self, nodes: Sequence[ua.NodeId]) -> None:
        """Make sure that values of these variables can be read; what cannot be learnt is read as type and bytes."""
        found = await self._session.values(nodes, AttributeIds.DataType)
        for data_type in {each for each, _ in found if isinstance(each, str)}:
            with suppress(DeviceRefused):
                await self._variable(data_type)

    async def _variable(self, data_type: object) -> tuple[ua.VariantType | None, Build | None]:
        kind = await self.built_in(data_type)
        if kind is not ua.VariantType.ExtensionObject:
            return kind, None
        definition = await self.structures.definition(str(data_type))
        return kind, None if definition is None else definition.build

    def of(self, point: Point) -> tuple[ua.VariantType | None, Build | None]:
        """Built-in type that is written; None: the value tells its own. raises ValueError"""
        return self._variables[_key(point)]

    def arguments(self, point: Point) -> list[ua.VariantType | None] | None:
        """Types of a method's input arguments; None: the server does not say."""
        return self._methods[_key(point)]

    async def built_in(self, data_type: object) -> ua.VariantType | None:
        """Built-in type of a DataType given by its NodeId; None: abstract, or not known."""
        number = await self.base(str(data_type)) if isinstance(data_type, str) else 0
        if number == _ENUMERATION:
            return ua.VariantType.Int32
        return (
            ua.VariantType(number) if 0 < number <= ua.VariantType.DiagnosticInfo and number not in _ABSTRACT else None
        )

    async def base(self, data_type: str) -> int:
        """Number of the built-in or abstract type that a DataType goes back to; 0: not known."""
        trail = [data_type]
        number = 0
        while len(trail) <= SUPERTYPES_MAX:
            current = trail[-1]
            if current in self._base:
                number = self._base[current]
                break
            plain = int(current[2:]) if current.startswith("i=") else 0
            if 0 < plain <= _ENUMERATION:
                number = plain
                break
            supertypes = await self._references(ua.NodeId.from_string(current), _HAS_SUBTYPE, is_forward=False)
            if not supertypes:
                break
            trail.append(supertypes[0].NodeId.to_string())
        self._base.update(dict.fromkeys(trail, number))
        return number

    async def _input_arguments(self, method: ua.NodeId) -> list[ua.VariantType | None] | None:
        for reference in await self._references(method, _HAS_PROPERTY, is_forward=True):
            if reference.BrowseName.Name == "InputArguments":
                node = ua.NodeId.from_string(reference.NodeId.to_string())
                ((content, status),) = await self._session.values([node], AttributeIds.Value)
                if isinstance(content, list):
                    return [await self._argument(each) for each in content]
                raise DeviceRefused(f"InputArguments cannot be read ({name_of(status)})", quality=status, code="E2723")
        return []

    async def _argument(self, content: Any) -> ua.VariantType | None:
        """Type of one Argument, given as type and bytes."""
        body = content.get("Body") if isinstance(content, dict) else None
        if not isinstance(body, bytes):
            return None
        reader = Reader(body)
        reader.octets()  # its name
        data_type = reader.node_id()
        rank = int(reader.number(FIXED[ua.VariantType.Int32.value]))
        number = await self.base(data_type)
        kind = await self.built_in(f"i={number}") if number else None
        return kind if rank != 0 else None

    async def _references(self, node: ua.NodeId, kind: int, *, is_forward: bool) -> list[Any]:
        description = ua.BrowseDescription(
            NodeId=node,
            BrowseDirection=ua.BrowseDirection.Forward if is_forward else ua.BrowseDirection.Inverse,
            ReferenceTypeId=ua.NodeId(ua.Int32(kind)),
            IncludeSubtypes=True,
            ResultMask=ua.UInt32(ua.BrowseResultMask.All),
        )
        parameters = ua.BrowseParameters(
            RequestedMaxReferencesPerNode=ua.UInt32(_REFERENCES_MAX), NodesToBrowse=[description]
        )
        reader = await self._session.call(ua.BrowseRequest(Parameters=parameters))
        results = decoded(list[ua.BrowseResult], reader)
        return list(results[0].References or []) if results else []


def _key(point: Point) -> str:
    return ("m" if point.method is not None else "v") + repr(point.address)
