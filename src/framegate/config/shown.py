"""Which tags a bridge shows, and what it is told of each."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from framegate.config.rows import BridgeRow, VariableRow
from framegate.contract.bridge import BridgeTag
from framegate.contract.frame import Access, Kind, TagId, ValueType


class ShownTag(NamedTuple):
    """A contract.bridge.BridgeTag before it has its id; `options` as text, so that two can be compared."""

    name: str
    type: ValueType
    access: Access
    device: str
    unit: str
    description: str
    span: tuple[float, float] | None
    texts: tuple[str, ...]
    options: str
    numbers: tuple[int, ...]


def _shown_rows(bridge: BridgeRow, rows: Sequence[VariableRow]) -> list[VariableRow]:
    """The rows of the tags that it shows, in the order of the table."""
    if "*" in bridge.tags:
        return list(rows)
    matches = _pattern_of(bridge.tags).match
    return [row for row in rows if matches(row.name)]


def shown_tags(bridge: BridgeRow, rows: Sequence[VariableRow]) -> tuple[ShownTag, ...]:
    """What it shows of them."""
    may_write = _pattern_of(bridge.commands).match
    return tuple(_shown(row, bridge, bool(may_write(row.name))) for row in _shown_rows(bridge, rows))


def bridge_tags(row: BridgeRow, variables: Sequence[VariableRow], id_of: Callable[[str], int]) -> list[BridgeTag]:
    """What a bridge shows. id_of: the catalogue's id of an outgoing name."""
    return [
        BridgeTag(
            TagId(id_of(tag.name)),
            tag.name,
            tag.type,
            tag.access,
            tag.device,
            tag.unit,
            tag.description,
            tag.span,
            tag.texts,
            _options_of(variable, row.name),
            tag.numbers,
        )
        for tag, variable in zip(shown_tags(row, variables), _shown_rows(row, variables), strict=True)
    ]


def _options_of(row: VariableRow, bridge: str) -> Mapping[str, Any]:
    """What the tag's row says for one bridge."""
    found: Mapping[str, Any] = row.bridges.get(bridge, {})
    return found


def _pattern_of(globs: Sequence[str]) -> re.Pattern[str]:
    """One pattern for many; without any, it matches nothing."""
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs) or r"(?!)")


def _type_of(row: VariableRow) -> ValueType:
    """Type of the values that the mapper lets out: texts of an enum, and numbers that scale or an expression made."""
    processing = row.processing
    if processing.enum:
        return ValueType.STRING
    is_changed = row.scale != 1.0 or row.offset != 0.0 or processing.expr != ""
    is_whole = row.type.kind in {Kind.INT, Kind.UINT}
    return ValueType.FLOAT64 if row.source and is_whole and is_changed else row.type


def _shown(row: VariableRow, bridge: BridgeRow, may_write: bool) -> ShownTag:
    processing, options = row.processing, _options_of(row, bridge.name)
    is_writable = may_write and "W" in row.access and bool(row.source)
    return ShownTag(
        row.name,
        _type_of(row),
        row.access if is_writable else "R",
        row.source,
        row.unit,
        row.description,
        processing.range or row.limits or processing.clamp,
        tuple(text for _, text in processing.enum),
        repr(sorted(options.items())) if options else "",
        tuple(number for number, _ in processing.enum),
    )
