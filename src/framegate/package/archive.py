"""A package file: which of its entries may be there, and unpacking them into a folder that is ours.

A package comes from strangers. Nothing is written before every name was looked at, nothing outside the folder, and
never more than the bounds below, whatever its headers say. Links and devices do not exist here: every entry becomes a
new regular file. Packages within a package stay files. Signatures are signature.py's business.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from framegate.contract.errors import Misconfigured, StoreFailed
from framegate.contract.plugin import PackagedFile
from framegate.endpoint.durable import sync_folder
from framegate.package.names import clash_of, name_flaw
from framegate.package.zip_entries import CHUNK_BYTES, Entry, contents, entries_of

PACKAGE_BYTES_MAX: Final = 64 << 20
"""Of the file."""
UNPACKED_BYTES_MAX: Final = 64 << 20
"""Of all files of it together."""
RATIO_MAX: Final = 100
"""Times that a file may be larger than it is packed; what has less than RATIO_FREE_BYTES is not looked at."""
RATIO_FREE_BYTES: Final = 64 * 1024
FILE_MODE, FOLDER_MODE = 0o640, 0o750


class Archive:
    """An open package.

    raises Misconfigured E4600, E4603 - as zip_entries.py; E4601 - a name or kind of entry that may not be;
           E4602 - beyond a bound
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._entries: dict[str, Entry] = {}
        if file.seek(0, os.SEEK_END) > PACKAGE_BYTES_MAX:
            raise Misconfigured(f"the package is larger than {PACKAGE_BYTES_MAX:,} bytes", code="E4602")
        for entry in entries_of(file):
            name = _name_of(entry)
            if entry.is_folder:
                continue
            if name in self._entries:
                raise _unsafe(f"{name!r} is there twice")
            self._entries[name] = entry
        clash = clash_of(self._entries)
        if clash:
            raise _unsafe(clash)
        _bound(self._entries)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file, by name, as announced."""
        return {name: entry.size for name, entry in self._entries.items()}

    def read(self, name: str, bytes_max: int) -> bytes:
        """One file as a whole. Raises Misconfigured E4615 - there is none; E4602 - it is larger; E4600 - damaged."""
        entry = self._entries.get(name)
        if entry is None:
            raise Misconfigured(f"the package holds no {name}; have it made by `edge publish`", code="E4615")
        if entry.size > bytes_max:
            text = f"{name} of the package has {entry.size:,} bytes; {bytes_max:,} are allowed"
            raise Misconfigured(text, code="E4602")
        return b"".join(contents(self._file, entry))

    def unpack(self, folder: Path) -> Mapping[str, PackagedFile]:
        """Write every file below a folder, durably; what was written, by name.

        folder   exists, is empty and private
        raises   Misconfigured E4600 - an entry is damaged; StoreFailed E4624 - the disk does not take it
        """
        try:
            written = {name: self._write(folder, name, entry) for name, entry in self._entries.items()}
            for place in {folder / parent for name in written for parent in PurePosixPath(name).parents}:
                sync_folder(place)
        except OSError as error:
            reason = error.strerror or str(error)
            text = f"folder {folder}: cannot be written ({reason}); nothing was installed, correct space or rights"
            raise StoreFailed(text, code="E4624") from error
        return written

    def _write(self, folder: Path, name: str, entry: Entry) -> PackagedFile:
        path = folder / name
        for parent in reversed(path.parents[: name.count("/")]):
            with contextlib.suppress(FileExistsError):
                parent.mkdir(mode=FOLDER_MODE)
        digest, size = hashlib.sha256(), 0
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        with open(handle, "wb", buffering=0) as file:  # noqa: PTH123 - opened so that it is new and no link
            for piece in contents(self._file, entry):
                digest.update(piece)
                size += len(piece)
                _write_all(file, piece)
            os.fsync(file.fileno())
        return PackagedFile(digest.hexdigest(), size)


def copy_bounded(source: BinaryIO, target: BinaryIO, bytes_max: int = PACKAGE_BYTES_MAX) -> None:
    """Copy a stream that may be endless. Raises Misconfigured E4602 - it holds more."""
    left = bytes_max
    while piece := source.read(min(CHUNK_BYTES, left + 1)):
        left -= len(piece)
        if left < 0:
            raise Misconfigured(f"the package is larger than {bytes_max:,} bytes", code="E4602")
        target.write(piece)
    target.flush()


def _write_all(file: BinaryIO, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[file.write(view) :]


def _name_of(entry: Entry) -> str:
    try:
        name = entry.name.decode("ascii")
    except UnicodeDecodeError:
        raise _unsafe(f"{entry.name[:64]!r} is no name of ASCII letters") from None
    flaw = name_flaw(name.removesuffix("/"))
    if flaw:
        raise _unsafe(f"{name[:64]!r} {flaw}")
    if not entry.is_plain:
        raise _unsafe(f"{name!r} is a link, a device or another thing that is no file (type {entry.kind:#o})")
    if entry.is_folder and entry.size:
        raise _unsafe(f"{name!r} is a folder with a content")
    return name


def _bound(entries: Mapping[str, Entry]) -> None:
    total = sum(entry.size for entry in entries.values())
    if total > UNPACKED_BYTES_MAX:
        text = f"the package unpacks to {total:,} bytes; {UNPACKED_BYTES_MAX:,} are allowed"
        raise Misconfigured(text, code="E4602")
    for name, entry in entries.items():
        if entry.size > max(RATIO_FREE_BYTES, RATIO_MAX * entry.packed):
            text = f"{name} grows from {entry.packed:,} to {entry.size:,} bytes; {RATIO_MAX} times is allowed"
            raise Misconfigured(text, code="E4602")


def _unsafe(reason: str) -> Misconfigured:
    text = f"the package is not safe to unpack: {reason}; nothing was written, ask whoever made it"
    return Misconfigured(text, code="E4601")
