"""A watch over folders: says that something may have changed in them, never what. Whoever is told looks, and compares.

The kernel tells (inotify, through watchfiles), in a thread of its own; where its limit of watches is used up, folders
are looked at once a second, and that is said. Every few seconds they are looked at anyway: a folder on a network sends
no events. One that was replaced, or comes later, is watched from the next look on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import watchfiles

STEP_MS = 250
"""Quiet time after a change before it is told: an editor writes in several steps. Also how often the thread wakes."""
DEBOUNCE_MS = 1_000
"""A change is told after so long even when changes go on."""
LOOK_S = 5.0
POLL_S = 1.0
STOP_S = 2.0
_Identity: TypeAlias = tuple[int, int]


class FolderWatch:
    """Watches folders, without what is below them, from start() to stop().

    name     of its thread
    look     called in that thread, first of all and whenever something may have changed
    polling  called once, with the reason, when the kernel cannot tell
    """

    def __init__(
        self, name: str, folders: Sequence[Path], look: Callable[[], None], polling: Callable[[str], None]
    ) -> None:
        self._folders, self._look, self._polling = folders, look, polling
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocking, at most STOP_S."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            there = self._there()
            self._look()
            if not there:  # they may come yet
                self._stop.wait(POLL_S)
                continue
            try:
                self._listen(there)
            except (OSError, RuntimeError) as error:  # no watches are left
                self._polling(str(error))
                while not self._stop.wait(POLL_S):
                    self._look()

    def _listen(self, there: dict[Path, _Identity]) -> None:
        """Until stop(), or until a folder came, went or was replaced."""
        events = watchfiles.watch(
            *there,
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
            if self._there() != there:
                return
            self._look()

    def _there(self) -> dict[Path, _Identity]:
        """The folders that are there."""
        found: dict[Path, _Identity] = {}
        for folder in self._folders:
            try:
                status = folder.stat()
            except OSError:
                continue
            if folder.is_dir():
                found[folder] = status.st_dev, status.st_ino
        return found
