"""The access room: what doors ask, and what the API and `edge run` do with tokens.

    room = open_access(home, gateway_name="gw1", tenant="gas", issuers=(), clock=clock, log=log)
    principal = await room.authenticate(header, peer)
    await room.audit.note(entry)

Everything is used on the loop. Who asks shows a token of this home, the set-up token, or a JWT of a federated issuer.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from framegate.access import setup, token
from framegate.access.audit import AuditLog
from framegate.access.durable import make_private_folder
from framegate.access.guesses import Guesses
from framegate.access.issuer import IssuerOptions
from framegate.access.jwt import KEY_PREFIX as JWT_KEY_PREFIX
from framegate.access.jwt import LEEWAY_S, LIFE_S_MAX, TOKEN_BYTES_MAX, Verifier
from framegate.access.refusals import Refusals
from framegate.access.token import RandomBytes, Token, TokenWish, find_token, hash_of, is_over
from framegate.access.token_file import Book, TokenFile
from framegate.access.usage import Usage
from framegate.contract.access import Permission, Principal
from framegate.contract.errors import Denied, Misconfigured, StoreFailed
from framegate.contract.ports import Clock, Log
from framegate.endpoint.durable import why
from framegate.endpoint.thread import in_thread

FOLDER = "access"
HEADER_CHARACTERS_MAX = TOKEN_BYTES_MAX + 32
JWT_LIFE_NS = (LIFE_S_MAX + 2 * LEEWAY_S) * 1_000_000_000
"""So long a revoked jti is kept: no JWT of it is taken afterwards anyway."""
_BEARER = re.compile(r"(?:bearer) +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE | re.ASCII)
"""RFC 6750, 2.1; the scheme's case is free (RFC 9110, 11.1)."""
_DENIED = "credentials are missing, unknown, expired or revoked; send `Authorization: Bearer TOKEN`"


def open_access(
    home_folder: Path,
    gateway_name: str,
    tenant: str,
    issuers: Sequence[IssuerOptions],
    clock: Clock,
    log: Log,
    random_bytes: RandomBytes = secrets.token_bytes,
    audit: AuditLog | None = None,
) -> AccessRoom:
    """The access room of a home. Key files of issuers are relative to its `config`. Raises StoreFailed E4303.

    audit  the home's audit log, where it is open already
    """
    folder = home_folder / FOLDER
    try:
        make_private_folder(folder)
    except OSError as error:
        text = f"{folder}: cannot be made ({why(error)}); correct the rights of the home folder"
        raise StoreFailed(text, code="E4303") from error
    placed = [replace(row, keys=home_folder / "config" / row.keys) for row in issuers]
    verifier = Verifier(placed, gateway_name, tenant, log)
    return AccessRoom(folder, verifier, tenant, clock, log, random_bytes, audit or AuditLog(folder, clock, log))


class AccessRoom:
    """Satisfies contract.access.Access; `audit` satisfies contract.access.Audit."""

    def __init__(
        self,
        folder: Path,
        verifier: Verifier,
        tenant: str,
        clock: Clock,
        log: Log,
        random_bytes: RandomBytes,
        audit: AuditLog,
    ) -> None:
        self.audit = audit
        self._file = TokenFile(folder, clock, random_bytes)
        self._verifier, self._tenant, self._clock, self._log = verifier, tenant, clock, log
        self._setup = setup.SetUp(clock, random_bytes)
        self._guesses = Guesses(clock)
        self._refusals = Refusals(self.audit, clock, log)
        self._usage = Usage(folder, clock)
        self._is_damaged = False

    async def authenticate(self, authorization: str, peer: str) -> Principal:
        """The principal of an Authorization header; see contract.access.Access.

        raises  Denied E4300; Denied E4301 - the tokens cannot be read, nobody is let in; Busy E4305
        """
        if not authorization:
            raise Denied(_DENIED)
        credential = hash_of(authorization[:HEADER_CHARACTERS_MAX])
        self._guesses.admit(peer, credential)
        book = self._book()
        if book is None:
            raise Denied("the gateway cannot read its tokens and lets nobody in; its log says why", code="E4301")
        match = None if len(authorization) > HEADER_CHARACTERS_MAX else _BEARER.fullmatch(authorization)
        principal = None if match is None else self._find(match[1], book)
        if principal is None:
            self._refuse(peer)
        self._guesses.right(peer, credential)
        return principal

    def is_valid(self, principal: Principal) -> bool:
        """Whether the principal still stands. Costs a look at the file's state; reads it only when that has changed."""
        book, now = self._book(), self._clock.now_ns()
        if book is None or is_over(principal.expires, now):
            return False
        if principal.key == setup.KEY:
            return self._setup.is_valid()
        if principal.key.startswith(JWT_KEY_PREFIX):
            found = self._verifier.known(principal.key, now)
            return found is not None and found.jti not in book.revoked
        return principal.key.removeprefix(token.KEY_PREFIX) in book.tokens

    def may_still(self, name: str, permission: Permission, tag: str) -> bool:
        """Whether somebody who is not here any more may still do this, by the principal's name; False where in doubt.

        Tokens of this home can be looked up; a JWT shows itself only while it is sent.
        """
        book = self._book()
        found = None if book is None else book.tokens.get(name.rpartition(":")[2])
        if found is None or is_over(found.expires, self._clock.now_ns()):
            return False
        principal = found.principal(self._tenant)
        return principal.name == name and principal.may(permission, tag)

    def setup_token(self) -> str:
        """A new set-up token to be shown on the terminal; "" where there is a token already, or none can be read."""
        return "" if self.has_tokens() else self._setup.draw()

    def has_tokens(self) -> bool:
        """Whether somebody has a token already; True where that cannot be read, as it is not the first start then."""
        book = self._book()
        return book is None or bool(book.tokens)

    def tokens(self) -> Sequence[Token]:
        """Every token, without its secret. Raises Misconfigured E4301."""
        return tuple(self._file.book().tokens.values())

    def last_used(self) -> Mapping[str, int]:
        """By token id: the hour it was last used in, ns UTC."""
        return self._usage.used

    async def create_token(self, wish: TokenWish, by: Principal) -> tuple[Token, str]:
        """Make a token; its text is shown once.

        by      who asks: the set-up token makes the first one only, and of the role admin
        raises  Misconfigured E4304, E4301; StoreFailed E4303; Denied E4300
        """
        is_first = by.key == setup.KEY
        if is_first and not self._setup.is_valid():
            raise Denied("the set-up token has ended; restart the gateway for another one, or use `edge token add`")
        if is_first and wish.role != setup.ROLE:
            raise Denied(f"the set-up token makes a token of the role {setup.ROLE} only")
        made = await in_thread("edge-access", lambda: self._file.add(wish, is_first=is_first))
        self._setup.end()
        return made

    async def revoke_token(self, name: str) -> Token:
        """Forget a token by name or id; it is refused from now on. Raises Misconfigured E4307, E4301; StoreFailed."""
        return await in_thread("edge-access", lambda: self._file.revoke(name))

    async def revoke_jwt(self, jti: str) -> None:
        """Refuse a federated JWT from now on. Raises Misconfigured E4304, E4301; StoreFailed."""
        until = self._clock.now_ns() + JWT_LIFE_NS
        await in_thread("edge-access", lambda: self._file.revoke_jwt(jti, until))

    async def audit_records(self, limit: int, before: int = 0) -> Sequence[Mapping[str, Any]]:
        """The newest records, newest first; `before`: only those of a lower number."""
        return await self.audit.recent(limit, before)

    async def close(self) -> None:
        """Write what waits."""
        await self._usage.close()
        await self._refusals.close()
        await self.audit.close()

    def _book(self) -> Book | None:
        """The tokens as their file has them now; None while it cannot be read, which is told once."""
        try:
            book = self._file.book()
        except Misconfigured as error:
            if not self._is_damaged:
                self._is_damaged = True
                self._log.error("access_tokens_damaged", reason=str(error))
            return None
        self._is_damaged = False
        if book.tokens:
            self._setup.end()
        return book

    def _find(self, text: str, book: Book) -> Principal | None:
        now = self._clock.now_ns()
        found = find_token(text, book.tokens, now)
        if found is not None:
            self._usage.seen(found.id, book.tokens)
            return found.principal(self._tenant)
        if "." not in text:
            return self._setup.find(text, self._tenant)
        verified = self._verifier.verify(text, now)
        return None if verified is None or verified.jti in book.revoked else verified.principal

    def _refuse(self, peer: str) -> NoReturn:
        wait = self._guesses.wrong(peer)
        if wait:
            self._refusals.slowed(peer, wait)
        raise Denied(_DENIED)
