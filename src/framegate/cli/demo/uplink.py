"""The demo's uplink: a TCP relay between gateway and broker that can be cut, as a network can.

Cutting here and not in the broker keeps the question clean: the broker keeps what it acknowledged, so whatever is
missing afterwards was lost by the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib

from framegate.testing.ports import free_port

CHUNK_BYTES = 64 * 1024
CONNECT_S_MAX = 5.0


class Uplink:
    """Relays 127.0.0.1:port to the broker until it is cut; `mend` brings it back on the same port."""

    def __init__(self, broker_port: int) -> None:
        self.broker_port = broker_port
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()

    async def mend(self) -> None:
        """Listen (again)."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Refuse new connections and break those that stand."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for relay in list(self._relays):
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.broker_port)
        except OSError:
            self._relays.discard(task)
            writer.transport.abort()
            return
        pumps = [asyncio.create_task(_pump(reader, far_writer)), asyncio.create_task(_pump(far_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # Cut by the operator: both sides see a broken line, and the server's own task ends in peace.
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            for side in (writer, far_writer):
                side.transport.abort()
            self._relays.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
