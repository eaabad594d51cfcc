"""A package that comes in: copied to where nobody else writes, its manifest read, what it holds compared with that.

Its signature is checked before anything is unpacked: a stranger's files never reach the disk. What is installed of it
is store.py's business.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from framegate.contract.errors import Misconfigured
from framegate.endpoint.durable import why
from framegate.package.archive import Archive, copy_bounded
from framegate.package.manifest import MANIFEST_BYTES_MAX, PACKAGE_MANIFEST_NAME, SIGNATURE_NAME
from framegate.package.names import PACKAGE_SUFFIX
from framegate.package.sealed import sealed_file
from framegate.package.signature import ENVELOPE_BYTES_MAX
from framegate.package.verified import Judge, Verified, compare


def signed_manifest(archive: Archive, place: Path, judge: Judge) -> Verified:
    """What a package's manifest says, and that the package holds just the files that it lists."""
    text = archive.read(PACKAGE_MANIFEST_NAME, MANIFEST_BYTES_MAX)
    if SIGNATURE_NAME not in archive.sizes:
        unsigned = f"{place}: is not signed; have it published with `edge publish --sign KEY`"
        raise Misconfigured(unsigned, code="E4604")
    envelope = archive.read(SIGNATURE_NAME, ENVELOPE_BYTES_MAX)
    found = judge.verify_manifest(text, envelope, place / PACKAGE_MANIFEST_NAME, archive.read)
    compare(archive.sizes, found.manifest, str(place))
    return found


def copy_package(source: Path | BinaryIO, target: BinaryIO) -> None:
    """Copy a package to where nobody else writes. Raises Misconfigured E4600 - unreadable; E4602 - too large."""
    if not isinstance(source, Path):
        copy_bounded(source, target)
        return
    try:
        with open(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - see stage
            copy_bounded(file, target)
    except OSError as error:
        raise Misconfigured(
            f"{source}: cannot be read ({why(error)}); name a package, NAME-VERSION.edge", code="E4600"
        ) from error


def examine(path: Path, judge: Judge) -> Verified:
    """Verify a package, a plugin's folder, or a file beside its manifest, every byte; nothing is kept.

    raises  Misconfigured E46.., E12.. - it does not hold
    """
    if path.is_dir():
        return judge.verify_folder(path)
    if (path.parent / PACKAGE_MANIFEST_NAME).is_file() and path.suffix != PACKAGE_SUFFIX:
        found = judge.verify_folder(path.parent, is_whole=False)
        os.close(sealed_file(found.manifest, path.name).fd)
        return found
    with tempfile.TemporaryDirectory(prefix="edge-verify-") as folder:
        unpacked = Path(folder) / "files"
        unpacked.mkdir()
        with (Path(folder) / "package").open("w+b") as copy:
            copy_package(path, copy)
            archive = Archive(copy)
            found = signed_manifest(archive, path, judge)
            compare(archive.unpack(unpacked), found.manifest, str(path))
        return found
