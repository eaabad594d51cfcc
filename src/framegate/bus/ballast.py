"""Ballast: a file that holds disk space back, given up when the disk is full so that the log can still write what
matters.

Cursors, gaps and command outcomes are small; they find room where the ballast was (I8). It is taken up again when
there is room.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class Ballast:
    """The file beside the store. Never raises: without room there is no ballast, and that is no fault."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    @property
    def is_held(self) -> bool:
        return self._path.exists()

    def take(self, bytes_free: int, reserve: int) -> None:
        """Hold the space back if there is plenty."""
        if self.is_held or self._size == 0 or bytes_free < reserve + self._size:
            return
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError:  # the room went elsewhere meanwhile, or the file system cannot reserve
            self.give_up()

    def give_up(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
