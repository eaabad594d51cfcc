"""Tags over the API: latest values in pages, one tag, its history out of the durable log.

A principal that is limited to some tags sees those and no others: one that it may not see does not exist.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from framegate.api.operation import Answer, Call, NoParameters
from framegate.contract.access import Permission
from framegate.contract.errors import DeviceRefused
from framegate.contract.frame import Value
from framegate.contract.quality import Quality, describe
from framegate.observe.api_face import FrameRow
from framegate.observe.face import TagRow as FaceRow

PAGE_MAX: Final = 500
HISTORY_MAX: Final = 1_000
PAGES_SEEN_MAX: Final = 20
"""Pages that one request looks through for tags that its principal may see; the cursor goes on from there."""
FILTER_CHARACTERS_MAX: Final = 256
POSITION_MAX: Final = 2**63 - 1

Json = float | int | bool | str | list[Any] | dict[str, Any] | None
"""A value as JSON: bytes as base64 text, a number that JSON does not have (NaN, infinity) as null."""
Filter = Annotated[
    str,
    Meta(max_length=FILTER_CHARACTERS_MAX, description="Shell pattern on the whole name; without *, ? and [ a prefix."),
]


class TagsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which tags, and from where on."""

    filter: Filter = ""
    cursor: Annotated[
        int, Meta(ge=0, le=(1 << 31) - 1, description="`next` of the page before; 0: from the start.")
    ] = 0
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="Rows at most.")] = 100


class HistoryQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much, and before which position."""

    cursor: Annotated[
        int, Meta(ge=0, le=POSITION_MAX, description="`next` of the page before; 0: from the newest row on.")
    ] = 0
    limit: Annotated[int, Meta(ge=1, le=HISTORY_MAX, description="Rows at most.")] = 100


class Tag(msgspec.Struct, frozen=True):
    """One tag and its latest value; null where its quality is Bad or it was never read. Times in ns UTC, 0: never."""

    id: int
    name: str
    device: str
    type: str
    unit: str
    access: Literal["R", "W", "RW"]
    value: Json
    quality: int
    quality_name: str
    source_time_ns: int
    gateway_time_ns: int


class TagPage(msgspec.Struct, frozen=True):
    """Tags in order of their ids; `next` is the cursor of the next page, null after the last."""

    tags: list[Tag]
    next: int | None


class HistoryRow(msgspec.Struct, frozen=True):
    """One row of the log. position: its place there."""

    position: int
    value: Json
    quality: int
    quality_name: str
    source_time_ns: int
    gateway_time_ns: int


class History(msgspec.Struct, frozen=True):
    """Durable rows of a tag, newest first; fewer than asked, or none, do not mean that there are no older ones.

    next  cursor of the page before these in time, null when the log holds nothing older
    """

    tag: str
    rows: list[HistoryRow]
    next: int | None


async def list_tags(call: Call[TagsQuery, None]) -> Answer:
    query, face = call.query, call.site.face
    found: list[FaceRow] = []
    after = query.cursor
    for _ in range(PAGES_SEEN_MAX):
        wanted = query.limit - len(found)
        page = face.find_tags(query.filter, after, wanted)
        found += [row for row in page if call.principal.may(Permission.TAGS_READ, row.name)]
        if len(page) < wanted:
            return Answer(TagPage([tag_of(row) for row in found], None))
        after = page[-1].id
        if len(found) == query.limit:
            break
    return Answer(TagPage([tag_of(row) for row in found], after))


async def read_tag(call: Call[NoParameters, None]) -> Answer:
    return Answer(tag_of(visible_tag(call)))


async def read_history(call: Call[HistoryQuery, None]) -> Answer:
    tag = visible_tag(call).name
    page = await call.site.face.frames.history(tag, call.query.cursor, call.query.limit)
    return Answer(History(tag, [_history_row(row) for row in page.rows], page.before or None))


def visible_tag(call: Call[Any, Any]) -> FaceRow:
    """The tag of the path; raises DeviceRefused E4014 - there is none that this principal may see."""
    name = call.path["tag"]
    row = call.site.face.value(name) if call.principal.may(Permission.TAGS_READ, name) else None
    if row is None:
        text = f"tag {name}: no such tag; GET /api/v1/tags lists them, and a / in a name is written as %2F"
        raise DeviceRefused(text, code="E4014", quality=Quality.BAD_NODE_ID_UNKNOWN)
    return row


def tag_of(row: FaceRow) -> Tag:
    return Tag(
        id=row.id,
        name=row.name,
        device=row.device,
        type=row.type,
        unit=row.unit,
        access=row.access,
        value=json_of(row.value),
        quality=row.quality,
        quality_name=describe(row.quality),
        source_time_ns=row.source_time,
        gateway_time_ns=row.gateway_time,
    )


def json_of(value: Value) -> Json:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _history_row(row: FrameRow) -> HistoryRow:
    return HistoryRow(
        row.position, json_of(row.value), row.quality, describe(row.quality), row.source_time, row.gateway_time
    )
