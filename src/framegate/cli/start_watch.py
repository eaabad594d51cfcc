"""Says where a start stands that does not end: in a plugin whose import waits, or a disk that does not answer."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from framegate.contract.ports import Log

FIRST_S = 20.0
"""A start on a slow machine, with many tags and plugins, takes less."""
AGAIN_S = 60.0


@contextlib.contextmanager
def start_watched(log: Log, first_s: float = FIRST_S) -> Iterator[None]:
    """While inside: after `first_s`, and every AGAIN_S then, say the line that this thread stands in."""
    starter, done, began = threading.get_ident(), threading.Event(), time.monotonic()

    def watch() -> None:
        wait_s = first_s
        while not done.wait(wait_s):
            frame = sys._current_frames().get(starter)  # noqa: SLF001 - documented; there is no other name
            at = "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
            log.warning("gateway_start_slow", after_s=round(time.monotonic() - began, 1), at=at)
            wait_s = AGAIN_S

    watcher = threading.Thread(target=watch, name="edge-start", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
