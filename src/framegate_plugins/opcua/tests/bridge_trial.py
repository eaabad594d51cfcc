"""The trial of an OPC UA server: what an independent client finds against what the server was told, tag by tag.

    wanted = make_wanted(1_000)                            tags of every type, with a row and a value to write
    assert await differences(url, wanted, writes) == []    Browse, Read, Subscribe and Write; a line for each difference

It knows nothing of the bridge but its URL, so that it runs against a whole gateway as well. The client is asyncua's.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncua
import numpy as np

from framegate.contract.bridge import BridgeTag
from framegate.contract.frame import Batch, TagId, Value, ValueType, uniform_time

ua: Any = vars(asyncua)["ua"]
Client: Any = vars(asyncua)["Client"]
"""Without asyncua's types, which do not fit its own calls."""
NOW_NS = 1_795_000_000_123_456_000
"""In whole microseconds: that is what asyncua keeps of the 100 ns that OPC UA has."""
STATUSES = (0, 0, 0, 0x4090_0000, 0x800A_0000)
"""Good, good, good, UncertainLastUsableValue, BadTimeout."""
UNIT = "bar"
BROWSE_MAX = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RANGE = {
    ValueType.INT8: (-128, 127), ValueType.INT16: (-32_768, 32_767), ValueType.INT32: (-(2**31), 2**31 - 1),
    ValueType.INT64: (-(2**63), 2**63 - 1), ValueType.UINT8: (0, 255), ValueType.UINT16: (0, 65_535),
    ValueType.UINT32: (0, 2**32 - 1), ValueType.UINT64: (0, 2**64 - 1),
}  # fmt: skip
TYPES = {
    ValueType.BOOL: "Boolean", ValueType.INT8: "SByte", ValueType.INT16: "Int16", ValueType.INT32: "Int32",
    ValueType.INT64: "Int64", ValueType.UINT8: "Byte", ValueType.UINT16: "UInt16", ValueType.UINT32: "UInt32",
    ValueType.UINT64: "UInt64", ValueType.FLOAT32: "Float", ValueType.FLOAT64: "Double", ValueType.STRING: "String",
    ValueType.BYTES: "ByteString",
}  # fmt: skip
"""Type of a tag -> type in OPC UA."""


class Wanted(NamedTuple):
    """A tag, the row that the server was given for it, and what is written to it."""

    tag: BridgeTag
    value: Value
    status: int
    source_ns: int
    server_ns: int
    written: Value


def make_wanted(count: int) -> list[Wanted]:
    """Tags of every type in turn, in folders of 50."""
    types = list(TYPES)
    return [_wanted(number, types[number % len(types)]) for number in range(count)]


def batches_of(wanted: Sequence[Wanted]) -> list[Batch]:
    """The rows, a batch for each kind of value."""
    batches = []
    for kind in {each.tag.type.kind for each in wanted}:
        rows = [each for each in wanted if each.tag.type.kind is kind]
        values = np.empty(len(rows), kind.value)
        values[:] = [each.value for each in rows]
        ids = np.array([each.tag.id for each in rows], np.int32)
        status = np.array([each.status for each in rows], np.uint32)
        batches.append(Batch(ids, values, status, uniform_time(NOW_NS), NOW_NS + 5_000))
    return batches


async def differences(url: str, wanted: Sequence[Wanted], commands: Callable[[], dict[str, Value]]) -> list[str]:
    """What is not as it should be. commands: tag -> value of every command that the server has handed in."""
    found = []
    async with Client(url, timeout=20) as client:
        names = await _browse(client)
        found += [f"{name}: is not found by browsing" for name in {each.tag.name for each in wanted} - names]
        found += await _read(client, wanted)
        found += await _subscribe(client, wanted)
        found += await _write(client, wanted)
    for each in wanted:
        if (got := commands().get(each.tag.name)) != each.written:
            found.append(f"{each.tag.name}: the command holds {got!r}, not {each.written!r}")
    return found


async def _browse(client: Any) -> set[str]:
    """String identifiers of every variable of namespace 2 below Objects."""
    names, ahead = set(), [client.nodes.objects]
    while ahead:
        described = await ahead.pop().get_references(ua.ObjectIds.HierarchicalReferences, ua.BrowseDirection.Forward)
        for each in described:
            if each.NodeId.NamespaceIndex == 2:
                names.add(each.NodeId.Identifier)
            elif each.NodeClass == ua.NodeClass.Object and each.NodeId.NamespaceIndex:
                ahead.append(client.get_node(each.NodeId))
    return names


async def _read(client: Any, wanted: Sequence[Wanted]) -> list[str]:
    found = []
    values = await _attributes(client, wanted, ua.AttributeIds.Value)
    types = await _attributes(client, wanted, ua.AttributeIds.DataType)
    levels = await _attributes(client, wanted, ua.AttributeIds.UserAccessLevel)
    for each, value, kind, level in zip(wanted, values, types, levels, strict=True):
        found += [f"{each.tag.name}: read: {what}" for what in _unlike(each, value)]
        type_id = getattr(ua.ObjectIds, TYPES[each.tag.type])
        if kind.Value.Value != ua.NodeId(type_id):
            found.append(f"{each.tag.name}: data type {kind.Value.Value}")
        if level.Value.Value != 3:
            found.append(f"{each.tag.name}: user access level {level.Value.Value}")
    return found


async def _subscribe(client: Any, wanted: Sequence[Wanted]) -> list[str]:
    """The first notification of each tag."""
    got: dict[str, Any] = {}
    complete = asyncio.Event()

    class Taker:
        def datachange_notification(self, node: Any, _value: object, data: Any) -> None:
            got[node.nodeid.Identifier] = data.monitored_item.Value
            if len(got) == len(wanted):
                complete.set()

    subscription = await client.create_subscription(50, Taker(), queue_maxsize=100_000)
    nodes = [client.get_node(ua.NodeId(each.tag.name, 2)) for each in wanted]
    await subscription.subscribe_data_change(nodes)
    try:
        async with asyncio.timeout(20):
            await complete.wait()
    except TimeoutError:
        return [f"{each.tag.name}: no notification" for each in wanted if each.tag.name not in got]
    await subscription.delete()
    return [f"{each.tag.name}: notified: {what}" for each in wanted for what in _unlike(each, got[each.tag.name])]


async def _write(client: Any, wanted: Sequence[Wanted]) -> list[str]:
    params = ua.WriteParameters()
    for each in wanted:
        kind = getattr(ua.VariantType, TYPES[each.tag.type])
        value = ua.DataValue(ua.Variant(each.written, kind))
        params.NodesToWrite.append(ua.WriteValue(ua.NodeId(each.tag.name, 2), ua.AttributeIds.Value, None, value))
    results = await client.uaclient.write(params)
    return [
        f"{each.tag.name}: write: {result.name}"
        for each, result in zip(wanted, results, strict=True)
        if not result.is_good()
    ]


async def _attributes(client: Any, wanted: Sequence[Wanted], attribute: int) -> list[Any]:
    params = ua.ReadParameters(TimestampsToReturn=ua.TimestampsToReturn.Both)
    params.NodesToRead = [ua.ReadValueId(NodeId=ua.NodeId(each.tag.name, 2), AttributeId=attribute) for each in wanted]
    found: list[Any] = await client.uaclient.read(params)
    return found


def _unlike(wanted: Wanted, got: Any) -> list[str]:
    """How a DataValue differs from the row."""
    value = got.Value.Value if got.Value is not None else None
    expected = None if wanted.status & 0x8000_0000 else wanted.value
    kind = None if expected is None else getattr(ua.VariantType, TYPES[wanted.tag.type])
    checks = (
        ("value", _same(value, expected), value, expected),
        ("type", expected is None or got.Value.VariantType == kind, got.Value, kind),
        ("status", got.StatusCode.value == wanted.status, got.StatusCode, hex(wanted.status)),
        ("source time", _ns(got.SourceTimestamp) == wanted.source_ns, got.SourceTimestamp, wanted.source_ns),
        ("server time", _ns(got.ServerTimestamp) == wanted.server_ns, got.ServerTimestamp, wanted.server_ns),
    )  # fmt: skip
    return [f"{what} is {is_!r}, not {should!r}" for what, is_same, is_, should in checks if not is_same]


def _same(value: object, expected: object) -> bool:
    return value == expected and type(value) is type(expected)


def _ns(time: datetime | None) -> int:
    return 0 if time is None else (time - _EPOCH) // timedelta(microseconds=1) * 1_000


def _wanted(number: int, type_: ValueType) -> Wanted:
    span = (0.0, 10.0) if type_ in {ValueType.FLOAT64, ValueType.INT16} else None
    unit = UNIT if type_ in {ValueType.FLOAT32, ValueType.FLOAT64} else ""
    name = f"area{number // 50}.device{number % 50}.value{number}"
    tag = BridgeTag(TagId(number), name, type_, "RW", device="d", unit=unit, span=span, description=f"tag {number}")
    status = STATUSES[number // len(TYPES) % len(STATUSES)]
    return Wanted(tag, _value(type_, number), status, NOW_NS, NOW_NS + 5_000, _value(type_, number + len(TYPES)))


def _value(type_: ValueType, number: int) -> Value:
    """Extremes come first, then values in between."""
    turn = number // len(TYPES)
    if type_ in _RANGE:
        low, high = _RANGE[type_]
        return (low, high)[turn] if turn < 2 else low + (high - low) * (turn % 97) // 97
    if type_ is ValueType.BOOL:
        return turn % 2 == 0
    if type_ is ValueType.STRING:
        return ("", "grün 温度 😀", "x" * 1_000)[turn] if turn < 3 else f"text {turn}"
    if type_ is ValueType.BYTES:
        return bytes(range(turn % 256))
    real = (0.0, -1.5e-300, 1.7e308)[turn] if turn < 3 and type_ is ValueType.FLOAT64 else turn / 7.0
    single: float = struct.unpack("<f", struct.pack("<f", real))[0] if type_ is ValueType.FLOAT32 else real
    return single
