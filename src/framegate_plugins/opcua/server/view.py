"""Browse, BrowseNext and TranslateBrowsePathsToNodeIds. Source: OPC UA Part 4, 5.8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from framegate_plugins.opcua.server import answers, binary
from framegate_plugins.opcua.server.binary import NULL, NodeId
from framegate_plugins.opcua.server.limits import PATHS_TARGETS_MAX, REFERENCES_MAX, Budget
from framegate_plugins.opcua.server.requests import BrowseDescription, PathElement
from framegate_plugins.opcua.server.session import Browsing
from framegate_plugins.opcua.server.space import HAS_SUBTYPE, ORGANIZES, REFERENCE_TYPE, Folder, Reference, Space
from framegate_plugins.opcua.server.status import (
    BAD_BROWSE_DIRECTION_INVALID,
    BAD_CONTINUATION_POINT_INVALID,
    BAD_NO_CONTINUATION_POINTS,
    BAD_NO_MATCH,
    BAD_NODE_ID_UNKNOWN,
    BAD_REFERENCE_TYPE_ID_INVALID,
    BAD_TOO_MANY_MATCHES,
    GOOD,
)

_FORWARD, _INVERSE, _BOTH = 0, 1, 2
_NO_REMAINING_PATH: Final = 0xFFFF_FFFF


class View:
    """Walks over a space."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._subtypes: dict[int, frozenset[int]] = {}

    def browse(
        self, wanted: BrowseDescription, references_max: int, keep: Callable[[Browsing], bytes], budget: Budget
    ) -> bytes:
        """BrowseResult. keep: takes where to go on, and gives the continuation point."""
        return self._result(Browsing(wanted, 0, min(references_max or REFERENCES_MAX, REFERENCES_MAX)), keep, budget)

    def browse_next(self, place: Browsing | None, keep: Callable[[Browsing], bytes], budget: Budget) -> bytes:
        return self._result(place, keep, budget) if place is not None else _empty(BAD_CONTINUATION_POINT_INVALID)

    def translate(self, start: NodeId, path: tuple[PathElement, ...], budget: Budget) -> bytes:
        """BrowsePathResult."""
        if self._space.find(start) is None:
            return _path_result(BAD_NODE_ID_UNKNOWN, ())
        places = [start]
        for element in path:
            places = [target for place in places for target in self._step(place, element, budget)][:PATHS_TARGETS_MAX]
            if budget.is_spent:
                return _path_result(BAD_TOO_MANY_MATCHES, ())
        return _path_result(GOOD if places and path else BAD_NO_MATCH, places if path else ())

    def _result(self, place: Browsing, keep: Callable[[Browsing], bytes], budget: Budget) -> bytes:
        wanted, start, references_max = place
        node = self._space.find(wanted.node)
        kinds = self._kinds(wanted.reference_type, with_subtypes=wanted.with_subtypes)
        checks = (
            (node is None, BAD_NODE_ID_UNKNOWN),
            (wanted.direction > _BOTH, BAD_BROWSE_DIRECTION_INVALID),
            (kinds is not None and not kinds, BAD_REFERENCE_TYPE_ID_INVALID),
            (budget.is_spent, BAD_NO_CONTINUATION_POINTS),
        )
        refusal = next((status for is_so, status in checks if is_so), 0)
        if node is None or refusal:
            return _empty(refusal)
        found: list[bytes] = []
        references = self._space.references(node)
        for number in range(start, len(references)):
            described = self._described(references[number], wanted, kinds)
            budget.scans -= 1
            if (described and len(found) == references_max) or budget.is_spent:
                point = keep(Browsing(wanted, number, references_max))
                return binary.u32(GOOD) + binary.octets(point) + binary.many(found)
            if described:
                found.append(described)
                budget.bytes -= len(described)
        return binary.u32(GOOD) + binary.octets(None) + binary.many(found)

    def _described(self, each: Reference, wanted: BrowseDescription, kinds: frozenset[int] | None) -> bytes:
        """ReferenceDescription; b"" where it was not asked for."""
        if wanted.direction != _BOTH and each.is_forward != (wanted.direction == _FORWARD):
            return b""
        if kinds is not None and each.type not in kinds:
            return b""
        target = self._space.find(each.target)
        if target is None or (wanted.class_mask and not wanted.class_mask & target.node_class):
            return b""
        kind = target.type_definition
        return answers.reference(
            each.type, each.target, target.node_class, target.browse_name, kind,
            is_forward=each.is_forward, mask=wanted.result_mask,
        )  # fmt: skip

    def _step(self, place: NodeId, element: PathElement, budget: Budget) -> list[NodeId]:
        node = self._space.find(place)
        kinds = self._kinds(element.reference_type, with_subtypes=element.with_subtypes)
        if node is None:
            return []
        if isinstance(node, Folder) and not element.is_inverse and (kinds is None or ORGANIZES in kinds):
            budget.scans -= 1
            child = node.child(element.target)
            return [child] if child is not None else []
        found = []
        for each in self._space.references(node):
            budget.scans -= 1
            if each.is_forward == element.is_inverse or (kinds is not None and each.type not in kinds):
                continue
            target = self._space.find(each.target)
            if target is not None and target.browse_name == element.target:
                found.append(each.target)
        return found

    def _kinds(self, kind: NodeId, *, with_subtypes: bool) -> frozenset[int] | None:
        """Reference types that count; None: all; empty: it is no reference type."""
        if kind == NULL:
            return None
        node = self._space.find(kind)
        if node is None or node.node_class != REFERENCE_TYPE or not isinstance(kind.identifier, int):
            return frozenset()
        return self._below(kind.identifier) if with_subtypes else frozenset((kind.identifier,))

    def _below(self, kind: int) -> frozenset[int]:
        """A reference type and its subtypes, at any depth."""
        known = self._subtypes.get(kind)
        if known is None:
            found, ahead = {kind}, [kind]
            while ahead:
                node = self._space.find(NodeId(0, ahead.pop()))
                for each in self._space.references(node) if node is not None else ():
                    identifier = each.target.identifier
                    if each.type == HAS_SUBTYPE and each.is_forward and isinstance(identifier, int):
                        found.add(identifier)
                        ahead.append(identifier)
            known = self._subtypes[kind] = frozenset(found)
        return known


def _empty(status: int) -> bytes:
    return binary.u32(status) + binary.octets(None) + binary.NO_ARRAY


def _path_result(status: int, targets: list[NodeId] | tuple[()]) -> bytes:
    found = [binary.node_id(target) + binary.u32(_NO_REMAINING_PATH) for target in targets]
    return binary.u32(status) + binary.many(found)
