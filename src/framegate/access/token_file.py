"""HOME/access/tokens.json: the tokens, and the JWTs that were revoked before their time. Nothing in it opens a door.

Whoever may write the file may make tokens, so it counts only while nobody else may. It is replaced whole, by the
gateway or by `edge token`, and read again when its signature has changed: a revocation holds at once. A file that
cannot be read or understood refuses everybody; it is never taken for an empty one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from framegate.access.durable import Signature, make_private_folder, replace_private, signature_of
from framegate.access.token import RandomBytes, Token, TokenWish, make_token, raw_of, refused, token_from
from framegate.contract.errors import Denied, Misconfigured, StoreFailed
from framegate.contract.ports import Clock
from framegate.endpoint.durable import locked, read_bounded, why

FILE, LOCK = "tokens.json", ".tokens.lock"
FORMAT = 1
TOKENS_MAX = 256
REVOKED_MAX = 4096
"""JWTs that are revoked and have not expired."""
JTI_CHARACTERS_MAX = 128
FILE_BYTES_MAX = 4 << 20
_WRITABLE_BY_OTHERS = 0o022


def _approved() -> None:
    """Nobody has to be asked."""


@dataclass(frozen=True, slots=True)
class Book:
    """What the file says. tokens by id; revoked: until when (ns UTC) a JWT of that jti is refused."""

    tokens: Mapping[str, Token] = field(default_factory=dict)
    revoked: Mapping[str, int] = field(default_factory=dict)


class TokenFile:
    """The tokens of one home. Blocking; `book` costs one stat while nothing changes."""

    def __init__(self, folder: Path, clock: Clock, random_bytes: RandomBytes = secrets.token_bytes) -> None:
        self.path = folder / FILE
        self._clock, self._random_bytes = clock, random_bytes
        self._signature: Signature | None = None
        self._book: Book | None = Book()
        self._flaw = ""

    def book(self) -> Book:
        """What the file says now. Raises Misconfigured E4301 - it cannot be read; nobody is let in then."""
        try:
            signature = signature_of(self.path)
        except OSError as error:
            raise self._damaged(why(error)) from error
        if signature != self._signature:
            self._signature, self._book = signature, None
            try:
                self._book, self._flaw = self._read(), ""
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._flaw = why(error)
        if self._book is None:
            raise self._damaged(self._flaw)
        return self._book

    def add(
        self, wish: TokenWish, *, is_first: bool = False, approve: Callable[[], None] = _approved
    ) -> tuple[Token, str]:
        """Make a token, durably; its text is returned and never kept.

        is_first  only if there is none yet
        approve   called once everything else is in order and nothing is written; what it raises stops the change
        raises    Misconfigured E4304 - the wish makes no sense; E4301; StoreFailed E4303; Denied E4300 - not the first
        """
        made, text = make_token(wish, self._clock.now_ns(), self._random_bytes)

        def edit(book: Book) -> Book:
            if is_first and book.tokens:
                raise Denied("the set-up token makes the first token only; show a token of an admin")
            if any(token.name == made.name for token in book.tokens.values()):
                raise refused(f"token {made.name}: there is one of this name; revoke it first, or choose another name")
            if len(book.tokens) >= TOKENS_MAX:
                raise refused(f"token {made.name}: there are {TOKENS_MAX} already; revoke those that nobody uses")
            if made.id in book.tokens:
                raise refused(f"token {made.name}: its id was drawn before; try again")
            return replace(book, tokens={**book.tokens, made.id: made})

        self._change(edit, approve)
        return made, text

    def revoke(self, name: str, *, approve: Callable[[], None] = _approved) -> Token:
        """Forget a token by its name or id, durably; `approve` as in add.

        raises  Misconfigured E4307 - there is none; E4301; StoreFailed E4303
        """
        gone: list[Token] = []

        def edit(book: Book) -> Book:
            gone.extend(token for token in book.tokens.values() if name in {token.id, token.name})
            if not gone:
                raise Misconfigured(f'no token "{name:.64}"; `edge token ls` lists names and ids', code="E4307")
            return replace(book, tokens={id_: token for id_, token in book.tokens.items() if token is not gone[0]})

        self._change(edit, approve)
        return gone[0]

    def revoke_jwt(self, jti: str, until: int, *, approve: Callable[[], None] = _approved) -> None:
        """Refuse a federated issuer's JWT from now on, durably; `approve` as in add.

        until   ns UTC; it has expired by then, so the entry may go
        raises  Misconfigured E4304 - no jti, or too many; E4301; StoreFailed E4303
        """
        if not 1 <= len(jti) <= JTI_CHARACTERS_MAX or not jti.isprintable():
            raise refused(f"a jti has 1 to {JTI_CHARACTERS_MAX} printable characters")
        now = self._clock.now_ns()

        def edit(book: Book) -> Book:
            revoked = {known: end for known, end in book.revoked.items() if end > now}
            if len(revoked) >= REVOKED_MAX:
                raise refused(f"{REVOKED_MAX:,} JWTs are revoked; have the issuer change its key instead")
            return replace(book, revoked={**revoked, jti: until})

        self._change(edit, approve)

    def _change(self, edit: Callable[[Book], Book], approve: Callable[[], None]) -> None:
        """Read, edit and write under the lock; what `edit` raises leaves the file as it is."""
        try:
            make_private_folder(self.path.parent)
            with locked(self.path.with_name(LOCK)):
                try:
                    book = self._read()
                except (ValueError, KeyError, TypeError) as error:
                    raise self._damaged(why(error)) from error
                data = _text_of(edit(book))
                approve()
                replace_private(self.path, data)
        except OSError as error:
            text = f"{self.path}: cannot be written ({why(error)}); nothing was changed, correct space or rights"
            raise StoreFailed(text, code="E4303") from error

    def _read(self) -> Book:
        try:
            mode = self.path.stat().st_mode
        except FileNotFoundError:
            return Book()
        if mode & _WRITABLE_BY_OTHERS:
            raise ValueError("others may write it; look who did, then chmod 600")
        raw = orjson.loads(read_bounded(self.path, FILE_BYTES_MAX))
        if raw["format"] != FORMAT or set(raw) != {"format", "tokens", "revoked"}:
            raise ValueError("it is of another format")
        tokens = {token.id: token for token in map(token_from, raw["tokens"])}
        if len(tokens) != len(raw["tokens"]) or len({token.name for token in tokens.values()}) != len(tokens):
            raise ValueError("a name or an id is there twice")
        revoked: dict[str, Any] = raw["revoked"]
        if not all(type(until) is int for until in revoked.values()):
            raise ValueError("revoked holds times in ns")
        return Book(tokens, revoked)

    def _damaged(self, reason: str) -> Misconfigured:
        text = f"{self.path}: cannot be read ({reason}); nobody is let in. Bring it back, or remove it to begin anew"
        return Misconfigured(text, code="E4301")


def _text_of(book: Book) -> bytes:
    raw = {"format": FORMAT, "tokens": [raw_of(token) for token in book.tokens.values()], "revoked": book.revoked}
    return orjson.dumps(raw, option=orjson.OPT_INDENT_2)
