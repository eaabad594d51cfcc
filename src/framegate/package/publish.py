"""From a plugin's folder to its package: which files belong to it, their digests in the manifest, signature, ZIP file.

What belongs to a package is what its manifest names, never what happens to lie in the folder: artifacts, schemas, the
modules of Python roles, and README, LICENSE, CHANGELOG and example where they are. So sources, keys and build folders
stay at home. The same folder gives the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest, PackagedFile
from framegate.endpoint.durable import read_bounded, replace_durably, why
from framegate.package.archive import RATIO_FREE_BYTES, RATIO_MAX, UNPACKED_BYTES_MAX, Archive
from framegate.package.manifest import (
    FILES_MAX,
    MANIFEST_BYTES_MAX,
    MANIFEST_NAME,
    PACKAGE_MANIFEST_NAME,
    SIGNATURE_NAME,
    manifest_of,
    without_files,
)
from framegate.package.names import PACKAGE_SUFFIX, is_plugin_name, name_flaw, rank_of
from framegate.package.signature import (
    ENVELOPE_BYTES_MAX,
    MANIFEST_TYPE,
    SIGNATURES_MAX,
    Signature,
    envelope_of,
    key_id_of,
    sign,
    signatures_in,
)
from framegate.package.verified import compare

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

COMPANIONS: Final = ("README.md", "LICENSE", "CHANGELOG.md", "example.yaml")
FILE_MODE: Final = 0o644
LEVEL: Final = 6
"""Of compression: 9 takes four times as long for one per cent."""
_DATED = (1980, 1, 1, 0, 0, 0)
"""Every entry's; a package says nothing of when it was made."""
_UNIX = 3
_ZLIB_BYTES = 6
"""Header and check sum, which a ZIP file does without."""
_NOT_SHIPPED = ("__pycache__", "tests")
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----")


def list_files(folder: Path, more: Sequence[str] = ()) -> Manifest:
    """Write `[files]` of the manifest: name, sha256 and size of each file of the package. The rest of it stays.

    folder   holds driver.toml, or plugin.toml, from which driver.toml is made
    more     names of further files that belong to it
    raises   Misconfigured E4630 - it cannot become a package; E1200 to E1204 - its manifest
    """
    path, other = folder / PACKAGE_MANIFEST_NAME, folder / MANIFEST_NAME
    source = path if path.exists() else other
    text = without_files(_read(source, MANIFEST_BYTES_MAX))
    manifest = manifest_of(text, path, lambda name, most: read_bounded(folder / name, most))
    if source is path and other.exists() and not _says_the_same(_read(other, MANIFEST_BYTES_MAX), text):
        raise _unfit(folder, f"{other.name} is not what {path.name} was made of any more; remove the one that is wrong")
    _refuse_unfit(manifest)
    files: dict[str, PackagedFile] = {}
    for name in sorted({*_names(folder, manifest, _table(text)), *more}):
        data = _content(folder, name)
        files[name] = PackagedFile(hashlib.sha256(data).hexdigest(), len(data))
    if len(files) > FILES_MAX or sum(file.size for file in files.values()) > UNPACKED_BYTES_MAX:
        raise _unfit(folder, f"it has {len(files):,} files; {FILES_MAX:,} of 64 MiB together are allowed")
    rows = [f'"{name}" = {{sha256 = "{file.sha256}", size = {file.size}}}' for name, file in files.items()]
    listed = text + "\n[files]\n{}\n".format("\n".join(rows)).encode()
    found = manifest_of(listed, path, lambda name, most: read_bounded(folder / name, most))
    if found.files != files or {**_table(listed), "files": 0} != {**_table(text), "files": 0}:
        raise _unfit(folder, f"{source.name} is written so that [files] cannot be added; put its tables in plain form")
    if not path.exists() or path.read_bytes() != listed:
        (folder / SIGNATURE_NAME).unlink(missing_ok=True)  # it was of other bytes
        replace_durably(path, listed, FILE_MODE)
    return found


def sign_folder(folder: Path, key: Ed25519PrivateKey) -> str:
    """Sign the manifest as it is; other signatures of the same bytes stay. Returns the key's id.

    raises  Misconfigured E4630 - what it lists is not what is there
    """
    text = _read(folder / PACKAGE_MANIFEST_NAME, MANIFEST_BYTES_MAX)
    _checked(folder, text)
    signature = sign(key, MANIFEST_TYPE, text)
    others = [one for one in _signatures(folder) if one.key_id != signature.key_id]
    path = folder / SIGNATURE_NAME
    replace_durably(path, envelope_of(MANIFEST_TYPE, [signature, *others][:SIGNATURES_MAX]), FILE_MODE)
    return key_id_of(key.public_key())


def package_path(manifest: Manifest, target: Path) -> Path:
    return target / f"{manifest.name}-{manifest.version}{PACKAGE_SUFFIX}"


def pack(folder: Path, target: Path) -> Path:
    """Write NAME-VERSION.edge into a folder; returns its path.

    raises  Misconfigured E4604 - it is not signed; E4630 - what it lists is not what is there
    """
    text = _read(folder / PACKAGE_MANIFEST_NAME, MANIFEST_BYTES_MAX)
    manifest = _checked(folder, text)
    if not _signatures(folder):
        raise Misconfigured(f"{folder}: is not signed; `edge plugin sign` does it", code="E4604")
    path = package_path(manifest, target)
    aside = path.with_name(f".{path.name}.new")
    try:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
            for name in (PACKAGE_MANIFEST_NAME, SIGNATURE_NAME, *sorted(manifest.files)):
                data = _content(folder, name)
                archive.writestr(_info(name, data), data)
        with aside.open("rb") as file:
            Archive(file)  # what no gateway would take is not handed out
        aside.replace(path)
    except OSError as error:
        raise _unfit(folder, f"{path} cannot be written: {why(error)}") from error
    finally:
        aside.unlink(missing_ok=True)
    return path


def _info(name: str, data: bytes) -> zipfile.ZipInfo:
    """What is packed so well that it would be taken for a bomb is stored as it is."""
    info = zipfile.ZipInfo(name, _DATED)
    info.create_system, info.external_attr = _UNIX, (0o100000 | FILE_MODE) << 16
    is_bomb = len(data) > max(RATIO_FREE_BYTES, RATIO_MAX * (len(zlib.compress(data, LEVEL)) - _ZLIB_BYTES))
    info.compress_type = zipfile.ZIP_STORED if is_bomb else zipfile.ZIP_DEFLATED
    return info


def _checked(folder: Path, text: bytes) -> Manifest:
    """The manifest of a folder whose files are those that it lists."""
    manifest = manifest_of(text, folder / PACKAGE_MANIFEST_NAME, lambda name, most: read_bounded(folder / name, most))
    _refuse_unfit(manifest)
    if not manifest.files:
        raise _unfit(folder, "its manifest lists no [files]; `edge publish` does that, too")
    found = {}
    for name in manifest.files:
        data = _content(folder, name)
        found[name] = PackagedFile(hashlib.sha256(data).hexdigest(), len(data))
    compare(found, manifest, str(folder))
    return manifest


def _refuse_unfit(manifest: Manifest) -> None:
    if not is_plugin_name(manifest.name):
        raise _unfit(manifest.folder, f"{manifest.name[:64]!r} is no name of a package")
    if rank_of(manifest.version) is None:
        raise _unfit(manifest.folder, f"version {manifest.version[:64]!r} is not of the form 1.2.3 or 1.2.3-rc.1")


def _names(folder: Path, manifest: Manifest, table: Mapping[str, Any]) -> Iterator[str]:
    """Files that the manifest names, by itself or by the modules of its entries."""
    yield from (name for name in COMPANIONS if (folder / name).is_file())
    for role, entry in manifest.roles.items():
        if "schema" in table[role]:
            yield table[role]["schema"]
        if entry.artifact:
            yield entry.artifact
        else:
            yield from _modules(folder, entry.entry.partition(".")[0].partition(":")[0])


def _modules(folder: Path, top: str) -> Iterator[str]:
    """Files of the Python package or module of an entry; where there is none, the folder itself is the package."""
    if (folder / f"{top}.py").is_file():
        yield f"{top}.py"
        return
    package = folder / top if (folder / top).is_dir() else folder
    for path in sorted(package.rglob("*" if package != folder else "*.py")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part in _NOT_SHIPPED or part.startswith(".") for part in parts):
            yield "/".join(parts)


def _content(folder: Path, name: str) -> bytes:
    flaw = name_flaw(name)
    if flaw:
        raise _unfit(folder, f"{name[:64]!r} {flaw}")
    data = _read(folder / name, UNPACKED_BYTES_MAX)
    if _PRIVATE_KEY.search(data):
        raise _unfit(folder, f"{name} holds a private key; take it out, and regard that key as known if it was shared")
    return data


def _signatures(folder: Path) -> list[Signature]:
    path = folder / SIGNATURE_NAME
    if not path.exists():
        return []
    return signatures_in(_read(path, ENVELOPE_BYTES_MAX), MANIFEST_TYPE, str(path))


def _says_the_same(text: bytes, other: bytes) -> bool:
    try:
        return _table(text) == _table(other)
    except ValueError:  # no TOML, or no UTF-8
        return False


def _table(text: bytes) -> Mapping[str, Any]:
    return tomllib.loads(text.decode())


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        return read_bounded(path, bytes_max)
    except (OSError, ValueError) as error:
        raise _unfit(path.parent, f"{path.name} cannot be read ({why(error)})") from error


def _unfit(folder: Path, reason: str) -> Misconfigured:
    return Misconfigured(f"{folder}: cannot become a package: {reason}", code="E4630")
