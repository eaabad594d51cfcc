"""A TCP proxy that commits the faults of a bad network: resets, black holes, tiny segments, thin lines.

    proxy = FaultProxy(broker_port)
    await proxy.listen()
    proxy.slice_bytes = 1                   every byte in a segment of its own
    proxy.reset()                           RST on both sides of every connection
    await proxy.close()                     refuses connections; listen() brings it back on the same port

It knows no protocol. Whoever wants a reset at a certain packet hands in a `judge`, which sees every piece of data on
its way. Standing in front of the remote and not inside it keeps the question clean: what the remote acknowledged it
has, so whatever is missing afterwards was lost by the sender.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from enum import Enum, unique
from typing import TypeAlias

from framegate.testing.ports import free_port

CHUNK_BYTES = 64 * 1024
CONNECT_S_MAX = 5.0
THIN_PIECES_PER_S = 10
"""A thin line is written in so many pieces a second."""
_RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


@unique
class Direction(Enum):
    OUT = "to the remote"
    BACK = "from the remote"


Judge: TypeAlias = Callable[[Direction, bytes], int | None]
"""Sees a piece of data; how many of its bytes still pass before the connection is reset, or None: all, no reset."""


class FaultProxy:
    """Relays 127.0.0.1:port to a port of this machine. Every fault may be switched while it runs.

    is_black_hole  takes bytes in and passes none; connections stand
    slice_bytes    passes at most so many bytes in one segment; 0: as they come
    bytes_per_s    passes so many in each direction; 0: as fast as they come
    make_judge     makes the judge of each new connection
    connects       connections taken; resets: how many of them this proxy reset
    """

    def __init__(self, far_port: int) -> None:
        self.far_port = far_port
        self.port = free_port()
        self.is_black_hole = False
        self.slice_bytes = 0
        self.bytes_per_s = 0
        self.make_judge: Callable[[], Judge] | None = None
        self.connects = self.resets = 0
        self._server: asyncio.Server | None = None
        self._relays: dict[asyncio.Task[None], _Relay] = {}

    async def listen(self) -> None:
        """Take connections, always on the same port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Refuse new connections and reset those that stand. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.reset()
        for relay in list(self._relays):
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    def reset(self) -> None:
        """RST on both sides of every connection."""
        for relay in self._relays.values():
            self.resets += relay.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connects += 1
        near = _Side(reader, writer)
        relay = self._relays[task] = _Relay(self, near)
        try:
            await relay.run()
        except asyncio.CancelledError:
            pass  # closed: the server's own task ends in peace
        except OSError:
            near.reset()
        finally:
            del self._relays[task]


class _Side:
    """One of a connection's two sockets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def reset(self) -> None:
        transport = self.writer.transport
        if not transport.is_closing():
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        transport.abort()


class _Relay:
    """One connection through the proxy."""

    def __init__(self, proxy: FaultProxy, near: _Side) -> None:
        self._proxy = proxy
        self._sides = [near]
        self._judge = proxy.make_judge() if proxy.make_judge else None

    def reset(self) -> bool:
        """Whether there was anything to reset."""
        was_open = not self._sides[0].writer.is_closing()
        for side in self._sides:
            side.reset()
        return was_open

    async def run(self) -> None:
        """Until either side ends."""
        async with asyncio.timeout(CONNECT_S_MAX):
            far = _Side(*await asyncio.open_connection("127.0.0.1", self._proxy.far_port))
        near = self._sides[0]
        self._sides.append(far)
        pumps = [
            asyncio.create_task(self._pump(Direction.OUT, near.reader, far.writer)),
            asyncio.create_task(self._pump(Direction.BACK, far.reader, near.writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for side in self._sides:
                side.writer.transport.abort()

    async def _pump(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy = self._proxy
        with contextlib.suppress(OSError):
            while data := await reader.read(self._piece_bytes()):
                if proxy.is_black_hole:
                    continue
                passing = self._judge(direction, data) if self._judge else None
                await self._pass(data if passing is None else data[:passing], writer)
                if passing is not None:
                    proxy.resets += self.reset()
                    return

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        proxy = self._proxy
        size = proxy.slice_bytes or len(data) or 1
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            if proxy.slice_bytes:
                await asyncio.sleep(0)  # a turn of the loop for each piece, or they would leave together
        if proxy.bytes_per_s:
            await asyncio.sleep(len(data) / proxy.bytes_per_s)

    def _piece_bytes(self) -> int:
        thin = self._proxy.bytes_per_s // THIN_PIECES_PER_S
        return max(1, thin) if self._proxy.bytes_per_s else CHUNK_BYTES
