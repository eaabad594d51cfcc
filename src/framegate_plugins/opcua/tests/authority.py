"""A certificate authority for tests: certificates of applications, chains and revocation lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


class Authority:
    """Issues certificates; made by itself or by another authority."""

    def __init__(self, name: str = "root", parent: Authority | None = None) -> None:
        self.key = generate_private_key(65537, 2048)
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = parent or self
        builder = _builder(self.name, issuer.name, self.key, -1, 3650)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign(issuer.key, hashes.SHA256())

    def issue(
        self,
        uri: str,
        *,
        first_day: int = -1,
        days: int = 365,
        bits: int = 2048,
        key: RSAPrivateKey | None = None,
    ) -> x509.Certificate:
        """An application's certificate, from `first_day` from now on for so many days."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        key = key or generate_private_key(65537, bits)
        builder = _builder(subject, self.name, key, first_day, days)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        return builder.sign(self.key, hashes.SHA256())

    def revoke(self, *certificates: x509.Certificate) -> bytes:
        """A revocation list."""
        builder = x509.CertificateRevocationListBuilder(self.name, NOW, NOW + timedelta(days=1))
        for certificate in certificates:
            revoked = x509.RevokedCertificateBuilder(certificate.serial_number, NOW).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: RSAPrivateKey, first_day: int, days: int
) -> x509.CertificateBuilder:
    start = datetime.now(UTC) + timedelta(days=first_day)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )
