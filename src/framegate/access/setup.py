"""The set-up token: how the first admin comes in where there is no token yet, without a default password.

It is drawn at the start, shown on the terminal, valid for 15 minutes and never stored; whoever shows it may make the
first token and nothing else. It is worth nothing once there is a token, whoever made that.
"""

from __future__ import annotations

import hmac

from framegate.access.token import SECRET_BYTES, RandomBytes, hash_of
from framegate.contract.access import Permission, Principal
from framegate.contract.ports import Clock

VALID_S = 900.0
KEY = "setup"
"""`Principal.key` of whoever shows the token."""
ROLE = "admin"
"""Of the token that may be made with it."""
_NOBODY = "0" * 64


class SetUp:
    """At most one set-up token at a time, and whether it still counts."""

    def __init__(self, clock: Clock, random_bytes: RandomBytes) -> None:
        self._clock, self._random_bytes = clock, random_bytes
        self._sha256, self._until = _NOBODY, 0.0

    def draw(self) -> str:
        """A new set-up token; an earlier one is worth nothing any more."""
        text = f"edge_setup_{self._random_bytes(SECRET_BYTES).hex()}"
        self._sha256, self._until = hash_of(text), self._clock.monotonic() + VALID_S
        return text

    def is_valid(self) -> bool:
        return self._clock.monotonic() < self._until

    def end(self) -> None:
        """There is a token now."""
        self._sha256, self._until = _NOBODY, 0.0

    def find(self, text: str, tenant: str) -> Principal | None:
        """Who shows the set-up token, if this is it."""
        if not hmac.compare_digest(hash_of(text), self._sha256) or not self.is_valid():
            return None
        return Principal("setup", frozenset((Permission.USERS_ADMIN,)), (), tenant, 0, KEY)
