"""`edge export`, `import` and `cfg schema`: files out and in, a report for people and programs, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from framegate.cli import exits
from framegate.cli.main import main
from framegate.config import write_samples
from framegate.package.discover import discover

HEADER = "tag,source,address,type\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_samples(tmp_path / "home" / "config", discover())
    return tmp_path / "home"


def table(home: Path) -> bytes:
    return (home / "config" / "variables.yml").read_bytes()


def sheet(home: Path, text: str) -> str:
    path = home.parent / "sheet.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", ["tags.csv", "tags.xlsx"])
def test_export_and_import_leave_the_table_as_it_is(home: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, file = table(home), home.parent / name
    assert main(["export", str(file), "--home", str(home)]) == exits.OK
    assert f"5 rows of variables.yml written to {file}" in capsys.readouterr().err
    assert main(["import", str(file), "--policy", "overwrite", "--yes", "--home", str(home)]) == exits.OK
    captured = capsys.readouterr()
    assert (captured.out, table(home)) == ("", before)
    assert "0 added, 0 changed, 0 removed, 0 rejected" in captured.err


def test_export_to_stdout_and_over_a_file(home: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["export", "--table", "endpoints", "--home", str(home)]) == exits.OK
    assert b"section,name,url," in capfdbinary.readouterr().out
    taken = sheet(home, "mine")
    assert main(["export", taken, "--home", str(home)]) == exits.FAILED
    assert Path(taken).read_text(encoding="utf-8") == "mine"
    assert capfdbinary.readouterr().err.startswith(b"E1144 ")


def test_import_reports_and_writes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sheet(home, HEADER + "pump1.speed,mb1,4x00009,uint16\nnew,mb1,4x20,int16\n")
    assert main(["import", file, "-y", "-o", "json", "--home", str(home)]) == exits.OK
    captured = capsys.readouterr()
    assert [(line["action"], line["tag"], line["row"], line["column"]) for line in json.loads(captured.out)] == [
        ("changed", "pump1.speed", 2, "address"),
        ("added", "new", 3, ""),
    ]
    assert "1 added, 1 changed, 0 removed, 0 rejected" in captured.err
    assert b'  - {tag: new, source: mb1, address: "4x20", type: int16}\n' in table(home)
    assert main(["check", "--home", str(home)]) == exits.OK


@pytest.mark.parametrize("arguments", [["--dry-run"], []])
def test_import_that_is_not_agreed_to_writes_nothing(
    home: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = table(home)
    code = main(["import", sheet(home, HEADER + "new,mb1,4x20,int16\n"), *arguments, "--home", str(home)])
    assert code == (exits.OK if arguments else exits.USAGE)
    assert json.loads(capsys.readouterr().out)["action"] == "added"
    assert table(home) == before


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        ("new,mb1,4x20,int61", "type", 'E1104 "int61" is not one of '),
        ("new,mb9,4x20,int16", "source", "E1111 no driver mb9"),
        ("new,mb1,4x70000,int16", "address", "E5021 "),
    ],
)
def test_import_of_a_wrong_row_writes_nothing_and_ends_with_78(
    home: Path, row: str, column: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = table(home)
    file = sheet(home, f"{HEADER}fine,mb1,4x30,int16\n{row}\n")
    assert main(["import", file, "--yes", "-o", "json", "--home", str(home)]) == exits.MISCONFIGURED
    captured = capsys.readouterr()
    rejected = json.loads(captured.out)[-1]
    assert (rejected["action"], rejected["row"], rejected["column"]) == ("rejected", 3, column)
    assert rejected["reason"].startswith(reason)
    assert "E1147 " in captured.err
    assert table(home) == before


def test_import_of_no_file_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "nowhere.csv", "--home", str(home)]) == exits.MISCONFIGURED
    assert "E1145 nowhere.csv: cannot be read (no such file or directory)" in capsys.readouterr().err


def test_schema_is_shown_and_written(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cfg", "schema", "variables", "--lang", "zh", "--home", str(home)]) == exits.OK
    shown = capsys.readouterr().out
    assert "测点" in json.loads(shown)["description"]
    assert main(["cfg", "schema", "--out", str(home / "s"), "--lang", "zh", "--home", str(home)]) == exits.OK
    assert (home / "s" / "variables.schema.json").read_text(encoding="utf-8") == shown
    assert main(["cfg", "schema", "--home", str(home)]) == exits.USAGE


def test_check_shows_what_looks_unintended_and_ends_well(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (home / "config" / "variables.yml").open("a", encoding="utf-8") as file:
        file.write('  - {tag: slip, source: mb1, address: "4x00001", type: uint16, scan: fast}\n')
    assert main(["check", "--home", str(home)]) == exits.OK
    captured = capsys.readouterr()
    assert captured.out.startswith("E1161 variables.yml:11:")
    assert "1 warning" in captured.err
