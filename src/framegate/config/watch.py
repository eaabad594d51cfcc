"""A watch over the tables, and over scripts of rules: says that something has changed, never what.

Of the tables' folder the kernel tells (endpoint/folder_watch.py); scripts are only looked at, every few seconds.
Whoever is told reads the tables and compares.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from framegate.config.schema import TABLES
from framegate.endpoint.folder_watch import FolderWatch

SCRIPT_SUFFIXES = frozenset((".lua", ".wasm"))
SCRIPTS_MAX = 1_000
"""Scripts that are looked at."""
Signature: TypeAlias = tuple[tuple[int, int, int] | None, ...]


def scripts_in(folder: Path) -> Signature:
    """What tells one state of a folder's scripts from another; () where there are none."""
    try:
        files = sorted(islice((path for path in folder.rglob("*") if path.suffix in SCRIPT_SUFFIXES), SCRIPTS_MAX))
    except OSError:
        return ()
    return tuple(map(_signature_of, files))


class Watch:
    """Watches one folder, and the scripts in another, from start() to stop().

    changed  called in the watch's thread; may be told of a change that is none
    polling  called once, with the reason, when the kernel cannot tell
    """

    def __init__(
        self, folder: Path, scripts: Path, changed: Callable[[], None], polling: Callable[[str], None]
    ) -> None:
        self._folder, self._scripts, self._changed = folder, scripts, changed
        self._seen: Signature = ()
        self._watch = FolderWatch("edge-watch", (folder,), self._look, polling)

    def start(self) -> None:
        """What changes from here on is told."""
        self._seen = self._signature()
        self._watch.start()

    def stop(self) -> None:
        """Blocking, for a moment."""
        self._watch.stop()

    def _look(self) -> None:
        seen, self._seen = self._seen, self._signature()
        if seen != self._seen:
            self._changed()

    def _signature(self) -> Signature:
        """What tells one state of the files from another: inode, size and time of change."""
        tables = tuple(_signature_of(self._folder / f"{table}.yml") for table in TABLES)
        return tables + scripts_in(self._scripts)


def _signature_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
