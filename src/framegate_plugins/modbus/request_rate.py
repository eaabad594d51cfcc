"""How many requests a host may ask: token buckets, one for all connections of a host.

A bucket outlives its connections until it is full, so that connecting anew brings nothing. Pure; time is handed in.
"""

from __future__ import annotations

from typing import Final

HOSTS_MAX: Final = 4_096
"""Buckets kept; hosts beyond, as forged datagrams can bring, share one."""
_OTHERS: Final = "others"


class Bucket:
    """Requests of one host that may be answered now: at most what it may ask in a second.

    users   connections that the host has
    writes  its requests that wait for their writes
    """

    __slots__ = ("_filled", "_per_s", "_tokens", "users", "writes")

    def __init__(self, per_s: int, now: float) -> None:
        self._per_s = float(per_s)
        self._tokens = self._per_s
        self._filled = now
        self.users = self.writes = 0

    def left(self, now: float) -> int:
        """Requests that may be answered now; 0 or less: none."""
        self._tokens = min(self._per_s, self._tokens + (now - self._filled) * self._per_s)
        self._filled = now
        return int(self._tokens)

    def spend(self, requests: float = 1.0) -> None:
        """A request, a connection, or bytes that cost as much."""
        self._tokens -= requests

    def is_idle(self, now: float) -> bool:
        """Nobody uses it, and it says no more than a new one."""
        return not self.users and not self.writes and self.left(now) >= int(self._per_s)


class RequestRate:
    """Buckets by host."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._buckets: dict[str, Bucket] = {}

    def bucket(self, host: str, now: float) -> Bucket:
        """The host's bucket."""
        if host not in self._buckets and len(self._buckets) >= HOSTS_MAX:
            host = _OTHERS
        return self._buckets.setdefault(host, Bucket(self._per_s, now))

    def tidy(self, now: float) -> None:
        """Forget buckets that are like new."""
        for host in [host for host, bucket in self._buckets.items() if bucket.is_idle(now)]:
            del self._buckets[host]
