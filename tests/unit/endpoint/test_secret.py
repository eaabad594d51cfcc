from __future__ import annotations

from pathlib import Path

import pytest

from framegate.contract.errors import Misconfigured
from framegate.endpoint.secret import SECRET_BYTES_MAX, resolve


def test_secret_plain_text_is_itself() -> None:
    assert resolve("hunter2") == "hunter2"
    assert resolve("") == ""
    assert resolve("100 $ or {more}") == "100 $ or {more}"


def test_secret_from_environment_is_resolved_at_each_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "first")
    assert resolve("${env:BROKER_PASSWORD}") == "first"
    monkeypatch.setenv("BROKER_PASSWORD", "second")
    assert resolve("${env:BROKER_PASSWORD}") == "second"


@pytest.mark.parametrize(("content", "secret"), [(b"pass\n", "pass"), (b"pass\r\n", "pass"), (b" p \n\n", " p \n")])
def test_secret_from_file_loses_one_line_end_only(tmp_path: Path, content: bytes, secret: str) -> None:
    (tmp_path / "broker").write_bytes(content)
    assert resolve("${file:broker}", tmp_path) == secret
    assert resolve(f"${{file:{tmp_path}/broker}}") == secret


def test_secret_from_credentials_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broker").write_text("from systemd")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert resolve("${cred:broker}") == "from systemd"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("${env:FRAMEGATE_ABSENT}", "${env:FRAMEGATE_ABSENT}"),
        ("${file:absent}", "${file:absent}"),
        ("${cred:broker}", "CREDENTIALS_DIRECTORY"),
        ("${vault:broker}", "allowed: env, file, cred"),
        ("hunter2${env:X}", "write ${env:NAME}"),
        ("${env:}", "write ${env:NAME}"),
    ],
)
def test_secret_missing_names_reference_never_value(
    reference: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(Misconfigured) as caught:
        resolve(reference, tmp_path)
    assert caught.value.stable_code == "E2010"
    assert words in caught.value.text
    assert "hunter2" not in caught.value.text


def test_secret_credential_with_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "inner"))
    (tmp_path / "outside").write_text("hunter2")
    with pytest.raises(Misconfigured, match="bare name"):
        resolve("${cred:../outside}")


@pytest.mark.parametrize("content", [b"x" * (SECRET_BYTES_MAX + 1), b"\xff\xfe"])
def test_secret_file_too_large_or_binary_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "blob").write_bytes(content)
    with pytest.raises(Misconfigured) as caught:
        resolve("${file:blob}", tmp_path)
    assert caught.value.stable_code == "E2010"
