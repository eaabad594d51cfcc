"""`edge cfg push`, `pull` and `centre` against a real etcd: what they write, say, and end with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from framegate.cli import exits
from framegate.cli.main import main
from framegate.testing.etcd import IS_INSTALLED, Etcd

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason="etcd and etcdctl are not installed")

ROOT = "edge/plant1/line4/"


class Edge:
    """The command line of one home."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.config = home / "config"
        self._capsys = capsys
        self.said = ""

    def run(self, *words: str) -> int:
        code = main(["cfg", *words, "--home", str(self.home)])
        captured = self._capsys.readouterr()
        self.data, self.said = captured.out, captured.err
        return code

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data.splitlines()]

    def edit(self, old: str, new: str, table: str = "endpoints") -> None:
        file = self.config / f"{table}.yml"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))


@pytest.fixture
def edge(tmp_path: Path, etcd: Etcd, capsys: pytest.CaptureFixture[str]) -> Edge:
    home = tmp_path / "home"
    assert main(["init", str(home)]) == exits.OK
    capsys.readouterr()
    (home / "config-centre.yml").write_text(f"endpoints: ['{etcd.url}']\nsite: plant1\ngateway: line4\n")
    return Edge(home, capsys)


def test_push_publishes_once_and_pull_brings_it_back(edge: Edge, tmp_path: Path) -> None:
    assert edge.run("push", "--reason", "first", "--author", "ann") == exits.OK
    assert (edge.rows()[0]["generation"], edge.rows()[0]["author"]) == (1, "ann")
    assert edge.run("push") == exits.OK
    assert "generation 1 is the head already" in edge.said
    edge.edit("5020", "5021")
    assert edge.run("push") == exits.OK
    assert edge.rows()[0]["generation"] == 2
    out = tmp_path / "fetched"
    assert edge.run("pull", "--out", str(out)) == exits.OK
    for table in ("endpoints", "drivers", "variables"):
        assert (out / f"{table}.yml").read_bytes() == (edge.config / f"{table}.yml").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_pull_of_an_older_one_keeps_rights_and_other_files(edge: Edge) -> None:
    assert edge.run("push") == exits.OK
    edge.edit("5020", "5021")
    (edge.config / "endpoints.yml").chmod(0o604)
    assert edge.run("push") == exits.OK
    assert edge.run("pull", "--generation", "1") == exits.OK
    assert "5020" in (edge.config / "endpoints.yml").read_text()
    assert (edge.config / "endpoints.yml").stat().st_mode & 0o777 == 0o604
    assert (edge.config / "schemas").is_dir()


def test_certificates_are_found_where_the_pulled_tables_will_lie(edge: Edge, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(edge.config / "ca.pem")
    edge.edit("url: tcp://127.0.0.1:1883", "url: tls+tcp://127.0.0.1:8883\n    tls: {ca: ca.pem}")
    assert edge.run("push") == exits.OK
    assert edge.run("pull") == exits.OK
    assert edge.run("pull", "--out", str(tmp_path / "elsewhere")) == exits.MISCONFIGURED
    assert "E2011 endpoints.yml:" in edge.said
    assert not (tmp_path / "elsewhere").exists()


def test_head_goes_back_to_an_older_generation(edge: Edge, etcd: Etcd) -> None:
    assert edge.run("push") == exits.OK
    edge.edit("5020", "5021")
    assert edge.run("push") == exits.OK
    assert edge.run("push", "--generation", "1") == exits.OK
    assert etcd.control("get", f"{ROOT}head", "--print-value-only").stdout == "1\n"
    assert edge.run("centre") == exits.OK
    assert [(row["generation"], row["head"]) for row in edge.rows()] == [(2, False), (1, True)]
    assert edge.run("push", "--generation", "9") == exits.FAILED
    assert edge.said.startswith("E1177 ")


def test_centre_shows_who_runs_what_and_what_is_damaged(edge: Edge, etcd: Etcd) -> None:
    assert edge.run("centre") == exits.OK
    assert "nothing was published yet" in edge.said
    assert edge.run("pull") == exits.FAILED
    assert edge.run("push") == exits.OK
    report = {"generation": 1, "verdict": "refused", "running": None, "sha256": "", "time": "", "problems": ["E1104 x"]}
    etcd.control("put", f"{ROOT}applied/box", json.dumps(report))
    etcd.control("put", f"{ROOT}applied/nonsense", "[]")
    etcd.control("put", f"{ROOT}gen/2/manifest", "junk")
    assert edge.run("centre", "-o", "table") == exits.OK
    assert "box refused" in edge.data
    assert "damaged" in edge.data
    assert "box, generation 1: E1104 x" in edge.said
    etcd.control("put", f"{ROOT}head", "junk")
    assert edge.run("push") == exits.OK
    assert edge.rows()[0]["generation"] == 3


def test_tables_that_cannot_work_are_not_published(edge: Edge, etcd: Etcd) -> None:
    edge.edit("tcp://127.0.0.1:5020", "tpc://127.0.0.1:5020")
    assert edge.run("push") == exits.MISCONFIGURED
    assert "E2002 endpoints.yml:" in edge.said
    assert etcd.control("get", ROOT, "--prefix", "--keys-only").stdout == ""


def test_tables_that_cannot_work_here_are_not_written(edge: Edge, etcd: Etcd) -> None:
    assert edge.run("push") == exits.OK
    before = (edge.config / "endpoints.yml").read_bytes()
    etcd.control("put", f"{ROOT}gen/1/drivers/0", "junk")
    assert edge.run("pull") == exits.FAILED
    assert edge.said.startswith("E1178 drivers.yml of generation 1 is damaged")
    assert (edge.config / "endpoints.yml").read_bytes() == before


@pytest.mark.parametrize("verb", ["push", "pull", "centre"])
def test_etcd_that_is_away_ends_with_69(edge: Edge, etcd: Etcd, verb: str) -> None:
    etcd.stop()
    assert edge.run(verb) == exits.UNREACHABLE
    assert edge.said.startswith(f"E1171 {etcd.url}")


def test_login_that_is_refused_ends_with_77(edge: Edge, etcd: Etcd) -> None:
    for words in (("user", "add", "root:pw"), ("user", "grant-role", "root", "root"), ("auth", "enable")):
        etcd.control(*words)
    assert edge.run("centre") == exits.NOT_PERMITTED
    assert edge.said.startswith("E1172 ")


def test_file_with_mistakes_is_told_line_by_line(edge: Edge, tmp_path: Path) -> None:
    (edge.home / "config-centre.yml").write_text("endpoints: []\nsite: x\ngatway: y\n")
    assert edge.run("centre") == exits.MISCONFIGURED
    assert "config-centre.yml:3:1 gatway: no such key here (did you mean gateway?)" in edge.said
    assert edge.run("centre", "--config-centre", str(tmp_path / "nowhere.yml")) == exits.MISCONFIGURED
    assert edge.said.startswith("E1181 ")
