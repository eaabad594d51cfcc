"""The audit log on the loop: notes wait together for one write and one sync, in the thread `edge-audit`.

`note` returns when the record is durable. While the disk is slow, notes gather; the next group takes all of them.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from framegate.access.audit_check import recent
from framegate.access.audit_file import AuditFile
from framegate.access.chain import note_of
from framegate.contract.access import AuditEntry
from framegate.contract.errors import StoreFailed
from framegate.contract.ports import Clock, Log
from framegate.endpoint.thread import in_thread

WAITING_MAX = 1_024
"""Notes that wait for the disk."""
GROUP_MAX = 256
"""Notes of one write."""
NOTE_S_MAX = 10.0
"""How long a note waits; the lock of the files is waited for 5 s of it."""
CLOSE_S_MAX = 2.0


class _Waiting(NamedTuple):
    note: Mapping[str, Any]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class AuditLog:
    """Satisfies contract.access.Audit."""

    def __init__(self, folder: Path, clock: Clock, log: Log) -> None:
        self._folder, self._clock = folder, clock
        self._file = AuditFile(folder, clock, log)
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()  # the bound is checked in note()
        self._waiting = 0
        self._thread: threading.Thread | None = None

    async def note(self, entry: AuditEntry) -> None:
        """Append; durable on return. Raises StoreFailed E4306: what must be audited must then not be done."""
        if self._waiting >= WAITING_MAX:
            raise StoreFailed(f"audit log: {WAITING_MAX:,} notes wait for the disk; ask again later", code="E4306")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="edge-audit", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting += 1
        self._queue.put(_Waiting(note_of(entry, self._clock.now_ns()), loop, done))
        try:
            await asyncio.wait_for(done, NOTE_S_MAX)
        except TimeoutError:
            text = f"audit log: the disk has not answered for {NOTE_S_MAX:g} s; nothing is done that is not noted"
            raise StoreFailed(text, code="E4306") from None

    async def recent(self, limit: int, before: int = 0) -> list[Mapping[str, Any]]:
        """The newest records, newest first; `before`: only those of a lower number."""
        return await in_thread("edge-audit-read", lambda: recent(self._folder, limit, before))

    async def close(self) -> None:
        """Write what waits, and end the thread."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self._queue.put(None)
            await in_thread("edge-audit-end", lambda: thread.join(CLOSE_S_MAX))

    def _settle(self, done: asyncio.Future[None], error: StoreFailed | None) -> None:
        self._waiting -= 1
        if done.done():  # whoever waited has given up
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def _run(self) -> None:
        is_open = True
        while is_open:
            group: list[_Waiting] = []
            item = self._queue.get()
            while item is not None:
                group.append(item)
                if len(group) == GROUP_MAX:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            is_open = item is not None
            if group:
                self._commit(group)

    def _commit(self, group: list[_Waiting]) -> None:
        error: StoreFailed | None = None
        try:
            self._file.append([waiting.note for waiting in group])
        except StoreFailed as failed:
            error = failed
        except Exception as bug:  # noqa: BLE001 - the edge of a thread: silence here would hold every door
            error = StoreFailed(f"audit log: {type(bug).__name__}: {bug}; please report this", code="E4306")
        for waiting in group:
            try:
                waiting.loop.call_soon_threadsafe(self._settle, waiting.done, error)
            except RuntimeError:  # that loop is gone, and with it everyone who could care
                continue
