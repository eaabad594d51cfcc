"""Tokens and the audit log over the API.

The first token is made with the set-up token, which allows this one thing once; see docs/how-to/access.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from framegate.access.token import GLOB_CHARACTERS_MAX, TAGS_MAX, Token, TokenWish
from framegate.api.operation import Answer, Call, NoParameters
from framegate.contract.access import Permission

RECORDS_MAX: Final = 500
EXPIRES_S: Final = 365 * 86_400.0
EXPIRES_S_MAX: Final = 3_650 * 86_400.0
Glob = Annotated[str, Meta(min_length=1, max_length=GLOB_CHARACTERS_MAX)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]


class TokenState(msgspec.Struct, frozen=True):
    """A token without its secret. Times in ns UTC, 0: never; `used_ns` is the hour it was last used in."""

    id: str
    name: str
    role: str
    permissions: list[str]
    tags: list[str]
    created_ns: int
    expires_ns: int
    used_ns: int


class Tokens(msgspec.Struct, frozen=True):
    """Every token, by name."""

    tokens: list[TokenState]


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token that is wanted: a role, or permissions of its own, for tags that match one of the globs."""

    name: Name
    role: Literal["", "viewer", "operator", "engineer", "admin"] = ""
    permissions: Annotated[list[Permission], Meta(max_length=len(Permission))] = msgspec.field(default_factory=list)
    tags: Annotated[list[Glob], Meta(min_length=1, max_length=TAGS_MAX)] = msgspec.field(default_factory=lambda: ["*"])
    expires_s: Annotated[float, Meta(gt=0, le=EXPIRES_S_MAX, description="Seconds after which it ends.")] = EXPIRES_S


class Made(msgspec.Struct, frozen=True):
    """The new token. `text` is what its holder sends; it is shown this once and kept nowhere."""

    token: TokenState
    text: str


class AuditQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many, and before which record."""

    before: Annotated[int, Meta(ge=0, description="`seq` of a record; 0: from the newest on.")] = 0
    limit: Annotated[int, Meta(ge=1, le=RECORDS_MAX, description="Records at most.")] = 100


class AuditPage(msgspec.Struct, frozen=True):
    """Records, newest first, as the chain holds them."""

    records: list[dict[str, Any]]


async def list_tokens(call: Call[NoParameters, None]) -> Answer:
    access = call.site.access
    used = access.last_used()
    found = sorted(access.tokens(), key=lambda token: token.name)
    return Answer(Tokens([_state(token, used) for token in found]))


async def create_token(call: Call[NoParameters, Wish]) -> Answer:
    wish, access = call.body, call.site.access
    expires = call.site.clock.now_ns() + round(1e9 * wish.expires_s)
    wanted = TokenWish(wish.name, wish.role, tuple(wish.permissions), tuple(wish.tags), expires)
    token, text = await access.create_token(wanted, call.principal)
    return Answer(Made(_state(token, {}), text), 201, note={"token": token.id})


async def revoke_token(call: Call[NoParameters, None]) -> Answer:
    token = await call.site.access.revoke_token(call.path["token"])
    return Answer(_state(token, {}), note={"token": token.id})


async def read_audit(call: Call[AuditQuery, None]) -> Answer:
    records = await call.site.access.audit_records(call.query.limit, call.query.before)
    return Answer(AuditPage([dict(record) for record in records]))


def _state(token: Token, used: Mapping[str, int]) -> TokenState:
    permissions = sorted(permission.value for permission in token.permissions)
    return TokenState(
        token.id, token.name, token.role, permissions, list(token.tags), token.created, token.expires,
        used.get(token.id, 0),
    )  # fmt: skip
