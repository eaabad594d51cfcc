"""A watch over the folder of the tables, and over scripts of rules: says that something has changed, never what.

The kernel tells (inotify, through watchfiles), in a thread of its own; where its limit of watches is used up, files are
looked at once a second, and that is said. Every few seconds they are looked at anyway: a folder that was replaced as a
whole, or lies on a network, sends no events. Scripts are only looked at. Whoever is told reads the tables and compares.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import watchfiles

from framegate.config.schema import TABLES

STEP_MS = 50
"""Quiet time after a change before it is told: an editor writes in several steps."""
DEBOUNCE_MS = 200
"""A change is told after so long even when changes go on."""
LOOK_S = 5.0
POLL_S = 1.0
STOP_S = 2.0
SCRIPTS_MAX = 1_000
"""Scripts that are looked at."""
Signature: TypeAlias = tuple[tuple[int, int, int] | None, ...]


def scripts_in(folder: Path) -> Signature:
    """What tells one state of a folder's scripts from another; () where there are none."""
    try:
        files = sorted(islice(folder.rglob("*.lua"), SCRIPTS_MAX))
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
        self._folder, self._scripts = folder, scripts
        self._changed, self._polling = changed, polling
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edge-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocking, at most STOP_S."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        seen = self._signature()
        while not self._stop.is_set():
            try:
                seen = self._listen(seen)
            except (OSError, RuntimeError) as error:
                # No watches are left, or there is no such folder: from here on it is looked at.
                self._polling(str(error))
                seen = self._poll(seen)

    def _listen(self, seen: Signature) -> Signature:
        events = watchfiles.watch(
            self._folder,
            watch_filter=None,
            debounce=DEBOUNCE_MS,
            step=STEP_MS,
            stop_event=self._stop,
            rust_timeout=int(LOOK_S * 1000),
            yield_on_timeout=True,
            recursive=False,
            raise_interrupt=False,
        )
        for _ in events:
            seen = self._look(seen)
        return seen

    def _poll(self, seen: Signature) -> Signature:
        """Look once a second, until stop()."""
        while not self._stop.wait(POLL_S):
            seen = self._look(seen)
        return seen

    def _look(self, seen: Signature) -> Signature:
        now = self._signature()
        if now != seen:
            self._changed()
        return now

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
