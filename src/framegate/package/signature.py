"""Signatures over a text: ed25519 over DSSE's pre-authentication encoding of its type and its exact bytes.

The type is part of what is signed, so that a list of revocations is never taken for a manifest. The `.sig` beside a
text is JSON: {"payloadType", "signatures": [{"keyid", "alg", "sig"}]}, with room for several signers. Who is trusted
is trust.py's business, and files with keys are keys.py's. A gateway that trusts nobody never loads the library of
ciphers, which takes 7 MiB.

Source: DSSE 1.0.2, protocol.md (encoding), envelope.md (fields); RFC 8032 (ed25519).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from framegate.contract.errors import Misconfigured

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MANIFEST_TYPE: Final = "application/vnd.edge.plugin-manifest+toml;v=1"
REVOCATIONS_TYPE: Final = "application/vnd.edge.plugin-revocations+toml;v=1"
ALGORITHM: Final = "ed25519"
SIGNATURES_MAX: Final = 8
ENVELOPE_BYTES_MAX: Final = 16 * 1024
PUBLIC_KEY_BYTES: Final = 32
KEY_ID_CHARACTERS: Final = 16


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
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - loaded with the key already

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


def public_key_of(text: str) -> Ed25519PublicKey:
    """The key in base64 of its 32 bytes; raises ValueError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - see above

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


def _reason(error: Exception) -> str:
    """The first sentence."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).partition("\n")[0][:160]
