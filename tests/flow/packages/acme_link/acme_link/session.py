"""Lines on one connection: a message out, its position back once the remote has it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from acme_link import VERSION  # type: ignore[import-not-found]  # of the package


class LinkSession:
    """Satisfies contract.ports.Session."""

    def __init__(self) -> None:
        self._line: Any = None
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._rest = b""

    def line_made(self, line: Any) -> None:
        self._line = line

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            taken = self._waiting.pop(int(line), None)
            if taken is not None and not taken.done():
                taken.set_result(None)

    def line_lost(self, error: Exception) -> None:
        for taken in self._waiting.values():
            if not taken.done():
                taken.set_exception(error)

    async def send(self, position: int, payload: bytes) -> None:
        """Return once the remote has it; raises NotConnected."""
        taken = self._waiting[position] = asyncio.get_running_loop().create_future()
        line = {"version": VERSION, "position": position, "payload": payload.decode()}
        self._line.write(json.dumps(line).encode() + b"\n")
        await taken
