"""A device for mydriver on this machine: twenty registers behind a TCP port. Standard library only.

python3 simulator.py [--port 15020]

Registers 0 to 5 change by themselves; 10 to 19 can be written. README.md describes the protocol.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import socketserver
import struct
import sys
import threading
import time

READ, WRITE = 1, 2
OK, NO_SUCH_REGISTER, NOT_WRITABLE, BAD_REQUEST = 0, 1, 2, 3
REGISTERS = 20
WRITABLE = range(10, 20)
COUNT_MAX = 120
REQUEST = struct.Struct(">BBHH")


class Registers:
    """What the device holds; shared by every connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written = dict.fromkeys(WRITABLE, 0)
        self._began = time.monotonic()

    def answer(self, request: bytes) -> bytes:
        function, sequence, first, argument = REQUEST.unpack(request)
        status, data = BAD_REQUEST, b""
        if function == READ and 1 <= argument <= COUNT_MAX:
            status, data = self._read(first, argument)
        elif function == WRITE:
            status = self._write(first, argument)
        return bytes((function, sequence, status, len(data))) + data

    def _read(self, first: int, count: int) -> tuple[int, bytes]:
        if first + count > REGISTERS:
            return NO_SUCH_REGISTER, b""
        seconds = time.monotonic() - self._began
        temperature = round(200 * math.sin(seconds / 10))
        flow = 1.5 + math.sin(seconds / 3)
        moving = struct.pack(">HhfI", int(seconds) & 0xFFFF, temperature, flow, int(seconds * 1000) & 0xFFFFFFFF)
        with self._lock:
            words = moving + bytes(2 * (WRITABLE.start - 6))
            words += b"".join(value.to_bytes(2, "big") for value in self._written.values())
        return OK, words[2 * first : 2 * (first + count)]

    def _write(self, register: int, value: int) -> int:
        if register >= REGISTERS:
            return NO_SUCH_REGISTER
        if register not in WRITABLE:
            return NOT_WRITABLE
        with self._lock:
            self._written[register] = value
        return OK


class Connection(socketserver.StreamRequestHandler):
    """One client: a request of six bytes, an answer, and so on."""

    def handle(self) -> None:
        registers: Registers = self.server.registers  # type: ignore[attr-defined]
        while len(request := self.rfile.read(REQUEST.size)) == REQUEST.size:
            self.wfile.write(registers.answer(request))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    registers = Registers()


def main() -> None:
    parser = argparse.ArgumentParser(description="A device for mydriver on this machine.")
    parser.add_argument("--port", type=int, default=15020)
    port = parser.parse_args().port
    try:
        server = Server(("127.0.0.1", port), Connection)
    except OSError as error:
        sys.exit(f"port {port} cannot be had ({error.strerror}); give another with --port, in endpoints.yml as well")
    with server:
        print(f"registers 0 to {REGISTERS - 1} at tcp://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
