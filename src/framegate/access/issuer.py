"""Federated issuers: whose JWTs are believed, and their public keys as a JWK set in a file (RFC 7517).

A key has one algorithm, by what kind of key it is: RSA signs RS256, P-256 signs ES256, Ed25519 signs EdDSA (which RFC
9864 calls Ed25519). A token's header never chooses. Keys for encryption and of other kinds are passed over, as identity
providers publish them in the same set; a shared or private key in the file is refused: it does not belong there.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from framegate.access.durable import Signature, signature_of
from framegate.contract.errors import Misconfigured
from framegate.endpoint.durable import read_bounded, why

if TYPE_CHECKING:
    from joserfc.jwk import Key

KEYS_MAX = 32
KEYS_BYTES_MAX = 64 << 10
KID_CHARACTERS_MAX = 128
RSA_BITS_MIN, RSA_BITS_MAX = 2048, 8192
"""Below is too weak (RFC 7518, 3.3); above, one check takes milliseconds."""
ALGORITHMS = ("EdDSA", "ES256", "RS256")

_KINDS: Mapping[tuple[str, str | None], str] = {
    ("OKP", "Ed25519"): "EdDSA",
    ("EC", "P-256"): "ES256",
    ("RSA", None): "RS256",
}
_NAMES: Mapping[str, frozenset[str]] = {
    "EdDSA": frozenset(("EdDSA", "Ed25519")),
    "ES256": frozenset(("ES256",)),
    "RS256": frozenset(("RS256",)),
}
_PRIVATE = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))


@dataclass(frozen=True, slots=True)
class IssuerOptions:
    """One issuer, as drivers.yml names it.

    audience    "" = the gateway's name
    keys        file of a JWK set; relative to HOME/config
    algorithms  of ALGORITHMS; keys of others are passed over
    tenant      what the claim `tenant` has to say; "" = the gateway's tenant
    """

    issuer: str
    keys: Path
    audience: str = ""
    algorithms: tuple[str, ...] = ALGORITHMS
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One public key. names: what a header may call its algorithm; id: thumbprint after RFC 7638."""

    kid: str | None
    algorithm: str
    names: frozenset[str]
    key: Key
    id: str


def read_keys(path: Path, algorithms: Iterable[str] = ALGORITHMS) -> tuple[IssuerKey, ...]:
    """The keys of a JWK set that check signatures. Raises Misconfigured E4302 - none is fit, or one is out of place."""
    try:
        return _keys_in(read_bounded(path, KEYS_BYTES_MAX), frozenset(algorithms))
    except (OSError, ValueError, TypeError) as error:
        text = f"key set {path}: cannot be used ({why(error)}); fetch the issuer's public keys (jwks_uri) into it"
        raise Misconfigured(text, code="E4302") from error


class KeyFile:
    """The keys of one issuer, read again when their file has changed. A file that cannot be used has no keys."""

    def __init__(self, options: IssuerOptions) -> None:
        self._options = options
        self._signature: Signature | None = None
        self._is_read = False
        self.keys: tuple[IssuerKey, ...] = ()
        self.flaw = ""

    def refresh(self) -> bool:
        """Look whether the file has changed; True if the keys were read anew. `flaw` says why there are none."""
        try:
            signature = signature_of(self._options.keys)
        except OSError:
            signature = None
        if self._is_read and signature == self._signature:
            return False
        self._signature, self._is_read = signature, True
        try:
            self.keys, self.flaw = read_keys(self._options.keys, self._options.algorithms), ""
        except Misconfigured as error:
            self.keys, self.flaw = (), error.text
        return True

    def find(self, kid: str | None) -> IssuerKey | None:
        """The key of that id, or the only one that has none where a header names none."""
        return next((key for key in self.keys if key.kid == kid), None)


def _keys_in(data: bytes, algorithms: frozenset[str]) -> tuple[IssuerKey, ...]:
    """Raises ValueError, TypeError."""
    raw = orjson.loads(data)
    if not isinstance(raw, dict) or not isinstance(raw.get("keys"), list):
        raise TypeError('it is no JWK set; it begins with {"keys": [')
    if len(raw["keys"]) > KEYS_MAX:
        raise ValueError(f"it has more than {KEYS_MAX} keys")
    found = [key for key in (_key_of(entry, algorithms) for entry in raw["keys"]) if key is not None]
    kids = [key.kid for key in found]
    if len(set(kids)) != len(kids):
        raise ValueError("two of its keys have the same kid, or none")
    if not found:
        raise ValueError(f"it has no key for {', '.join(sorted(algorithms))}")
    return tuple(found)


def _key_of(raw: Any, algorithms: frozenset[str]) -> IssuerKey | None:
    """A key of a set; None: it is for something else."""
    from joserfc.errors import JoseError  # noqa: PLC0415 - 0.2 s, for gateways that trust an issuer only
    from joserfc.jwk import import_key  # noqa: PLC0415

    if not isinstance(raw, dict):
        raise TypeError("a key is no object")
    if raw.get("kty") == "oct" or _PRIVATE & set(raw):
        raise ValueError("it holds a shared or private key; publish public keys only")
    kty, curve = raw.get("kty"), raw.get("crv")
    algorithm = _KINDS.get((kty, curve if kty != "RSA" else None)) if isinstance(kty, str) else None
    if algorithm not in algorithms or algorithm is None or not _is_for_checking(raw, algorithm):
        return None
    kid = raw.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > KID_CHARACTERS_MAX):
        raise ValueError(f"a kid is a text of up to {KID_CHARACTERS_MAX} characters")
    if kty == "RSA" and not RSA_BITS_MIN <= _bits_of(raw.get("n")) <= RSA_BITS_MAX:
        raise ValueError(f"key {kid}: an RSA key has {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")
    try:
        key = import_key(raw)
        return IssuerKey(kid, algorithm, _NAMES[algorithm], key, key.thumbprint())
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"key {kid}: it is damaged ({type(error).__name__})") from None


def _bits_of(modulus: Any) -> int:
    """Length of a number in base64url."""
    if not isinstance(modulus, str):
        return 0
    return int.from_bytes(base64.urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4))).bit_length()


def _is_for_checking(raw: Mapping[str, Any], algorithm: str) -> bool:
    """Whether its own words allow that (RFC 7517, 4.2 to 4.4)."""
    operations = raw.get("key_ops", ["verify"])
    return (
        raw.get("use", "sig") == "sig"
        and raw.get("alg", algorithm) in _NAMES[algorithm]
        and isinstance(operations, list)
        and "verify" in operations
    )
