"""A native driver inside the gateway: the same calls, in a thread of its own. For trusted drivers only.

It saves the crossing to another process, and all that a process protects from: a crash is the gateway's. A call that
hangs cannot be ended: its thread is left behind, and the driver is opened again with a fresh instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import threading
from collections.abc import Callable, Sequence

from framegate.carrier.child.abi import Library, LibraryRefused, Status
from framegate.carrier.child.channel import Channels
from framegate.carrier.child.instance import Answer, Instance
from framegate.carrier.child.wire import NOT_LOADED, START, Message
from framegate.carrier.remote.calls import GRACE_S, SILENT_S, Calls, Reply
from framegate.carrier.remote.child_process import END_S
from framegate.carrier.remote.utterances import Utterances
from framegate.contract.errors import NotConnected
from framegate.contract.ports import Log

Work = tuple[Message, int, int, bytes, Sequence[int]]
_loaded: dict[str, Library] = {}
"""Libraries by their sha256. None is ever unloaded, and its file stays open: the loader knows files by their names, and
would take a new one of the same name for the old one."""


class InsideThread:
    """One instance in a thread; satisfies driver.Host. Used on the loop."""

    def __init__(self, device: str, log: Log, crashed: Callable[[str], None], sha256: str) -> None:
        self._device = device
        self._sha256 = sha256
        self._crashed = crashed
        self._words = Utterances(device, log)
        self._loop = asyncio.get_running_loop()
        self._calls = Calls(self._silent)
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._cancel = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._why, self._code = "", ""
        self._moved = -1
        self._instance: Instance | None = None
        self._channels: Channels | None = None
        self._thread = threading.Thread(target=self._run, name=f"driver-{device}"[:15], daemon=True)

    async def start(self) -> None:
        self._thread.start()

    async def call(
        self,
        kind: Message,
        status: int = 0,
        rows: int = 0,
        parts: Sequence[bytes | memoryview] = (),
        *,
        budget_s: float,
        fds: Sequence[int] = (),
        answer_bytes: int = 0,
    ) -> Reply:
        """See ChildProcess.call; raises NotConnected E4511 - it hung."""
        calls = self._calls
        if calls.is_busy:
            await calls.turn()
        if self._why:
            raise self._gone()
        calls.number += 1
        self._moved = -1 if self._channels is None else self._channels.moved
        answer = calls.begin(SILENT_S, budget_s + GRACE_S)
        self._work.put((kind, status, rows, b"".join(parts), [os.dup(fd) for fd in fds]))
        try:
            return await answer
        except asyncio.CancelledError:
            if calls.is_busy:
                os.eventfd_write(self._cancel, 1)
            raise

    def lies(self, what: str) -> NotConnected:
        """It gave what cannot be: not called again."""
        self._fail(f"driver {self._device}: gave {what}; it is opened again, report it to its maker", "E4512", what)
        return self._gone()

    async def end(self) -> None:
        """Make the last call; a thread that hangs is left behind."""
        self._crashed = _nobody
        if not self._why and self._thread.is_alive():
            with contextlib.suppress(NotConnected, TimeoutError):
                async with asyncio.timeout(END_S):
                    await self.call(Message.DISCONNECT, budget_s=END_S)
        self.kill()

    def kill(self) -> None:
        """It is not called again."""
        self._crashed = _nobody
        self._fail(f"driver {self._device}: is closed", "E4521", "")
        self._words.close()

    def _silent(self, what: str) -> None:
        """Nothing was heard; see whether the driver waits for its device, or has moved bytes."""
        channels = self._channels
        moved = -1 if channels is None else channels.moved
        if channels is not None and (channels.is_waiting or moved != self._moved) and not self._calls.is_over:
            self._moved = moved
            self._calls.heard(SILENT_S)
            return
        text = f"driver {self._device}: {what}, inside the gateway; its thread is left behind, and it is opened again"
        self._fail(text, "E4511", what)

    def _settle(self, reply: Reply) -> None:
        if not self._why:
            with contextlib.suppress(BlockingIOError):  # it was not cancelled
                os.eventfd_read(self._cancel)
            self._calls.settle(reply)

    def _fail(self, text: str, code: str, how: str) -> None:
        if self._why:
            return
        self._why, self._code = text, code
        crashed, self._crashed = self._crashed, _nobody
        crashed(how)
        self._calls.fail(self._gone())
        self._work.put(None)

    def _gone(self) -> NotConnected:
        return NotConnected(self._why, code=self._code)

    # -- in the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        lines: list[socket.socket] = []
        while (work := self._work.get()) is not None:
            kind, status, rows, body, fds = work
            if kind is Message.START:
                answer = self._load(body, fds, lines)
            elif self._instance is None:
                answer = Answer(Status.INVALID, 0, ())
            elif kind is Message.DISCONNECT:
                self._instance.leave()
                self._instance = None
                answer = Answer(Status.OK, 0, ())
            else:
                answer = self._instance.answer(kind, status, rows, memoryview(body))
            told = Reply(answer.status, answer.rows, b"".join(answer.parts))
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._settle, told)
        if self._instance is not None:  # nobody asked for its end: it hung, or gave what cannot be
            self._instance.leave()
        for line in lines:
            line.close()
        os.close(self._cancel)

    def _load(self, body: bytes, fds: Sequence[int], lines: list[socket.socket]) -> Answer:
        library, *handed = fds
        lines += [socket.socket(fileno=each) for each in handed]
        _, _, home_bytes = START.unpack_from(body)
        self._channels = Channels(lines, self._cancel, self._log)
        loaded = _loaded.get(self._sha256)
        if loaded is None:
            try:
                loaded = _loaded[self._sha256] = Library(f"/proc/self/fd/{library}", _nothing)
            except LibraryRefused as error:
                return Answer(NOT_LOADED, 0, (str(error).encode(),))
        else:
            os.close(library)
        instance = Instance(loaded, self._channels)
        created = instance.create(body[START.size + home_bytes :])
        if created.status == Status.OK:
            self._instance = instance
        return created

    def _log(self, level: int, text: bytes) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._words.say, level, text)


def _nobody(reason: str) -> None:
    """Asked to end."""


def _nothing() -> None:
    """Nothing is given up inside the gateway."""
