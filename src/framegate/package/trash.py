"""HOME/plugins/.trash: versions that were replaced, removed or have failed, by date, each with the reason beside it.

    .trash/2026-11-26/acme-meter/1.4.0-0badcafe/           the package as it was
    .trash/2026-11-26/acme-meter/1.4.0-0badcafe.reason     why, in one line

The newest VERSIONS_MAX of each plugin are kept, and what has just come, whatever the clock says of it. The store's
lock is held by whoever calls.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from framegate.endpoint.durable import give_to_owner, read_bounded, replace_durably, sync_folder
from framegate.package.names import is_id, is_plugin_name

FOLDER: Final = ".trash"
VERSIONS_MAX: Final = 5
"""Kept of each plugin."""
REASON_BYTES_MAX: Final = 2_000
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class Thrown(NamedTuple):
    """A version in the trash."""

    name: str
    id: str
    date: str
    folder: Path

    @property
    def reason(self) -> str:
        """Why it is there; "" where that was not written down."""
        try:
            return read_bounded(_reason_file(self.folder), REASON_BYTES_MAX).decode("utf-8", "replace").strip()
        except (OSError, ValueError):
            return ""


class Trash:
    """The trash of one home. Raises OSError."""

    def __init__(self, plugins: Path) -> None:
        self.folder = plugins / FOLDER

    def thrown(self, name: str = "") -> list[Thrown]:
        """What is there, of one plugin or of all, the newest date first."""
        return list(self._thrown(name))

    def find(self, name: str, id_: str) -> Path | None:
        """Where a version is; the newest place, if there are several."""
        return next((one.folder for one in self._thrown(name) if one.id == id_), None)

    def take(self, folder: Path, name: str, reason: str, date: str) -> None:
        """Move a version's folder here; the oldest of its plugin go for good."""
        for known in self._thrown(name):
            if known.id == folder.name:
                self._delete(known)
        place = self.folder / date / name
        for part in (self.folder, place.parent, place):
            if not part.is_dir():
                part.mkdir(mode=0o750)
                give_to_owner(part)
                sync_folder(part.parent)
        target = place / folder.name
        replace_durably(_reason_file(target), f"{' '.join(reason.split())}\n".encode()[:REASON_BYTES_MAX], 0o640)
        give_to_owner(_reason_file(target))
        source = folder.parent
        folder.rename(target)
        sync_folder(place)
        sync_folder(source)
        others = [known for known in self.thrown(name) if known.id != folder.name]
        for oldest in others[VERSIONS_MAX - 1 :]:
            self._delete(oldest)

    def forget(self, folder: Path) -> None:
        """A version was taken out of here: why it had come does not matter any more."""
        _reason_file(folder).unlink(missing_ok=True)
        _tidy(folder)

    def _thrown(self, name: str) -> Iterator[Thrown]:
        if not self.folder.is_dir():
            return
        for day in sorted(filter(lambda path: _DATE.fullmatch(path.name), self.folder.iterdir()), reverse=True):
            for plugin in sorted(day.iterdir()):
                if (name and plugin.name != name) or not is_plugin_name(plugin.name):
                    continue
                versions = [path for path in plugin.iterdir() if is_id(path.name) and path.is_dir()]
                for folder in sorted(versions, key=lambda path: path.stat().st_ctime_ns, reverse=True):
                    yield Thrown(plugin.name, folder.name, day.name, folder)

    def _delete(self, thrown: Thrown) -> None:
        shutil.rmtree(thrown.folder, ignore_errors=True)
        self.forget(thrown.folder)


def _tidy(folder: Path) -> None:
    """Remove the folders of a plugin and of a day that are empty now."""
    for empty in (folder.parent, folder.parent.parent):
        if not any(empty.iterdir()):
            empty.rmdir()


def _reason_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.reason")
