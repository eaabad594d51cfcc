"""A small file system of its own: an ext4 image on a loop device, mounted where the gateway keeps its data.

It can be filled without harm to the machine, and cut off as by a loss of power: EXT4_IOC_SHUTDOWN without a flush of
the journal drops everything that was not synced. What it cannot show is a disk that lies about a flush, or one that
tears or reorders sectors. Needs root, a loop device and mkfs.ext4; `why_not` says which is missing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), linux/fs/ext4/ext4.h
EXT4_GOING_FLAGS_NOLOGFLUSH = 2
COMMAND_S_MAX = 30.0
LET_GO_S_MAX = 10.0
RETRY_S = 0.02
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Volume:
    """One image; `folder` is where it is mounted."""

    def __init__(self, image: Path, folder: Path, mib: int) -> None:
        self.folder = folder
        self._image, self._mib = image, mib
        self._is_mounted = False

    @staticmethod
    def why_not(scratch: Path) -> str:
        """Why this machine cannot have one; "" if it can."""
        if os.geteuid() != 0:
            return "only root may mount a file system; run it as root"
        missing = [name for name in ("mkfs.ext4", "mount", "umount") if shutil.which(name, path=_PATH) is None]
        if missing:
            return f"{', '.join(missing)} is not installed"
        trial = Volume(scratch / "trial.img", scratch / "trial", 16)
        try:
            trial.make()
            trial.mount()
        except (OSError, subprocess.SubprocessError) as error:
            return f"no file system can be mounted here: {error}"
        finally:
            trial.remove()
        return ""

    def make(self) -> None:
        """An empty file system, not yet mounted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(self._mib << 20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))

    def mount(self) -> None:
        """Attach it; after a cut the journal is replayed, as at the next start of a machine."""
        _run("mount", "-t", "ext4", "-o", "loop", str(self._image), str(self.folder))
        self._is_mounted = True

    def cut(self) -> None:
        """Loss of power: nothing that was not synced is there any more, and every call from now on fails."""
        file = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(file, EXT4_IOC_SHUTDOWN, struct.pack("<I", EXT4_GOING_FLAGS_NOLOGFLUSH))
        finally:
            os.close(file)

    async def unmount(self) -> None:
        """Detach it; waits for processes that are about to let go of it."""
        deadline = time.monotonic() + LET_GO_S_MAX
        while True:
            try:
                _run("umount", str(self.folder))
            except subprocess.SubprocessError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                self._is_mounted = False
                return

    def remove(self) -> None:
        """Whatever state it is in: nothing of it stays behind."""
        if self._is_mounted:
            subprocess.run([_program("umount"), "--lazy", str(self.folder)], check=False, timeout=COMMAND_S_MAX)
            self._is_mounted = False
        self._image.unlink(missing_ok=True)


def _run(*command: str) -> None:
    program, *arguments = command
    subprocess.run([_program(program), *arguments], check=True, capture_output=True, timeout=COMMAND_S_MAX)


def _program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise OSError(f"{name} is not installed")
    return found
