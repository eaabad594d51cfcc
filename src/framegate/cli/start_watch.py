"""Says where a start stands that does not end: in a plugin whose import waits, or a disk that does not answer."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

from framegate.cli.talk import told_meanwhile
from framegate.contract.ports import Log

FIRST_S = 20.0
"""A start on a slow machine, with many tags and plugins, takes less."""
AGAIN_S = 60.0


@contextlib.contextmanager
def start_watched(log: Log, first_s: float = FIRST_S) -> Iterator[None]:
    """While inside: after `first_s`, and every AGAIN_S then, say the line that this thread stands in."""
    starter = threading.get_ident()

    def tell(after_s: float) -> None:
        frame = sys._current_frames().get(starter)  # noqa: SLF001 - documented; there is no other name
        at = "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
        log.warning("gateway_start_slow", after_s=round(after_s, 1), at=at)

    with told_meanwhile(tell, first_s, AGAIN_S):
        yield
