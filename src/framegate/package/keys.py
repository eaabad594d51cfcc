"""Files with ed25519 keys: made, written and read.

Source: RFC 5958, 8410 (key files).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from framegate.contract.errors import Misconfigured
from framegate.endpoint.durable import read_bounded, why

KEY_FILE_BYTES_MAX: Final = 16 * 1024
KEY_MODE: Final = 0o600
_OTHER_KIND = "it is no ed25519 key"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_key() -> Ed25519PrivateKey:
    """A new key."""
    return Ed25519PrivateKey.generate()


def write_key(key: Ed25519PrivateKey, path: Path, passphrase: bytes = b"") -> Path:
    """Write a key (PKCS #8, mode 0600) and beside it NAME.pub (SubjectPublicKeyInfo); returns the latter's path.

    raises  Misconfigured E4628 - one of them exists; E4627 - cannot be written
    """
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    public_path = path.with_suffix(".pub")
    _create(path, private, KEY_MODE)
    _create(public_path, pem_of(key.public_key()), 0o644)
    return public_path


def read_key(path: Path, passphrase: bytes = b"") -> Ed25519PrivateKey:
    """The private key in a file.

    raises  Misconfigured E4627 - unreadable, readable by others, of another kind, or the passphrase is missing or wrong
    """
    try:
        is_open = path.stat().st_mode & _OTHERS
        key = serialization.load_pem_private_key(read_bounded(path, KEY_FILE_BYTES_MAX), passphrase or None)
    except TypeError as error:  # cryptography: a passphrase where none is needed, or none where one is
        need = "it is not encrypted; leave the passphrase out" if passphrase else "it wants its passphrase"
        raise _no_key(path, need) from error
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, _reason(error)) from error
    if is_open:
        raise _no_key(path, "others may read it; chmod 600 it, and ask who did")
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, _OTHER_KIND)
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a file (PEM). Raises Misconfigured E4627 - there is none."""
    try:
        key = serialization.load_pem_public_key(read_bounded(path, KEY_FILE_BYTES_MAX))
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, _reason(error)) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, _OTHER_KIND)
    return key


def pem_of(key: Ed25519PublicKey) -> bytes:
    """The content of a `.pub`."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _create(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(handle, "wb") as file:  # noqa: PTH123 - opened with its mode, so that nobody reads it meanwhile
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise Misconfigured(f"{path}: is there already and stays; choose another name", code="E4628") from error
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be written ({why(error)}); choose another place", code="E4627") from error


def _reason(error: Exception) -> str:
    """The first sentence; of a key's content nothing."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).partition("\n")[0][:160]


def _no_key(path: Path, reason: str) -> Misconfigured:
    return Misconfigured(
        f"key {path}: cannot be used: {reason.rstrip('.')}; correct that, or name another", code="E4627"
    )
