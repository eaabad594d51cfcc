from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from framegate.contract.errors import Misconfigured
from framegate.endpoint.endpoint import Endpoint, Plaintext, TlsOptions, TlsVersion, check_endpoint, endpoint_from_row
from framegate.endpoint.url import EndpointUrl

SHORT_PEM = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
ROW = {
    "url": "tls+tcp://broker.example:8883",
    "tls": {"ca": "ca.pem", "cert": "gw.pem", "key": "gw.key"},
    "credentials": {"username": "gw1", "password": "${env:BROKER_PASSWORD}"},
}


def test_row_with_every_key_becomes_an_endpoint(tmp_path: Path) -> None:
    endpoint = endpoint_from_row(
        "broker",
        {
            **ROW,
            "tls": {"ca": "ca.pem", "min": 1.3, "server_name": "b", "plaintext": "allowed", "alpn": ["mqtt"]},
            "connect_timeout": "500ms",
            "write_buffer": "64KiB",
            "connections": 4,
            "capture": 1000,
            "rate_limit": "1MB",
        },
        tmp_path,
    )
    assert endpoint.url == EndpointUrl("tls+tcp", "broker.example", 8883)
    assert endpoint.tls == TlsOptions(
        ca=tmp_path / "ca.pem",
        minimum=TlsVersion.TLS_1_3,
        server_name="b",
        plaintext=Plaintext.ALLOWED,
        alpn=("mqtt",),
    )
    assert endpoint.connect_timeout_s == 0.5
    assert endpoint.write_buffer_bytes_max == 65_536
    assert (endpoint.connections, endpoint.capture_chunks, endpoint.rate_bytes_per_s) == (4, 1000, 1_000_000)


def test_row_with_url_only_has_safe_defaults(tmp_path: Path) -> None:
    assert endpoint_from_row("plc", {"url": "tcp://h:1"}, tmp_path) == Endpoint(
        "plc", EndpointUrl("tcp", "h", 1), base=tmp_path
    )
    secured = endpoint_from_row("b", {"url": "tls+tcp://h:1"}, tmp_path)
    assert secured.tls == TlsOptions(minimum=TlsVersion.TLS_1_2, plaintext=Plaintext.NEVER)


def test_endpoint_repr_hides_credentials(tmp_path: Path) -> None:
    row = {"url": "tcp://h:1", "credentials": {"username": "gw1", "password": "hunter2"}}
    endpoint = endpoint_from_row("b", row, tmp_path)
    assert "hunter2" not in repr(endpoint)
    assert "hunter2" not in repr(endpoint.login())


@pytest.mark.parametrize(
    ("row", "path", "code", "words"),
    [
        ({}, ("url",), "E2008", "is missing"),
        ({"url": 502}, ("url",), "E2008", "must be text"),
        ({"url": "tcp://h:0"}, ("url",), "E2008", "port 0"),
        ({"url": "tls://h:1"}, ("url",), "E2002", "did you mean tls+tcp?"),
        ({"url": "tcp://h:1", "conect_timeout": "5s"}, ("conect_timeout",), "E2008", "did you mean connect_timeout?"),
        ({"url": "tcp://h:1", "connect_timeout": "5 parsecs"}, ("connect_timeout",), "E2008", "unknown unit"),
        ({"url": "tcp://h:1", "connect_timeout": 0}, ("connect_timeout",), "E2008", "between 10ms and 300s"),
        ({"url": "tcp://h:1", "connect_timeout": True}, ("connect_timeout",), "E2008", "duration"),
        ({"url": "tcp://h:1", "write_buffer": "1"}, ("write_buffer",), "E2008", "between 1KiB"),
        ({"url": "tcp://h:1", "write_buffer": "1XB"}, ("write_buffer",), "E2008", "unknown unit"),
        ({"url": "tcp://h:1", "connections": 9}, ("connections",), "E2008", "from 1 to 8"),
        ({"url": "serial:///dev/ttyS0", "connections": 2}, ("connections",), "E2008", "one owner"),
        ({"url": "tcp://h:1", "capture": -1}, ("capture",), "E2008", "from 0 to 10000"),
        ({"url": "tcp://h:1", "rate_limit": 0}, ("rate_limit",), "E2008", "bytes per second"),
        ({"url": "tcp://h:1", "tls": {}}, ("tls",), "E2009", "tls+tcp://"),
        ({"url": "tls+tcp://h:1", "tls": "on"}, ("tls",), "E2008", "mapping"),
        ({"url": "tls+tcp://h:1", "tls": {"verify": False}}, ("tls", "verify"), "E2009", "cannot be switched off"),
        ({"url": "tls+tcp://h:1", "tls": {"insecure": True}}, ("tls", "insecure"), "E2009", "as `ca`"),
        ({"url": "tls+tcp://h:1", "tls": {"min": "1.1"}}, ("tls", "min"), "E2008", '"1.2", "1.3"'),
        ({"url": "tls+tcp://h:1", "tls": {"plaintext": True}}, ("tls", "plaintext"), "E2008", "never, allowed"),
        ({"url": "tls+tcp://h:1", "tls": {"key": "k"}}, ("tls", "key"), "E2009", "stands alone"),
        ({"url": "tls+tcp://h:1", "tls": {"alpn": "mqtt"}}, ("tls", "alpn"), "E2008", "list"),
        ({"url": "tcp://h:1", "credentials": {}}, ("credentials", "username"), "E2008", "is missing"),
        ({"url": "tcp://h:1", "credentials": {"username": 1}}, ("credentials", "username"), "E2008", "must be text"),
    ],
)  # fmt: skip
def test_row_with_a_mistake_names_its_place(
    row: Mapping[str, object], path: tuple[str, ...], code: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(Misconfigured) as caught:
        endpoint_from_row("e", row, tmp_path)
    assert len(caught.value.problems) == 1
    problem = caught.value.problems[0]
    assert (problem.table, problem.path, problem.code) == ("endpoints", ("endpoints", "e", *path), code)
    assert words in problem.text


def test_row_with_several_mistakes_reports_all_at_once(tmp_path: Path) -> None:
    row = {"url": "tls+tcp://h", "tls": {"min": "1.0", "cipher": "x"}, "connections": 0, "colour": "red"}
    with pytest.raises(Misconfigured) as caught:
        endpoint_from_row("e", row, tmp_path)
    keys = {problem.path[2:] for problem in caught.value.problems}
    assert keys == {("url",), ("tls", "min"), ("tls", "cipher"), ("connections",), ("colour",)}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which ROW is without fault."""
    monkeypatch.setenv("BROKER_PASSWORD", "hunter2")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = ca.issue_cert("gw.example")
    own.cert_chain_pems[0].write_to_path(tmp_path / "gw.pem")
    own.private_key_pem.write_to_path(tmp_path / "gw.key")
    return tmp_path


def found(files: Path, row: Mapping[str, object] = ROW) -> list[tuple[tuple[str | int, ...], str, str]]:
    problems = check_endpoint(endpoint_from_row("broker", row, files))
    assert all(problem.path[:2] == ("endpoints", "broker") for problem in problems)
    assert all("hunter2" not in problem.text for problem in problems)
    return [(problem.path[2:], problem.code, problem.text) for problem in problems]


def test_check_of_sound_files_finds_nothing(files: Path) -> None:
    assert found(files) == []


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_check_of_missing_file_names_it(files: Path, name: str) -> None:
    path = files / {"ca": "ca.pem", "cert": "gw.pem", "key": "gw.key"}[name]
    path.unlink()
    ((place, code, text),) = found(files)
    assert (place, code) == (("tls", name), "E2011")
    assert str(path) in text
    assert "no such file" in text


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
@pytest.mark.parametrize("content", [b"", b"not a certificate", SHORT_PEM])
def test_check_of_unusable_file_names_it(files: Path, name: str, content: bytes) -> None:
    (files / {"ca": "ca.pem", "cert": "gw.pem", "key": "gw.key"}[name]).write_bytes(content)
    ((place, code, _),) = found(files)
    assert (place, code) == (("tls", name), "E2012")


def test_check_of_foreign_key_says_mismatch(files: Path) -> None:
    trustme.CA().issue_cert("other").private_key_pem.write_to_path(files / "gw.key")
    ((place, code, text),) = found(files)
    assert (place, code) == (("tls", "key"), "E2013")
    assert "does not belong" in text


@pytest.mark.parametrize(("begin", "end", "words"), [(-20, -10, "expired on"), (10, 20, "check the gateway's clock")])
@pytest.mark.parametrize("year", [0, 40])
def test_check_of_certificate_out_of_time_says_when(files: Path, begin: int, end: int, words: str, year: int) -> None:
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    # A far end is written as GeneralizedTime, a near one as UTCTime.
    stop = now + end * day + (year * 365 * day if end > 0 else 0 * day)
    own = trustme.CA().issue_cert("gw", not_before=now + begin * day, not_after=stop)
    own.cert_chain_pems[0].write_to_path(files / "gw.pem")
    own.private_key_pem.write_to_path(files / "gw.key")
    ((place, code, text),) = found(files)
    assert (place, code) == (("tls", "cert"), "E2014")
    assert words in text
    assert f"{(now + begin * day if begin > 0 else stop):%Y-%m-%d}" in text


def test_check_of_encrypted_key_wants_its_password(files: Path) -> None:
    key = load_pem_private_key((files / "gw.key").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame"))
    (files / "gw.key").write_bytes(locked)
    ((place, code, text),) = found(files)
    assert (place, code) == (("tls", "key"), "E2012")
    assert "key_password" in text
    tls = {"ca": "ca.pem", "cert": "gw.pem", "key": "gw.key"}
    assert found(files, {**ROW, "tls": {**tls, "key_password": "open sesame"}}) == []
    ((place, code, _),) = found(files, {**ROW, "tls": {**tls, "key_password": "${env:FRAMEGATE_ABSENT}"}})
    assert (place, code) == (("tls", "key_password"), "E2010")


def test_check_of_missing_secret_names_reference(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROKER_PASSWORD")
    ((place, code, text),) = found(files)
    assert (place, code) == (("credentials", "password"), "E2010")
    assert "${env:BROKER_PASSWORD}" in text
