"""config-centre.yml: what it takes, and that every mistake is told with its line and without a secret."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trustme

from framegate.config import render_problems
from framegate.config.etcd.options import FILE_BYTES_MAX, FILE_NAME, read_options
from framegate.contract.errors import Misconfigured

GOOD = "endpoints: ['http://127.0.0.1:2379']\nsite: plant1\ngateway: line4\n"


def write(folder: Path, text: str) -> Path:
    file = folder / FILE_NAME
    file.write_text(text)
    return file


def complaints(folder: Path, text: str) -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        read_options(write(folder, text))
    assert caught.value.stable_code == "E1170"
    return render_problems(caught.value.problems, folder)


def test_smallest_file_gives_root_and_host_name(tmp_path: Path) -> None:
    options = read_options(write(tmp_path, GOOD))
    assert options.root == "edge/plant1/line4/"
    assert options.endpoints == ("http://127.0.0.1:2379",)
    assert options.instance == socket.gethostname()
    assert options.credentials is None


def test_every_key_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_PASSWORD", "hunter2")
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    options = read_options(
        write(
            tmp_path,
            "endpoints: ['https://[::1]:2379/', 'https://etcd2']\nsite: s\ngateway: g\ninstance: a\n"
            "tls: {ca: ca.pem, min: 1.3, server_name: etcd.example}\n"
            "credentials: {username: u, password: '${env:ETCD_PASSWORD}'}\n",
        )
    )
    assert options.endpoints == ("https://[::1]:2379", "https://etcd2")
    assert (options.instance, options.tls.server_name, options.tls.minimum.value) == ("a", "etcd.example", "1.3")
    assert options.tls.ca == tmp_path / "ca.pem"
    assert "hunter2" not in repr(options)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "E1108 config-centre.yml:1:1"),
        ("[1, 2]", "E1108 config-centre.yml:1:1"),
        ("endpoints: [\n", "E1103 config-centre.yml"),
        (GOOD + "site: twice\n", "E1105 config-centre.yml:4:1"),
        (GOOD + "sites: x\n", "did you mean site?"),
        (GOOD.replace("plant1", "a/b"), "E1110 config-centre.yml:2:7"),
        (GOOD.replace("2379", "99999"), "E1109 config-centre.yml:1:13"),
        (GOOD.replace("http:", "ftp:"), "is no address of an etcd"),
        (GOOD.replace("['http://127.0.0.1:2379']", "[]"), "E1"),
        (GOOD + "tls: {ca: missing.pem}\n", "E2011 config-centre.yml:4:11"),
        (GOOD + "credentials: {username: u, password: '${env:NO_SUCH_VARIABLE}'}\n", "E2010 config-centre.yml:4:38"),
        (GOOD + "credentials: {username: u}\n", "E1107 config-centre.yml"),
        (GOOD + "tls: {verify: false}\n", "E1106 config-centre.yml:4:7"),
    ],
)
def test_mistake_is_told_at_its_place(tmp_path: Path, text: str, wanted: str) -> None:
    lines = complaints(tmp_path, text)
    assert any(wanted in line for line in lines), lines


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("127", "user:4711@127"),
        GOOD + "credentials: {username: u, password: 4711}\n",
        GOOD + "credentials: [4711]\n",
        GOOD + "credentials: 'u:4711'\n",
        GOOD + "tls: {key_password: 4711}\n",
        GOOD + "credentials: {username: u, password: '${env:4711'}\n",
    ],
)
def test_mistake_at_a_secret_does_not_repeat_it(tmp_path: Path, text: str) -> None:
    lines = complaints(tmp_path, text)
    assert lines
    assert "4711" not in "".join(lines)


def test_absent_file_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="endpoints, site and gateway") as caught:
        read_options(tmp_path / FILE_NAME)
    assert caught.value.stable_code == "E1181"


def test_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="larger than 64 KiB"):
        read_options(write(tmp_path, GOOD + "#" * FILE_BYTES_MAX))


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(Misconfigured, match="is a directory"):
        read_options(tmp_path / FILE_NAME)
