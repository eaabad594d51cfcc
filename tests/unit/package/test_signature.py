"""Signatures and keys: against published vectors and OpenSSL, and whatever else claims to be one."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.errors import Misconfigured
from framegate.package.keys import make_key, read_key, read_public_key, write_key
from framegate.package.signature import (
    MANIFEST_TYPE,
    REVOCATIONS_TYPE,
    Signature,
    encoded,
    envelope_of,
    holds,
    key_id_of,
    public_key_of,
    sign,
    signatures_in,
)


def test_encoding_is_that_of_the_specification() -> None:
    """Source: DSSE 1.0.2, protocol.md, "Test Vectors"."""
    vector = encoded("http://example.com/HelloWorld", b"hello world")
    assert vector == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert encoded("a", b"1 b 2") != encoded("a 5 1 b", b" 2")


def test_key_and_signature_are_those_of_rfc_8032() -> None:
    """Source: RFC 8032, 7.1, test 2: the message is the byte 72."""
    key = Ed25519PublicKey.from_public_bytes(
        bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    )
    value = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    key.verify(bytes.fromhex(value), b"\x72")
    assert not holds(Signature(key_id_of(key), bytes.fromhex(value)), key, MANIFEST_TYPE, b"\x72"), "another encoding"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_verifies_what_is_signed_here_with_the_keys_written_here(tmp_path: Path) -> None:
    key = make_key()
    public = write_key(key, tmp_path / "acme.key", b"correct horse")
    (tmp_path / "message").write_bytes(encoded(MANIFEST_TYPE, b'name = "acme"\n'))
    (tmp_path / "sig").write_bytes(sign(key, MANIFEST_TYPE, b'name = "acme"\n').value)
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        str(public),
        "-rawin",
        "-in",
        str(tmp_path / "message"),
    ]
    done = subprocess.run(
        [*command, "-sigfile", str(tmp_path / "sig")], capture_output=True, text=True, check=False, timeout=10
    )
    assert "Verified Successfully" in done.stdout + done.stderr
    shown = subprocess.run(
        ["openssl", "pkey", "-in", str(tmp_path / "acme.key"), "-passin", "pass:correct horse", "-pubout"],
        capture_output=True, check=True, timeout=10,
    )  # fmt: skip
    assert shown.stdout == public.read_bytes()


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_signature_holds_for_its_key_type_and_text_alone(text: bytes, other: bytes) -> None:
    key, stranger = make_key(), make_key()
    signature = sign(key, MANIFEST_TYPE, text)
    assert holds(signature, key.public_key(), MANIFEST_TYPE, text)
    assert not holds(signature, stranger.public_key(), MANIFEST_TYPE, text)
    assert not holds(signature, key.public_key(), REVOCATIONS_TYPE, text)
    assert holds(signature, key.public_key(), MANIFEST_TYPE, other) == (text == other)
    assert signatures_in(envelope_of(MANIFEST_TYPE, [signature]), MANIFEST_TYPE, "x") == [signature]


def envelope(**changes: Any) -> bytes:
    row = {"keyid": "0" * 16, "alg": "ed25519", "sig": base64.b64encode(bytes(64)).decode()}
    record = {"payloadType": MANIFEST_TYPE, "signatures": [row | changes.pop("row", {})]} | changes
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"\xff",
        b"[" * 10_000,
        envelope(payloadType=REVOCATIONS_TYPE),
        envelope(signatures=[]),
        envelope(signatures={}),
        envelope(signatures=[1]),
        envelope(signatures=[{"alg": "ed25519"}]),
        envelope(row={"sig": "%%%"}),
        envelope(row={"sig": 7}),
        envelope(row={"keyid": "../../etc"}),
        envelope(row={"keyid": None}),
        envelope(signatures=[json.loads(envelope())["signatures"][0]] * 9),
        envelope(row={"keyid": "x" * 20_000}),
    ],
)
def test_envelope_that_is_none_is_refused(damaged: bytes) -> None:
    with pytest.raises(Misconfigured, match="E4605"):
        signatures_in(damaged, MANIFEST_TYPE, "here")


def test_signature_of_unknown_algorithm_or_length_counts_for_nothing() -> None:
    assert signatures_in(envelope(row={"alg": "none"}), MANIFEST_TYPE, "here") == []
    key = make_key().public_key()
    assert not holds(Signature("0" * 16, b""), key, MANIFEST_TYPE, b"")
    assert not holds(Signature("0" * 16, bytes(65)), key, MANIFEST_TYPE, b"")


def test_private_key_is_for_its_owner_and_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    key = make_key()
    path = tmp_path / "acme.key"
    write_key(key, path, b"secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(path, b"secret").private_bytes_raw() == key.private_bytes_raw()
    for wrong in (b"", b"other"):
        with pytest.raises(Misconfigured, match="E4627") as refused:
            read_key(path, wrong)
        assert "secret" not in refused.value.text
    with pytest.raises(Misconfigured, match="E4628"):
        write_key(make_key(), path)
    assert read_key(path, b"secret").private_bytes_raw() == key.private_bytes_raw()
    path.chmod(0o640)
    with pytest.raises(Misconfigured, match="others may read it"):
        read_key(path, b"secret")


def test_key_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "a.key", tmp_path / "a.pub"
    pem = serialization.Encoding.PEM
    private.write_bytes(other.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(other.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    private.chmod(0o600)
    with pytest.raises(Misconfigured, match="no ed25519 key"):
        read_key(private)
    with pytest.raises(Misconfigured, match="no ed25519 key"):
        read_public_key(public)
    with pytest.raises(Misconfigured, match="E4627"):
        read_public_key(private)
    os.mkfifo(tmp_path / "pipe.pub")
    with pytest.raises(Misconfigured, match="no regular file"):
        read_public_key(tmp_path / "pipe.pub")


@pytest.mark.parametrize("text", ["", "%", "AAAA", "é", base64.b64encode(bytes(33)).decode()])
def test_text_that_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        public_key_of(text)
