"""Values of OPC UA and of the gateway, both ways: asyncua's Variant <-> Value of a ValueType.

    OPC UA                                        natural type   form
    Boolean, SByte to UInt64, Float, Double       the same       enumerations are their number (Int32)
    StatusCode                                    uint32         the code, info bits kept
    String, XmlElement                            string
    ByteString                                    bytes
    DateTime                                      string         2026-11-26T12:00:00.1234567Z; declared int64: ns UTC
    Guid, NodeId, ExpandedNodeId, QualifiedName   string         as OPC UA writes them: ns=2;s=x, 2:Name
    LocalizedText                                 string         its text; declared json: {"Locale": ..., "Text": ...}
    arrays of any rank                            json           lists of lists
    structures, unions, DataValue, Variant        json           {"Field": value}, names as the server spells them

Inside `json` scalars keep their natural form; bytes stay bytes until a connector writes JSON. A union is its one field,
{"SwitchField": n, "Value": v}; a structure of unknown type {"TypeId": ..., "Body": bytes}.
Source: OPC UA Part 6, 5.1 (types) and 5.4 (JSON). StatusCodes and qualities are one thing: no table is needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from math import inf
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np
from asyncua import ua
from asyncua.ua.uaerrors import UaError

from framegate.contract.frame import Kind, Value, ValueType
from framegate_plugins.opcua.times import (
    datetime_of_ns,
    datetime_of_ticks,
    ns_of_ticks,
    text_of_ticks,
    ticks_of_datetime,
    ticks_of_text,
)

DEPTH_MAX: Final = 16
"""Structures within structures, and lists within lists."""
Build: TypeAlias = Callable[[Mapping[str, Value]], Any]
"""Makes asyncua's object of a structure from its fields; raises ValueError."""
_V = ua.VariantType
NATURAL: Final[Mapping[ua.VariantType, ValueType]] = {
    _V.Boolean: ValueType.BOOL,
    _V.SByte: ValueType.INT8,
    _V.Byte: ValueType.UINT8,
    _V.Int16: ValueType.INT16,
    _V.UInt16: ValueType.UINT16,
    _V.Int32: ValueType.INT32,
    _V.UInt32: ValueType.UINT32,
    _V.Int64: ValueType.INT64,
    _V.UInt64: ValueType.UINT64,
    _V.Float: ValueType.FLOAT32,
    _V.Double: ValueType.FLOAT64,
    _V.String: ValueType.STRING,
    _V.DateTime: ValueType.STRING,
    _V.Guid: ValueType.STRING,
    _V.ByteString: ValueType.BYTES,
    _V.XmlElement: ValueType.STRING,
    _V.NodeId: ValueType.STRING,
    _V.ExpandedNodeId: ValueType.STRING,
    _V.StatusCode: ValueType.UINT32,
    _V.QualifiedName: ValueType.STRING,
    _V.LocalizedText: ValueType.STRING,
}
"""Type of a tag that reads a scalar of this type; what is missing is `json`."""
WIRE: Final[Mapping[ValueType, ua.VariantType]] = {
    **{kind: variant for variant, kind in NATURAL.items() if variant.value <= _V.Double.value},
    ValueType.STRING: _V.String,
    ValueType.BYTES: _V.ByteString,
    ValueType.JSON: _V.String,
}
"""Type under which a server shows a tag of this type; `json` travels as its text where nothing says more."""
_FLOATS: Final = frozenset((_V.Float, _V.Double))
_FLOAT_MAX: Final = float(np.finfo(np.float32).max)
_WIDTHS: Final = {kind: np.iinfo(kind.value) for kind in ValueType if kind.kind in {Kind.INT, Kind.UINT}}


def natural_type(type_: ua.VariantType, *, is_array: bool = False) -> ValueType:
    """Type of a tag that holds this without loss."""
    return ValueType.JSON if is_array else NATURAL.get(type_, ValueType.JSON)


# -- from OPC UA ------------------------------------------------------------------------------------------------


def value_from(variant: ua.Variant, type_: ValueType) -> Value:
    """The value as a tag of that type holds it; None for a null.

    An array of one element is that element where the tag is no `json`: so an index range reads one.
    raises ValueError - the tag's type cannot hold it
    """
    content = variant.Value
    if type_ is ValueType.JSON:
        return plain(content)
    if variant.is_array:
        content = content or []
        if len(content) != 1 or isinstance(content[0], list):
            raise ValueError(f"an array of {len(content)}: declare the tag json, or name one element by index_range")
        content = content[0]
    return fitted(content, type_)


def fitted(content: object, type_: ValueType) -> Value:
    """One scalar of asyncua as a tag of that type holds it; raises ValueError."""
    if isinstance(content, datetime) and type_ is ValueType.INT64:
        return ns_of_ticks(ticks_of_datetime(content))
    return fit(content.Text if isinstance(content, ua.LocalizedText) else plain(content), type_)


def fit(value: Value, type_: ValueType) -> Value:
    """A scalar in natural form as a tag of that type holds it; None for a null. raises ValueError"""
    kind = type_.kind
    if value is None:
        return None
    if kind is Kind.BOOL:
        is_fit = isinstance(value, bool)
    elif kind is Kind.OBJECT:
        is_fit = type_ is ValueType.JSON or isinstance(value, bytes if type_ is ValueType.BYTES else str)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        is_fit = False
    elif kind is Kind.FLOAT:
        value, is_fit = float(value), True
    else:
        width = _WIDTHS[type_]
        is_fit = isinstance(value, int) and width.min <= value <= width.max
    if not is_fit:
        raise ValueError(f"{_named(value)} does not fit a tag of type {type_.value}; correct its type")
    return value


def plain(content: object, depth: int = 0) -> Value:
    """Any content of a Variant in natural form, lists and structures included; raises ValueError when too deep."""
    if type(content) in _AS_IT_IS:
        return content  # type: ignore[return-value]  # that is what the set says
    if depth >= DEPTH_MAX:
        raise ValueError(f"structures or lists nest deeper than {DEPTH_MAX}")
    if isinstance(content, list | tuple):
        return [plain(item, depth + 1) for item in content]
    for class_, convert in _SCALARS:
        if isinstance(content, class_):
            return convert(content)
    return _fields(content, depth)


_AS_IT_IS: Final = frozenset((type(None), bool, int, float, str, bytes))
_SCALARS: Final[Sequence[tuple[type, Callable[[Any], Value]]]] = (
    (Enum, lambda each: int(each.value)),
    (int, int),  # asyncua's own subclasses of these
    (float, float),
    (str, str),
    (bytes, bytes),
    (datetime, lambda each: text_of_ticks(ticks_of_datetime(each))),
    (UUID, str),
    (ua.StatusCode, lambda each: int(each.value)),
    (ua.NodeId, lambda each: each.to_string()),
    (ua.QualifiedName, lambda each: each.to_string()),
    (ua.XmlElement, lambda each: str(each.Value)),
    (ua.LocalizedText, lambda each: {"Locale": each.Locale, "Text": each.Text}),
)


def _fields(content: object, depth: int) -> Value:
    if isinstance(content, ua.Variant):
        return plain(content.Value, depth + 1)
    if isinstance(content, ua.UaUnion):
        # asyncua keeps which field is set in Encoding and the field in Value.
        return {"SwitchField": content.Encoding, "Value": plain(content.Value, depth + 1)}  # type: ignore[attr-defined]
    if not dataclasses.is_dataclass(content):
        raise ValueError(f"{type(content).__name__} is no type of OPC UA")
    named = ((field.name, getattr(content, field.name)) for field in dataclasses.fields(content))
    return {name: plain(value, depth + 1) for name, value in named if name != "Encoding"}


def _named(content: object) -> str:
    text = repr(content)
    return f"{type(content).__name__} {text if len(text) <= 40 else text[:40] + '...'}"


# -- to OPC UA --------------------------------------------------------------------------------------------------


def variant_from(value: Value, type_: ua.VariantType, build: Build | None = None) -> ua.Variant:
    """The value as a Variant of exactly that type; a list becomes an array, lists of lists one of more dimensions.

    build   makes the structures of an ExtensionObject
    raises  ValueError - the value is none of that type, or beyond its range
    """
    if isinstance(value, list):
        content = [_wire_item(item, type_, build, 0) for item in value]
        dimensions = [ua.Int32(length) for length in _shape(content)]
        return ua.Variant(content, type_, dimensions if len(dimensions) > 1 else None, is_array=True)
    return ua.Variant(wire(value, type_, build), type_)


def _wire_item(item: Value, type_: ua.VariantType, build: Build | None, depth: int) -> Any:
    if isinstance(item, list):
        if depth >= DEPTH_MAX:
            raise ValueError(f"lists nest deeper than {DEPTH_MAX}")
        return [_wire_item(each, type_, build, depth + 1) for each in item]
    return wire(item, type_, build)


def _shape(content: Sequence[Any]) -> list[int]:
    """Lengths of the dimensions; raises ValueError for a ragged one."""
    shape = [len(content)]
    if content and any(isinstance(item, list) for item in content):
        inner = [_shape(item) if isinstance(item, list) else [] for item in content]
        if any(each != inner[0] for each in inner):
            raise ValueError("the lists of an array of several dimensions have one length each")
        shape += inner[0]
    return shape


def wire(value: Value, type_: ua.VariantType, build: Build | None = None) -> Any:
    """One scalar as asyncua packs it; raises ValueError."""
    if value is None and type_ in _NULLABLE:
        return None
    if type_ in _FLOATS:
        return _float(value, type_)
    if NATURAL.get(type_) in _WIDTHS:
        number = _integer(value, type_)
        return ua.StatusCode(ua.UInt32(number)) if type_ is _V.StatusCode else number
    if type_ is _V.Variant:
        return variant_of(value)
    if type_ is _V.ExtensionObject and isinstance(value, dict) and build is not None:
        return build(value)
    return _other(value, type_)


_NULLABLE: Final = frozenset((_V.Null, _V.String, _V.DateTime, _V.ByteString, _V.ExtensionObject))


def _other(value: Value, type_: ua.VariantType) -> Any:
    """What is neither number nor structure."""
    if isinstance(value, str) and type_ in _FROM_TEXT:
        try:
            return _FROM_TEXT[type_](value)
        except UaError as error:
            raise ValueError(f"{value[:40]!r} is no {type_.name}") from error
    if type_ is _V.DateTime and isinstance(value, int) and not isinstance(value, bool):
        return datetime_of_ns(value)
    if type_ is _V.LocalizedText and isinstance(value, dict):
        return ua.LocalizedText(_optional_text(value.get("Text")), _optional_text(value.get("Locale")))
    if not isinstance(value, {_V.Boolean: bool, _V.ByteString: bytes}.get(type_, ())):
        raise _misfit(value, type_)
    return value


_FROM_TEXT: Final[Mapping[ua.VariantType, Callable[[str], Any]]] = {
    _V.String: str,
    _V.XmlElement: lambda text: ua.XmlElement(ua.String(text)),
    _V.DateTime: lambda text: datetime_of_ticks(ticks_of_text(text)),
    _V.Guid: UUID,
    _V.NodeId: ua.NodeId.from_string,
    _V.ExpandedNodeId: ua.ExpandedNodeId.from_string,
    _V.QualifiedName: ua.QualifiedName.from_string,
    _V.LocalizedText: ua.LocalizedText,
}


def variant_of(value: Value) -> ua.Variant:
    """A Variant whose type the value itself tells: the argument of a node of any type; raises ValueError."""
    probe: Value = value
    while isinstance(probe, list):
        probe = probe[0] if probe else None
    for kind, type_ in (
        (bool, _V.Boolean),
        (int, _V.Int64),
        (float, _V.Double),
        (str, _V.String),
        (bytes, _V.ByteString),
    ):
        if isinstance(probe, kind):
            return variant_from(value, type_)
    if value is None:
        return ua.Variant()
    raise ValueError(f"{type(value).__name__} cannot be written to a node that takes any type")


def _integer(value: Value, type_: ua.VariantType) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _misfit(value, type_)
    width = _WIDTHS[NATURAL[type_]]
    if not width.min <= value <= width.max:
        raise ValueError(f"{value} is beyond {type_.name}, which holds {width.min} to {width.max}")
    return value


def _float(value: Value, type_: ua.VariantType) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _misfit(value, type_)
    number = float(value)
    if type_ is _V.Float and abs(number) > _FLOAT_MAX and abs(number) != inf:
        raise ValueError(f"{number:g} is beyond Float")
    return number


def _optional_text(value: Value) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{type(value).__name__} given, text wanted")


def _misfit(value: Value, type_: ua.VariantType) -> ValueError:
    return ValueError(f"{type(value).__name__} given, {type_.name} wanted")
