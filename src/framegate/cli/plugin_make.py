"""`edge plugin sign` and `pack`, and `edge publish`, which is both: from a plugin's folder to its package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.output import write_record
from framegate.cli.plugin_keys import PassphraseOption, signing_key
from framegate.cli.talk import say, warn
from framegate.package.build import stale
from framegate.package.meta import require_fresh_meta
from framegate.package.publish import list_files, package_path, sign_folder
from framegate.package.publish import pack as pack_folder
from framegate.package.verified import ARCH

FolderArgument: TypeAlias = Annotated[Path, Parameter(help="The plugin's folder, with driver.toml.")]
MoreOption: TypeAlias = Annotated[
    list[str] | None,
    Parameter(name="--with", negative="", help="A further file that belongs to it; may be repeated."),
]
OutputFolder: TypeAlias = Annotated[Path, Parameter(name="--to", help="Folder to write the package to.")]


def publish(
    folder: FolderArgument = Path(),
    /,
    *,
    sign: Annotated[Path, Parameter(help="The private key to sign with, as `edge plugin keygen` made it.")],
    more: MoreOption = None,
    to: OutputFolder = Path(),
    passphrase_file: PassphraseOption = None,
) -> int:
    """List a plugin's files in its manifest, sign that, and pack it all: NAME-VERSION.edge is what others install."""
    key = signing_key(sign, passphrase_file)
    manifest = list_files(folder, more or ())
    if not manifest.arch and any(entry.shape == "native" for entry in manifest.roles.values()):
        warn(f'{folder}: is native and has no arch; write arch = "{ARCH}" or what it was built for')
    require_fresh_meta(folder, manifest)
    for line in stale(manifest):
        warn(line)
    key_id = sign_folder(folder, key)
    path = package_path(manifest, to)
    before = path.read_bytes() if path.is_file() else b""
    pack_folder(folder, to)
    if before not in {b"", path.read_bytes()}:
        text = "was here with other content; a gateway that has that one takes a higher version or serial only"
        warn(f"{path.name} {text}, see driver.toml")
    write_record(
        {
            "package": str(path),
            "name": manifest.name,
            "version": manifest.version,
            "serial": manifest.serial,
            "files": len(manifest.files),
            "size": path.stat().st_size,
            "key_id": key_id,
        },
        None,
    )
    return exits.OK


def sign(
    folder: FolderArgument = Path(),
    /,
    *,
    key: Annotated[Path, Parameter(help="The private key to sign with.")],
    passphrase_file: PassphraseOption = None,
) -> int:
    """Sign the manifest of a folder as it is; signatures of others over the same bytes stay."""
    say(f"signed by {sign_folder(folder, signing_key(key, passphrase_file))}")
    return exits.OK


def pack(folder: FolderArgument = Path(), /, *, to: OutputFolder = Path()) -> int:
    """Pack a folder that is signed."""
    path = pack_folder(folder, to)
    write_record({"package": str(path), "size": path.stat().st_size}, None)
    return exits.OK
