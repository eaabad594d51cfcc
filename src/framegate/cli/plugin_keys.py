"""`edge plugin keygen`, and reading keys: passphrases come from a file or a terminal, never from the command line."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.output import write_record
from framegate.cli.talk import say
from framegate.contract.errors import Misconfigured
from framegate.endpoint.durable import read_bounded, why
from framegate.package.keys import make_key, read_key, write_key
from framegate.package.signature import key_id_of

PASSPHRASE_BYTES_MAX = 1_024
KEY_SUFFIX = ".key"

PassphraseOption: TypeAlias = Annotated[
    Path | None, Parameter(name="--passphrase-file", help="File whose first line is the key's passphrase.")
]


def keygen(
    name: Annotated[Path, Parameter(help="NAME.key and NAME.pub are written.")],
    /,
    *,
    passphrase: Annotated[bool, Parameter(negative="", help="Ask for a passphrase that encrypts the key.")] = False,
    passphrase_file: PassphraseOption = None,
) -> int:
    """Make a key to sign plugins with. Keep NAME.key to yourself; give NAME.pub to whoever is to trust you."""
    secret = _from_file(passphrase_file)
    if passphrase and not secret:
        secret = _asked("passphrase: ")
        if secret != _asked("again: "):
            raise Misconfigured("the two passphrases differ; nothing was written", code="E4627")
    path = name if name.suffix == KEY_SUFFIX else name.with_name(f"{name.name}{KEY_SUFFIX}")
    key = make_key()
    public = write_key(key, path, secret)
    write_record({"key_id": key_id_of(key.public_key()), "key": str(path), "public_key": str(public)}, None)
    say(f"keep {path} secret; {public} and its key id are for those who are to trust it: `edge plugin trust add`")
    return exits.OK


def signing_key(path: Path, passphrase_file: Path | None) -> Ed25519PrivateKey:
    """The key in a file; a terminal is asked for its passphrase where it wants one.

    raises  Misconfigured E4627
    """
    secret = _from_file(passphrase_file)
    try:
        return read_key(path, secret)
    except Misconfigured as error:
        if secret or "wants its passphrase" not in error.text or not sys.stdin.isatty():
            raise
    return read_key(path, _asked(f"passphrase of {path}: "))


def _from_file(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        secret = read_bounded(path, PASSPHRASE_BYTES_MAX).partition(b"\n")[0].rstrip(b"\r")
    except (OSError, ValueError) as error:
        raise Misconfigured(f"passphrase file {path}: cannot be read ({why(error)})", code="E4627") from error
    if not secret:
        raise Misconfigured(f"passphrase file {path}: its first line is empty", code="E4627")
    return secret


def _asked(prompt: str) -> bytes:
    if not sys.stdin.isatty():
        raise Misconfigured("nobody is here to type a passphrase; use --passphrase-file", code="E4025")
    return getpass.getpass(prompt).encode()
