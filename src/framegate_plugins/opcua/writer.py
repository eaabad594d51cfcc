"""Writes and method calls: values as the nodes' own types, many in one request, one honest outcome each.

A status is the outcome: Good confirms, Bad rejects with its name. Where the server itself cannot tell (a time-out or a
broken line behind it), and where no answer came once bytes had left, the outcome is unknown. Source: OPC UA Part 4,
5.10.4 and 5.11.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.errors import DeviceRefused, GatewayError, NotConnected
from framegate.contract.frame import TagId, Value
from framegate.contract.ports import Clock
from framegate.contract.quality import is_bad
from framegate_plugins.opcua.points import Point
from framegate_plugins.opcua.session import Session
from framegate_plugins.opcua.status import name_of
from framegate_plugins.opcua.times import datetime_of_ns
from framegate_plugins.opcua.types import Types
from framegate_plugins.opcua.values import variant_from, variant_of
from framegate_plugins.opcua.wire import Reader

ARGUMENTS_MAX: Final = 64
_UNSURE: Final = frozenset(
    (
        StatusCodes.BadTimeout,
        StatusCodes.BadRequestTimeout,
        StatusCodes.BadCommunicationError,
        StatusCodes.BadUnexpectedError,
        StatusCodes.BadInternalError,
    )
)
"""What a server answers when it does not know either what became of a value."""
_REFUSED, _NO_ANSWER = "E2723", "E2722"


class Writer:
    """Writes through one session."""

    def __init__(self, session: Session, types: Types, clock: Clock, *, write_timestamp: bool) -> None:
        self._session, self._clock = session, clock
        self._write_timestamp = write_timestamp
        self._types = types

    async def write(self, commands: Sequence[Write], points: Mapping[TagId, Point]) -> list[WriteResult]:
        """One result per command, in order."""
        results: dict[int, WriteResult] = {}
        ready: list[tuple[int, Any, bool]] = []
        known = [points.get(command.tag) for command in commands]
        try:
            await self._types.learn([point for point in known if point is not None])
        except GatewayError as error:
            return [WriteResult(command.tag, Outcome.NOT_SENT, str(error)) for command in commands]
        for number, (command, point) in enumerate(zip(commands, known, strict=True)):
            if point is None:
                results[number] = WriteResult(command.tag, Outcome.REJECTED, "the tag may not be written")
                continue
            try:
                ready.append((number, self._item(point, command.value), point.method is not None))
            except ValueError as error:
                results[number] = WriteResult(command.tag, Outcome.REJECTED, f"tag {point.name}: {error}")
        await self._send(commands, ready, results)
        return [results[number] for number in range(len(commands))]

    def _item(self, point: Point, value: Value) -> Any:
        """The WriteValue or CallMethodRequest of one command; raises ValueError."""
        node = point.address.node(self._session.namespaces)
        if node is None:
            raise ValueError(f"the server has no namespace {point.address.space}")
        if point.member:
            raise ValueError("a member of a structure cannot be written alone; write the whole")
        if point.method is not None:
            owner = point.method.node(self._session.namespaces)
            if owner is None:
                raise ValueError(f"the server has no namespace {point.method.space}")
            return ua.CallMethodRequest(ObjectId=owner, MethodId=node, InputArguments=self._arguments(point, value))
        type_, build = self._types.of(point)
        if point.index_range and not isinstance(value, list):
            value = [value]  # a range of an array is an array, also one of one element
        content = variant_of(value) if type_ is None else variant_from(value, type_, build)
        written = ua.DataValue(content, StatusCode=None)
        if self._write_timestamp:
            moment: Any = datetime_of_ns(self._clock.now_ns())
            written = ua.DataValue(content, SourceTimestamp=moment)
        return ua.WriteValue(
            NodeId=node, AttributeId=AttributeIds.Value, IndexRange=point.index_range or None, Value=written
        )

    def _arguments(self, point: Point, value: Value) -> list[ua.Variant]:
        given = value if isinstance(value, list) else [] if value in (None, "") else [value]
        wanted = self._types.arguments(point)
        if wanted is None:
            return [variant_of(each) for each in given]
        if len(given) != len(wanted):
            raise ValueError(f"{len(given)} arguments given, the method takes {len(wanted)}")
        pairs = zip(given, wanted, strict=True)
        return [variant_of(each) if type_ is None else variant_from(each, type_) for each, type_ in pairs]

    async def _send(
        self, commands: Sequence[Write], ready: Sequence[tuple[int, Any, bool]], results: dict[int, WriteResult]
    ) -> None:
        """Requests one after the other, in the order of the commands: values together, calls likewise."""
        limits = self._session.limits
        start = 0
        while start < len(ready):
            is_call = ready[start][2]
            stop = start
            most = limits.call if is_call else limits.write
            while stop < len(ready) and ready[stop][2] is is_call and stop - start < most:
                stop += 1
            part = ready[start:stop]
            start = stop
            numbers = [number for number, _, _ in part]
            live = [entry for entry in part if commands[entry[0]].expires > self._clock.monotonic()]
            outcomes = dict.fromkeys(numbers, (Outcome.NOT_SENT, "E2600 the deadline passed before anything was sent"))
            if live:
                answers = await self._ask([item for _, item, _ in live], is_call=is_call)
                outcomes.update(zip([number for number, _, _ in live], answers, strict=True))
            for number, (outcome, reason) in outcomes.items():
                results[number] = WriteResult(commands[number].tag, outcome, reason)

    async def _ask(self, items: list[Any], *, is_call: bool) -> list[tuple[Outcome, str]]:
        """One request; an outcome for each of its items."""
        channel, timeout_s = self._session.channel, self._session.timeout_s
        request: Any = ua.WriteRequest(Parameters=ua.WriteParameters(NodesToWrite=items))
        if is_call:
            request = ua.CallRequest(Parameters=ua.CallParameters(MethodsToCall=items))
        try:
            channel.raise_if_failed()
        except NotConnected as error:
            return [(Outcome.NOT_SENT, str(error))] * len(items)
        try:
            reader = await channel.call(request, timeout_s)
            count = reader.count()
            found = [self._called(reader) if is_call else _outcome(reader.u32()) for _ in range(min(count, len(items)))]
        except DeviceRefused as error:
            return [_outcome(error.quality)] * len(items)
        except GatewayError as error:
            text = f"{_NO_ANSWER} {error.text}; read the device to learn its state"
            return [(Outcome.UNKNOWN, text)] * len(items)
        missing = (Outcome.UNKNOWN, f"{_NO_ANSWER} the server's answer names no result for it")
        return found + [missing] * (len(items) - len(found))

    def _called(self, reader: Reader) -> tuple[Outcome, str]:
        """Outcome of one call: its status, and which argument the server did not like."""
        outcome = _outcome(reader.u32())
        wrong = [
            f"argument {place}: {name_of(status)}"
            for place, status in enumerate(reader.u32() for _ in range(max(0, reader.count(4))))
            if is_bad(status)
        ]
        for _ in range(max(0, reader.count())):
            reader.diagnostic(0)
        for _ in range(max(0, reader.count())):
            reader.variant()  # what a method answers is no value of a tag
        return (outcome[0], f"{outcome[1]} ({'; '.join(wrong)})") if wrong else outcome


def _outcome(status: int) -> tuple[Outcome, str]:
    """What a status says of a write. raises nothing"""
    if not is_bad(status):
        return Outcome.CONFIRMED, "" if status == 0 else name_of(status)
    text = f"{_REFUSED} the server answers {name_of(status)} (0x{status:08X})"
    if status & 0xFFFF_0000 in _UNSURE:
        return Outcome.UNKNOWN, f"{text}: it does not know either; read the device to learn its state"
    return Outcome.REJECTED, text
