"""Commands, as a driver sees them: a value to write to an address, and one honest outcome for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique

from framegate.contract.frame import TagId, Value


@unique
class Outcome(Enum):
    """The four terminal states; see contract/frame.proto."""

    CONFIRMED = 1
    REJECTED = 2
    NOT_SENT = 3
    UNKNOWN = 4


@dataclass(frozen=True, slots=True)
class Write:
    """One raw value for one bound tag; scale has been undone, range has been checked."""

    tag: TagId
    value: Value


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of one Write. A time-out after bytes have left is UNKNOWN, never a failure."""

    tag: TagId
    outcome: Outcome
    reason: str = ""
