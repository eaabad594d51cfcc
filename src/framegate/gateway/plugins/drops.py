"""The watched folders HOME/plugins/{drivers,connectors,bridges,rules}: a package that is dropped there is taken.

What asks no more than the active version comes into force, and the file goes: the store keeps its content. What asks
more, as every plugin does that is new, stays, and waits for somebody to accept that. One that is refused is
renamed to NAME.refused, with the reason in NAME.refused.txt beside it. The very package that is active goes, and
that is told.

A file is taken once it has not changed for a moment: copying one takes time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from framegate.contract.access import Audit, AuditEntry
from framegate.contract.errors import Busy, GatewayError, StoreFailed
from framegate.contract.ports import Log
from framegate.endpoint.folder_watch import FolderWatch
from framegate.endpoint.thread import in_thread
from framegate.gateway.home import Home
from framegate.observe.plugin_face import PluginFace

FOLDERS = ("drivers", "connectors", "bridges", "rules")
SUFFIX = ".edge"
REFUSED = ".refused"
BY = "drop"
FOLDER_MODE = 0o750
FILES_MAX = 100
"""Looked at per folder."""
QUIET_S = 0.5
STOP_S = 2.0
REASON_CHARACTERS_MAX = 2_000


class _Seen(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    size: int
    changed_ns: int


@contextlib.asynccontextmanager
async def taking_drops(face: PluginFace, home: Home, log: Log, audit: Audit | None) -> AsyncIterator[None]:
    """Inside, dropped packages are taken."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    taker = _Taker(face, home, log, audit)

    async def follow() -> None:
        while True:
            await told.wait()
            told.clear()
            await taker.take_all()

    def polling(reason: str) -> None:
        loop.call_soon_threadsafe(lambda: log.warning("plugin_drops_polling", reason=reason))

    def changed() -> None:
        loop.call_soon_threadsafe(told.set)

    folders = [home.plugins / name for name in FOLDERS]
    with contextlib.suppress(OSError):  # a home that cannot be written has other troubles; what is there is watched
        for folder in folders:
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    watch = FolderWatch("edge-drops", folders, changed, polling)
    watch.start()
    told.set()  # some may lie there already
    follower = asyncio.create_task(follow(), name="plugin drops")
    try:
        yield
    finally:
        await asyncio.to_thread(watch.stop)
        follower.cancel()
        await asyncio.wait((follower,), timeout=STOP_S)


class _Taker:
    """Takes packages out of the folders, one after another."""

    def __init__(self, face: PluginFace, home: Home, log: Log, audit: Audit | None) -> None:
        self._face, self._home, self._log, self._audit = face, home, log, audit
        self._left: dict[Path, _Seen] = {}  # could not be taken as they are: until they change
        self._put_off: dict[Path, _Seen] = {}  # was told

    async def take_all(self) -> None:
        """Every package that has come to rest; returns when none is left that can be taken now."""
        seen = await in_thread("edge-drops", self._look)
        while seen:
            await asyncio.sleep(QUIET_S)
            now = await in_thread("edge-drops", self._look)
            for file, state in now.items():
                if seen.get(file) == state:
                    await self._take(file, state)
            seen = {file: state for file, state in now.items() if file not in self._left and seen.get(file) != state}

    def _look(self) -> dict[Path, _Seen]:
        found = dict(_packages(self._home.plugins))
        self._left = {file: state for file, state in self._left.items() if found.get(file) == state}
        return {file: state for file, state in found.items() if file not in self._left}

    async def _take(self, file: Path, state: _Seen) -> None:
        self._left[file] = state  # whatever becomes of it, it is not tried again as it is
        try:
            await self._note(file)
            staged = await self._face.stage(file, BY)
            if staged.asks:
                return  # it waits, and the desk tells of it
            await self._face.activate(staged.name, staged.accept, BY)
            await self._gone(file, state)
        except (Busy, StoreFailed) as error:
            self._left.pop(file, None)  # its time will come: the watch looks again
            if self._put_off.get(file) != state:
                self._put_off = {file: state}
                self._log.warning("plugin_drop_put_off", file=file.name, reason=str(error))
        except GatewayError as error:
            if error.stable_code == "E4662":
                self._log.info("plugin_drop_active_already", file=file.name)
                await self._gone(file, state)
                return
            self._log.error("plugin_drop_refused", file=file.name, code=error.stable_code, reason=str(error))
            await in_thread("edge-drops", partial(_set_aside, file, state, str(error)))

    @staticmethod
    async def _gone(file: Path, state: _Seen) -> None:
        await in_thread("edge-drops", partial(_delete, file, state))

    async def _note(self, file: Path) -> None:
        if self._audit is not None:
            details = {"folder": file.parent.name}
            await self._audit.note(AuditEntry(BY, "plugins.install", file.name, "begun", details=details))


def _packages(plugins: Path) -> Iterator[tuple[Path, _Seen]]:
    """Regular files named *.edge in the folders; links are not followed."""
    for name in FOLDERS:
        try:
            files = sorted(islice((plugins / name).iterdir(), FILES_MAX))
        except OSError:
            continue
        for file in files:
            if file.suffix == SUFFIX and file.is_file() and not file.is_symlink():
                with contextlib.suppress(OSError):
                    yield file, _seen(file)


def _seen(file: Path) -> _Seen:
    status = file.stat()
    return _Seen(status.st_ino, status.st_size, status.st_mtime_ns)


def _delete(file: Path, state: _Seen) -> None:
    """It was taken; another one of its name that has come meanwhile stays, and is looked at."""
    with contextlib.suppress(OSError):
        if _seen(file) == state:
            file.unlink()


def _set_aside(file: Path, state: _Seen, reason: str) -> None:
    """So that it is not tried at every start; whoever dropped it finds the reason beside it. As _delete."""
    with contextlib.suppress(OSError):
        if _seen(file) != state:
            return
        aside = file.with_name(file.name + REFUSED)
        file.replace(aside)
        aside.with_name(f"{aside.name}.txt").write_text(f"{reason[:REASON_CHARACTERS_MAX]}\n", encoding="utf-8")
