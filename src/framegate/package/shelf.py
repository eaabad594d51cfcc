"""Folders of the plugin store, and how they change: by one rename at a time, synced, under a lock.

Which versions are there and which one is active is read from the folders alone; whether they hold is verified.py's
business, what may follow what store.py's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from framegate.contract.errors import Busy, Misconfigured, StoreFailed
from framegate.contract.ports import Clock
from framegate.endpoint.durable import give_to_owner, locked, sync_folder, why
from framegate.package.names import is_id, is_plugin_name

STORE, ACTIVE, STAGING, LOCK = ".store", ".active", ".staging", ".lock"
FOLDER_MODE: Final = 0o750
PLUGINS_MAX: Final = 1_000
LEFT_S_MAX: Final = 86_400.0
"""After which a file that a dead process has left in .staging is deleted, such as half of an upload."""
RETRY_S: Final = 1.0


class Shelf:
    """The folders of one home. folder: HOME/plugins."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self._clock = clock

    def home(self, name: str, id_: str) -> Path:
        """Where a version stays."""
        return self.folder / STORE / name / id_

    def names(self) -> list[str]:
        """Names of the plugins that have an active version."""
        try:
            return sorted(filter(is_plugin_name, _names_in(self.folder / ACTIVE)))[:PLUGINS_MAX]
        except OSError:
            return []

    def active_id(self, name: str) -> str | None:
        """Where the link points, if that is a version's folder of this plugin; nothing else is followed."""
        try:
            target = str((self.folder / ACTIVE / name).readlink()) if is_plugin_name(name) else ""
        except OSError:
            return None
        id_ = target.removeprefix(f"../{STORE}/{name}/")
        return id_ if id_ != target and is_id(id_) else None

    def stored(self, name: str) -> list[str]:
        """Ids of the versions that lie here, active or not."""
        try:
            return sorted(filter(is_id, _names_in(self.folder / STORE / name))) if is_plugin_name(name) else []
        except OSError:
            return []

    def link(self, name: str, id_: str) -> None:
        """Make a version the active one, by one rename."""
        links = self.folder / ACTIVE
        self._make(links)
        aside = links / f".{name}.new"
        aside.unlink(missing_ok=True)
        aside.symlink_to(f"../{STORE}/{name}/{id_}")
        give_to_owner(aside)
        aside.rename(links / name)
        sync_folder(links)

    def unlink(self, name: str) -> None:
        """Have no version active."""
        (self.folder / ACTIVE / name).unlink()
        sync_folder(self.folder / ACTIVE)

    def put(self, folder: Path, home: Path) -> None:
        """Move a version's folder to where it stays."""
        self._make(home.parent)
        for path in (folder, *folder.rglob("*")):
            give_to_owner(path)
        folder.rename(home)
        sync_folder(home.parent)
        sync_folder(folder.parent)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder of our own for one package; whatever it holds is deleted in the end.

        It is locked while somebody uses it, so that what a dead process has left is told from what a live one has.
        """
        with self.changing():
            staging = self.folder / STAGING
            self._make(staging)
            self._sweep(staging)
            folder = Path(tempfile.mkdtemp(dir=staging))
            give_to_owner(folder)
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            with self._on_disk():
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)

    def _sweep(self, staging: Path) -> None:
        """Delete what nobody uses: folders that are not locked, and files of a day that has passed."""
        now_s = self._clock.now_ns() / 1e9
        for left in staging.iterdir():
            with contextlib.suppress(FileNotFoundError):  # whoever used it tidies up meanwhile, without the lock
                if left.is_dir() and not left.is_symlink():
                    _remove_unused(left)
                elif abs(now_s - left.stat(follow_symlinks=False).st_mtime) > LEFT_S_MAX:
                    left.unlink()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Alone with the store.

        raises  Busy E4631 - another process changes it; StoreFailed E4624 - the disk does not take it
        """
        with self._on_disk():
            self._make(self.folder)
            try:
                with locked(self.folder / LOCK):
                    yield
            except TimeoutError as error:
                text = f"{self.folder}: another process is changing it ({error}); try again"
                raise Busy(text, wait_s=RETRY_S, code="E4631") from error

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise
        except OSError as error:
            text = (
                f"{self.folder}: cannot be changed ({why(error)}); what was active is active, correct space or rights"
            )
            raise StoreFailed(text, code="E4624") from error

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            for path in (*reversed(folder.relative_to(self.folder).parents), Path(folder.relative_to(self.folder))):
                made = self.folder / path
                if not made.is_dir():
                    made.mkdir(mode=FOLDER_MODE, parents=True)
                    give_to_owner(made)
                    sync_folder(made.parent)


def _names_in(folder: Path) -> Iterator[str]:
    return (path.name for path in folder.iterdir())


def _remove_unused(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(handle)


def not_installed(name: str, version: str) -> Misconfigured:
    what = f"plugin {name:.64} {version:.64}".rstrip()
    return Misconfigured(f"{what}: is not installed, or damaged; `edge plugin ls` lists what is", code="E4621")
