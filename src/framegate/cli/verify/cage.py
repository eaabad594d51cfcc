"""A cage for one process: a memory cgroup, version 1 or 2, where this machine lets us make one.

Limits what a process and its children may use, and tells whether the kernel had to kill for it. Page cache counts as
well and is given back under pressure, as on any small box.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Files:
    """Names that differ between the versions."""

    folder: Path
    limit: str
    peak: str
    events: str


def _candidates(name: str) -> list[_Files]:
    return [
        _Files(_ROOT / "memory" / name, "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
        _Files(_ROOT / name, "memory.max", "memory.peak", "memory.events"),
    ]


class Cage:
    """One cgroup; `open_cage` makes it."""

    def __init__(self, files: _Files) -> None:
        self._files = files

    def take(self, pid: int) -> None:
        """From now on this process is inside."""
        (self._files.folder / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def peak_bytes(self) -> int:
        """Most memory it has used; 0 where the kernel does not tell."""
        with contextlib.suppress(OSError):
            return int((self._files.folder / self._files.peak).read_text(encoding="ascii"))
        return 0

    def kills(self) -> int:
        """Processes that the kernel killed because the limit was reached."""
        found = _OOM_KILLS.search((self._files.folder / self._files.events).read_text(encoding="ascii"))
        return int(found[1]) if found else 0

    def close(self) -> None:
        """Its processes have ended. Idempotent."""
        with contextlib.suppress(OSError):
            self._files.folder.rmdir()


def open_cage(limit_bytes: int) -> Cage | None:
    """A cage with so much memory, or None where this machine or this user may have none."""
    for files in _candidates(f"edge-verify-{os.getpid()}"):
        try:
            files.folder.mkdir()
            (files.folder / files.limit).write_text(str(limit_bytes), encoding="ascii")
        except OSError:
            with contextlib.suppress(OSError):
                files.folder.rmdir()
        else:
            return Cage(files)
    return None
