"""Commands -> write requests, and answers -> one honest outcome per command. Pure.

Neighbouring commands of one kind share a request: registers by function 16 (or 23), coils by 15. Order is kept.
A time-out after bytes have left is UNKNOWN, never a failure; docs of each outcome are in contract/frame.proto.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.frame import TagId
from framegate_plugins.modbus.codec import (
    COIL_ON,
    READ_WRITE_REGISTERS_MAX,
    WRITE_BITS_MAX,
    WRITE_REGISTERS_MAX,
    ExceptionReply,
    Function,
    Request,
    pack_bits,
)
from framegate_plugins.modbus.exchange import Answer, Silence
from framegate_plugins.modbus.options import WriteStyle
from framegate_plugins.modbus.tags import Point
from framegate_plugins.modbus.values import ValueWrong, write_request

_REGISTERS = frozenset({Function.WRITE_SINGLE_REGISTER, Function.WRITE_MULTIPLE_REGISTERS})


@dataclass(slots=True)
class Job:
    """One request and the commands that it carries out."""

    request: Request
    commands: list[int] = field(default_factory=list)


def jobs_from(
    commands: Sequence[Write], points: Mapping[TagId, Point], style: WriteStyle
) -> tuple[list[Job], dict[int, WriteResult]]:
    """Requests in the order of the commands, and results of those commands that cannot be sent at all."""
    jobs: list[Job] = []
    refused: dict[int, WriteResult] = {}
    for index, command in enumerate(commands):
        point = points.get(command.tag)
        if point is None or not point.area.is_writable:
            refused[index] = WriteResult(command.tag, Outcome.REJECTED, "the driver has no writable tag of this id")
            continue
        try:
            request = write_request(point, command.value)
        except ValueWrong as wrong:
            refused[index] = WriteResult(command.tag, Outcome.REJECTED, f"tag {point.name}: {wrong}")
            continue
        if jobs and (merged := _merged(jobs[-1].request, request, style)) is not None:
            jobs[-1].request = merged
            jobs[-1].commands.append(index)
        else:
            jobs.append(Job(request, [index]))
    for job in jobs:
        job.request = styled(job.request, style)
    return jobs, refused


def styled(request: Request, style: WriteStyle) -> Request:
    """The request as this device wants it."""
    if style == "auto":
        return request
    if request.function == Function.WRITE_SINGLE_COIL:
        return Request(Function.WRITE_MULTIPLE_COILS, request.address, 1, pack_bits([request.data[0] != 0]))
    if request.function not in _REGISTERS:
        return request
    if style == "multiple":
        return replace(request, function=Function.WRITE_MULTIPLE_REGISTERS)
    return replace(request, function=Function.READ_WRITE_REGISTERS, write_address=request.address)


def results_from(
    commands: Sequence[Write], jobs: Sequence[Job], answers: Sequence[Answer], refused: Mapping[int, WriteResult]
) -> list[WriteResult]:
    """One result per command, in order."""
    results: dict[int, WriteResult] = dict(refused)
    for job, answer in zip(jobs, answers, strict=True):
        outcome, reason = outcome_of(job.request, answer)
        if outcome is not Outcome.CONFIRMED and len(job.commands) > 1:
            reason += f" (one request wrote {len(job.commands)} tags)"
        for index in job.commands:
            results[index] = WriteResult(commands[index].tag, outcome, reason)
    return [results[index] for index in range(len(commands))]


def outcome_of(request: Request, answer: Answer) -> tuple[Outcome, str]:
    """What became of one write request."""
    if isinstance(answer, bytes):
        if request.function == Function.READ_WRITE_REGISTERS and answer != request.data:
            return Outcome.UNKNOWN, f"the device accepted it but reads back {answer.hex(' ', 2)}"
        return Outcome.CONFIRMED, ""
    if isinstance(answer, ExceptionReply):
        return (Outcome.REJECTED if answer.surely_unapplied else Outcome.UNKNOWN), answer.text
    if answer is Silence.NOT_ASKED:
        return Outcome.NOT_SENT, "no byte left: the line was lost, the device silent, or the wait for the line too long"
    if isinstance(answer, Silence):
        return Outcome.UNKNOWN, "no answer came; the device may or may not have carried it out"
    return Outcome.UNKNOWN, f"the answer cannot be understood: {answer.text}"


def _merged(before: Request, after: Request, style: WriteStyle) -> Request | None:
    """Both as one request, when the second goes on where the first ends."""
    if before.address + before.count != after.address:
        return None
    count = before.count + after.count
    if before.function in _REGISTERS and after.function in _REGISTERS:
        count_max = READ_WRITE_REGISTERS_MAX if style == "read_write" else WRITE_REGISTERS_MAX
        if count <= count_max:
            return Request(Function.WRITE_MULTIPLE_REGISTERS, before.address, count, before.data + after.data)
    is_coils = before.function in {Function.WRITE_SINGLE_COIL, Function.WRITE_MULTIPLE_COILS}
    if is_coils and after.function == Function.WRITE_SINGLE_COIL and count <= WRITE_BITS_MAX:
        states = _states(before) + _states(after)
        return Request(Function.WRITE_MULTIPLE_COILS, before.address, count, pack_bits(states))
    return None


def _states(request: Request) -> list[bool]:
    if request.function == Function.WRITE_SINGLE_COIL:
        return [int.from_bytes(request.data, "big") == COIL_ON]
    return [bool(request.data[i >> 3] >> (i & 7) & 1) for i in range(request.count)]
