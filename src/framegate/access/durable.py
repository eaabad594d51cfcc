"""Small files for the gateway's user only: replaced whole, known by their signature. Locks are in endpoint/durable.py.

A command line run by root leaves files to whoever owns the home, so that the gateway can read them. Everything here
blocks; errors are OSError.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TypeAlias

from framegate.endpoint.durable import give_to_owner, sync_folder

MODE = 0o600
FOLDER_MODE = 0o700

Signature: TypeAlias = tuple[int, int, int, int]


def signature_of(path: Path) -> Signature | None:
    """What tells one state of a file from another, in one system call; None: there is no such file."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino


def make_private_folder(folder: Path) -> None:
    """Make a folder for this user only, beside what is there."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=FOLDER_MODE)
        give_to_owner(folder)


def replace_private(path: Path, data: bytes, *, is_synced: bool = True) -> None:
    """Replace a file whole: written aside, synced, renamed, and the rename synced.

    is_synced  False: a power cut may bring the old content back
    """
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    with open(handle, "wb") as file:  # noqa: PTH123 - the handle was opened with its mode
        file.write(data)
        file.flush()
        if is_synced:
            os.fsync(file.fileno())
    give_to_owner(aside)
    aside.replace(path)
    if is_synced:
        sync_folder(path.parent)
