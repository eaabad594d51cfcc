"""A moment in ns UTC as people and scripts read it."""

from __future__ import annotations

from datetime import UTC, datetime

_NS = 1_000_000_000


def moment(ns: int) -> str | None:
    """ISO 8601 with milliseconds; None for 0, which is "never"."""
    if ns == 0:
        return None
    return datetime.fromtimestamp(ns / _NS, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
