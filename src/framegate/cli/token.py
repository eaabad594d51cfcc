"""`edge token`: who may use the API. Works on the home; a running gateway notices at once.

Whoever may write to the home may make tokens: the file system is the door here. Every change is noted in the audit log
before it is made, with the user id of whoever asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from framegate.access.audit_file import AuditFile
from framegate.access.chain import note_of
from framegate.access.room import JWT_LIFE_NS
from framegate.access.token import Token, TokenWish, is_over
from framegate.access.token_file import TokenFile
from framegate.access.usage import read_usage
from framegate.cli import exits
from framegate.cli.moment import moment
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_rows
from framegate.cli.talk import say
from framegate.config import parse_duration
from framegate.contract.access import AuditEntry
from framegate.contract.errors import GatewayError, Misconfigured
from framegate.endpoint.clock import SystemClock
from framegate.gateway.home import existing_home
from framegate.observe.log import make_log

EXPIRES_S_MAX = 10 * 365 * 86_400.0
NEVER = "never"
_COLUMNS = ("id", "name", "role", "tags", "created", "expires", "used", "state")
T = TypeVar("T")


def add(
    name: Annotated[str, Parameter(help="What the token is for: a person, a program. Letters, digits, _ . -")],
    /,
    *,
    role: Annotated[str, Parameter(help="viewer, operator, engineer or admin.")] = "",
    permission: Annotated[
        list[str] | None, Parameter(name="--permission", negative="", help="In place of a role; may be repeated.")
    ] = None,
    tags: Annotated[
        list[str] | None, Parameter(name="--tags", negative="", help="Only these tags: a glob; may be repeated.")
    ] = None,
    expires: Annotated[str, Parameter(help="After which time it ends: 90d, 12h; or never.")] = "365d",
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Make a token. It is written to stdout, once: only its hash is kept."""
    tokens = _Tokens(home)
    ends = 0 if expires == NEVER else tokens.now_ns + round(_seconds(expires) * 1e9)
    wish = TokenWish(name, role, tuple(permission or ()), tuple(tags or ("*",)), ends)
    token, text = tokens.change(
        "tokens.create",
        name,
        partial(tokens.file.add, wish),
        role=role,
        permissions=wish.permissions,
        tags=wish.tags,
        expires=moment(ends),
    )
    print(text)  # noqa: T201 - the token is the data
    say(f"token {token.name} ({token.id}), {_span(token)}; keep it now, it cannot be shown again")
    return exits.OK


def ls(*, home: HomeOption = HOME_DEFAULT, output: OutputOption = None) -> int:
    """List tokens, and when they were last used."""
    home_tokens = _Tokens(home)
    used = read_usage(home_tokens.folder)
    tokens = sorted(home_tokens.file.book().tokens.values(), key=lambda token: token.name)
    write_rows((_row(token, used.get(token.id, 0), home_tokens.now_ns) for token in tokens), _COLUMNS, output)
    if not tokens:
        say("no tokens; `edge token add NAME --role admin` makes one")
    return exits.OK


def revoke(
    names: Annotated[list[str] | None, Parameter(help="Names or ids, as `edge token ls` shows them.")] = None,
    /,
    *,
    jti: Annotated[
        list[str] | None, Parameter(name="--jti", negative="", help="A federated issuer's token, by its claim jti.")
    ] = None,
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Revoke tokens; they are refused from now on. Exit code 1 when there is none of a name."""
    if not names and not jti:
        raise Misconfigured("token revoke: name tokens by name or id, or JWTs with --jti", code="E4025")
    tokens = _Tokens(home)
    for name in names or ():
        token = tokens.change("tokens.revoke", name, partial(tokens.file.revoke, name))
        say(f"{token.name} ({token.id}): revoked")
    until = tokens.now_ns + JWT_LIFE_NS
    for each in jti or ():
        tokens.change("tokens.revoke_jwt", each, partial(tokens.file.revoke_jwt, each, until))
        say(f"jti {each}: refused until {moment(until)}, when it has expired anyway")
    return exits.OK


class _Tokens:
    """The tokens of a home, and the audit log for what is changed."""

    def __init__(self, home: Path) -> None:
        clock = SystemClock()
        self.folder, self.now_ns = existing_home(home).access, clock.now_ns()
        self.file = TokenFile(self.folder, clock)
        self._audit = AuditFile(self.folder, clock, make_log(level="warning"))

    def change(self, action: str, target: str, work: Callable[..., T], **details: Any) -> T:
        """Do what is asked, noted right before it is written; what cannot be done is noted with its code."""
        try:
            return work(approve=lambda: self._note(action, target, "ok", details))
        except GatewayError as error:
            if error.stable_code != "E4306":  # it was the note that failed
                self._note(action, target, error.stable_code, details)
            raise

    def _note(self, action: str, target: str, outcome: str, details: Mapping[str, Any]) -> None:
        entry = AuditEntry(f"local:uid {os.getuid()}", action, target, outcome, details=details)
        self._audit.append([note_of(entry, self.now_ns)])


def _seconds(text: str) -> float:
    seconds = parse_duration(text)
    if not 0 < seconds <= EXPIRES_S_MAX:
        raise Misconfigured(f'--expires "{text}": from 1ms to 10 years, 3650d; or {NEVER}', code="E4304")
    return seconds


def _span(token: Token) -> str:
    return f"expires {moment(token.expires)}" if token.expires else "never expires"


def _row(token: Token, used: int, now_ns: int) -> Mapping[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role or "-",
        "permissions": sorted(token.permissions),
        "tags": list(token.tags),
        "created": moment(token.created),
        "expires": moment(token.expires),
        "used": moment(used),
        "state": "expired" if is_over(token.expires, now_ns) else "valid",
    }
