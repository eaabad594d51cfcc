"""Tokens: `edge_<id>_<secret>`, 8 and 64 hexadecimal digits; the secret has 256 bits and is kept as a hash only.

A plain SHA-256 is enough: nobody guesses 256 random bits, so there is nothing for a slow hash to slow down.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from framegate.access.roles import ROLES
from framegate.contract.access import Permission, Principal
from framegate.contract.errors import Misconfigured

ID_BYTES, SECRET_BYTES = 4, 32
TAGS_MAX = 32
"""Globs of one token."""
GLOB_CHARACTERS_MAX = 256
KEY_PREFIX = "token:"
"""Of `Principal.key`; the token's id follows."""

RandomBytes: TypeAlias = Callable[[int], bytes]

_TEXT = re.compile(r"edge_([0-9a-f]{8})_[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_ID = re.compile(r"[0-9a-f]{8}")
_NOBODY = "0" * 64
"""Compared with where no token has the id, so that an unknown id takes as long as a known one."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token. `role` is "" where it has permissions of its own. Times in ns UTC; 0 = never."""

    id: str
    name: str
    sha256: str = field(repr=False)
    role: str
    permissions: frozenset[Permission]
    tags: tuple[str, ...]
    created: int
    expires: int

    def principal(self, tenant: str) -> Principal:
        """Who shows it. The name has both parts: names may be given again, ids are for people to look up."""
        name, key = f"token:{self.name}:{self.id}", KEY_PREFIX + self.id
        return Principal(name, self.permissions, self.tags, tenant, self.expires, key)


@dataclass(frozen=True, slots=True)
class TokenWish:
    """A token that somebody would like to have: a role, or permissions of its own; `expires` as in Token."""

    name: str
    role: str = ""
    permissions: tuple[str, ...] = ()
    tags: tuple[str, ...] = ("*",)
    expires: int = 0


def make_token(wish: TokenWish, now_ns: int, random_bytes: RandomBytes) -> tuple[Token, str]:
    """A token and its text, which is kept nowhere. Raises Misconfigured E4304 - the wish makes no sense."""
    permissions = _permissions_of(wish)
    _check_name(wish.name)
    _check_tags(wish.tags)
    if wish.expires and wish.expires <= now_ns:
        raise refused(f"token {wish.name}: it would be expired at once; choose a later time")
    id_ = random_bytes(ID_BYTES).hex()
    text = f"edge_{id_}_{random_bytes(SECRET_BYTES).hex()}"
    made = Token(id_, wish.name, hash_of(text), wish.role, permissions, tuple(wish.tags), now_ns, wish.expires)
    return made, text


def find_token(text: str, tokens: Mapping[str, Token], now_ns: int) -> Token | None:
    """The token that a text is, if it has not expired. Takes the same time for known and unknown ids."""
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    token = tokens.get(match[1])
    is_same = hmac.compare_digest(hash_of(text), _NOBODY if token is None else token.sha256)
    return token if is_same and token is not None and not is_over(token.expires, now_ns) else None


def is_over(expires: int, now_ns: int) -> bool:
    """Whether a moment of expiry has come; 0 never does."""
    return 0 < expires <= now_ns


def hash_of(text: str) -> str:
    """SHA-256 of a credential, in hex; any text has one."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def is_id(text: str) -> bool:
    """Whether a text looks like the id of a token."""
    return _ID.fullmatch(text) is not None


def refused(text: str) -> Misconfigured:
    """The error for a token that cannot be made."""
    return Misconfigured(text, code="E4304")


# -- as kept in a file -----------------------------------------------------------------------------------------


def raw_of(token: Token) -> dict[str, Any]:
    """A token as JSON has it: a role stays a role, so that a later release may refine what it means."""
    return {
        "id": token.id,
        "name": token.name,
        "sha256": token.sha256,
        "role": token.role,
        "permissions": [] if token.role else sorted(token.permissions),
        "tags": list(token.tags),
        "created": token.created,
        "expires": token.expires,
    }


def token_from(raw: Any) -> Token:
    """A token as it was kept; raises ValueError, KeyError or TypeError where it is none."""
    wish = TokenWish(raw["name"], raw["role"], tuple(raw["permissions"]), tuple(raw["tags"]), raw["expires"])
    try:
        permissions = _permissions_of(wish)
        _check_name(wish.name)
        _check_tags(wish.tags)
    except Misconfigured as error:
        raise ValueError(error.text) from None
    if not is_id(raw["id"]) or re.fullmatch(r"[0-9a-f]{64}", raw["sha256"]) is None or len(raw) != 8:
        raise ValueError(f"token {wish.name}: id, sha256 or keys are not what was written")
    if not all(type(raw[key]) is int and raw[key] >= 0 for key in ("created", "expires")):
        raise ValueError(f"token {wish.name}: created and expires are times in ns")
    return Token(raw["id"], wish.name, raw["sha256"], wish.role, permissions, wish.tags, raw["created"], raw["expires"])


def _permissions_of(wish: TokenWish) -> frozenset[Permission]:
    if bool(wish.role) == bool(wish.permissions):
        raise refused(f"token {wish.name}: it needs either a role or permissions; roles are {_listed(ROLES)}")
    if wish.role:
        if wish.role not in ROLES:
            raise refused(f'token {wish.name}: no role "{wish.role:.40}"; roles are {_listed(ROLES)}')
        return ROLES[wish.role]
    unknown = [name for name in wish.permissions if name not in set(Permission)]
    if unknown:
        raise refused(f'token {wish.name}: no permission "{unknown[0]:.40}"; permissions are {_listed(Permission)}')
    return frozenset(map(Permission, wish.permissions))


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise refused("token: its name has 1 to 64 letters, digits, _ . -, and begins with none of . -")
    if is_id(name):
        raise refused(f"token {name}: a name of 8 hexadecimal digits would be taken for an id; choose another name")


def _check_tags(tags: tuple[str, ...]) -> None:
    if not 1 <= len(tags) <= TAGS_MAX:
        raise refused(f"token: {len(tags)} globs of tags; it can have 1 to {TAGS_MAX}, and * is all tags")
    for glob in tags:
        if not isinstance(glob, str) or not 1 <= len(glob) <= GLOB_CHARACTERS_MAX or not glob.isprintable():
            raise refused(f"token: a glob of tags has 1 to {GLOB_CHARACTERS_MAX} printable characters, such as pump*")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
