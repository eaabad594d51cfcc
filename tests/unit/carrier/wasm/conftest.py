"""A device on a socket pair, and drivers made of modules in text form; machine code is made once per session."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from framegate.carrier.wasm import WasmDriver
from framegate.carrier.wasm.session import Budgets
from framegate.contract.driver import BoundTag, DriverContext
from framegate.contract.frame import TagId, ValueType
from framegate.contract.plugin import Artifact, Manifest, Permissions, RoleEntry
from framegate.contract.ports import Lines
from framegate.endpoint.clock import SystemClock
from framegate.testing.fakes import CollectingLog
from framegate.testing.stalls import Stalls

pytest.importorskip("wasmtime", reason="sandboxed plugins need the package wasmtime")
GUEST = Path(__file__).with_name("guest.wat")
BUDGET_S = 5.0
"""For each call: a guest that means well is to be stopped by no stall of the machine. Who means harm is given less."""
COMPILE_S = 120.0
"""The helper runs when nothing else does, on a busy machine seldom."""
MEMORY_MAX = 4 << 20


class Device:
    """Answers 6 bytes with 4 of head and registers 0 .. 124, whose values are counted up from `first`."""

    def __init__(self) -> None:
        self.first = 0
        self.is_silent = False
        self.delay_s = 0.0
        self.requests = 0
        self._ends: list[socket.socket] = []

    async def hand_over(self, endpoint: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._ends.append(ours)
        threading.Thread(target=self._serve, args=(ours,), daemon=True).start()
        return theirs

    def hang_up(self) -> None:
        """End every connection."""
        for end in self._ends:
            end.close() if end.fileno() < 0 else end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.hang_up()
        for end in self._ends:
            end.close()

    def _serve(self, end: socket.socket) -> None:
        try:
            while len(end.recv(6)) == 6:
                self.requests += 1
                time.sleep(self.delay_s)
                if not self.is_silent:
                    end.sendall(bytes(4) + struct.pack(">125H", *range(self.first, self.first + 125)))
        except OSError:
            return


@dataclass
class Bench:
    """Makes drivers, and closes what it has opened."""

    cache: Path
    device: Device = field(default_factory=Device)
    log: CollectingLog = field(default_factory=CollectingLog)
    opened: list[WasmDriver] = field(default_factory=list)

    def driver(self, mode: str = "a", wasm: bytes | None = None, **budgets: float) -> WasmDriver:
        """budgets: seconds by the names of `Budgets`, where they differ from BUDGET_S."""
        data = wasm_of(GUEST.read_text()) if wasm is None else wasm
        manifest = Manifest(
            "hostile",
            (1, 1),
            "1",
            "a guest",
            Path(),
            {"driver": RoleEntry("", {}, ("tcp",), "wasm", "plugin.wasm")},
            (),
            permissions=Permissions(memory=MEMORY_MAX),
        )
        usual = Budgets(COMPILE_S, BUDGET_S, BUDGET_S, BUDGET_S, BUDGET_S, BUDGET_S, BUDGET_S)
        options = {"mode": mode}
        return WasmDriver(manifest, options, artifact_of(data), cache=self.cache, budgets=replace(usual, **budgets))

    @property
    def context(self) -> DriverContext:
        return DriverContext("press", "plc", cast(Lines, self.device), SystemClock(), self.log)

    async def opened_driver(self, mode: str = "a", wasm: bytes | None = None, **budgets: float) -> WasmDriver:
        driver = self.driver(mode, wasm, **budgets)
        self.opened.append(driver)
        await driver.open(self.context)
        return driver

    def events(self, name: str) -> list[dict[str, object]]:
        return [values for _, event, values in self.log.lines if event == name]


def wasm_of(text: str) -> bytes:
    import wasmtime  # noqa: PLC0415 - skipped above where it is missing

    return bytes(wasmtime.wat2wasm(text))


def artifact_of(data: bytes) -> Callable[[], Artifact]:
    """As the store hands it over."""

    def make() -> Artifact:
        number = os.memfd_create("plugin.wasm")
        os.write(number, data)
        return Artifact("plugin.wasm", number, hashlib.sha256(data).hexdigest(), len(data))

    return make


def tags_of(count: int = 125, type_: ValueType = ValueType.UINT16) -> list[BoundTag]:
    return [BoundTag(TagId(n), f"press.{n}", str(n), type_, "RW", {}) for n in range(1, count + 1)]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("machine-code")
    folder.chmod(0o700)
    return folder


@pytest.fixture
async def bench(cache: Path) -> AsyncIterator[Bench]:
    made = Bench(cache)
    yield made
    for driver in made.opened:
        await driver.close()
    made.device.close()


@pytest.fixture
def lateness() -> Iterator[Callable[[], float]]:
    """How late a thread that only sleeps woke up at worst since the last call, seconds: what the machine costs."""
    with Stalls() as stalls:

        def worst() -> float:
            found = stalls.worst()
            stalls.forget()
            return found

        yield worst


@pytest.fixture
def heartbeat() -> Iterator[Callable[[], float]]:
    """The longest time, in seconds, for which the loop did not turn since the last call."""
    moments: list[float] = []
    task: list[asyncio.Task[None]] = []

    async def beat() -> None:
        loop = asyncio.get_running_loop()
        while True:
            moments.append(loop.time())
            await asyncio.sleep(0.005)

    def longest() -> float:
        if not task:
            task.append(asyncio.ensure_future(beat()))
            return 0.0
        gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
        moments.clear()
        return max(gaps, default=0.0)

    yield longest
    for each in task:
        each.cancel()
