"""Durations and byte sizes as operators write them: `100ms`, `1s`, `7d`; `256KiB`, `1GiB`.

A bare number is refused: 5 could be seconds or milliseconds, and a scan that is a thousand times too fast harms a
plant. The schemas in contract/tables hold the same patterns for editors.
"""

from __future__ import annotations

import re
from fractions import Fraction

from framegate.contract.errors import Misconfigured

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_BYTES = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)")
_SECONDS = {"ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600), "d": Fraction(86_400)}
_FACTORS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SHOWN_MAX = 40
"""Characters of a wrong value that an error repeats."""


def parse_duration(text: object) -> float:
    """Seconds in a text such as `100ms`, `1.5s`, `5m`, `2h`, `7d`.

    raises Misconfigured E1110 - no number, no unit, or an unknown unit
    """
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise Misconfigured(f"{_shown(text)} is no duration; write a number and ms, s, m, h or d: 100ms", code="E1110")
    return float(Fraction(found[1]) * _SECONDS[found[2]])


def parse_bytes(text: object) -> int:
    """Bytes in a text such as `256KiB`, `1.5GiB` (powers of 1024) or `10MB` (powers of 1000); rounded down.

    raises Misconfigured E1110 - no number, no unit, or an unknown unit
    """
    found = _BYTES.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise Misconfigured(
            f"{_shown(text)} is no size; write a number and B, KiB, MiB, GiB, TiB, kB, MB, GB or TB: 256MiB",
            code="E1110",
        )
    return int(Fraction(found[1]) * _FACTORS[found[2]])


def duration_text(seconds: float) -> str:
    """The shortest text for a duration of whole milliseconds: 0.1 -> `100ms`, 86400 -> `1d`."""
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        whole, rest = divmod(milliseconds, int(1000 * _SECONDS[unit]))
        if milliseconds and not rest:
            return f"{whole}{unit}"
    return f"{milliseconds}ms"


def bytes_text(size: int) -> str:
    """The shortest text for a size: 1048576 -> `1MiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _FACTORS[unit] == 0:
            return f"{size // _FACTORS[unit]}{unit}"
    return f"{size}B"


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."
