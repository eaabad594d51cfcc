"""A farm of Modbus TCP devices for load: one port per device, any unit id, values that walk.

Outside every figure: it runs in a process of its own. Registers 0..INTS-1 are int16, the rest float32 (big-endian
words). Every reply to a read is a slice of one prepared byte string, remade every 50 ms, so that a 125-register
read costs a few microseconds and a farm on one core can feed a gateway on another.

    python benches/farm.py --ints 700 --floats 700          prints {"ports": [...]} and serves until stdin closes
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import cast

import numpy as np
import uvloop

REQUEST_BYTES = 12
WRITES = (6, 16)
REFRESH_S = 0.05


class Registers:
    """The register image every device shares."""

    def __init__(self, ints: int, floats: int) -> None:
        self.dice = np.random.default_rng(7)
        self.ints = self.dice.integers(-1000, 1000, ints).astype(np.int16)
        self.floats = self.dice.normal(50.0, 10.0, floats)
        self.image = b""
        self.walk()

    def walk(self) -> None:
        """One step of every value."""
        self.ints += self.dice.integers(-3, 4, len(self.ints)).astype(np.int16)
        self.floats += self.dice.normal(0.0, 0.05, len(self.floats))
        self.image = self.ints.astype(">i2").tobytes() + self.floats.astype(">f4").tobytes()


class Device(asyncio.Protocol):
    """One connection; answers function codes 3 and 4, and says yes to 6 and 16 without keeping what is written."""

    def __init__(self, registers: Registers) -> None:
        self.registers = registers
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        at, end, image, out = 0, len(data), self.registers.image, []
        while end - at >= REQUEST_BYTES:
            if data[at + 7] in WRITES:
                size = 6 + ((data[at + 4] << 8) | data[at + 5])
                if end - at < size:
                    break
                out.append(data[at : at + 4] + b"\0\6" + data[at + 6 : at + 12])
                at += size
                continue
            first = 2 * ((data[at + 8] << 8) | data[at + 9])
            size = 2 * ((data[at + 10] << 8) | data[at + 11])
            head = data[at : at + 2] + b"\0\0" + (size + 3).to_bytes(2, "big")
            out.append(head + data[at + 6 : at + 8] + bytes((size,)) + image[first : first + size])
            at += REQUEST_BYTES
        self.rest = data[at:]
        self.transport.write(b"".join(out))


async def serve(ints: int, floats: int, devices: int) -> None:
    loop = asyncio.get_running_loop()
    registers = Registers(ints, floats)
    servers = [await loop.create_server(lambda: Device(registers), "127.0.0.1", 0) for _ in range(devices)]
    print(json.dumps({"ports": [server.sockets[0].getsockname()[1] for server in servers]}), flush=True)
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: None if sys.stdin.read(1) else closed.set())
    while not closed.is_set():
        registers.walk()
        try:
            await asyncio.wait_for(closed.wait(), REFRESH_S)
        except TimeoutError:
            continue
    for server in servers:
        server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ints", type=int, default=700)
    parser.add_argument("--floats", type=int, default=700)
    parser.add_argument("--devices", type=int, default=1)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.ints, arguments.floats, arguments.devices))
