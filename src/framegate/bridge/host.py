"""One supervised bridge: its process is started, fed, watched, and started again for ever.

The process is a child with a limit of memory that dies with the gateway. It says that it lives once a second; one that
is silent for SILENT_S is ended. Whatever it does, the gateway goes on: a slow one is told less often (feed.py), a dead
one is started again with back-off.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from framegate.bridge.calls import Clerk
from framegate.bridge.feed import Feed, Reading
from framegate.bridge.meters import BridgeMeters
from framegate.bridge.wire import (
    MESSAGE_BYTES_MAX,
    FromBridge,
    Line,
    Ready,
    Refused,
    Report,
    Start,
    Stop,
    Submit,
    ToBridge,
    Wait,
    from_bridge,
    message,
    read_message,
)
from framegate.contract.bridge import BridgeHealth
from framegate.contract.connector import CommandDoor
from framegate.contract.errors import FrameBroken, GatewayError, Misconfigured, NotConnected
from framegate.contract.frame import Batch
from framegate.contract.plugin import Artifact
from framegate.contract.ports import Clock, Dice, Log
from framegate.endpoint.backoff import Backoff
from framegate.endpoint.spawn import Process, Spawned, ending_of, spawn
from framegate.endpoint.thread import in_thread
from framegate.observe.metrics import Metrics

START_S = 60.0
"""From the first message until clients can connect; 100,000 tags take some seconds."""
SILENT_S = 5.0
STOP_S = 1.5
"""Bridge.close has 1 s."""
STEADY_S = 60.0
"""A life this long is a success: the next back-off begins small again."""
UNSENT_BYTES_MAX = 1 << 20
"""Beyond, rows wait in the feed, where they are merged."""
STDERR_LINES = 20
"""The last words of a process that died."""
STDERR_LINE_BYTES = 400
EVENT = re.compile(r"[a-z][a-z0-9_]{2,63}")
MODULE = "framegate.bridge.process"
PARENT = "EDGE_PARENT_PID"


class BridgeHost:
    """Runs one bridge. Used on the loop.

    start   what the process is told first
    code    opens the modules of an installed plugin, verified and sealed, for each process anew; closed here
    state   starting, serving, backoff, stopped
    error   why it does not serve; "" while it does
    """

    def __init__(
        self,
        start: Start,
        latest: Callable[[int], Reading | None],
        door: Callable[[], CommandDoor | None],
        clock: Clock,
        dice: Dice,
        log: Log,
        metrics: Metrics,
        code: Callable[[], Artifact] | None = None,
    ) -> None:
        self.name = start.name
        self.tags = len(start.tags)
        self.state = "starting"
        self.error = ""
        self.since_ns = clock.now_ns()
        self.restarts = 0
        self.pid = 0
        self.health = BridgeHealth()
        self._hello = message(start)
        self._code = code
        self._door = door
        self._clock, self._log = clock, log
        self._backoff = Backoff(dice)
        self._meters = BridgeMeters(start.name, metrics)
        self._more = asyncio.Event()
        self._feed = Feed(start.tags, latest, self._more.set)
        self._writer: asyncio.StreamWriter | None = None
        self._heard = 0.0
        self._task: asyncio.Task[None] | None = None

    def publish(self, batches: Sequence[Batch]) -> None:
        """Rows that have come to the bus."""
        if self._writer is not None:
            self._feed.publish(batches)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"bridge {self.name}")

    async def stop(self) -> None:
        """Have the process end: politely, then not."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait((self._task,))
        self._move("stopped", "")

    async def _run(self) -> None:
        while True:
            began = self._clock.monotonic()
            try:
                await self._live()
            except GatewayError as error:
                reason = error
            if self._clock.monotonic() - began > STEADY_S:
                self._backoff.reset()
            wait_s = self._backoff.next_wait_s()
            self._move("backoff", str(reason))
            self._log.warning("bridge_backoff", bridge=self.name, reason=str(reason), wait_s=round(wait_s, 1))
            await self._clock.sleep(wait_s)
            self.restarts += 1
            self._meters.restarts.value += 1
            self._move("starting", self.error)

    async def _live(self) -> None:
        """One life of the process; ends by raising why."""
        ours, theirs = socket.socketpair()
        with ours:
            process, pipe = await self._begin(theirs)
            self.pid = process.pid
            words = asyncio.create_task(_last_words(pipe), name=f"bridge {self.name} stderr")
            try:
                await self._converse(ours)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise NotConnected(await self._why_dead(process, words), code="E4400") from error
            finally:
                self.pid = 0
                await _end(process)
                words.cancel()

    async def _begin(self, theirs: socket.socket) -> Spawned:
        """A process that has its end of the line, and its modules; raises NotConnected, Misconfigured."""
        with theirs:
            code = () if self._code is None else ((await in_thread("open-plugin", self._code, _close)).fd,)
            return await _spawn(theirs.detach(), *code)

    async def _converse(self, ours: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=ours)
        clerk = Clerk(self.name, self._door, self._send)
        tasks: list[asyncio.Task[None]] = []
        try:
            writer.write(self._hello)
            first = await self._first_answer(reader)
            if isinstance(first, Refused):
                raise Misconfigured(first.text, code=first.code)
            self._writer = writer
            self._feed.begin()
            self._heard = self._clock.monotonic()
            self._move("serving", "")
            self._log.info("bridge_serving", bridge=self.name, tags=self.tags, pid=self.pid)
            tasks = [
                asyncio.create_task(part, name=f"bridge {self.name}")
                for part in (self._listen(reader, clerk), self._tell(writer), self._watch())
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._writer = None
            clerk.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(Exception):
                writer.write(message(Stop()))
            writer.close()

    async def _first_answer(self, reader: asyncio.StreamReader) -> Ready | Refused:
        """Ready, or why not; lines for the log may come before."""
        try:
            async with asyncio.timeout(START_S):
                while True:
                    said = await read_message(reader, from_bridge, MESSAGE_BYTES_MAX)
                    if isinstance(said, Ready | Refused):
                        return said
                    self._take(said, None)
        except TimeoutError as error:
            text = f"bridge {self.name}: did not serve within {START_S:g} s; it is started again"
            raise NotConnected(text, code="E4401") from error

    async def _listen(self, reader: asyncio.StreamReader, clerk: Clerk) -> None:
        while True:
            self._take(await read_message(reader, from_bridge, MESSAGE_BYTES_MAX), clerk)

    def _take(self, said: FromBridge, clerk: Clerk | None) -> None:
        self._heard = self._clock.monotonic()
        if isinstance(said, Report):
            self.health = said.health
            self._meters.report(said.health, said.rss_bytes)
        elif isinstance(said, Line):
            tell = {"warning": self._log.warning, "error": self._log.error}.get(said.level, self._log.info)
            event = said.event if EVENT.fullmatch(said.event) else "bridge_says"
            tell(event, **{**said.values, "bridge": self.name})
        elif isinstance(said, Submit | Wait):
            if clerk is None:
                raise FrameBroken(f"bridge {self.name}: a write before it serves")
            clerk.take(said)

    async def _tell(self, writer: asyncio.StreamWriter) -> None:
        """Hand on what the feed holds, as fast as the process takes it."""
        writer.transport.set_write_buffer_limits(UNSENT_BYTES_MAX)
        while True:
            rows = self._feed.take()
            if rows is not None:
                writer.write(message(rows))
                await writer.drain()
            elif self._feed.is_done:
                self._more.clear()
                await self._more.wait()

    async def _watch(self) -> None:
        while (silent_s := self._clock.monotonic() - self._heard) < SILENT_S:
            await self._clock.sleep(SILENT_S - silent_s)
        text = f"bridge {self.name}: its process gave no sign of life for {SILENT_S:g} s; it is ended and started again"
        raise NotConnected(text, code="E4401")

    def _send(self, content: ToBridge) -> None:
        if self._writer is not None:
            self._writer.write(message(content))

    async def _why_dead(self, process: Process, words: asyncio.Task[list[str]]) -> str:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 1.0)
        await asyncio.wait((words,), timeout=0.2)
        last = words.result() if words.done() and not words.cancelled() else []
        how = "closed its line" if process.status is None else ending_of(process.status)
        said = f"; its last words: {last[-1]}" if last else ""
        return f"bridge {self.name}: its process {how}{said}; it is started again"

    def _move(self, state: str, error: str) -> None:
        if state != self.state:
            self.since_ns = self._clock.now_ns()
        self.state, self.error = state, error
        self._meters.up.value = float(state == "serving")
        if state != "serving":
            self.health = BridgeHealth()


def _close(artifact: Artifact) -> None:
    os.close(artifact.fd)


async def _spawn(*fds: int) -> Spawned:
    """A fresh interpreter with one end of the line, and a sealed file where there is one; raises NotConnected E4400."""
    environment = {**os.environ, "PYTHONPATH": _python_path(), PARENT: str(os.getpid())}
    try:
        return await spawn([sys.executable, "-P", "-m", MODULE, *map(str, fds)], fds, environment)
    except OSError as error:
        text = f"bridge: its process cannot be started ({error.strerror or error})"
        raise NotConnected(text, code="E4400") from error


def _python_path() -> str:
    """Where this package lies, and what we were given ourselves."""
    package = Path(__file__).resolve().parents[2]
    return os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH", ""))))


async def _last_words(pipe: int) -> list[str]:
    """The end of what it writes to stdout and stderr, once it has ended; the rest is thrown away. Closes the pipe."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", buffering=0)
    )
    kept: deque[bytes] = deque(maxlen=STDERR_LINES)
    rest = b""
    with contextlib.closing(transport):
        while data := await reader.read(65_536):
            *lines, rest = (rest + data).split(b"\n")
            kept.extend(line[:STDERR_LINE_BYTES] for line in lines[-STDERR_LINES:])
            rest = rest[-STDERR_LINE_BYTES:]
    return [line.decode(errors="replace") for line in (*kept, rest) if line.strip()]


async def _end(process: Process) -> None:
    """It was asked to end, or has ended; also where the caller is cancelled."""
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()
