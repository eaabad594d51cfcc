"""Who logs in: user name tokens, their passwords, and the slow-down of guesses.

A password is compared in constant time, whether the user exists or not, and every refusal looks the same. After a wrong
one, the same address has to wait before it is judged again for the same user: half a second, doubling to a minute;
attempts within that time are refused unseen. Who guesses locks out nobody at another address.
Source: OPC UA Part 4, 7.36 (identity tokens, encrypted secrets in the legacy form).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from framegate.contract.errors import FrameBroken
from framegate.endpoint.secret import resolve
from framegate_plugins.opcua.server.binary import Reader
from framegate_plugins.opcua.server.limits import PEERS_KEPT_MAX
from framegate_plugins.opcua.server.options import ANONYMOUS, Options, User
from framegate_plugins.opcua.server.requests import ActivateSession
from framegate_plugins.opcua.server.status import (
    BAD_IDENTITY_TOKEN_INVALID,
    BAD_IDENTITY_TOKEN_REJECTED,
    BAD_USER_ACCESS_DENIED,
    ServiceFault,
)

ANONYMOUS_TOKEN, USER_NAME_TOKEN = 321, 324
"""Default Binary encodings of AnonymousIdentityToken and UserNameIdentityToken."""
GUESS_S: Final = 0.5
GUESS_S_MAX: Final = 60.0
SECRET_BLOCKS_MAX: Final = 4
"""RSA blocks of an encrypted password; one holds about 200 bytes."""
_OAEP: Final = {
    "http://www.w3.org/2001/04/xmlenc#rsa-oaep": SHA1,
    "http://opcfoundation.org/UA/security/rsa-oaep-sha2-256": SHA256,
}


class Guesses:
    """How long an address has to wait before it may try again to be a user."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[int, float]] = {}

    def may_try(self, peer: str, user: str, now: float) -> bool:
        return now >= self._kept.get((peer, user), (0, 0.0))[1]

    def note(self, peer: str, user: str, now: float, *, is_right: bool) -> None:
        failures, _ = self._kept.pop((peer, user), (0, 0.0))
        if is_right:
            return
        self._kept[peer, user] = (failures + 1, now + min(GUESS_S * 2 ** min(failures, 10), GUESS_S_MAX))
        if len(self._kept) > PEERS_KEPT_MAX:
            del self._kept[next(iter(self._kept))]


class Gatekeeper:
    """Lets users in.

    key  of the server's certificate, that passwords are encrypted for; None where only policy `none` is on
    """

    def __init__(self, options: Options, base: Path, key: RSAPrivateKey | None, monotonic: Callable[[], float]) -> None:
        self._users = {user.name: user for user in options.users}
        self._anonymous, self._base, self._key, self._monotonic = options.anonymous, base, key, monotonic
        self._guesses = Guesses()

    def check(self) -> None:
        """Raises Misconfigured E2010: a password cannot be found."""
        for user in self._users.values():
            resolve(user.password, self._base)

    def admit(self, request: ActivateSession, nonce: bytes, peer: str, *, is_encrypted: bool) -> User:
        """The user whose token this is.

        nonce         the server's of this session, that an encrypted password is bound to
        is_encrypted  the channel hides what is sent, so that a password may come as it is
        raises        ServiceFault
        """
        kind = request.token.type
        if kind.identifier in {0, ANONYMOUS_TOKEN} and kind.namespace == 0:
            if self._anonymous is None:
                raise ServiceFault(BAD_IDENTITY_TOKEN_REJECTED)
            return self._anonymous
        if kind != (0, USER_NAME_TOKEN):
            raise ServiceFault(BAD_IDENTITY_TOKEN_REJECTED)
        name, password = self._login(request.token.body, nonce, is_encrypted=is_encrypted)
        now, known = self._monotonic(), self._users.get(name)
        counted = name if known else ANONYMOUS  # names that do not exist share one count
        if not self._guesses.may_try(peer, counted, now):
            raise ServiceFault(BAD_USER_ACCESS_DENIED)
        expected = resolve(known.password, self._base).encode() if known else b""
        is_right = hmac.compare_digest(sha256(password).digest(), sha256(expected).digest()) and bool(expected)
        self._guesses.note(peer, counted, now, is_right=is_right)
        if known is None or not is_right:
            raise ServiceFault(BAD_USER_ACCESS_DENIED)
        return known

    def _login(self, body: bytes, nonce: bytes, *, is_encrypted: bool) -> tuple[str, bytes]:
        try:
            reader = Reader(body)
            reader.octets()  # policy id
            name, secret, algorithm = reader.words(), reader.octets() or b"", reader.words()
        except FrameBroken:
            raise ServiceFault(BAD_IDENTITY_TOKEN_INVALID) from None
        if algorithm:
            return name, self._decrypt(secret, algorithm, nonce)
        if not is_encrypted:
            raise ServiceFault(BAD_IDENTITY_TOKEN_REJECTED)  # the password was readable on its way
        return name, secret

    def _decrypt(self, secret: bytes, algorithm: str, nonce: bytes) -> bytes:
        """Part 4, 7.36.2.2: length, password, and the nonce that keeps it from being sent again."""
        hashed = _OAEP.get(algorithm)
        size = self._key.key_size // 8 if self._key else 1
        if hashed is None or self._key is None or len(secret) % size or not 0 < len(secret) <= SECRET_BLOCKS_MAX * size:
            raise ServiceFault(BAD_IDENTITY_TOKEN_INVALID)
        padding = OAEP(MGF1(hashed()), hashed(), None)
        try:
            blocks = (secret[at : at + size] for at in range(0, len(secret), size))
            plain = b"".join(self._key.decrypt(block, padding) for block in blocks)
        except ValueError:
            raise ServiceFault(BAD_IDENTITY_TOKEN_INVALID) from None
        length = int.from_bytes(plain[:4], "little") - len(nonce)
        password, rest = plain[4 : 4 + max(0, length)], plain[4 + max(0, length) :]
        if length < 0 or not hmac.compare_digest(rest, nonce):
            raise ServiceFault(BAD_IDENTITY_TOKEN_INVALID)
        return password
