"""The address space of a server as rows: what is below a node, with types, access and units.

Breadth first, so that a depth can be kept; a node that several ways lead to is told once. Namespaces are named by their
URIs, which outlive the numbers. Source: OPC UA Part 4, 5.8.2 and 5.8.3; Part 8, 5.6.3 (EngineeringUnits).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from framegate.contract.driver import Found
from framegate.contract.errors import FrameBroken, Misconfigured
from framegate.contract.frame import Access
from framegate_plugins.opcua.points import ADDRESS_WRONG, parse_address
from framegate_plugins.opcua.session import Session, decoded
from framegate_plugins.opcua.types import Types
from framegate_plugins.opcua.values import natural_type
from framegate_plugins.opcua.wire import Reader

NODES_MAX: Final = 500_000
REFERENCES_MAX: Final = 1_000
"""Of one answer; the rest is asked for."""
DEPTH_MAX: Final = 64
UNIT_CHARACTERS_MAX: Final = 32
_OBJECTS, _HIERARCHICAL, _HAS_PROPERTY = "i=85", 33, 46
_SERVER: Final = "i=2253"  # every server's own diagnostics: thousands of nodes that nobody browses for
_EU_INFORMATION = "i=889"  # DefaultBinary encoding
_READ, _WRITE = 1, 2  # bits of AccessLevel, Part 3, 8.57
_Node = tuple[ua.NodeId, tuple[str, ...]]


class Browser:
    """Browses in one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._types = Types(session)
        self._seen: set[str] = set()

    async def below(self, start: str, depth: int) -> AsyncIterator[Found]:
        """raises NotConnected, NoReply, DeviceRefused, FrameBroken; Misconfigured E2731 - the start is no address"""
        level: list[_Node] = [(self._start(start), ())]
        for _ in range(min(depth, DEPTH_MAX)):
            further: list[_Node] = []
            size = max(1, self._session.limits.browse)
            for first in range(0, len(level), size):
                part = level[first : first + size]
                for (_, path), references in zip(part, await self._children([node for node, _ in part]), strict=True):
                    fresh = [each for each in references if self._is_fresh(each)]
                    for found, node in await self._described(path, fresh):
                        yield found
                        further.append((node, found.path))
            if not further or len(self._seen) >= NODES_MAX:
                return
            level = further

    def _start(self, start: str) -> ua.NodeId:
        try:
            node = parse_address(start or _OBJECTS).node(self._session.namespaces)
        except ValueError as error:
            raise Misconfigured(str(error), code=ADDRESS_WRONG) from error
        if node is None:
            raise Misconfigured(f"the server has no namespace of {start}", code=ADDRESS_WRONG)
        return node

    def _is_fresh(self, reference: Any) -> bool:
        name = reference.NodeId.to_string()
        kinds = (ua.NodeClass.Object, ua.NodeClass.Variable)
        if name in self._seen or name == _SERVER or reference.NodeClass not in kinds or len(self._seen) >= NODES_MAX:
            return False
        self._seen.add(name)
        return True

    async def _children(self, nodes: Sequence[ua.NodeId], kind: int = _HIERARCHICAL) -> list[list[Any]]:
        """References from each of these nodes."""
        descriptions = [
            ua.BrowseDescription(
                NodeId=node,
                BrowseDirection=ua.BrowseDirection.Forward,
                ReferenceTypeId=ua.NodeId(ua.Int32(kind)),
                IncludeSubtypes=True,
                ResultMask=ua.UInt32(ua.BrowseResultMask.All),
            )
            for node in nodes
        ]
        parameters = ua.BrowseParameters(
            RequestedMaxReferencesPerNode=ua.UInt32(REFERENCES_MAX), NodesToBrowse=descriptions
        )
        reader = await self._session.call(ua.BrowseRequest(Parameters=parameters))
        results = decoded(list[ua.BrowseResult], reader)
        found = [list(result.References or []) for result in results]
        for references, result in zip(found, results, strict=True):
            point = result.ContinuationPoint
            while point and len(references) < NODES_MAX:
                request = ua.BrowseNextRequest(Parameters=ua.BrowseNextParameters(ContinuationPoints=[point]))
                (more,) = decoded(list[ua.BrowseResult], await self._session.call(request))
                references.extend(more.References or [])
                point = more.ContinuationPoint
        return found + [[] for _ in range(len(nodes) - len(found))]

    async def _described(self, path: tuple[str, ...], references: Sequence[Any]) -> list[tuple[Found, ua.NodeId]]:
        nodes = [ua.NodeId.from_string(each.NodeId.to_string()) for each in references]
        variables = [node for node, each in zip(nodes, references, strict=True) if _is_variable(each)]
        session = self._session
        types = await session.values(variables, AttributeIds.DataType)
        ranks = await session.values(variables, AttributeIds.ValueRank)
        levels = await session.values(variables, AttributeIds.UserAccessLevel)
        units = await self._units(variables)
        facts = iter(zip(types, ranks, levels, units, strict=True))
        rows = []
        for node, each in zip(nodes, references, strict=True):
            name = (*path, str(each.DisplayName.Text or each.BrowseName.Name or node.to_string()))
            if not _is_variable(each):
                rows.append((Found(self._address(node), name, None, is_folder=True), node))
                continue
            (data_type, _), (rank, _), (level, _), unit = next(facts)
            kind = await self._types.built_in(data_type)
            is_array = isinstance(rank, int) and rank >= 0
            type_ = natural_type(kind or ua.VariantType.Variant, is_array=is_array)
            access = _access(level if isinstance(level, int) else _READ)
            rows.append((Found(self._address(node), name, type_ if access else None, access or "R", unit), node))
        return rows

    async def _units(self, variables: Sequence[ua.NodeId]) -> list[str]:
        """Display names of the EngineeringUnits of each variable, "" where it has none."""
        properties: list[ua.NodeId | None] = []
        size = max(1, self._session.limits.browse)
        for first in range(0, len(variables), size):
            for references in await self._children(variables[first : first + size], _HAS_PROPERTY):
                names = (each for each in references if each.BrowseName.Name == "EngineeringUnits")
                found = next(names, None)
                properties.append(ua.NodeId.from_string(found.NodeId.to_string()) if found is not None else None)
        asked = [node for node in properties if node is not None]
        contents = iter(await self._session.values(asked, AttributeIds.Value))
        return ["" if node is None else _unit(next(contents)[0]) for node in properties]

    def _address(self, node: ua.NodeId) -> str:
        text = node.to_string()
        space = int(node.NamespaceIndex)
        if not space or space >= len(self._session.namespaces):
            return text
        return f"nsu={self._session.namespaces[space]};{text.partition(';')[2]}"


def _is_variable(reference: Any) -> bool:
    return bool(reference.NodeClass == ua.NodeClass.Variable)


def _access(level: int) -> Access | None:
    if level & _READ:
        return "RW" if level & _WRITE else "R"
    return "W" if level & _WRITE else None


def _unit(content: object) -> str:
    """Display name of an EUInformation, given as type and bytes."""
    body = content.get("Body") if isinstance(content, dict) and content.get("TypeId") == _EU_INFORMATION else None
    if not isinstance(body, bytes):
        return ""
    reader = Reader(body)
    try:
        reader.octets()  # namespace of the unit
        reader.skip(4)  # its number
        return str(reader.localized()["Text"] or "")[:UNIT_CHARACTERS_MAX]
    except FrameBroken:
        return ""  # a unit that cannot be read is none
