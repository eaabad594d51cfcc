"""The process of one Python driver: any driver of the contract, called over the wire.

It says HELLO, is told what to load and what it may, gives up everything else, imports the plugin, and then makes the
gateway's calls on the driver, one at a time. Half a second of a call is told by the loop itself, so that a driver that
blocks it is noticed; only while the plugin is imported a thread does that.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import signal
import socket
import sys
import threading
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from framegate.carrier.child.abi import Status
from framegate.carrier.child.confinement import Confinement, Limits, ParentGone, attend_parent
from framegate.carrier.child.instance import Answer
from framegate.carrier.child.lines import HandedLines
from framegate.carrier.child.rows import packed, writes_in
from framegate.carrier.child.wire import (
    BEAT_S,
    ERROR,
    HEADER,
    LENGTH,
    MESSAGE_BYTES_MAX,
    PACKET_BYTES_MAX,
    START,
    TEXT_BYTES_MAX,
    Grant,
    Header,
    Message,
    header_of,
    packets,
)
from framegate.contract.command import Outcome
from framegate.contract.driver import BoundTag, Driver, DriverContext, Plan, Subscribes
from framegate.contract.errors import Busy, DeviceRefused, GatewayError, Misconfigured
from framegate.contract.frame import TagId, ValueType
from framegate.contract.ports import Credentials
from framegate.endpoint.clock import SystemClock

FDS_MAX = 2
"""The modules of an installed plugin, and a line."""
CLOSE_S = 0.4
READABLE = (
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/etc/ssl",
    "/usr/share/ca-certificates",
    "/dev/null",
    "/dev/urandom",
)
"""What libraries read as long as they live, beside their own code."""
_STATUS = {
    Outcome.CONFIRMED: Status.OK, Outcome.REJECTED: Status.REFUSED, Outcome.NOT_SENT: Status.NOT_SENT,
    Outcome.UNKNOWN: Status.INTERNAL,
}  # fmt: skip
Parts = Sequence[bytes]


def main(number: int, parent: int) -> None:
    """Serve over the inherited socket with that file descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which tells us
    with contextlib.suppress(ParentGone, BrokenPipeError, ConnectionResetError):
        attend_parent(parent, number)
        # Not uvloop: its rings for epoll go around the filter of system calls, which ends the process for it.
        asyncio.run(Process(socket.socket(fileno=number)).serve())


class Process:
    """The conversation with the gateway."""

    def __init__(self, gateway: socket.socket) -> None:
        self._gateway = gateway
        self._messages: asyncio.Queue[tuple[Header, bytes, list[int]] | None] = asyncio.Queue()
        self._body, self._fds = bytearray(), list[int]()
        self._task: asyncio.Task[Answer] | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._driver: Driver | None = None
        self._context: DriverContext | None = None
        self._tags: dict[TagId, BoundTag] = {}
        self._plans: dict[int, Plan] = {}
        self._home = ""

    async def serve(self) -> None:
        """Until the gateway hangs up or asks for the end."""
        self._gateway.setblocking(False)
        asyncio.get_running_loop().add_reader(self._gateway.fileno(), self._readable)
        await self._send(Message.HELLO, 0, Answer(0, 0, ()))
        while (received := await self._messages.get()) is not None:
            header, body, fds = received
            task = self._task = asyncio.create_task(self._answer(header, body, fds))
            if self._beating is None:
                self._beating = asyncio.get_running_loop().call_later(BEAT_S, self._beat)
            await asyncio.wait((task,))
            self._task = None
            answer = Answer(Status.CANCELLED, 0, ()) if task.cancelled() else task.result()
            await self._send(Message.DONE, header.call, answer)
            if header.kind == Message.DISCONNECT:
                return

    async def _answer(self, header: Header, body: bytes, fds: list[int]) -> Answer:
        try:
            return await self._call(header, body, fds)
        except GatewayError as error:
            return self._told(error)
        except Exception as error:  # noqa: BLE001 - the edge of the process: whatever a driver raises is told
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}"
            return _error({"class": type(error).__name__, "text": text[:TEXT_BYTES_MAX]}, 0, ())

    async def _call(self, header: Header, body: bytes, fds: list[int]) -> Answer:
        if header.kind == Message.START:
            return self._start(body, fds)
        driver = self._driver
        if driver is None:
            return Answer(Status.INVALID, 0, ())
        if header.kind == Message.PLAN:
            return self._plan(driver, header.status, body)
        if header.kind == Message.CONNECT:
            assert self._context is not None
            await driver.open(self._context)
        elif header.kind == Message.POLL:
            rows, columns = packed(await driver.read(self._plans[header.status]), self._tags)
            return Answer(Status.OK, rows, columns)
        elif header.kind == Message.WRITE:
            return await self._write(driver, header, body)
        elif header.kind == Message.DISCONNECT:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(driver.close(), CLOSE_S)
        return Answer(Status.OK, 0, ())

    def _start(self, body: bytes, fds: list[int]) -> Answer:
        """Confine, load, create."""
        memory, flags, home_bytes = START.unpack_from(body)
        home = body[START.size : START.size + home_bytes].decode() if flags & Grant.HOME else ""
        terms = json.loads(body[START.size + home_bytes :])
        reads = [*READABLE, *sys.path, sys.prefix, sys.base_prefix, terms["folder"]]
        if not terms["folder"]:  # a sealed file lies nowhere, so that no rule has to let it be read
            sys.path.append(f"/proc/self/fd/{fds.pop(0)}")  # last, as elsewhere
        folders = [each for each in reads if each.startswith("/")]
        handed = socket.socket(fileno=fds[0]) if fds else None
        is_stream = handed is not None and handed.type == socket.SOCK_STREAM  # asyncio sends messages on those only
        confinement = Confinement(Limits(memory, bool(flags & Grant.NETWORK), home, folders, messages=is_stream))
        confinement.begin()
        confinement.end()
        loaded = threading.Event()
        threading.Thread(target=self._beat_while_loading, args=(loaded,), name="beat", daemon=True).start()
        try:
            driver: Driver = _load(terms["entry"], Path(terms["folder"]))(terms["options"])
        finally:
            loaded.set()
        if isinstance(driver, Subscribes):
            text = "the driver is told of changes by its device, which a process of its own does not carry"
            raise Misconfigured(f"{text}; remove `isolation: process` from its row", code="E4518")
        self._driver = driver
        login = Credentials(*terms["login"]) if terms["login"] else None
        lines = HandedLines(terms["endpoint"], handed, login)
        folder = Path(home) if home else None
        self._context = DriverContext(terms["name"], terms["endpoint"], lines, SystemClock(), _Log(self), folder)
        return Answer(Status.OK, 0, ("; ".join(confinement.missing).encode(),))

    def _plan(self, driver: Driver, group: int, body: bytes) -> Answer:
        tags = [
            BoundTag(
                TagId(row["id"]), row["name"], row["address"], ValueType(row["type"]), row["access"], row["options"]
            )
            for row in json.loads(body)
        ]
        self._plans.pop(group, None)
        try:
            self._plans[group] = driver.plan(tags)
        except Misconfigured as error:
            ids = {tag.name: tag.id for tag in tags}
            problems = [
                {"tag": ids[problem.tag], "key": problem.key, "text": problem.text}
                for problem in error.tag_problems
                if problem.tag in ids
            ]
            if not problems:
                raise
            return Answer(Status.INVALID, 0, (json.dumps(problems).encode(),))
        self._tags.update((tag.id, tag) for tag in tags)
        return Answer(Status.OK, 0, ())

    async def _write(self, driver: Driver, header: Header, body: bytes) -> Answer:
        expires = asyncio.get_running_loop().time() + header.status / 1000
        results = await driver.write(writes_in(header.rows, body, self._tags, expires))
        statuses = b"".join(_STATUS[result.outcome].to_bytes(4, sys.byteorder, signed=True) for result in results)
        reasons = json.dumps([result.reason[:TEXT_BYTES_MAX] for result in results])
        return Answer(Status.OK, len(results), (statuses, reasons.encode()))

    def _told(self, error: GatewayError) -> Answer:
        """An error of the contract, as what it is."""
        kind = next((each.__name__ for each in type(error).__mro__ if each.__module__ == GatewayError.__module__), "")
        told: dict[str, Any] = {"class": kind, "code": error.stable_code, "text": error.text[:TEXT_BYTES_MAX]}
        if isinstance(error, Busy):
            told["wait_s"] = error.wait_s
        elif isinstance(error, DeviceRefused):
            told["quality"] = error.quality
        rows, columns = packed(error.partial, self._tags)
        return _error(told, rows, columns)

    # -- the socket -----------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            packet, fds, _, _ = socket.recv_fds(self._gateway, PACKET_BYTES_MAX, FDS_MAX)
        except BlockingIOError:
            return
        if not packet or len(self._body) > MESSAGE_BYTES_MAX:
            asyncio.get_running_loop().remove_reader(self._gateway.fileno())
            self._messages.put_nowait(None)
            if self._task is not None:
                self._task.cancel()
            return
        header = header_of(packet)
        if header.kind == Message.CANCEL:
            if self._task is not None:
                self._task.cancel()
            return
        self._body += packet[HEADER.size :]
        self._fds += fds
        if not header.is_more:
            self._messages.put_nowait((header, bytes(self._body), self._fds))
            self._body, self._fds = bytearray(), []

    async def _send(self, kind: Message, call: int, answer: Answer) -> None:
        loop = asyncio.get_running_loop()
        for packet in packets(kind, call, answer.status, answer.rows, answer.parts):
            await loop.sock_sendall(self._gateway, packet)

    def send_now(self, kind: Message, status: int, text: bytes) -> None:
        """A small message, left out where the gateway does not keep up."""
        with contextlib.suppress(BlockingIOError):
            self._gateway.send(HEADER.pack(kind, 0, 0, 0, status, 0) + text)

    def _beat(self) -> None:
        """The loop turns; it ticks on as long as there are calls."""
        self._beating = None
        if self._task is not None:
            self.send_now(Message.BEAT, 0, b"")
            self._beating = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def _beat_while_loading(self, loaded: threading.Event) -> None:
        while not loaded.wait(BEAT_S):
            self.send_now(Message.BEAT, 0, b"")


class _Log:
    """Satisfies contract.ports.Log: lines go to the gateway."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def debug(self, event: str, **values: Any) -> None:
        """Not told."""

    def info(self, event: str, **values: Any) -> None:
        self._say(1, event, values)

    def warning(self, event: str, **values: Any) -> None:
        self._say(2, event, values)

    def error(self, event: str, **values: Any) -> None:
        self._say(3, event, values)

    def _say(self, level: int, event: str, values: dict[str, Any]) -> None:
        text = " ".join([event, *(f"{key}={value}" for key, value in values.items())])
        self._process.send_now(Message.LOG, level, text.encode()[:TEXT_BYTES_MAX])


def _error(told: dict[str, Any], rows: int, columns: Parts) -> Answer:
    text = json.dumps(told).encode()
    return Answer(ERROR, rows, (LENGTH.pack(len(text)), text, *columns))


def _load(entry: str, folder: Path) -> Any:
    """The class of a driver; raises ImportError, AttributeError.

    A plugin that is not installed, or whose modules lie beside its manifest, is its folder: nothing beside that is
    looked at, which could not be read anyway.
    """
    module, _, name = entry.partition(":")
    top = module.partition(".")[0]
    if folder.name == top and importlib.util.find_spec(top) is None:
        beginning = folder / "__init__.py"
        package = types.ModuleType(top)
        package.__path__ = [str(folder)]
        sys.modules[top] = package
        if beginning.is_file():
            spec = importlib.util.spec_from_file_location(top, beginning, submodule_search_locations=[str(folder)])
            assert spec is not None
            assert spec.loader is not None
            package = sys.modules[top] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(package)
    return getattr(importlib.import_module(module), name)
