"""Small files that survive a power cut: written aside, synced, renamed, and the rename synced; and locks on them.

Everything here blocks, and raises OSError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

MODE = 0o640
LOCK_MODE = 0o600
LOCK_S_MAX = 5.0
"""How long a process waits for another one that has a file locked; it holds it for some milliseconds."""
_LOCK_STEP_S = 0.005


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


def give_to_owner(path: Path) -> None:
    """What root makes belongs to whoever owns the folder around it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file against other processes and threads. Raises TimeoutError after LOCK_S_MAX."""
    is_new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, LOCK_MODE)
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
