"""Small files that survive a power cut: written aside, synced, renamed, and the rename synced.

Everything here blocks, and raises OSError.
"""

from __future__ import annotations

import os
from pathlib import Path

MODE = 0o640


def replace_durably(path: Path, data: bytes, mode: int | None = None) -> None:
    """Replace a file whole; whoever reads it meanwhile gets the old content or the new.

    mode  None: that of the file that is replaced, else MODE
    """
    if mode is None:
        mode = path.stat().st_mode & 0o7777 if path.exists() else MODE
    aside = path.with_name(f".{path.name}.new")
    try:
        write_synced(aside, data, mode)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_synced(path: Path, data: bytes, mode: int = MODE) -> None:
    """Write a file; its content is on the disk on return, its name after `sync_folder`."""
    with path.open("wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """New, renamed and deleted names of a folder survive a power cut from now on."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
