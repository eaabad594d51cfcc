"""Is this the package that somebody trusted has signed, for this gateway? One answer for files, folders and memory.

The signature is checked over the bytes of the manifest, and those bytes are parsed: nothing of an unsigned text is
ever believed. What the manifest lists is compared file by file: another content, a missing file, a file too many.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest, PackagedFile
from framegate.endpoint.durable import read_bounded, why
from framegate.package.manifest import (
    MANIFEST_BYTES_MAX,
    PACKAGE_MANIFEST_NAME,
    SIGNATURE_NAME,
    Read,
    altered,
    manifest_of,
)
from framegate.package.names import is_plugin_name, rank_of
from framegate.package.sealed import sealed_file
from framegate.package.signature import ENVELOPE_BYTES_MAX
from framegate.package.trust import Revocations, Trusted, TrustedKey, permitted, signers_of

ARCH = f"{platform.machine()}-{platform.system().lower()}"
"""This machine, as `arch` of a manifest says it."""
WALK_MAX = 4_096
"""Files looked at in a folder."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A manifest that holds. sha256: of its text, lower-case hex."""

    manifest: Manifest
    signer: TrustedKey
    sha256: str

    @property
    def id(self) -> str:
        """VERSION-SHA8: name of its folder in the store."""
        return f"{self.manifest.version}-{self.sha256[:8]}"


@dataclass(frozen=True, slots=True)
class Judge:
    """Whom to believe.

    now_ns  None: what came in earlier; keys that have expired since still count
    """

    trusted: Trusted
    revoked: Revocations
    now_ns: int | None = None

    def verify_manifest(self, text: bytes, envelope: bytes, path: Path, read: Read) -> Verified:
        """A manifest from its text and the content of its signature file.

        path    for texts, and as the manifest's folder
        raises  Misconfigured E4605 to E4612 - the signature; E1200 to E1204 - the manifest; E4618, E4619 - not for us
        """
        place = str(path.parent)
        signers = signers_of(envelope, text, place, self.trusted, self.revoked)
        manifest = manifest_of(text, path, read)
        signer = permitted(manifest, signers, place, self.now_ns)
        found = Verified(manifest, signer, hashlib.sha256(text).hexdigest())
        _fits(manifest, place)
        digests = {found.sha256, *(file.sha256 for file in manifest.files.values())}
        if digests & self.revoked.digests:
            text_ = f"{place}: {manifest.name} {manifest.version} was revoked; ask {signer.owner} for another version"
            raise Misconfigured(text_, code="E4612")
        return found

    def verify_folder(self, folder: Path, *, is_whole: bool = True) -> Verified:
        """A package that lies unpacked in a folder.

        is_whole  compare every byte and look for files too many; else names and sizes, as each file is compared
                  when it is loaded
        raises    as verify_manifest, and Misconfigured E4604 - there is no signature; E4613 to E4615 - a file
        """
        path = folder / PACKAGE_MANIFEST_NAME
        text = _read(path, MANIFEST_BYTES_MAX, "E1200")
        envelope = _read(folder / SIGNATURE_NAME, ENVELOPE_BYTES_MAX, "E4604")
        found = self.verify_manifest(text, envelope, path, lambda name, most: read_bounded(folder / name, most))
        if is_whole:
            compare(dict.fromkeys(files_below(folder)), found.manifest, str(folder))
            for name in found.manifest.files:
                os.close(sealed_file(found.manifest, name).fd)
            return found
        for name, listed in found.manifest.files.items():
            try:
                size = (folder / name).stat(follow_symlinks=False).st_size
            except OSError as error:
                raise _missing(str(folder), name) from error
            if size != listed.size:
                raise Misconfigured(altered(folder / name), code="E4613")
        return found


def compare(found: Mapping[str, PackagedFile | int | None], manifest: Manifest, place: str) -> None:
    """Compare what there is with what the manifest lists.

    found   by name: size and digest, or size, or neither; the manifest and its signature may be among them
    raises  Misconfigured E4613 - another content; E4614 - a file too many; E4615 - one is missing
    """
    for name in manifest.files:
        if name not in found:
            raise _missing(place, name)
    for name, is_now in found.items():
        if name in {PACKAGE_MANIFEST_NAME, SIGNATURE_NAME}:
            continue
        listed = manifest.files.get(name)
        if listed is None:
            text = f"{place}: {name[:64]!r} is not listed in the signed manifest; do not use it, ask whoever made it"
            raise Misconfigured(text, code="E4614")
        if is_now is not None and is_now not in {listed, listed.size}:
            raise Misconfigured(altered(f"{place}: {name}"), code="E4613")


def as_named(found: Verified, name: str, id_: str) -> Verified:
    """A genuine package lies where it belongs; raises Misconfigured E4632."""
    if (found.manifest.name, found.id) != (name, id_):
        text = f"{found.manifest.folder}: holds {found.manifest.name} {found.id} under another name; remove it"
        raise Misconfigured(text, code="E4632")
    return found


def files_below(folder: Path) -> list[str]:
    """Names of the files below a folder, with / between; links are files here and are not followed."""
    names: list[str] = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        names.extend((Path(parent) / name).relative_to(folder).as_posix() for name in (*sorted(files), *links))
        if len(names) > WALK_MAX:
            raise Misconfigured(f"{folder}: holds more than {WALK_MAX} files; a package has 1,000", code="E4602")
    return names


def _fits(manifest: Manifest, place: str) -> None:
    if not is_plugin_name(manifest.name):
        text = f"{place}: {manifest.name[:64]!r} is no name of a package: a-z, 0-9, - and _, 64 at most"
        raise Misconfigured(text, code="E4619")
    if rank_of(manifest.version) is None:
        text = f"{place}: version {manifest.version[:64]!r} is not of the form 1.2.3 or 1.2.3-rc.1; correct it"
        raise Misconfigured(text, code="E4619")
    if manifest.arch not in {"", ARCH}:
        text = f"{place}: {manifest.name} was built for {manifest.arch}, this machine is {ARCH}; get a package for it"
        raise Misconfigured(text, code="E4618")


def _read(path: Path, bytes_max: int, code: str) -> bytes:
    try:
        return read_bounded(path, bytes_max)
    except (OSError, ValueError) as error:
        unsigned = "; an unsigned plugin is for development only" if code == "E4604" else ""
        text = f"{path}: cannot be read ({why(error)}){unsigned}; `edge publish` signs and packs"
        raise Misconfigured(text, code=code) from error


def _missing(place: str, name: str) -> Misconfigured:
    text = f"{place}: {name} is missing, which the signed manifest lists; fetch the package again"
    return Misconfigured(text, code="E4615")
