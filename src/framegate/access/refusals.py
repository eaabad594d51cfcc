"""Tells of guesses: a log line and a record in the audit log, at most one a second, however many addresses guess.

Otherwise whoever guesses from many addresses would write the audit log full until the old records are dropped.
"""

from __future__ import annotations

import asyncio
import contextlib

from framegate.access.audit import AuditLog
from framegate.contract.access import AuditEntry
from framegate.contract.errors import StoreFailed
from framegate.contract.ports import Clock, Log

TELL_S_MIN = 1.0
"""Between two lines; those in between are counted in the next one."""


class Refusals:
    """Used on the loop."""

    def __init__(self, audit: AuditLog, clock: Clock, log: Log) -> None:
        self._audit, self._clock, self._log = audit, clock, log
        self._untold, self._next = 0, 0.0
        self._telling: asyncio.Task[None] | None = None

    def slowed(self, peer: str, wait_s: float) -> None:
        """A peer has to wait because of wrong credentials."""
        now = self._clock.monotonic()
        if now < self._next or (self._telling is not None and not self._telling.done()):
            self._untold += 1
            return
        others, self._untold, self._next = self._untold, 0, now + TELL_S_MIN
        self._log.warning("access_guesses", peer=peer, wait_s=wait_s, others=others)
        details = {"wait_s": wait_s, "others": others}
        entry = AuditEntry("unknown", "access.authenticate", "", "E4305", peer, details)
        self._telling = asyncio.create_task(self._note(entry), name="access refusals")

    async def close(self) -> None:
        """Let a record come to its end."""
        if self._telling is not None:
            await asyncio.wait([self._telling])

    async def _note(self, entry: AuditEntry) -> None:
        with contextlib.suppress(StoreFailed):  # refused all the same; whoever wants to change something is told
            await self._audit.note(entry)
