"""Durations in the rows of rules, which have passed their schema: `1m` as nanoseconds."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from framegate.contract.errors import Misconfigured

_UNITS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9}


def nanoseconds(options: Mapping[str, Any], key: str, default: int = 0, least: int = 0) -> int:
    """Value of a duration; raises Misconfigured E5037 where it is none, or below `least`."""
    text = options.get(key)
    if text is None:
        return default
    unit = str(text).lstrip("0123456789.")
    try:
        value = int(Fraction(str(text).removesuffix(unit)) * _UNITS[unit])
    except (KeyError, ValueError, ZeroDivisionError):
        raise Misconfigured(f"{key}: {text} is no duration; write 100ms, 10s, 1m, 1h or 1d", code="E5037") from None
    if value < least:
        raise Misconfigured(f"{key}: {text} is too short; it can be {least / 1e9:g}s or more", code="E5037")
    return value
