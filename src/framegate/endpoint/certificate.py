"""Certificate files, as far as they can be judged before a handshake: readable, PEM, matching key, in their time.

`ssl` loads certificates but shows no dates before a handshake, so the validity is read from the DER structure
here; trust, names and chains are OpenSSL's business. Source: RFC 5280, 4.1; X.690, 8.1.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

FILE_BYTES_MAX = 4 * 1024 * 1024
"""A CA bundle of a whole operating system has about 0.3 MB."""

_PEM = re.compile(rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----.+?-----END (?:TRUSTED )?CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION = 0x30, 0xA0


@dataclass(frozen=True, slots=True)
class FileProblem:
    """One mistake in one file. key: "ca", "cert" or "key"; text: what, why, next step."""

    key: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Validity:
    """First and last moment of a certificate, UTC."""

    start: datetime
    stop: datetime


def certificate_problems(key: str, path: Path, now_ns: int) -> list[FileProblem]:
    """What is wrong with the certificates of a PEM file; a bundle is fine while one of its certificates is."""
    try:
        blocks = _PEM.findall(_read(path))
        validities = [_validity(ssl.PEM_cert_to_DER_cert(_plain(block))) for block in blocks]
    except OSError as error:
        return [_unreadable(key, path, error)]
    except ValueError:
        blocks = []
    if not blocks:
        text = f"{path} holds no readable PEM certificate; it must begin with -----BEGIN CERTIFICATE-----"
        return [FileProblem(key, "E2012", text)]
    now = datetime.fromtimestamp(now_ns / 1e9, UTC)
    if key == "cert":
        validities = validities[:1]  # the gateway's own comes first; its issuers may outlive or predecease it
    outdated = [text for text in (_out_of_time(path, validity, now) for validity in validities) if text]
    return [FileProblem(key, "E2014", outdated[0])] if len(outdated) == len(validities) else []


def pair_problems(cert: Path, key: Path, password: Callable[[], str]) -> list[FileProblem]:
    """Whether a private key can be read and belongs to its certificate."""
    try:
        _read(key)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            text = f"key {key} does not belong to certificate {cert}; name the key that the certificate was made for"
            return [FileProblem("key", "E2013", text)]
        text = (
            f"key {key} cannot be used ({_reason(error)}); a PEM key is needed, and `key_password` if it is encrypted"
        )
        return [FileProblem("key", "E2012", text)]
    except OSError as error:
        return [_unreadable("key", key, error)]
    return []


def is_exposed(key: Path) -> bool:
    """Whether others than owner and group may read a private key."""
    try:
        return bool(key.stat().st_mode & 0o007)
    except OSError:
        return False


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_BYTES_MAX)


def _plain(block: bytes) -> str:
    return block.replace(b"TRUSTED ", b"").decode("ascii")


def _unreadable(key: str, path: Path, error: OSError) -> FileProblem:
    reason = (error.strerror or str(error)).lower()
    return FileProblem(key, "E2011", f"{path} cannot be read ({reason}); correct the path or its rights")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "unreadable").lower().replace("_", " ")


def _out_of_time(path: Path, validity: Validity, now: datetime) -> str:
    if now > validity.stop:
        return f"{path} expired on {validity.stop:%Y-%m-%d %H:%M} UTC; renew the certificate"
    if now < validity.start:
        return f"{path} is valid from {validity.start:%Y-%m-%d %H:%M} UTC only; check the gateway's clock"
    return ""


def _validity(der: bytes) -> Validity:
    """Validity of a DER certificate.

    raises ValueError - the bytes are no certificate
    """
    certificate = _element(der, 0, _SEQUENCE)
    body = _element(der, certificate.start, _SEQUENCE)
    at = body.start
    if der[at : at + 1] == bytes((_VERSION,)):
        at = _element(der, at, _VERSION).stop
    for _ in ("serial number", "signature algorithm", "issuer"):
        at = _element(der, at).stop
    start = _element(der, _element(der, at, _SEQUENCE).start)
    return Validity(_time(der, start), _time(der, _element(der, start.stop)))


def _time(der: bytes, content: slice) -> datetime:
    """UTCTime has two digits for the year and means 1950 to 2049, GeneralizedTime has four."""
    text = der[content].decode("ascii")
    if len(text) == len("YYMMDDHHMMSSZ"):
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(der: bytes, at: int, tag: int | None = None) -> slice:
    """Where the content of the element at an offset lies; lengths of 128 and more have a length of their own."""
    if len(der) < at + 2 or (tag is not None and der[at] != tag):
        raise ValueError("not a certificate")
    length, at = der[at + 1], at + 2
    if length & 0x80:
        digits = length & 0x7F
        length, at = int.from_bytes(der[at : at + digits], "big"), at + digits
    if at + length > len(der):
        raise ValueError("not a certificate")
    return slice(at, at + length)
