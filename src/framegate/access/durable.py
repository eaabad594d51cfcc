"""Small files for the gateway's user only: replaced whole, locked between processes, known by their signature.

A command line run by root leaves files to whoever owns the home, so that the gateway can read them. Everything here
blocks; errors are OSError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from framegate.endpoint.durable import sync_folder

MODE = 0o600
FOLDER_MODE = 0o700
LOCK_S_MAX = 5.0
"""How long a process waits for another one that has a file locked; it holds it for some milliseconds."""
_LOCK_STEP_S = 0.005

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


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """A file's bytes; raises ValueError where there are more than it may have, or it is a pipe or device."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:  # noqa: PTH123 - opened so that a pipe does not hold us up
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise ValueError(f"it is larger than {bytes_max:,} bytes")
    return data


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


def give_to_owner(path: Path) -> None:
    """What root makes belongs to whoever owns the folder around it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file against other processes and threads. Raises TimeoutError after LOCK_S_MAX."""
    is_new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
    try:
        if is_new:
            give_to_owner(path)
        deadline = time.monotonic() + LOCK_S_MAX
        while not _try_lock(handle):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has held {path.name} for {LOCK_S_MAX:g} s")
            time.sleep(_LOCK_STEP_S)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def why(error: Exception) -> str:
    """The reason in an OSError or ValueError, for a text."""
    return (getattr(error, "strerror", None) or str(error)).lower()
