"""A home with an access room, and an issuer whose tokens are made by hand, not by the library that checks them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from framegate.access.issuer import IssuerOptions
from framegate.access.room import AccessRoom, open_access
from framegate.testing.fakes import CollectingLog, FakeClock

ISSUER, AUDIENCE, TENANT, GATEWAY = "https://idp.example/realms/plant", "framegate", "gas", "gw1"

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, length: int) -> str:
    return b64(value.to_bytes(length))


def public_jwk(key: PrivateKey, kid: str) -> dict[str, Any]:
    """RFC 7517, RFC 7518 6.2.1 and 6.3.1, RFC 8037 2."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return {"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(key.public_key().public_bytes_raw())}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        return {"kty": "EC", "crv": "P-256", "kid": kid, "x": number(point.x, 32), "y": number(point.y, 32)}
    numbers = key.public_key().public_numbers()
    length = (numbers.n.bit_length() + 7) // 8
    return {"kty": "RSA", "kid": kid, "use": "sig", "n": number(numbers.n, length), "e": number(numbers.e, 3)}


def signature(key: PrivateKey, data: bytes) -> bytes:
    """RFC 7518 3.3 and 3.4, RFC 8037 3.1."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)
    return key.sign(data, padding.PKCS1v15(), hashes.SHA256())


KEYS: Mapping[str, PrivateKey] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
}


@dataclass
class Issuer:
    """Signs whatever it is asked to, and publishes its public keys in a file."""

    keys: Path
    now_s: int

    def publish(self, *algorithms: str, extra: tuple[Any, ...] = ()) -> None:
        jwks = [public_jwk(KEYS[algorithm], algorithm.lower()) for algorithm in algorithms or KEYS]
        self.keys.write_text(json.dumps({"keys": [*jwks, *extra]}))

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Sound claims with changes; None takes one away."""
        sound = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "alice",
            "iat": self.now_s - 10,
            "exp": self.now_s + 600,
            "tenant": TENANT,
            "scope": "openid read write",
            "jti": "j1",
        }
        return {name: value for name, value in {**sound, **changes}.items() if value is not None}

    def sign(self, header: str | bytes, payload: str | bytes, algorithm: str = "EdDSA") -> str:
        """Any bytes as header and payload, soundly signed."""
        parts = [part.encode() if isinstance(part, str) else part for part in (header, payload)]
        signed = ".".join(map(b64, parts))
        return f"{signed}.{b64(signature(KEYS[algorithm], signed.encode()))}"

    def token(self, algorithm: str = "EdDSA", header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """A token; `header` changes or adds members, None takes one away."""
        members = {"alg": algorithm, "typ": "JWT", "kid": algorithm.lower(), **(header or {})}
        members = {name: value for name, value in members.items() if value is not None}
        return self.sign(json.dumps(members), json.dumps(self.claims(**changes)), algorithm)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def log() -> CollectingLog:
    return CollectingLog()


@pytest.fixture
def issuer(tmp_path: Path, clock: FakeClock) -> Issuer:
    (tmp_path / "config").mkdir()
    made = Issuer(tmp_path / "config" / "idp.json", clock.now_ns() // 10**9)
    made.publish()
    return made


@pytest.fixture
async def room(tmp_path: Path, issuer: Issuer, clock: FakeClock, log: CollectingLog) -> AsyncIterator[AccessRoom]:
    options = IssuerOptions(ISSUER, Path("idp.json"), AUDIENCE)
    opened = open_access(tmp_path, GATEWAY, TENANT, [options], clock, log)
    yield opened
    await opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the access room, where the audit chain lies."""
    return tmp_path / "access"
