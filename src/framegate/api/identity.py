"""Ids of requests, and of their commands where the asker brought none: ULIDs.

26 characters of Crockford's base 32: 48 bits of milliseconds, then 80 bits of chance, so that they sort by time.
Source: github.com/ulid/spec.
"""

from __future__ import annotations

import secrets
from typing import Final

_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(high + low for high in _DIGITS for low in _DIGITS)
"""Two digits at once: an id is made for every request."""


def ulid(now_ns: int) -> str:
    """A fresh id; now_ns: wall time, ns UTC."""
    number = (now_ns // 1_000_000 & (1 << 48) - 1) << 80 | secrets.randbits(80)
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])
