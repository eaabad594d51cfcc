"""What an operation of the API is: one row of the table, what its handler is given, and what it gives back.

    Operation("tags.read", "GET", "/tags/{tag}", read_tag, Permission.TAGS_READ, "One tag", {200: TagRow})

A row without a permission is a mistake, unless it is listed in PUBLIC: the table refuses it when it is made, so that no
route is open because somebody forgot.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from framegate.access.token import Token, TokenWish
from framegate.contract.access import Access, Permission, Principal
from framegate.contract.command import Desk
from framegate.contract.ports import Clock
from framegate.observe.api_face import ApiFace

Method: TypeAlias = Literal["GET", "PUT", "POST", "DELETE"]
PREFIX: Final = "/api/v1"
BODY_BYTES_MAX: Final = 256 << 10
"""Of a request's body, unless the operation says otherwise."""
PUBLIC: Final = frozenset(("livez", "readyz", "openapi", "errors.read"))
"""Operations without credentials: probes, and what every copy of the product says of itself."""

Q = TypeVar("Q")
B = TypeVar("B")


class AccessDesk(Access, Protocol):
    """Access, and what may be done with tokens and the audit log; satisfied by access.room.AccessRoom."""

    def tokens(self) -> Sequence[Token]:
        """Every token, without its secret. Raises Misconfigured E4301."""

    def last_used(self) -> Mapping[str, int]:
        """By token id: the hour it was last used in, ns UTC."""

    async def create_token(self, wish: TokenWish, by: Principal) -> tuple[Token, str]:
        """Make a token; its text is shown once. Raises Misconfigured E4304, E4301; StoreFailed E4303; Denied E4300."""

    async def revoke_token(self, name: str) -> Token:
        """Forget a token by name or id. Raises Misconfigured E4307, E4301; StoreFailed E4303."""

    async def audit_records(self, limit: int, before: int = 0) -> Sequence[Mapping[str, Any]]:
        """The newest records, newest first; `before`: only those of a lower number."""


@dataclass(frozen=True, slots=True)
class Site:
    """What handlers may ask.

    ready    why the gateway cannot take and keep rows now, "" when it can
    scrape   the page for Prometheus
    """

    face: ApiFace
    desk: Desk
    access: AccessDesk
    clock: Clock
    ready: Callable[[], str]
    scrape: Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """One request, parsed: credentials, form and size have been checked.

    principal  nobody, without any permission, for operations in PUBLIC
    query      parameters of the query;  body: None where the operation has none
    headers    values by lower-case name, of the headers the operation names, "" where absent
    id         of the request, for log and audit
    """

    site: Site
    principal: Principal
    path: Mapping[str, str]
    query: Q
    body: B
    headers: Mapping[str, str]
    id: str

    @property
    def author(self) -> str:
        """As it is kept with what was done."""
        return f"rest:{self.principal.name}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back.

    body  a record that becomes JSON, or bytes that go as they are
    note  what the audit log keeps of the outcome
    """

    body: Any
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    note: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that is no JSON and comes in pieces: a handler takes what it needs, as it comes. May be empty."""

    pieces: AsyncIterator[bytes]


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operation that takes nothing in its query."""


Handler: TypeAlias = Callable[[Any], Awaitable[Answer]]


def body_of(call: Call[Any, Any]) -> Mapping[str, Any]:
    """What the audit log keeps of a request, unless its operation says otherwise."""
    return {"body": msgspec.to_builtins(call.body)}


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table.

    id          operationId, and the action of audit entries
    path        below PREFIX; from the root where `is_rooted`
    body        type of the JSON that is sent; Upload: bytes, of any announced type
    answers     type of the body by status; `bytes` for what is no JSON
    errors      statuses of problems, besides those that every operation can give
    headers     headers of the request it reads, with what they mean
    is_change   it changes something: audited
    details     what the audit log keeps of the request
    alias       a second path, from the root
    target      parameter of the path that audit entries name
    """

    id: str
    method: Method
    path: str
    handler: Handler
    permission: Permission | None
    summary: str
    answers: Mapping[int, Any]
    body: Any = None
    query: type[msgspec.Struct] = NoParameters
    errors: tuple[int, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    is_change: bool = False
    details: Callable[[Any], Mapping[str, Any]] = body_of
    is_rooted: bool = False
    alias: str = ""
    target: str = ""
    content_types: tuple[str, ...] = ("application/json",)
    body_bytes_max: int = BODY_BYTES_MAX

    def __post_init__(self) -> None:
        if (self.permission is None) != (self.id in PUBLIC):
            raise ValueError(f"operation {self.id}: name its permission; only {sorted(PUBLIC)} have none")

    @property
    def full_path(self) -> str:
        return self.path if self.is_rooted else PREFIX + self.path
