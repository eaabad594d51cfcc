"""Writes over the API: a command goes to the desk, and its one honest answer becomes a status.

200 confirmed; 202 accepted and still under way; 403, 404, 409, 422 refused, by the code; 409 or 503 not sent; 504
UNKNOWN: bytes have left and nobody can say whether the device took them. Ids make repeating safe: the same
Idempotency-Key with the same content is the same command.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from framegate.api.operation import Answer, Call, NoParameters
from framegate.api.problem import CONTENT_TYPE, problem, status_of_command
from framegate.api.tags import Json, json_of
from framegate.contract.access import Permission
from framegate.contract.command import (
    BATCH_MAX,
    ID_CHARACTERS_MAX,
    TTL_S,
    TTL_S_MAX,
    Asker,
    Command,
    CommandRecord,
    Outcome,
)
from framegate.contract.errors import Denied, DeviceRefused, FrameBroken
from framegate.contract.quality import Quality

WAIT_S: Final = 5.0
WAIT_S_MAX: Final = 30.0
VALUE_CHARACTERS_MAX: Final = 16_384
COMMANDS_MAX: Final = 500
LOOK_S: Final = 0.02
"""So long the commands of one batch share a look at their asker's credentials."""
KEY: Final = "idempotency-key"
KEY_HELP: Final = (
    f"Id of the command: up to {ID_CHARACTERS_MAX} letters, digits, - _ and .; sent again with the same content it is "
    "the same command. Without it the gateway makes one."
)
_ID: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{ID_CHARACTERS_MAX}}}").fullmatch
_INTEGERS: Final = (-(2**63), 2**64 - 1)

OutcomeName = Literal["CONFIRMED", "REJECTED", "NOT_SENT", "UNKNOWN"]
_OUTCOMES: Final[Mapping[Outcome, OutcomeName]] = {
    Outcome.CONFIRMED: "CONFIRMED",
    Outcome.REJECTED: "REJECTED",
    Outcome.NOT_SENT: "NOT_SENT",
    Outcome.UNKNOWN: "UNKNOWN",
}
Wanted = float | int | bool | Annotated[str, Meta(max_length=VALUE_CHARACTERS_MAX)]
Ttl = Annotated[float, Meta(gt=0, le=TTL_S_MAX, description="Seconds after which it is not sent any more.")]
Id = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9._-]{{1,{ID_CHARACTERS_MAX}}}$")]
TagName = Annotated[str, Meta(min_length=1, max_length=128)]


class WaitQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the answer may take."""

    wait: Annotated[
        float, Meta(ge=0, le=WAIT_S_MAX, description="Seconds to wait for the outcome; after that the answer is 202.")
    ] = WAIT_S


class Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wish to write one tag.

    value   in engineering units, or a text of the tag's enum
    verify  read the tag back: confirmed only if the device then holds the value
    retry   may be sent again while its outcome is unknown, if the tag's row allows it
    select  only take the tag for this client (select before operate); its next command operates
    """

    value: Wanted
    ttl_s: Ttl = TTL_S
    verify: bool = False
    retry: bool = False
    select: bool = False


class BatchItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wish to write one tag, as Write; id: as Idempotency-Key."""

    tag: TagName
    value: Wanted
    id: Id | None = None
    ttl_s: Ttl = TTL_S
    verify: bool = False
    retry: bool = False
    select: bool = False


Batch = Annotated[list[BatchItem], Meta(min_length=1, max_length=BATCH_MAX)]


class CommandState(msgspec.Struct, frozen=True):
    """A command and what became of it.

    outcome  null while it has none; `stage` then says where it stands
    code     why, see /errors/{code}; "" for CONFIRMED;  reason: the same in words
    issued_ns, received_ns, ended_ns   ns UTC; 0: never, or not yet
    """

    id: str
    tag: str
    value: Json
    origin: str
    stage: Literal["received", "accepted", "dispatched"]
    outcome: OutcomeName | None
    code: str
    reason: str
    ttl_s: float
    verify: bool
    retry: bool
    select: bool
    issued_ns: int
    received_ns: int
    ended_ns: int


class Verdict(msgspec.Struct, frozen=True):
    """What became of one item of a batch; status: the one it would have had alone."""

    status: int
    command: CommandState


class Verdicts(msgspec.Struct, frozen=True):
    """One verdict for each item, in their order."""

    items: list[Verdict]


class CommandsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many, and before which command."""

    cursor: Annotated[
        str, Meta(max_length=ID_CHARACTERS_MAX, description='`next` of the page before; "": from the newest on.')
    ] = ""
    limit: Annotated[int, Meta(ge=1, le=COMMANDS_MAX, description="Commands at most.")] = 100


class CommandPage(msgspec.Struct, frozen=True):
    """Commands, newest first; `next` is the cursor of the page before them in time, null after the last."""

    commands: list[CommandState]
    next: str | None


async def write_tag(call: Call[WaitQuery, Write]) -> Answer:
    body, tag = call.body, call.path["tag"]
    if not call.principal.may(Permission.TAGS_WRITE, tag):
        raise Denied(f"tag {tag}: these credentials may not write it; ask for a token that covers it", code="E4243")
    id_ = _checked(call.headers[KEY]) or call.id
    command = Command(id_, tag, _within(body.value), 0, body.ttl_s, body.verify, body.retry, body.select)
    return _answer((await _submitted(call, [command]))[0])


async def write_tags(call: Call[WaitQuery, list[BatchItem]]) -> Answer:
    key = _checked(call.headers[KEY]) or call.id
    commands = [
        Command(
            item.id or _checked(f"{key}.{place}"),
            item.tag,
            _within(item.value),
            ttl_s=item.ttl_s,
            verify=item.verify,
            retry=item.retry,
            select=item.select,
        )
        for place, item in enumerate(call.body)
    ]
    verdicts = [Verdict(status_of_command(one), state_of(one)) for one in await _submitted(call, commands)]
    note = {"commands": [[one.command.id, one.command.outcome, one.command.code] for one in verdicts]}
    return Answer(Verdicts(verdicts), 200 if all(one.status == 200 for one in verdicts) else 207, note=note)


async def list_commands(call: Call[CommandsQuery, None]) -> Answer:
    records = call.site.desk.recent(call.query.limit, call.query.cursor)
    seen = [state_of(one) for one in records if call.principal.may(Permission.TAGS_READ, one.command.tag)]
    return Answer(CommandPage(seen, records[-1].command.id if len(records) == call.query.limit else None))


async def read_command(call: Call[NoParameters, None]) -> Answer:
    id_ = call.path["command"]
    record = call.site.desk.find(id_)
    if record is None or not call.principal.may(Permission.TAGS_READ, record.command.tag):
        text = f"command {id_}: no such command is known; it never arrived, or was forgotten after a day"
        raise DeviceRefused(text, code="E4219", quality=Quality.BAD_NODE_ID_UNKNOWN)
    return Answer(state_of(record))


def audited(call: Call[Any, Any]) -> Mapping[str, Any]:
    """What the audit log keeps of a write: ids, tags and values."""
    if isinstance(call.body, Write):
        return {"body": msgspec.to_builtins(call.body), "key": call.headers[KEY]}
    return {"commands": [[item.tag, item.value, item.id] for item in call.body], "key": call.headers[KEY]}


async def _submitted(call: Call[WaitQuery, Any], commands: Sequence[Command]) -> Sequence[CommandRecord]:
    """Records after at most `wait` seconds, whatever the number of commands."""
    desk, clock = call.site.desk, call.site.clock
    records = await desk.submit(commands, Asker(call.author, _right_of(call)))
    if call.query.wait == 0.0:
        return records
    until, ended = clock.monotonic() + call.query.wait, []
    for record in records:  # they end together, mostly: one task each would cost more than all the waiting
        seconds = max(0.0, until - clock.monotonic())
        is_over = record.outcome is not None
        ended.append(record if is_over else await desk.wait(record.command.id, seconds) or record)
    return ended


def _right_of(call: Call[Any, Any]) -> Callable[[str], bool]:
    """Whether the caller may write a tag now; whether the credentials still stand is looked up every LOOK_S."""
    principal, access, clock = call.principal, call.site.access, call.site.clock
    is_valid, looked = False, float("-inf")
    covered: dict[str, bool] = {}  # what a principal covers never changes; whether it still stands does

    def may(tag: str) -> bool:
        nonlocal is_valid, looked
        now = clock.monotonic()
        if now - looked > LOOK_S:
            is_valid, looked = access.is_valid(principal), now
        is_covered = covered.get(tag)
        if is_covered is None:
            is_covered = covered[tag] = principal.may(Permission.TAGS_WRITE, tag)
        return is_valid and is_covered

    return may


def _answer(record: CommandRecord) -> Answer:
    status, state = status_of_command(record), state_of(record)
    location = (("Location", f"/api/v1/commands/{record.command.id}"),)
    note = {"command": state.id, "outcome": state.outcome}
    if status < 400:
        return Answer(state, status, location, note=note)
    outcome = state.outcome or ""
    detail = f"{outcome}: {record.reason}" if record.reason else outcome
    return Answer(problem(record.code, detail, status, command=state), status, location, CONTENT_TYPE, note)


def state_of(record: CommandRecord) -> CommandState:
    command = record.command
    return CommandState(
        command.id, command.tag, json_of(command.value), record.origin, record.stage.value,
        None if record.outcome is None else _OUTCOMES[record.outcome], record.code, record.reason,
        command.ttl_s, command.verify, command.retry, command.select, command.issued, record.received, record.ended,
    )  # fmt: skip


def _checked(id_: str) -> str:
    if id_ and not _ID(id_):
        text = f"header Idempotency-Key: an id has 1 to {ID_CHARACTERS_MAX} letters, digits, - _ and ."
        raise FrameBroken(text, code="E4235")
    return id_


def _within(value: Wanted) -> Wanted:
    """Integers of a tag have 64 bits at most."""
    if isinstance(value, int) and not _INTEGERS[0] <= value <= _INTEGERS[1]:
        raise FrameBroken("body: value has more than 64 bits; no tag can hold it", code="E4234")
    return value
