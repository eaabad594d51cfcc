"""Who listens on a TCP port of this machine, as far as this user may know: for the text of one error.

Source: proc(5), /proc/net/tcp and /proc/PID/fd.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN as /proc/net/tcp prints it
PROCESSES_MAX = 4096


def holder_of(port: int, proc: Path = Path("/proc")) -> str:
    """For people: "node_exporter (pid 812)"; "" when it cannot be known."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port, proc)}
    if not wanted:
        return ""
    folders = sorted(folder for folder in proc.iterdir() if folder.name.isdecimal())
    for folder in folders[:PROCESSES_MAX]:
        with contextlib.suppress(OSError):  # the process has ended, or belongs to another user
            if any(str(link.readlink()) in wanted for link in (folder / "fd").iterdir()):
                return f"{(folder / 'comm').read_text().strip()} (pid {folder.name})"
    return ""


def _listening_inodes(port: int, proc: Path) -> Iterator[str]:
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                    yield columns[9]
