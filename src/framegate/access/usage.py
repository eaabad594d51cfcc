"""When tokens were last used, to the hour: so that one that nobody uses can be found and revoked.

HOME/access/used.json is written when a token is first used in an hour, not with each use, and without waiting for the
disk: an hour lost in a power cut misleads nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import orjson

from framegate.access.durable import replace_private
from framegate.contract.ports import Clock
from framegate.endpoint.durable import read_bounded
from framegate.endpoint.thread import in_thread

FILE = "used.json"
FILE_BYTES_MAX = 64 << 10
STEP_NS = 3_600_000_000_000


class Usage:
    """Hours of last use by token id, ns UTC."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._path, self._clock = folder / FILE, clock
        self.used = read_usage(folder)
        self._writing: asyncio.Task[None] | None = None

    def seen(self, id_: str, known: Iterable[str]) -> None:
        """A token was used. known: ids that there are; others are forgotten."""
        hour = self._clock.now_ns() // STEP_NS * STEP_NS
        if self.used.get(id_) == hour:
            return
        self.used = {each: used for each, used in {**self.used, id_: hour}.items() if each in known}
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="access usage")

    async def close(self) -> None:
        """Let a write come to its end."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        written: dict[str, int] | None = None
        while written != self.used:
            written = self.used
            data = orjson.dumps(written)
            with contextlib.suppress(OSError):  # a figure for people; whoever needs the disk is told elsewhere
                await in_thread("edge-access", partial(replace_private, self._path, data, is_synced=False))


def read_usage(folder: Path) -> dict[str, int]:
    """Hours by token id; nothing where the file cannot be read, as it decides nothing."""
    try:
        raw = orjson.loads(read_bounded(folder / FILE, FILE_BYTES_MAX))
    except (OSError, ValueError):
        return {}
    if not isinstance(raw, dict):
        return {}
    return {id_: used for id_, used in raw.items() if type(used) is int}
