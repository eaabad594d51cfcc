"""Rows of the durable log over the API, and having a connector deliver them again."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from framegate.api.operation import Answer, Call, NoParameters
from framegate.api.tags import POSITION_MAX, Json, json_of
from framegate.contract.access import Permission
from framegate.contract.errors import FrameBroken
from framegate.contract.frame import Gap, Position
from framegate.contract.quality import describe
from framegate.observe.api_face import FrameRow

FRAMES_MAX: Final = 5_000
NDJSON: Final = "application/x-ndjson"
RANGE_HELP: Final = "Positions, first-last, both included. More rows than `limit` come in pages: see `next`."
_RANGE: Final = re.compile(r"(\d{1,19})-(\d{1,19})").fullmatch
_encoder: Final = msgspec.json.Encoder()


class FramesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rows."""

    range: Annotated[str, Meta(pattern=r"^[0-9]{1,19}-[0-9]{1,19}$", description=RANGE_HELP)]
    limit: Annotated[int, Meta(ge=1, le=FRAMES_MAX, description="Rows at most.")] = 1_000


class Frame(msgspec.Struct, frozen=True):
    """One row of the log. position: its place there; times in ns UTC."""

    position: int
    tag: str
    value: Json
    quality: int
    quality_name: str
    source_time_ns: int
    gateway_time_ns: int


class GapFrame(msgspec.Struct, frozen=True):
    """Positions first to last hold nothing, and why: retention, disk_full or damage."""

    first: int
    last: int
    reason: str
    detail: str


class Frames(msgspec.Struct, frozen=True):
    """Rows and gaps in order.

    first, last  what the log holds now;  next: where the next page begins, null at the end
    """

    first: int
    last: int
    frames: list[Frame]
    gaps: list[GapFrame]
    next: int | None


class Rewind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Deliver again, from a position on or what came since a time (ns UTC): one of both is given."""

    connector: Annotated[str, Meta(min_length=1, max_length=128)]
    first: Annotated[int, Meta(ge=1, le=POSITION_MAX)] | None = None
    since_ns: Annotated[int, Meta(ge=1, le=POSITION_MAX)] | None = None


async def read_frames(call: Call[FramesQuery, None]) -> Answer:
    found = _RANGE(call.query.range)
    first, last = (int(found[1]), int(found[2])) if found else (1, 0)
    if not 1 <= first <= last <= POSITION_MAX:
        text = f"range {call.query.range}: the first position is 1 or more, the last not before it"
        raise FrameBroken(text, code="E4235")
    log = call.site.face.frames
    pieces = await log.read(first, last, call.query.limit)
    may = call.principal.may
    frames = [_frame(one) for one in pieces if isinstance(one, FrameRow) and may(Permission.FRAMES_READ, one.tag)]
    gaps = [GapFrame(one.first, one.last, one.reason, one.detail) for one in pieces if isinstance(one, Gap)]
    seen = max((one.position if isinstance(one, FrameRow) else one.last for one in pieces), default=last)
    oldest, newest = log.bounds()
    if NDJSON in call.headers["accept"]:
        return Answer(_encoder.encode_lines([*frames, *gaps]), content_type=NDJSON)
    return Answer(Frames(oldest, newest, frames, gaps, seen + 1 if seen < min(last, newest) else None))


async def rewind(call: Call[NoParameters, Rewind]) -> Answer:
    wish = call.body
    if (wish.first is None) == (wish.since_ns is None):
        raise FrameBroken("body: give first, a position, or since_ns, a time; one of both", code="E4234")
    place = None if wish.first is None else Position(wish.first)
    return Answer(await call.site.face.rewind(wish.connector, place, wish.since_ns or 0, call.author))


def _frame(row: FrameRow) -> Frame:
    return Frame(
        row.position, row.tag, json_of(row.value), row.quality, describe(row.quality), row.source_time, row.gateway_time
    )
