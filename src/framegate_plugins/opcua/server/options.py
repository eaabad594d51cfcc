"""Options of a bridge's row, checked and turned into types. `bridge.schema.json` is for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast

from framegate.contract.bridge import CLIENTS_MAX
from framegate.contract.errors import Misconfigured, Problem
from framegate.endpoint.quantity import seconds_from

Role: TypeAlias = Literal["viewer", "operator"]
Policy: TypeAlias = Literal["basic256sha256", "aes128_sha256_rsaoaep", "aes256_sha256_rsapss", "none"]

POLICIES: Final[tuple[Policy, ...]] = ("basic256sha256", "aes128_sha256_rsaoaep", "aes256_sha256_rsapss", "none")
USERS_MAX: Final = 256
GLOBS_MAX: Final = 256
NAME_CHARACTERS_MAX: Final = 128
WRITE_S_MAX: Final = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class User:
    """Who may log in.

    password  a reference, see endpoint/secret.py
    tags      globs of the tags that an operator may write
    """

    name: str
    password: str = field(repr=False, default="")
    role: Role = "viewer"
    tags: tuple[str, ...] = ("*",)

    def may_write(self, tag: str) -> bool:
        return self.role == "operator" and any(fnmatchcase(tag, glob) for glob in self.tags)


ANONYMOUS: Final = ""
"""Name of the user who logs in without one."""


@dataclass(frozen=True, slots=True)
class Options:
    """A bridge's row, parsed.

    anonymous    None: nobody gets in without a name
    hosts        names and addresses of this server for its certificate
    trust        "any": every client's certificate is taken, as long as it is a valid one
    write_s      how long a client's write waits for its outcome
    clients_max  connections; clients_per_peer_max of one address
    items_max    monitored items of a session
    """

    security: tuple[Policy, ...] = POLICIES[:3]
    trust: Literal["listed", "any"] = "listed"
    users: tuple[User, ...] = ()
    anonymous: User | None = None
    hosts: tuple[str, ...] = ()
    write_s: float = 10.0
    clients_max: int = CLIENTS_MAX
    clients_per_peer_max: int = 16
    sessions_max: int = 64
    subscriptions_max: int = 32
    items_max: int = 20_000
    requests_per_s: float = 500.0


def parse_options(row: Mapping[str, Any]) -> Options:
    """Options from the `options:` mapping of a bridge's row.

    raises Misconfigured E2760 - with one problem per wrong option
    """
    reader, default = _Reader(row), Options()
    options = Options(
        security=reader.take("security", default.security, _security),
        trust=reader.take("trust", default.trust, _trust),
        users=reader.take("users", default.users, _users),
        anonymous=reader.take("anonymous", default.anonymous, _anonymous),
        hosts=reader.take("hosts", default.hosts, lambda value: _texts(value, 32, "names or addresses")),
        write_s=reader.take("write_timeout", default.write_s, _write_s),
        clients_max=reader.take("clients_max", default.clients_max, _whole(1, 1_000)),
        clients_per_peer_max=reader.take("clients_per_peer_max", default.clients_per_peer_max, _whole(1, 1_000)),
        sessions_max=reader.take("sessions_max", default.sessions_max, _whole(1, 1_000)),
        subscriptions_max=reader.take("subscriptions_max", default.subscriptions_max, _whole(1, 1_000)),
        items_max=reader.take("items_max", default.items_max, _whole(1, 200_000)),
        requests_per_s=reader.take("requests_per_s", default.requests_per_s, _whole(1, 100_000)),
    )
    if not row.get("users") and row.get("anonymous", "none") == "none":
        reader.wrong("users", "nobody may log in; name users, or set anonymous: viewer")
    reader.finish()
    return options


class _Reader:
    """Takes options one by one and gathers every mistake."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row
        self._known: list[str] = []
        self._problems: list[Problem] = []

    def take(self, key: str, default: T, parse: Callable[[Any], T]) -> T:
        self._known.append(key)
        if key not in self._row:
            return default
        try:
            return parse(self._row[key])
        except ValueError as error:
            self.wrong(key, str(error))
            return default

    def wrong(self, key: str, text: str) -> None:
        self._problems.append(Problem("drivers", ("options", key), "E2760", f"option {key}: {text}"))

    def finish(self) -> None:
        """Raise what was gathered."""
        for key in self._row:
            if key not in self._known:
                self.wrong(str(key), f"is no option of this plugin; it has {', '.join(self._known)}")
        if self._problems:
            text = "; ".join(problem.text for problem in self._problems)
            raise Misconfigured(text, code="E2760", problems=self._problems)


def _security(value: object) -> tuple[Policy, ...]:
    names = _texts(value, len(POLICIES), "policies")
    unknown = [name for name in names if name not in POLICIES]
    if unknown or not names:
        raise ValueError(f"{unknown[0] if unknown else 'an empty list'!r} cannot be; choose from {', '.join(POLICIES)}")
    return cast(tuple[Policy, ...], names)


def _trust(value: object) -> Literal["listed", "any"]:
    if value == "listed":
        return "listed"
    if value == "any":
        return "any"
    raise ValueError(f"{value!r} is neither listed nor any")


def _role(value: object) -> Role:
    if value == "viewer":
        return "viewer"
    if value == "operator":
        return "operator"
    raise ValueError(f"role {value!r} is neither viewer nor operator")


def _anonymous(value: object) -> User | None:
    return None if value == "none" else User(ANONYMOUS, role=_role(value))


def _users(value: object) -> tuple[User, ...]:
    if not isinstance(value, list) or len(value) > USERS_MAX:
        raise ValueError(f"a list of at most {USERS_MAX} users is needed")
    users = tuple(_user(each) for each in value)
    names = [user.name for user in users]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"user {twice[0]!r} stands twice")
    return users


def _user(value: object) -> User:
    if not isinstance(value, Mapping):
        raise ValueError("a user is a mapping of name, password, role, tags")  # noqa: TRY004 - a mistake of the row
    unknown = [key for key in value if key not in {"name", "password", "role", "tags"}]
    if unknown:
        raise ValueError(f"a user has name, password, role, tags; not {unknown[0]!r}")
    name, password = value.get("name"), value.get("password")
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARACTERS_MAX or not name.isprintable():
        raise ValueError(f"a user's name is a text of 1 to {NAME_CHARACTERS_MAX} printable characters")
    if not isinstance(password, str) or not password:
        raise ValueError(f"user {name!r} has no password; name where it is, such as ${{file:secrets/{name}}}")
    tags = _texts(value.get("tags", ["*"]), GLOBS_MAX, f"globs of tags for user {name!r}")
    return User(name, password, _role(value.get("role", "viewer")), tags)


def _texts(value: object, count_max: int, what: str) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or len(value) > count_max
        or not all(isinstance(each, str) and each for each in value)
    ):
        raise ValueError(f"a list of at most {count_max} {what} is needed")
    return tuple(value)


def _write_s(value: object) -> float:
    seconds = seconds_from(value)
    if not 0.1 <= seconds <= WRITE_S_MAX:
        raise ValueError(f"{value!r} is not between 100ms and {WRITE_S_MAX:g}s")
    return seconds


def _whole(lowest: int, highest: int) -> Callable[[Any], int]:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"{value!r} is no whole number from {lowest} to {highest}")
        return value

    return parse
