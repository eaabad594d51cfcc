"""Certificates of OPC UA: our own, those of others that we trust, and those that we turned away.

One folder holds what one application knows, as other OPC UA programs lay it out (OPC UA Part 12, 7.8.2):

    own/cert.der, own/key.pem     made at first use: RSA 2048, SHA-256, five years
    trusted/certs, trusted/crl    certificates of others, or of authorities whose certificates are trusted
    issuers/certs, issuers/crl    authorities that are needed to complete a chain, but not trusted by themselves
    rejected/certs                what was turned away, so that a person can look at it and trust it by its thumbprint

Files end in .der, .cer, .crt or .pem, lists in .crl; they are read again for every judgement, so that what a person
puts there counts at once. Everything here reads and writes files: call it in a thread.
Source: OPC UA Part 4, 6.1.3 (what is checked) and Part 6, 6.2.2 (what an application certificate holds).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from asyncua.ua.status_codes import StatusCodes
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from framegate.contract.errors import Misconfigured
from framegate_plugins.opcua.certificates import chain_of, self_signed

KEY_BITS: Final = 2048
"""What every policy takes, and what a small controller can still work with."""
KEY_BITS_MIN: Final = 2048
WARN_DAYS: Final = 60
"""A certificate that ends within so many days is warned of."""
REJECTED_MAX: Final = 100
"""Certificates kept of those turned away; the oldest goes first."""
FILES_MAX: Final = 10_000
"""Of one folder."""
FILE_BYTES_MAX: Final = 1024 * 1024
_SUFFIXES: Final = frozenset((".der", ".cer", ".crt", ".pem"))
_WEAK: Final = (hashes.MD5, hashes.SHA1)


@dataclass(frozen=True, slots=True)
class Identity:
    """An application's own certificate and key."""

    uri: str
    certificate: bytes
    key: RSAPrivateKey
    not_after: datetime

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a certificate is not accepted.

    code    contract/errors.toml;  status  what OPC UA calls it, for whoever has to answer a client
    """

    code: str
    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A certificate in one of the folders. state: "trusted", "issuer" or "rejected"."""

    state: str
    thumbprint: str
    subject: str
    uri: str
    not_after: datetime
    path: Path


class Pki:
    """The certificates of one application.

    folder  private to it; made when something is first put there
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # -- our own ------------------------------------------------------------------------------------------------

    def own(self, uri: str, name: str, hosts: Sequence[str] = ()) -> Identity:
        """Our certificate, made now if there is none.

        uri     application URI that it is made for; one that exists keeps its own
        hosts   names and addresses at which a server of this application is reached
        raises  Misconfigured E2700 - the files cannot be read, or do not belong together
        """
        cert_path, key_path = self.folder / "own" / "cert.der", self.folder / "own" / "key.pem"
        try:
            if not cert_path.exists() and not key_path.exists():
                key = generate_private_key(65537, KEY_BITS)
                _write(key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
                _write(cert_path, self_signed(key, uri, name, hosts).public_bytes(Encoding.DER))
            loaded = load_pem_private_key(_read(key_path), None)
            certificate = certificate_from(_read(cert_path))
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            text = f"{self.folder / 'own'}: certificate or key cannot be used ({reason}); correct them, or remove both "
            raise Misconfigured(text + "and new ones are made", code="E2700") from error
        if not isinstance(loaded, RSAPrivateKey) or certificate.public_key() != loaded.public_key():
            text = f"{key_path} does not belong to {cert_path}; put the key there that the certificate was made for"
            raise Misconfigured(text, code="E2700")
        return Identity(
            uri_of(certificate) or uri, certificate.public_bytes(Encoding.DER), loaded, certificate.not_valid_after_utc
        )

    def user(self, name: str) -> tuple[bytes, RSAPrivateKey | None]:
        """Certificate and key of a user, own/NAME.der and own/NAME.pem; no key where they cannot be used."""
        folder = self.folder / "own"
        with suppress(OSError, ValueError, TypeError):
            certificate = certificate_from(_read(folder / f"{name}.der"))
            key = load_pem_private_key(_read(folder / f"{name}.pem"), None)
            if isinstance(key, RSAPrivateKey) and certificate.public_key() == key.public_key():
                return certificate.public_bytes(Encoding.DER), key
        return b"", None

    def renew(self) -> None:
        """Put our certificate and key aside; `own` makes new ones, which others have to trust again."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        for name in ("cert.der", "key.pem"):
            path = self.folder / "own" / name
            if path.exists():
                path.rename(path.with_name(f"{path.stem}-{stamp}{path.suffix}"))

    # -- those of others ----------------------------------------------------------------------------------------

    def judge(self, der: bytes, *, uri: str = "", now: datetime | None = None) -> Refusal | None:
        """Whether a peer's certificate is accepted; None: it is. One that is not trusted is kept among the rejected.

        der  the certificate, chain behind it or not;  uri  application URI that the peer gives itself; "": not told
        """
        try:
            certificate = certificate_from(der)
        except ValueError as error:
            return Refusal(
                "E2701", StatusCodes.BadCertificateInvalid, f"what the peer sent is no certificate ({error})"
            )
        name = f"certificate {short(thumbprint(certificate))} of {subject_of(certificate)}"
        anchors, issuers = self._load("trusted"), self._load("issuers")
        chain = chain_of(certificate, [*anchors, *issuers])
        if not any(link in anchors for link in chain):  # compared whole: SHA-1 of a thumbprint can be forged
            self.reject(der)
            verb = f"if it is the right one: edge opcua trust add {thumbprint(certificate)}"
            return Refusal("E2702", StatusCodes.BadCertificateUntrusted, f"{name} is not trusted; {verb}")
        return _faults(name, chain, self._revocations(), uri, now or datetime.now(UTC))

    def reject(self, der: bytes) -> None:
        """Keep a certificate for a person to look at."""
        folder = self.folder / "rejected" / "certs"
        certificate = certificate_from(der)
        path = folder / f"{thumbprint(certificate)}.der"
        with suppress(OSError):  # a full disk must not decide what is trusted
            if not path.exists():
                _write(path, certificate.public_bytes(Encoding.DER))
            kept = sorted(_files(folder), key=lambda file: file.stat().st_mtime)
            for oldest in kept[: max(0, len(kept) - REJECTED_MAX)]:
                oldest.unlink(missing_ok=True)

    def seen(self) -> list[Seen]:
        """Every certificate of others, trusted ones first."""
        found = []
        for state, place in (("trusted", "trusted"), ("issuer", "issuers"), ("rejected", "rejected")):
            for path in _files(self.folder / place / "certs"):
                with suppress(OSError, ValueError):
                    each = certificate_from(_read(path))
                    found.append(
                        Seen(state, thumbprint(each), subject_of(each), uri_of(each), each.not_valid_after_utc, path)
                    )
        return found

    def trust(self, der: bytes) -> str:
        """Trust a certificate from now on; returns its thumbprint. raises ValueError, OSError"""
        certificate = certificate_from(der)
        print_ = thumbprint(certificate)
        _write(self.folder / "trusted" / "certs" / f"{print_}.der", certificate.public_bytes(Encoding.DER))
        (self.folder / "rejected" / "certs" / f"{print_}.der").unlink(missing_ok=True)
        return print_

    def remove(self, seen: Seen) -> None:
        """Forget a certificate. raises OSError"""
        seen.path.unlink(missing_ok=True)

    def _load(self, place: str) -> list[x509.Certificate]:
        found = []
        for path in _files(self.folder / place / "certs"):
            with suppress(OSError, ValueError):  # one unreadable file must not end the trust in the others
                found.append(certificate_from(_read(path)))
        return found

    def _revocations(self) -> list[x509.CertificateRevocationList]:
        found = []
        for place in ("trusted", "issuers"):
            for path in _files(self.folder / place / "crl", frozenset((".crl", ".der", ".pem"))):
                with suppress(OSError, ValueError):
                    data = _read(path)
                    is_pem = data.lstrip().startswith(b"-----")
                    found.append(x509.load_pem_x509_crl(data) if is_pem else x509.load_der_x509_crl(data))
        return found


# -- certificates -----------------------------------------------------------------------------------------------


def certificate_from(data: bytes) -> x509.Certificate:
    """The first certificate of DER (with or without a chain behind it) or PEM; raises ValueError."""
    if data.lstrip().startswith(b"-----"):
        return x509.load_pem_x509_certificate(data)
    if len(data) >= 4 and data[0] == 0x30 and data[1] == 0x82:  # a sequence with a length of two bytes
        data = data[: 4 + int.from_bytes(data[2:4], "big")]
    return x509.load_der_x509_certificate(data)


def thumbprint(certificate: x509.Certificate) -> str:
    """SHA-1 of the DER in capitals: what OPC UA calls a thumbprint. It names a certificate, and proves nothing."""
    return certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - prescribed by OPC UA Part 6, 6.2.2


def short(print_: str) -> str:
    return print_[:8]


def subject_of(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:200]


def uri_of(certificate: x509.Certificate) -> str:
    """Application URI; "" where there is none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), "")


def days_left(not_after: datetime, now: datetime | None = None) -> int:
    """Whole days until a certificate ends; negative once it has."""
    return (not_after - (now or datetime.now(UTC))).days


def application_uri(name: str) -> str:
    """urn:HOST:framegate:NAME."""
    return f"urn:{socket.gethostname()}:framegate:{name}"


def _faults(
    name: str,
    chain: Sequence[x509.Certificate],
    revocations: Sequence[x509.CertificateRevocationList],
    uri: str,
    now: datetime,
) -> Refusal | None:
    """What keeps a trusted certificate from being accepted all the same."""
    leaf = chain[0]
    for link in chain:
        if not link.not_valid_before_utc <= now <= link.not_valid_after_utc:
            text = f"{name} is valid from {link.not_valid_before_utc:%Y-%m-%d} to {link.not_valid_after_utc:%Y-%m-%d}"
            return Refusal("E2703", StatusCodes.BadCertificateTimeInvalid, f"{text}; renew it, or set the clock right")
    for link, issuer in pairwise(chain):
        if any(_is_revoked(link, issuer, each) for each in revocations):
            return Refusal("E2704", StatusCodes.BadCertificateRevoked, f"{name} was revoked by its issuer")
    key = leaf.public_key()
    if (
        not isinstance(key, RSAPublicKey)
        or key.key_size < KEY_BITS_MIN
        or isinstance(leaf.signature_hash_algorithm, _WEAK)
    ):
        text = f"{name} is too weak: RSA of {KEY_BITS_MIN} bits and SHA-256 are the least; renew it"
        return Refusal("E2705", StatusCodes.BadCertificatePolicyCheckFailed, text)
    if uri and uri_of(leaf) != uri:
        text = f"{name} is for {uri_of(leaf) or 'no application URI'}, but the peer calls itself {uri}"
        return Refusal("E2706", StatusCodes.BadCertificateUriInvalid, f"{text}; renew it for that URI")
    return None


def _is_revoked(
    certificate: x509.Certificate, issuer: x509.Certificate, listed: x509.CertificateRevocationList
) -> bool:
    if listed.issuer != issuer.subject:
        return False
    key = issuer.public_key()
    is_signed = isinstance(key, RSAPublicKey) and listed.is_signature_valid(key)
    return is_signed and listed.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


# -- files ------------------------------------------------------------------------------------------------------


def _files(folder: Path, suffixes: frozenset[str] = _SUFFIXES) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)[:FILES_MAX]
    except OSError:
        return []


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_BYTES_MAX)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, for the gateway's user only."""
    _make(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _give_to_owner(draft)
    draft.replace(path)


def _make(folder: Path) -> None:
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
        _give_to_owner(folder)


def _give_to_owner(path: Path) -> None:
    """What root makes belongs to whoever owns the folder around it: the gateway has to read it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
