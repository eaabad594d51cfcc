"""What a bridge counts, and the notice of those it turned away: at once, then every ten seconds with a count."""

from __future__ import annotations

from typing import Final

from framegate.contract.ports import Clock, Log

NOTICE_S: Final = 10.0


class Counts:
    """Counts since the start."""

    def __init__(self, bridge: str, clock: Clock, log: Log) -> None:
        self.requests_total = self.writes_total = self.refused_total = 0
        self._bridge, self._clock, self._log = bridge, clock, log
        self._silent_until = self._quiet_until = float("-inf")
        self._untold = self._logins = 0

    def admitted(self, user: str, peer: str) -> None:
        """Somebody has logged in. user: "" is anonymous"""
        self._logins += 1
        now = self._clock.monotonic()
        if now >= self._quiet_until:
            self._log.info("opcua_client_logged_in", bridge=self._bridge, user=user, peer=peer, count=self._logins)
            self._quiet_until, self._logins = now + NOTICE_S, 0

    def unforeseen(self, error: Exception) -> None:
        """Bytes of a client led to an error that has no name here."""
        self._log.debug("opcua_bytes_refused", bridge=self._bridge, error=type(error).__name__)

    def refused(self, why: str, peer: str) -> None:
        """A connection, a login or a request was turned away. why: for people, and without anything secret."""
        self.refused_total += 1
        self._untold += 1
        now = self._clock.monotonic()
        if now >= self._silent_until:
            self._log.warning("opcua_client_refused", bridge=self._bridge, peer=peer, reason=why, count=self._untold)
            self._silent_until, self._untold = now + NOTICE_S, 0
