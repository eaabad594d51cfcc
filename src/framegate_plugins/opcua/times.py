"""Times of OPC UA: ticks of 100 ns since 1601-01-01 UTC, as ns UTC, as text, and as asyncua's datetime.

Ticks to ns UTC is exact for all that int64 ns can hold, years 1678 to 2261; beyond there is no ns UTC. asyncua hands
out datetimes, which are exact to the microsecond only. Source: OPC UA Part 6, 5.2.2.5 (binary) and 5.4.2.6 (text).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

TICK_NS: Final = 100
EPOCH_TICKS: Final = 116_444_736_000_000_000
"""1970-01-01 in ticks."""
TICKS_MAX: Final = 2_650_467_743_990_000_000
"""9999-12-31 23:59:59; what is at or beyond it means "for ever"."""
NS_TICKS_MIN: Final = EPOCH_TICKS - (1 << 63) // TICK_NS
NS_TICKS_MAX: Final = EPOCH_TICKS + ((1 << 63) - 1) // TICK_NS
_SECOND: Final = 10_000_000
_START: Final = datetime(1601, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TEXT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def ns_of_ticks(ticks: int) -> int:
    """ns UTC; raises ValueError outside of what int64 holds."""
    if not NS_TICKS_MIN <= ticks <= NS_TICKS_MAX:
        raise ValueError(f"the time {text_of_ticks(ticks)} is outside 1678 to 2261 and has no ns UTC; declare a string")
    return (ticks - EPOCH_TICKS) * TICK_NS


def ticks_of_ns(ns: int) -> int:
    """Ticks of a time in ns UTC, rounded down to 100 ns."""
    return min(TICKS_MAX, max(0, ns // TICK_NS + EPOCH_TICKS))


def text_of_ticks(ticks: int) -> str:
    """2026-11-26T12:00:00.1234567Z; trailing zeros of the fraction are left out."""
    seconds, rest = divmod(min(TICKS_MAX, max(0, ticks)), _SECOND)
    moment = _START + timedelta(seconds=seconds)
    fraction = f".{rest:07d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def ticks_of_text(text: str) -> int:
    """Ticks of an ISO 8601 time with zone; raises ValueError."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time; write it like 2026-11-26T12:00:00Z")
    second, fraction, zone = match.groups()
    moment = datetime.fromisoformat(second + zone.replace("Z", "+00:00"))
    return (moment - _START) // timedelta(seconds=1) * _SECOND + int((fraction or "0").ljust(9, "0")[:7])


def ticks_of_datetime(moment: datetime) -> int:
    """Ticks of asyncua's datetime; one without a zone is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, (moment - _START) // _MICROSECOND * 10)


def datetime_of_ticks(ticks: int) -> datetime:
    """asyncua's datetime, rounded down to the microsecond."""
    return _START + timedelta(microseconds=min(TICKS_MAX, max(0, ticks)) // 10)


def datetime_of_ns(ns: int) -> datetime:
    return datetime_of_ticks(ticks_of_ns(ns))


def ns_of_datetime(moment: datetime | None) -> int | None:
    """ns UTC; None for no time, for the null time of 1601 and for what int64 ns cannot hold."""
    if moment is None:
        return None
    ticks = ticks_of_datetime(moment)
    return (ticks - EPOCH_TICKS) * TICK_NS if NS_TICKS_MIN <= ticks <= NS_TICKS_MAX else None
