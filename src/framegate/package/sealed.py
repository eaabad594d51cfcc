"""Files of a plugin as they are loaded: copies in memory that nobody can change, whose bytes are the verified ones.

A file could be exchanged between the check and the load. So it is copied into a memfd, the memfd is sealed, and what
is hashed are the sealed bytes: /proc/self/fd/N is then loaded, never the file. Modules of a Python plugin become a ZIP
file in one memfd, read by `zipimport`; extension modules are not loaded that way and therefore not at all.

Source: memfd_create(2), fcntl(2) "File Sealing"; Python's library reference, zipimport.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import mmap
import os
import zipfile
from pathlib import Path

from framegate.contract.errors import Misconfigured, StoreFailed
from framegate.contract.plugin import Artifact, Manifest, PackagedFile
from framegate.package.manifest import altered

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
CHUNK_BYTES = 1 << 20
_CODE_NAME = "python.zip"
_DATED = (1980, 1, 1, 0, 0, 0)


def sealed_file(manifest: Manifest, name: str) -> Artifact:
    """One file of a package, verified once more.

    raises  Misconfigured E4613 - it is not what the manifest lists; E4614 - it lists none; E4615 - it is gone
            StoreFailed E4624 - no memory for it
    """
    listed = manifest.files.get(name)
    if listed is None:
        text = f"plugin {manifest.name}: {name} is not listed in its signed manifest; publish it again"
        raise Misconfigured(text, code="E4614")
    path = manifest.folder / name
    try:
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        text = f"{path}: cannot be read ({error.strerror}); install plugin {manifest.name} again"
        raise Misconfigured(text, code="E4615") from error
    try:
        return _sealed(name, path, source, listed)
    finally:
        os.close(source)


def sealed_code(manifest: Manifest) -> Artifact:
    """The modules and data of a Python plugin as one ZIP file for sys.path: /proc/self/fd/N, with N of the artifact.

    raises  as sealed_file
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        prefix = prefix_of(manifest)
        folders: set[str] = set()
        for name in sorted(manifest.files):
            artifact = sealed_file(manifest, name)
            try:
                data = os.pread(artifact.fd, artifact.size, 0)
            finally:
                os.close(artifact.fd)
            path = f"{prefix}{name}"
            for parent in list(Path(path).parents)[-2::-1]:
                if f"{parent}/" not in folders:  # zipimport knows a package without __init__.py by its folder's entry
                    folders.add(f"{parent}/")
                    archive.writestr(zipfile.ZipInfo(f"{parent}/", _DATED), b"")
            archive.writestr(zipfile.ZipInfo(path, _DATED), data)
    return sealed_bytes(_CODE_NAME, buffer.getvalue())


def sealed_bytes(name: str, data: bytes) -> Artifact:
    """These bytes as a file of that name; raises StoreFailed E4624 - no memory for it."""
    handle = _memory(name)
    try:
        _write(handle, data)
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, SEALS)
    except OSError as error:
        os.close(handle)
        raise _no_memory(name, error) from error
    return Artifact(name, handle, hashlib.sha256(data).hexdigest(), len(data))


def prefix_of(manifest: Manifest) -> str:
    """A package whose modules lie beside its manifest is one Python package, named by its entries."""
    for role in manifest.roles.values():
        top = role.entry.partition(":")[0].partition(".")[0]
        if top and f"{top}.py" not in manifest.files and not any(name.startswith(f"{top}/") for name in manifest.files):
            return f"{top}/"
    return ""


def _sealed(name: str, path: Path, source: int, listed: PackagedFile) -> Artifact:
    handle = _memory(name)
    try:
        left = listed.size + 1  # one more, so that a longer file is noticed
        while left and (piece := os.read(source, min(left, CHUNK_BYTES))):
            _write(handle, piece)
            left -= len(piece)
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, SEALS)
        is_now = PackagedFile(_digest(handle), os.fstat(handle).st_size)
    except OSError as error:
        os.close(handle)
        raise _no_memory(str(path), error) from error
    if is_now != listed:
        os.close(handle)
        raise Misconfigured(altered(path), code="E4613")
    return Artifact(name, handle, listed.sha256, listed.size)


def _memory(name: str) -> int:
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        raise _no_memory(name, error) from error


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _digest(handle: int) -> str:
    """SHA-256 of the sealed bytes."""
    if os.fstat(handle).st_size == 0:
        return hashlib.sha256().hexdigest()
    with mmap.mmap(handle, 0, prot=mmap.PROT_READ) as view:
        return hashlib.sha256(view).hexdigest()


def _no_memory(what: str, error: OSError) -> StoreFailed:
    return StoreFailed(f"{what}: cannot be copied to memory ({error.strerror}); free some", code="E4624")
