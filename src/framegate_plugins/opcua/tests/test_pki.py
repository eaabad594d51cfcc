"""Own certificates, and the judgement of others."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from framegate.contract.errors import Misconfigured
from framegate_plugins.opcua.certificates import VALID_DAYS
from framegate_plugins.opcua.pki import (
    REJECTED_MAX,
    Pki,
    certificate_from,
    days_left,
    thumbprint,
    uri_of,
)
from framegate_plugins.opcua.tests.authority import Authority, der

URI = "urn:plant:server"


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority()


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


def put(pki: Pki, place: str, data: bytes, name: str) -> None:
    folder = pki.folder / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def code(pki: Pki, certificate: x509.Certificate, uri: str = URI) -> str:
    refusal = pki.judge(der(certificate), uri=uri)
    return "" if refusal is None else refusal.code


def test_own_certificate_is_made_once_and_kept_private(pki: Pki) -> None:
    first = pki.own("urn:edge:framegate:a", "Framegate a", ["192.0.2.7", "edge.example"])
    again = pki.own("urn:edge:framegate:b", "Framegate b")
    assert again.certificate == first.certificate
    assert again.uri == "urn:edge:framegate:a"
    assert stat.S_IMODE((pki.folder / "own" / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(pki.folder.stat().st_mode) == 0o700
    certificate = certificate_from(first.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert uri_of(certificate) == "urn:edge:framegate:a"
    assert "edge.example" in names.get_values_for_type(x509.DNSName)
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
    assert VALID_DAYS - 1 <= days_left(first.not_after) <= VALID_DAYS
    assert load_pem_private_key(first.key_pem, None).public_key() == certificate.public_key()


def test_renewed_certificate_is_another_and_the_old_one_is_kept(pki: Pki) -> None:
    first = pki.own("urn:a", "a")
    pki.renew()
    assert pki.own("urn:a", "a").certificate != first.certificate
    assert len(list((pki.folder / "own").iterdir())) == 4


def test_key_of_another_certificate_is_misconfigured(pki: Pki, tmp_path: Path) -> None:
    other = Pki(tmp_path / "other").own("urn:b", "b")
    pki.own("urn:a", "a")
    (pki.folder / "own" / "key.pem").write_bytes(other.key_pem)
    with pytest.raises(Misconfigured, match="does not belong"):
        pki.own("urn:a", "a")
    (pki.folder / "own" / "key.pem").write_bytes(b"nonsense")
    with pytest.raises(Misconfigured, match="E2700"):
        pki.own("urn:a", "a")


def test_unknown_certificate_is_rejected_kept_and_then_trusted(pki: Pki, root: Authority) -> None:
    server = root.issue(URI)
    assert code(pki, server) == "E2702"
    (seen,) = pki.seen()
    assert (seen.state, seen.thumbprint, seen.uri) == ("rejected", thumbprint(server), URI)
    refusal = pki.judge(der(server), uri=URI)
    assert refusal is not None
    assert f"edge opcua trust add {thumbprint(server)}" in refusal.text
    pki.trust(seen.path.read_bytes())
    assert code(pki, server) == ""
    assert [each.state for each in pki.seen()] == ["trusted"]
    pki.remove(pki.seen()[0])
    assert code(pki, server) == "E2702"


def test_certificate_of_a_trusted_authority_is_accepted_also_over_an_intermediate(pki: Pki, root: Authority) -> None:
    between = Authority("between", root)
    server = between.issue(URI)
    put(pki, "trusted/certs", der(root.certificate), "root.der")
    assert code(pki, server) == "E2702"
    put(pki, "issuers/certs", der(between.certificate), "between.der")
    assert code(pki, server) == ""
    put(pki, "issuers/crl", root.revoke(between.certificate), "root.crl")
    assert code(pki, server) == "E2704"


def test_issuer_alone_gives_no_trust(pki: Pki, root: Authority) -> None:
    put(pki, "issuers/certs", der(root.certificate), "root.der")
    assert code(pki, root.issue(URI)) == "E2702"


def test_authority_of_the_same_name_gives_no_trust(pki: Pki, root: Authority) -> None:
    put(pki, "trusted/certs", der(root.certificate), "root.der")
    assert code(pki, Authority("root").issue(URI)) == "E2702"


def test_revoked_certificate_is_refused_and_a_forged_list_is_not_believed(pki: Pki, root: Authority) -> None:
    server = root.issue(URI)
    put(pki, "trusted/certs", der(root.certificate), "root.der")
    put(pki, "trusted/crl", Authority("root").revoke(server), "forged.crl")
    assert code(pki, server) == ""
    put(pki, "trusted/crl", root.revoke(server), "root.crl")
    assert code(pki, server) == "E2704"


@pytest.mark.parametrize(("first_day", "days"), [(-10, 5), (5, 10)])
def test_certificate_out_of_its_time_is_refused(pki: Pki, root: Authority, first_day: int, days: int) -> None:
    server = root.issue(URI, first_day=first_day, days=days)
    pki.trust(der(server))
    assert code(pki, server) == "E2703"


def test_weak_key_and_other_uri_are_refused(pki: Pki, root: Authority) -> None:
    weak, other = root.issue(URI, bits=1024), root.issue("urn:somebody:else")
    for certificate in (weak, other):
        pki.trust(der(certificate))
    assert code(pki, weak) == "E2705"
    assert code(pki, other) == "E2706"
    assert code(pki, other, uri="") == ""


def test_chain_behind_the_certificate_is_passed_over(pki: Pki, root: Authority) -> None:
    server = root.issue(URI)
    pki.trust(der(server))
    assert pki.judge(der(server) + der(root.certificate), uri=URI) is None


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x82\xff\xff", b"-----BEGIN CERTIFICATE-----\n", b"x" * 100])
def test_what_is_no_certificate_is_refused(pki: Pki, data: bytes) -> None:
    refusal = pki.judge(data)
    assert refusal is not None
    assert refusal.code == "E2701"


def test_unreadable_file_does_not_end_the_trust_in_others(pki: Pki, root: Authority) -> None:
    server = root.issue(URI)
    pki.trust(der(server))
    put(pki, "trusted/certs", b"nonsense", "a.der")
    assert code(pki, server) == ""


def test_rejected_certificates_are_bounded(pki: Pki, root: Authority) -> None:
    folder = pki.folder / "rejected" / "certs"
    folder.mkdir(parents=True)
    for number in range(REJECTED_MAX + 5):
        (folder / f"{number}.der").write_bytes(b"old")
    server = root.issue(URI)
    assert code(pki, server) == "E2702"
    kept = {path.name for path in folder.iterdir()}
    assert len(kept) == REJECTED_MAX
    assert f"{thumbprint(server)}.der" in kept


def test_days_left_counts_down() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert days_left(now + timedelta(days=3), now) == 3
    assert days_left(now - timedelta(hours=1), now) == -1
