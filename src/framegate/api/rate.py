"""Request rate of each principal: a token bucket, and how long to wait once it is empty. Pure.

Source: RFC 2697 names the idea (committed rate, burst).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

REQUESTS_PER_S: Final = 100.0
BURST: Final = 200.0
PRINCIPALS_MAX: Final = 1_024
"""Buckets that are kept; the one that was idle longest goes first, and is full when it comes back."""


class Rates:
    """Buckets by name."""

    def __init__(self, per_s: float = REQUESTS_PER_S, burst: float = BURST) -> None:
        self._per_s, self._burst = per_s, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left, at

    def take(self, name: str, now: float) -> float:
        """0.0 when a request may go on, else the seconds after which it may; now: s, monotonic."""
        left, at = self._buckets.get(name, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        wait = 0.0 if left >= 1.0 else (1.0 - left) / self._per_s
        self._buckets[name] = (left - 1.0 if wait == 0.0 else left, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > PRINCIPALS_MAX:
            self._buckets.popitem(last=False)
        return wait
