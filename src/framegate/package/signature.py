"""Signatures over a text: ed25519 over DSSE's pre-authentication encoding of its type and its exact bytes.

The type is part of what is signed, so that a list of revocations is never taken for a manifest. The `.sig` beside a
text is JSON: {"payloadType", "signatures": [{"keyid", "alg", "sig"}]}, with room for several signers. Who is trusted
is trust.py's business.

Source: DSSE 1.0.2, protocol.md (encoding), envelope.md (fields); RFC 8032 (ed25519); RFC 5958, 8410 (key files).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from framegate.contract.errors import Misconfigured
from framegate.endpoint.durable import read_bounded, why

MANIFEST_TYPE: Final = "application/vnd.edge.plugin-manifest+toml;v=1"
REVOCATIONS_TYPE: Final = "application/vnd.edge.plugin-revocations+toml;v=1"
ALGORITHM: Final = "ed25519"
SIGNATURES_MAX: Final = 8
ENVELOPE_BYTES_MAX: Final = 16 * 1024
KEY_FILE_BYTES_MAX: Final = 16 * 1024
PUBLIC_KEY_BYTES: Final = 32
KEY_ID_CHARACTERS: Final = 16
KEY_MODE: Final = 0o600
_OTHER_KIND = "it is no ed25519 key"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Signature(NamedTuple):
    """One signer's. key_id: which key it says it is of; nothing is checked yet."""

    key_id: str
    value: bytes


def encoded(payload_type: str, payload: bytes) -> bytes:
    """What is signed: PAE(type, payload)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id_of(key: Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of SHA-256 over the 32 bytes of the key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:KEY_ID_CHARACTERS]


def sign(key: Ed25519PrivateKey, payload_type: str, payload: bytes) -> Signature:
    """Sign a text."""
    return Signature(key_id_of(key.public_key()), key.sign(encoded(payload_type, payload)))


def holds(signature: Signature, key: Ed25519PublicKey, payload_type: str, payload: bytes) -> bool:
    """Is this that key's signature of exactly these bytes?"""
    try:
        key.verify(signature.value, encoded(payload_type, payload))
    except InvalidSignature:
        return False
    return True


def envelope_of(payload_type: str, signatures: list[Signature]) -> bytes:
    """The content of a `.sig`."""
    rows = [{"keyid": one.key_id, "alg": ALGORITHM, "sig": base64.b64encode(one.value).decode()} for one in signatures]
    record = {"payloadType": payload_type, "signatures": rows}
    return orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def signatures_in(envelope: bytes, payload_type: str, place: str) -> list[Signature]:
    """Signatures in a `.sig`; those of algorithms that we do not know are left out.

    place    for texts
    raises   Misconfigured E4605 - it is none, or of another type
    """
    try:
        return _signatures(envelope, payload_type)
    except (ValueError, KeyError, TypeError) as error:
        text = f"{place}: is no signature ({_reason(error)}); have the package signed again"
        raise Misconfigured(text, code="E4605") from error


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


def public_key_of(text: str) -> Ed25519PublicKey:
    """The key in base64 of its 32 bytes; raises ValueError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("it is no base64") from error
    return Ed25519PublicKey.from_public_bytes(raw)


def text_of(key: Ed25519PublicKey) -> str:
    """Base64 of its 32 bytes."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def _signatures(envelope: bytes, payload_type: str) -> list[Signature]:
    if len(envelope) > ENVELOPE_BYTES_MAX:
        raise ValueError(f"it is larger than {ENVELOPE_BYTES_MAX:,} bytes")
    record: Any = orjson.loads(envelope)
    if record["payloadType"] != payload_type:
        raise ValueError(f"it signs a {str(record['payloadType'])[:80]!r}, not a {payload_type}")
    rows = record["signatures"]
    if not isinstance(rows, list) or not 1 <= len(rows) <= SIGNATURES_MAX:
        raise ValueError(f"it has to hold 1 to {SIGNATURES_MAX} signatures")
    return [_signature(row) for row in rows if row["alg"] == ALGORITHM]


def _signature(row: Any) -> Signature:
    value = base64.b64decode(row["sig"], validate=True)
    if not isinstance(row["keyid"], str) or len(row["keyid"]) != KEY_ID_CHARACTERS:
        raise ValueError(f"a keyid has {KEY_ID_CHARACTERS} hexadecimal digits")
    return Signature(row["keyid"], value)


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
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).partition("\n")[0][:160]


def _no_key(path: Path, reason: str) -> Misconfigured:
    return Misconfigured(
        f"key {path}: cannot be used: {reason.rstrip('.')}; correct that, or name another", code="E4627"
    )
