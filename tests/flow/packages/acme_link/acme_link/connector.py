"""The connector: one window at a time, each message acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from acme_link.session import LinkSession  # type: ignore[import-not-found]  # of the package


class LinkConnector:
    """Satisfies contract.connector.Connector."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._lease: Any = None

    async def open(self, context: Any) -> None:
        self._lease = await context.lines.acquire(context.endpoint, LinkSession, is_shared=False)

    async def send(self, window: Any) -> None:
        session = self._lease.session
        await asyncio.gather(*map(session.send, window.position, window.payload))

    async def close(self) -> None:
        if self._lease is not None:
            self._lease.release()
