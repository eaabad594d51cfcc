"""The three tables over the API: shown without secrets, tried, compared, brought into force, taken back.

What is applied was made from something: `If-Match` carries the ETag of that generation, and a change that somebody else
made meanwhile is not overwritten. Secrets that stand in a table against all advice are shown as ***, which no table can
hold as a value, so a masked text sent back is refused with its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from framegate.api.operation import Answer, Call, NoParameters
from framegate.api.problem import TableProblem, problem_of
from framegate.config.history import REASON_CHARACTERS_MAX
from framegate.config.masking import masked_text
from framegate.contract.errors import FrameBroken, Misconfigured
from framegate.endpoint.thread import in_thread
from framegate.observe.face import ChangeRecord, GenerationRecord

TABLE_CHARACTERS_MAX: Final = 32 << 20
CONFIG_BYTES_MAX: Final = 48 << 20
"""Of a body: 100,000 tag rows have about 15 MB."""
GENERATIONS_MAX: Final = 50
IF_MATCH: Final = "if-match"
IF_MATCH_HELP: Final = "ETag of the configuration that the change was made from, as GET /config gave it; * for any."
_ETAG: Final = re.compile(r'"g(\d{1,18})"').fullmatch

Text = Annotated[str, Meta(max_length=TABLE_CHARACTERS_MAX)]
Reason = Annotated[str, Meta(max_length=REASON_CHARACTERS_MAX)]


class TableTexts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Tables as YAML; those left out stay as they are."""

    endpoints: Text | None = None
    drivers: Text | None = None
    variables: Text | None = None


class Proposal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tables to be tried, compared or applied; reason: kept in the history."""

    tables: TableTexts
    reason: Reason = ""


class Configuration(msgspec.Struct, frozen=True):
    """The tables in force, literal secrets as ***; etag: for If-Match."""

    generation: int
    etag: str
    tables: TableTexts


class Validation(msgspec.Struct, frozen=True):
    """Whether tables could come into force, and every reason why not."""

    is_valid: bool
    detail: str
    problems: list[TableProblem]


class Difference(msgspec.Struct, frozen=True):
    """What tables would change: one line for each thing that restarts, is planned anew, comes or goes."""

    steps: tuple[str, ...]


class Rollback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which generation comes into force again, as a new one."""

    generation: Annotated[int, Meta(ge=1, le=1 << 31)]
    reason: Reason = ""


class Generations(msgspec.Struct, frozen=True):
    """Configurations that were in force, newest first."""

    generations: list[GenerationRecord]


async def read_config(call: Call[NoParameters, None]) -> Answer:
    number, texts = await call.site.face.tables.in_force()
    shown = await in_thread("edge-mask", lambda: _masked(texts))
    etag = etag_of(number)
    return Answer(Configuration(number, etag, shown), headers=(("ETag", etag),))


async def validate(call: Call[NoParameters, Proposal]) -> Answer:
    try:
        await _put(call, None, is_trial=True)
    except Misconfigured as error:
        found = problem_of(error)
        return Answer(Validation(is_valid=False, detail=found.detail, problems=found.problems))
    return Answer(Validation(is_valid=True, detail="", problems=[]))


async def diff(call: Call[NoParameters, Proposal]) -> Answer:
    return Answer(Difference((await _put(call, None, is_trial=True)).steps))


async def apply(call: Call[NoParameters, Proposal]) -> Answer:
    header = call.headers[IF_MATCH].strip()
    if not header:
        raise Misconfigured("config: the header If-Match is missing; read it, and send its ETag along", code="E4238")
    found = _ETAG(header)
    if found is None and header != "*":
        raise FrameBroken('header If-Match: it is one ETag as GET /config gave it, such as "g12", or *', code="E4235")
    return _changed(await _put(call, None if found is None else int(found[1])))


async def rollback(call: Call[NoParameters, Rollback]) -> Answer:
    return _changed(await call.site.face.config.rollback(call.body.generation, call.author, call.body.reason))


async def history(call: Call[NoParameters, None]) -> Answer:
    return Answer(Generations(list(call.site.face.config.history(GENERATIONS_MAX))))


def _masked(texts: Mapping[str, bytes]) -> TableTexts:
    return TableTexts(**{table: masked_text(text.decode("utf-8", "replace")) for table, text in texts.items()})


def audited(call: Call[NoParameters, Proposal]) -> Mapping[str, Any]:
    """What the audit log keeps of a change: never the tables themselves, the history has them."""
    tables = [name for name in TableTexts.__struct_fields__ if getattr(call.body.tables, name) is not None]
    return {"tables": tables, "reason": call.body.reason, "if_match": call.headers[IF_MATCH]}


def etag_of(generation: int) -> str:
    return f'"g{generation}"'


async def _put(call: Call[NoParameters, Proposal], generation: int | None, *, is_trial: bool = False) -> ChangeRecord:
    given = call.body.tables
    texts = {name: getattr(given, name) for name in TableTexts.__struct_fields__}
    tables = {name: text.encode() for name, text in texts.items() if text is not None}
    tables_face = call.site.face.tables
    return await tables_face.put(tables, generation, call.author, call.body.reason, is_trial=is_trial)


def _changed(change: ChangeRecord) -> Answer:
    return Answer(change, headers=(("ETag", etag_of(change.generation)),), note={"generation": change.generation})
