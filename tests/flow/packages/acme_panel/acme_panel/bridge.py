"""The bridge: `TAG` is answered with its newest value; `who` with version, process and the file of this module."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from acme_panel import VERSION  # type: ignore[import-not-found]  # of the package
from framegate.contract.bridge import BridgeHealth


class PanelBridge:
    """Satisfies contract.bridge.Bridge."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._values: dict[int, Any] = {}

    def check(self, tags: Sequence[Any]) -> None:
        """Every tag can be shown."""

    async def open(self, context: Any) -> None:
        self._ids = {tag.name: tag.id for tag in context.tags}
        url = urlsplit(context.url)
        self._server = await asyncio.start_server(self._serve, url.hostname, url.port)

    def update(self, batches: Sequence[Any]) -> None:
        for batch in batches:
            self._values.update(zip(batch.tag.tolist(), batch.value.tolist(), strict=True))

    def health(self) -> BridgeHealth:
        return BridgeHealth()

    async def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()).decode().strip():
            answer = [VERSION, os.getpid(), __file__] if line == "who" else self._values.get(self._ids[line])
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
