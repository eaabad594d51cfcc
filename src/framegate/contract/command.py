"""Commands: a wish to write one tag, its way through the desk, and the one honest answer.

    records = await desk.submit([Command("01JD...", "pump7.speed", 42.0)], asker)    durable when it returns
    record = await desk.wait(records[0].command.id, 5.0)                             terminal, or as it is after 5 s

Every door - REST, MQTT, command line, rule, bridge - hands commands to the same desk; drivers see `Write`.

    RECEIVED -> ACCEPTED -> DISPATCHED -> CONFIRMED | REJECTED | NOT_SENT | UNKNOWN

Each state is durable before what follows from it happens. Promises are named C1 to C8. Source: contract/frame.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from math import inf
from typing import Final, Protocol

from framegate.contract.frame import TagId, Value

TTL_S: Final = 30.0
"""Of a command that names none."""
TTL_S_MAX: Final = 86_400.0
ID_CHARACTERS_MAX: Final = 64
"""An id is of letters, digits, `-`, `_` and `.`; a ULID where the asker has no better one."""
ACK_TAG: Final = "command.ack"
"""Rows of this tag tell of outcomes, one each: CmdAckFrame as JSON text."""
BATCH_MAX: Final = 1_000
"""Commands of one submission."""


@unique
class Outcome(Enum):
    """The four terminal states; see contract/frame.proto."""

    CONFIRMED = 1
    REJECTED = 2
    NOT_SENT = 3
    UNKNOWN = 4


@unique
class Stage(Enum):
    """Where a command that has no outcome yet stands."""

    RECEIVED = "received"
    ACCEPTED = "accepted"
    DISPATCHED = "dispatched"


@dataclass(frozen=True, slots=True)
class Command:
    """A wish to write one tag.

    id      chosen by the asker; the same id is the same command, however often it arrives
    value   in engineering units, or a text of the tag's enum
    issued  ns UTC at the asker; 0: when it was received
    ttl_s   from `issued`; nothing is sent after it
    verify  read the tag back: CONFIRMED only if the device then holds the value
    retry   may be sent again while its outcome is unknown, if the tag's row says that repeating does no harm
    select  only take the tag for this asker (select before operate); the next command of the asker operates
    """

    id: str
    tag: str
    value: Value
    issued: int = 0
    ttl_s: float = TTL_S
    verify: bool = False
    retry: bool = False
    select: bool = False


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks.

    origin   door and name: "rest:alice", "north:cloud", "local:uid 1000", "bridge:scada"; kept with the command
    may      whether this asker may write a tag now; asked when a command is accepted and again before it is sent (C8)
    """

    origin: str
    may: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """A command and what became of it.

    outcome   None while it has none; `stage` then says where it stands
    code      stable code behind the outcome, contract/errors.toml; "" for CONFIRMED
    reason    the same in words
    received  ns UTC
    ended     ns UTC; 0 = not yet
    """

    command: Command
    origin: str
    stage: Stage
    outcome: Outcome | None
    code: str
    reason: str
    received: int
    ended: int


class Desk(Protocol):
    """The one door for writes. Used on the loop.

    What looks up old commands reads the store, and raises StoreFailed while that cannot be read.
    """

    async def submit(self, commands: Sequence[Command], asker: Asker) -> Sequence[CommandRecord]:
        """Take commands; on return each is durable: accepted or further, or refused. One record each, in order.

        A known id with the same content returns what is known of it (C1). With other content it is refused: the record
        has code E4203 and is not kept. Nor is one of a command that is malformed (E4200), denied (E4205) or over its
        rate (E4209): its id stays free.

        raises  StoreFailed - the log does not take them now; nothing was sent, and an id that became durable all the
                same ends as NOT_SENT. Busy E4204 - too many wait
        """

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - what it is called
        """The record once it has an outcome, or as it is after so long; None: no such command is known."""

    def find(self, id: str) -> CommandRecord | None:  # noqa: A002 - as above
        """What is known of a command; None where it was forgotten (after 24 h and 100,000 later ones) or never was."""

    def recent(self, limit: int, before: str = "") -> Sequence[CommandRecord]:
        """The newest commands, newest first; from the one before the command `before` on."""


@dataclass(frozen=True, slots=True)
class Write:
    """One raw value for one bound tag; scale has been undone, range has been checked.

    expires   monotonic seconds; no byte of it leaves later, and then its outcome is NOT_SENT
    """

    tag: TagId
    value: Value
    expires: float = inf


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of one Write. A time-out after bytes have left is UNKNOWN, never a failure."""

    tag: TagId
    outcome: Outcome
    reason: str = ""
