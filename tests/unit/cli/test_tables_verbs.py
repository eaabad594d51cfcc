"""`edge init` and `edge check`: samples pass, mistakes are told with their places and end with 78."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from framegate.cli import exits
from framegate.cli.main import main


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["init", str(tmp_path)]) == exits.OK
    captured = capsys.readouterr()
    assert f"{tmp_path}/config/drivers.yml\n" in captured.out
    assert "next: " in captured.err
    return tmp_path


def test_samples_of_init_pass_check(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--home", str(home)]) == exits.OK
    assert f"{home}/config is fine: " in capsys.readouterr().err


def test_init_over_tables_keeps_them_and_ends_with_1(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (home / "config" / "drivers.yml").read_bytes()
    assert main(["init", str(home)]) == exits.FAILED
    assert capsys.readouterr().err.startswith("E1119 ")
    assert (home / "config" / "drivers.yml").read_bytes() == before


def test_check_of_mistakes_shows_each_with_its_place(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = home / "config" / "endpoints.yml"
    table.write_text('endpoints:\n  plc1: {url: "tpc://127.0.0.1:5020"}\n  broker: {url: tcp://127.0.0.1}\n')
    assert main(["check", "--home", str(home)]) == exits.MISCONFIGURED
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("E2002 endpoints.yml:2:")
    assert any(line.startswith("E2004 endpoints.yml:3:") for line in lines)
    assert captured.err.strip().endswith(f"{len(lines)} problems in {home}/config")


def test_check_as_json_is_for_editors(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "config" / "endpoints.yml").write_text("endpoints: {plc1: {url: 7}}\n")
    assert main(["check", "-o", "json", "--home", str(home)]) == exits.MISCONFIGURED
    problems = orjson.loads(capsys.readouterr().out)
    assert {"code", "severity", "file", "line", "column", "message"} <= set(problems[0])


def test_check_without_tables_ends_with_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--home", str(tmp_path)]) == exits.MISCONFIGURED
    assert "E1101" in capsys.readouterr().out


def test_check_asks_the_plugins_for_what_only_they_know(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = home / "config" / "variables.yml"
    table.write_text('variables:\n  - {tag: a, source: plc1, address: "4x70000", type: int16}\n')
    drivers = (home / "config" / "drivers.yml").read_text()
    name = next(line.split(":")[0].strip() for line in drivers.splitlines() if "plugin: modbus" in line)
    table.write_text(table.read_text().replace("plc1", name))
    assert main(["check", "--home", str(home)]) == exits.MISCONFIGURED
    assert "variables.yml:2:" in capsys.readouterr().out
