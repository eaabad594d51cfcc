"""Tags of an OPC UA server, checked: where each is, and how it is watched and written. Pure.

An address is a NodeId as OPC UA writes it: ns=2;s=Pump.Speed, i=2258, nsu=http://example.org/plant;i=12. A namespace
that is named by its URI is found anew whenever a session begins, so a server may number its namespaces as it likes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from asyncua import ua

from framegate.contract.driver import BoundTag
from framegate.contract.errors import Misconfigured, TagProblem
from framegate.contract.frame import Kind, TagId, ValueType
from framegate.endpoint.quantity import seconds_from

ADDRESS_WRONG, TAG_WRONG = "E2731", "E2732"
QUEUE_MAX: Final = 10_000
"""Values that a server keeps of one node between two publications."""
MEMBERS_MAX: Final = 16
_ADDRESS: Final = re.compile(r"(?:ns=(\d{1,5});|nsu=(.+?);)?([isgb])=(.+)", re.DOTALL)
_RANGE: Final = re.compile(r"\d+(?::\d+)?(?:,\d+(?::\d+)?)*", re.ASCII)
_MEMBER: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Address:
    """A NodeId whose namespace may be named by its URI. identifier: int, text, UUID or bytes."""

    space: int | str
    identifier: int | str | UUID | bytes

    def node(self, namespaces: Sequence[str]) -> ua.NodeId | None:
        """The NodeId in a session; None where the server has no such namespace."""
        space = self.space
        if isinstance(space, str):
            if space not in namespaces:
                return None
            space = namespaces.index(space)
        identifier: Any = self.identifier  # asyncua tells the kind from it
        return ua.NodeId(identifier, ua.Int16(space))


def _number_of(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 0xFFFF_FFFF:
        raise ValueError(f"{number} has more than 32 bits")
    return number


_IDENTIFIERS: Final[Mapping[str, Callable[[str], int | str | UUID | bytes]]] = {
    "i": _number_of,
    "s": str,
    "g": UUID,
    "b": bytes.fromhex,
}


def parse_address(text: str) -> Address:
    """raises ValueError"""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no NodeId; write ns=2;s=Name, ns=2;i=12, i=2258 or nsu=URI;s=Name")
    number, uri, kind, rest = match.groups()
    space: int | str = uri or int(number or 0)
    if isinstance(space, int) and space > 0xFFFF:
        raise ValueError(f"namespace {space} is beyond 65535")
    try:
        identifier = _IDENTIFIERS[kind](rest)
    except ValueError as error:
        raise ValueError(f"{kind}={rest[:40]} cannot be meant; i is a number, g a GUID, b hexadecimal") from error
    return Address(space, identifier)


@dataclass(frozen=True, slots=True)
class Point:
    """One tag.

    index_range  NumericRange of the elements that are read and written; "": all
    member       names and indexes that lead to the value inside of a structure
    sampling_s   how often the server looks at the node; None: once per publication
    queue        values kept between two publications; 0: as many as are sampled
    deadband     absolute, or percent of the node's EURange where is_percent
    method       the object whose method the address names; None: the address names a variable
    """

    id: TagId
    name: str
    type: ValueType
    address: Address
    index_range: str = ""
    member: tuple[str | int, ...] = ()
    sampling_s: float | None = None
    queue: int = 0
    deadband: float = 0.0
    is_percent: bool = False
    method: Address | None = None

    @property
    def read_type(self) -> ValueType:
        """What the node's value is read as, before an element or a member is taken out of it."""
        return ValueType.JSON if self.member or self.element is not None else self.type

    @property
    def element(self) -> int | None:
        """The one element that the range names, for a tag that is no array."""
        return int(self.index_range) if self.index_range.isdecimal() and self.type is not ValueType.JSON else None


class _TagWrong(Exception):
    def __init__(self, key: str, text: str, code: str = TAG_WRONG) -> None:
        super().__init__(text)
        self.key, self.text, self.code = key, text, code


def points_from(tags: Sequence[BoundTag]) -> list[Point]:
    """One point per tag, in order.

    raises Misconfigured - with one TagProblem for each tag that cannot be meant
    """
    points: list[Point] = []
    problems: list[TagProblem] = []
    for tag in tags:
        try:
            points.append(_point(tag))
        except _TagWrong as wrong:
            problems.append(TagProblem(tag.name, wrong.key, wrong.code, wrong.text))
    if problems:
        text = f"tag {problems[0].tag}: {problems[0].text} ({len(problems)} in all)"
        raise Misconfigured(text, code=problems[0].code, tag_problems=problems)
    return points


def _point(tag: BoundTag) -> Point:
    options = tag.options
    method = _address("method", options["method"]) if "method" in options else None
    if method is not None and "R" in tag.access:
        raise _TagWrong("access", "a method is called, it has no value to read; set access: W")
    absolute, percent = (_number(options, key) for key in ("server_deadband", "server_deadband_percent"))
    if absolute and percent:
        raise _TagWrong("server_deadband", "absolute and percent exclude each other; leave one out")
    if (absolute or percent) and tag.type.kind not in {Kind.FLOAT, Kind.INT, Kind.UINT}:
        raise _TagWrong("server_deadband", f"only numbers can be near to each other, this tag is {tag.type.value}")
    return Point(
        tag.id,
        tag.name,
        tag.type,
        _address("address", tag.address),
        _range(options),
        _member(options),
        _sampling(options),
        _queue(options),
        absolute or percent,
        bool(percent),
        method,
    )


def _address(key: str, value: object) -> Address:
    try:
        return parse_address(str(value))
    except ValueError as error:
        raise _TagWrong(key, str(error), ADDRESS_WRONG) from error


def _range(options: Mapping[str, Any]) -> str:
    text = str(options.get("index_range", ""))
    if text and _RANGE.fullmatch(text) is None:
        raise _TagWrong("index_range", f'{text!r} is no range; write "3", "0:9" or "1:2,0:4"')
    return text


def _member(options: Mapping[str, Any]) -> tuple[str | int, ...]:
    text = str(options.get("member", ""))
    parts: list[str | int] = [name or int(index) for name, index in _MEMBER.findall(text)]
    written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    if written != text or len(parts) > MEMBERS_MAX:
        raise _TagWrong("member", f"{text!r} is no path; write Field, Field.Inner or Field[2].Inner")
    return tuple(parts)


def _sampling(options: Mapping[str, Any]) -> float | None:
    if "sampling" not in options:
        return None
    try:
        return seconds_from(options["sampling"])
    except ValueError as error:
        raise _TagWrong("sampling", str(error)) from error


def _queue(options: Mapping[str, Any]) -> int:
    value = options.get("queue", 0)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= QUEUE_MAX:
        return value
    raise _TagWrong("queue", f"{value!r} is not a whole number from 0 to {QUEUE_MAX}")


def _number(options: Mapping[str, Any], key: str) -> float:
    value = options.get(key, 0.0)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    raise _TagWrong(key, f"{value!r} is no number of 0 or more")
