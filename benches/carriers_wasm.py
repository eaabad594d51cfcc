"""What one scan of a sandboxed driver costs, as one JSON line.

    python benches/carriers_wasm.py [--passes 7] [--scans 2000]

A core module asks a device for 125 registers, which answers in a process of its own, and emits 125 rows. `call_us`: CPU
of the sandbox's thread per scan, from the call to the finished batch, with two system calls for the device; `emit_us`:
the same without a device, the call and the decoding alone; `decode_us`: numpy alone on the same 254 bytes, the floor;
`gateway_us`: CPU of the whole process per scan through Driver.read, with the way to the thread and back.
Cases take turns, and the least of all passes counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import numpy as np
import uvloop
import wasmtime

from framegate.carrier.wasm import WasmDriver
from framegate.contract.driver import BoundTag, DriverContext
from framegate.contract.frame import TagId, ValueType
from framegate.contract.plugin import Artifact, Manifest, RoleEntry
from framegate.contract.ports import Lines
from framegate.endpoint.clock import SystemClock
from framegate.testing.fakes import CollectingLog

GUEST = Path(__file__).resolve().parents[1] / "tests" / "unit" / "carrier" / "wasm" / "guest.wat"
ROWS = 125
DEVICE = """
import socket, struct, sys
line = socket.socket(fileno=int(sys.argv[1]))
answer = bytes(4) + struct.pack(">125H", *range(125))
while line.recv(6):
    line.sendall(answer)
"""


class Device:
    """Registers 0 .. 124 behind a socket pair, in a process of their own."""

    async def hand_over(self, endpoint: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        start(theirs)
        return ours


def start(end: socket.socket) -> None:
    subprocess.Popen([sys.executable, "-c", DEVICE, str(end.fileno())], pass_fds=(end.fileno(),))
    end.close()


def driver(wasm: bytes, mode: str, cache: Path) -> WasmDriver:
    def artifact() -> Artifact:
        number = os.memfd_create("guest")
        os.write(number, wasm)
        return Artifact("guest.wasm", number, hashlib.sha256(wasm).hexdigest(), len(wasm))

    role = RoleEntry("", {}, ("tcp",), "wasm", "guest.wasm")
    return WasmDriver(
        Manifest("guest", (1, 1), "1", "", Path(), {"driver": role}, ()), {"mode": mode}, artifact, cache=cache
    )


async def opened(wasm: bytes, mode: str, cache: Path) -> WasmDriver:
    made = driver(wasm, mode, cache)
    lines = cast(Lines, Device())
    await made.open(DriverContext("bench", "device", lines, SystemClock(), CollectingLog()))
    return made


async def measure(wasm: bytes, cache: Path, passes: int, scans: int) -> dict[str, float]:
    tags = [BoundTag(TagId(n), str(n), str(n), ValueType.UINT16, "R", {}) for n in range(1, ROWS + 1)]
    asking, emitting = await opened(wasm, "a", cache), await opened(wasm, "!", cache)
    plan = asking.plan(tags)
    best = dict.fromkeys(("call_us", "emit_us", "decode_us", "gateway_us"), float("inf"))

    def calls(made: WasmDriver) -> float:
        session = made._session  # noqa: SLF001 - the call alone
        assert session is not None
        session.poll(plan)
        began = time.thread_time()
        for _ in range(scans):
            session.poll(plan)
        return time.thread_time() - began

    for _ in range(passes):
        for name, made in (("call_us", asking), ("emit_us", emitting)):
            session = made._session  # noqa: SLF001 - as above
            assert session is not None
            took = await session.call(lambda made=made: calls(made), 600.0)  # type: ignore[misc]
            best[name] = min(best[name], took)
        began = time.process_time()
        for _ in range(scans):
            await asking.read(plan)
        best["gateway_us"] = min(best["gateway_us"], time.process_time() - began)
        best["decode_us"] = min(best["decode_us"], decoding(scans))
    await asking.close()
    await emitting.close()
    return {name: round(took / scans * 1e6, 1) for name, took in best.items()}


def decoding(scans: int) -> float:
    data = bytes(4) + struct.pack(">125H", *range(125))
    began = time.thread_time()
    for _ in range(scans):
        np.frombuffer(data, ">u2", offset=4).astype(np.int64)
    return time.thread_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--scans", type=int, default=2000)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        cache.chmod(0o700)
        wasm = bytes(wasmtime.wat2wasm(GUEST.read_text()))
        figures = uvloop.run(measure(wasm, cache, words.passes, words.scans))
    print(json.dumps({"bench": "carriers_wasm", "rows": ROWS, **figures}))


if __name__ == "__main__":
    main()
