"""Ids for commands that come from the command line: ULIDs, which sort by time and never meet by chance.

Source: https://github.com/ulid/spec - 48 bits of ms UTC, then 80 random bits, in Crockford's base 32.
"""

from __future__ import annotations

import secrets
import time

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CHARACTERS = 26
_RANDOM_BITS = 80
_NS_PER_MS = 1_000_000


def new_command_id() -> str:
    """A fresh ULID."""
    number = (time.time_ns() // _NS_PER_MS) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(_CHARACTERS)))
