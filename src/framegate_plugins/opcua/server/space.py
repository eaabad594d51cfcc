"""The address space: tags of the gateway as nodes, in folders, beside the standard nodes of OPC UA. Pure.

    Objects                       i=85
      GATEWAY                     ns=3;s=/            where all tags hang
        pump7                     ns=3;s=/pump7       folders, by path
          speed                   ns=2;s=pump7.speed  a tag; its NodeId is its name and nothing else
            EngineeringUnits      ns=3;s=EngineeringUnits:pump7.speed

A tag costs one small object: attributes and references are made when somebody asks for them, so that 100,000 tags start
in a moment. Source: OPC UA Part 3 (nodes), Part 5 (types), Part 8 (AnalogItem, MultiStateDiscrete).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from framegate.contract.bridge import BridgeTag
from framegate.contract.errors import TagProblem
from framegate.contract.frame import Batch
from framegate_plugins.opcua.server import binary
from framegate_plugins.opcua.server.binary import NodeId
from framegate_plugins.opcua.server.item_table import ItemTable
from framegate_plugins.opcua.server.newest import Newest
from framegate_plugins.opcua.server.tag_node import TAGS, TagNode, variable_attribute

STRUCTURE: Final = 3
"""Namespace index of folders and properties; that of tags is TAGS."""
PATH_LEVELS_MAX: Final = 32
LEVEL_CHARACTERS_MAX: Final = 512
"""OPC UA Part 3, 8.3 allows as many in the name of a QualifiedName."""
NODE_ID_CHARACTERS_MAX: Final = 4_096
"""Part 3, 8.2.4."""

OBJECT, VARIABLE, OBJECT_TYPE, VARIABLE_TYPE, REFERENCE_TYPE, DATA_TYPE = 1, 2, 8, 16, 32, 64
"""NodeClass."""
ORGANIZES, HAS_TYPE_DEFINITION, HAS_SUBTYPE, HAS_PROPERTY, HAS_COMPONENT = 35, 40, 45, 46, 47
"""Reference types, of namespace 0."""
OBJECTS: Final = NodeId(0, 85)
_FOLDER_TYPE: Final = NodeId(0, 61)
_PROPERTY_TYPE: Final = NodeId(0, 68)
_LEVELS = re.compile(r"[./]")


class Reference(NamedTuple):
    """type: number of a reference type of namespace 0."""

    type: int
    is_forward: bool
    target: NodeId


class Node(Protocol):
    """What services ask of a node."""

    @property
    def id(self) -> NodeId: ...
    @property
    def node_class(self) -> int: ...
    @property
    def browse_name(self) -> tuple[int, str]: ...
    @property
    def type_definition(self) -> NodeId | None: ...

    def references(self) -> Sequence[Reference]: ...

    def attribute(self, number: int) -> bytes | None:
        """An attribute as an encoded Variant; None: this node has no such attribute.

        Those of every node are the caller's: NodeId, NodeClass, BrowseName, DisplayName, WriteMask, UserWriteMask.
        """


class Folder:
    """An object that organizes tags and other folders."""

    __slots__ = ("_children", "_parent", "_references", "browse_name", "id")
    node_class: Final = OBJECT
    type_definition: Final = _FOLDER_TYPE

    def __init__(self, path: str, name: str, parent: NodeId) -> None:
        self.id = NodeId(STRUCTURE, path)
        self.browse_name = (STRUCTURE, name)
        self._parent = parent
        self._children: dict[tuple[int, str], NodeId] = {}
        self._references: tuple[Reference, ...] | None = None

    def add(self, child: Folder | TagNode) -> None:
        self._children[child.browse_name] = child.id

    def child(self, name: tuple[int, str]) -> NodeId | None:
        return self._children.get(name)

    def references(self) -> Sequence[Reference]:
        """Kept once they were asked for: a client may page through a large folder."""
        if self._references is None:
            self._references = (
                Reference(HAS_TYPE_DEFINITION, True, _FOLDER_TYPE),
                Reference(ORGANIZES, False, self._parent),
                *(Reference(ORGANIZES, True, child) for child in self._children.values()),
            )
        return self._references

    def attribute(self, number: int) -> bytes | None:
        if number == 5:  # Description
            return binary.variant(21, binary.localized_text(""))
        return binary.variant(3, binary.u8(0)) if number == 12 else None  # EventNotifier: it sends none


class Property:
    """A property of a tag; made when it is asked for."""

    __slots__ = ("_owner", "_value", "browse_name", "data_type", "id", "is_array")
    node_class: Final = VARIABLE
    type_definition: Final = _PROPERTY_TYPE

    def __init__(self, owner: TagNode, name: str, data_type: int, value: bytes, *, is_array: bool) -> None:
        self.id = property_id(owner, name)
        self.browse_name = (0, name)  # a standard name (Part 8) is of namespace 0
        self.data_type, self.is_array = data_type, is_array
        self._owner, self._value = owner, value

    def references(self) -> Sequence[Reference]:
        return (Reference(HAS_TYPE_DEFINITION, True, _PROPERTY_TYPE), Reference(HAS_PROPERTY, False, self._owner.id))

    def attribute(self, number: int) -> bytes | None:
        return self._value if number == 13 else variable_attribute(number, self.data_type, is_array=self.is_array)


def property_id(owner: TagNode, name: str) -> NodeId:
    return NodeId(STRUCTURE, f"{name}:{owner.tag.name}")


class Space:
    """Every node of a server. items: who monitors its tags"""

    def __init__(self, gateway: str, tags: Sequence[BridgeTag], standard: Mapping[NodeId, Node], uri: str) -> None:
        """uri: namespace of the tags; tags have passed `problems_of`."""
        self.root = Folder("/", gateway, OBJECTS)
        self._standard = standard
        self._folders: dict[str, Folder] = {"/": self.root}
        self._tags: dict[str, TagNode] = {}
        self._uri = uri
        self._newest = Newest(tags)
        self.items = ItemTable(self._newest, len(tags))
        for place, tag in enumerate(tags):
            path = path_of(tag)
            folder = self._folder(path[:-1])
            node = self._tags[tag.name] = TagNode(tag, path[-1], folder.id, self._newest, place)
            folder.add(node)

    def __len__(self) -> int:
        """Tags."""
        return len(self._tags)

    def find(self, node: NodeId) -> Node | TagNode | None:
        namespace, identifier = node
        if namespace == TAGS:
            return self._tags.get(identifier) if isinstance(identifier, str) else None
        if namespace == STRUCTURE and isinstance(identifier, str):
            return self._folders.get(identifier) or self._property(identifier)
        return self._standard.get(node)

    def references(self, node: Node | TagNode) -> Sequence[Reference]:
        """All references of a node, those included that tags add to a standard node."""
        if isinstance(node, TagNode):
            return [
                Reference(HAS_TYPE_DEFINITION, True, node.type_definition),
                Reference(ORGANIZES, False, node.folder),
                *(Reference(HAS_PROPERTY, True, property_id(node, name)) for name in node.properties),
            ]
        found = node.references()
        return [*found, Reference(ORGANIZES, True, self.root.id)] if node.id == OBJECTS else found

    def update(self, batches: Sequence[Batch], now: float) -> None:
        """Newest rows, to be shown and to whoever monitors them.

        now  monotonic seconds, for items that sample more slowly than rows come
        """
        for rows in self._newest.update(batches):
            self.items.take(rows, now)

    def _folder(self, path: tuple[str, ...]) -> Folder:
        """The folder of a path, made with those above it."""
        key = "/" + "/".join(path)
        found = self._folders.get(key)
        if found is None:
            above = self._folder(path[:-1])
            found = self._folders[key] = Folder(key, path[-1], above.id)
            above.add(found)
        return found

    def _property(self, identifier: str) -> Property | None:
        name, _, tag = identifier.partition(":")
        node = self._tags.get(tag)
        if node is None or name not in node.properties:
            return None
        data_type, value, is_array = node.property_value(name, self._uri)
        return Property(node, name, data_type, value, is_array=is_array)


def path_of(tag: BridgeTag) -> tuple[str, ...]:
    """Folders and, last, the browse name: option `path`, else the name split at . and /, else device and name."""
    path = tag.options.get("path")
    if isinstance(path, str):
        levels = [level for level in path.split("/") if level]
    else:
        levels = [level for level in _LEVELS.split(tag.name) if level]
        if len(levels) < 2:
            levels = [*filter(None, (tag.device.replace("/", "_"),)), tag.name.replace("/", "_")]
    return tuple(levels)


def problems_of(tags: Sequence[BridgeTag]) -> list[TagProblem]:
    """What keeps tags from being shown."""
    problems: list[TagProblem] = []
    seen: dict[tuple[str, ...], str] = {}
    for tag in tags:
        path = path_of(tag)
        if not path or len(path) > PATH_LEVELS_MAX or max(map(len, path)) > LEVEL_CHARACTERS_MAX:
            text = (
                f"path {'/'.join(path)[:80]!r} has no level, more than {PATH_LEVELS_MAX}, or one that is longer than "
            )
            problems.append(
                TagProblem(tag.name, "path", "E2761", f"{text}{LEVEL_CHARACTERS_MAX} characters; shorten it")
            )
        elif len(tag.name) > NODE_ID_CHARACTERS_MAX - LEVEL_CHARACTERS_MAX:
            text = f"the name is longer than a NodeId may be ({NODE_ID_CHARACTERS_MAX} characters); shorten it"
            problems.append(TagProblem(tag.name, "name", "E2761", text))
        elif path in seen:
            text = f"{'/'.join(path)} is the path of tag {seen[path]} as well; give one of them another `path`"
            problems.append(TagProblem(tag.name, "path", "E2761", text))
        elif tag.options.get("enumeration") == "number" and not tag.texts:
            text = "enumeration: number needs a tag with an `enum`; remove it"
            problems.append(TagProblem(tag.name, "enumeration", "E2761", text))
        else:
            seen[path] = tag.name
    return problems
