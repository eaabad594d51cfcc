"""An entry of the desk: one command while the gateway works on it, with its record as it is durable."""

from __future__ import annotations

import asyncio
import re
from math import isfinite

from framegate.contract.command import (
    ID_CHARACTERS_MAX,
    TTL_S_MAX,
    Asker,
    Command,
    CommandRecord,
    Outcome,
    Stage,
)

VALUE_BYTES_MAX = 16_384
"""Of a text or of bytes that are to be written."""
TAG_CHARACTERS_MAX = 128
"""As long as a name in variables.yml can be."""
ORIGIN_CHARACTERS_MAX = 200
_ID = re.compile(rf"[A-Za-z0-9_.\-]{{1,{ID_CHARACTERS_MAX}}}\Z")
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1
_TIME_MAX = (1 << 63) - 1


class Entry:
    """One command. `record` shows what is durable; `last` what was decided, and may not be durable yet.

    sequence  place in the order of acceptance
    deadline  monotonic seconds; nothing is sent after it
    asker     None for a command of an earlier run
    """

    __slots__ = (
        "asker", "deadline", "device", "is_kept", "is_written", "last", "record", "sequence", "tries", "waiters",
    )  # fmt: skip

    def __init__(self, sequence: int, record: CommandRecord, deadline: float, asker: Asker | None) -> None:
        self.sequence = sequence
        self.record = self.last = record
        self.deadline = deadline
        self.asker = asker
        self.device = ""
        self.is_kept = False  # durable at all
        self.is_written = False  # on its way to the store
        self.tries = 0
        self.waiters: list[asyncio.Future[None]] = []

    @property
    def command(self) -> Command:
        return self.record.command

    @property
    def is_decided(self) -> bool:
        """It has its outcome, durable or not; there will be no other."""
        return self.last.outcome is not None

    def kept(self, record: CommandRecord) -> None:
        """A record of it is durable now."""
        self.record, self.is_kept = record, True
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def flaw_of(command: Command) -> str:
    """Why a command can be neither carried out nor kept; "" for one that is well formed."""
    if not isinstance(command.id, str) or not _ID.match(command.id):
        return f"its id is not 1 to {ID_CHARACTERS_MAX} letters, digits, - _ or ."
    if not isinstance(command.tag, str) or not 0 < len(command.tag) <= TAG_CHARACTERS_MAX or not _is_text(command.tag):
        return f"its tag is no text of 1 to {TAG_CHARACTERS_MAX} characters"
    if not (isfinite(command.ttl_s) and 0 < command.ttl_s <= TTL_S_MAX):
        return f"its ttl is not between 0 and {TTL_S_MAX:,.0f} s"
    if not 0 <= command.issued <= _TIME_MAX:
        return "its time of issue is no time in ns UTC"
    return _flaw_of_value(command.value)


def _flaw_of_value(value: object) -> str:
    if isinstance(value, int):
        return "" if _INT_MIN <= value <= _INT_MAX else "its value has more than 64 bits"
    if isinstance(value, float):
        return "" if isfinite(value) else "its value is no finite number"
    if isinstance(value, str) and not _is_text(value):
        return "its value holds characters that are no Unicode"
    if isinstance(value, str | bytes):
        size = len(value.encode() if isinstance(value, str) else value)
        return "" if size <= VALUE_BYTES_MAX else f"its value has more than {VALUE_BYTES_MAX:,} bytes"
    return "its value is neither a number, true or false, text nor bytes"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_same(one: Command, other: Command) -> bool:
    """Whether two commands of one id ask for the same; the time of issue may differ, for it may be sent anew."""
    return _content(one) == _content(other)


def _content(command: Command) -> tuple[object, ...]:
    value = command.value
    shape = type(value) if isinstance(value, bool | str | bytes) else float  # true is no number, 42 and 42.0 are one
    return command.tag, shape, value, command.ttl_s, command.verify, command.retry, command.select


def ended(record: CommandRecord, outcome: Outcome, code: str, reason: str, now_ns: int) -> CommandRecord:
    """The record with its outcome."""
    # Spelled out, here and below: dataclasses.replace costs three times as much, four times in each command.
    return CommandRecord(record.command, record.origin, record.stage, outcome, code, reason, record.received, now_ns)


def staged(record: CommandRecord, stage: Stage) -> CommandRecord:
    """The record of a command without outcome, at another stage."""
    return CommandRecord(record.command, record.origin, stage, None, "", "", record.received, 0)


def received(command: Command, origin: str, now_ns: int) -> CommandRecord:
    """The record of a command that has just come."""
    return CommandRecord(command, origin[:ORIGIN_CHARACTERS_MAX], Stage.RECEIVED, None, "", "", now_ns, 0)
