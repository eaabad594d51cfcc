"""`edge plugin new`, `build` and `test`: files, words, exit codes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from framegate.cli import exits
from framegate.cli.main import main
from framegate.package.build import project_manifest, stale
from framegate.testing.exam import exam as exam_module


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exam_module, "SCANS_WARM", 10)
    monkeypatch.setattr(exam_module, "SCANS_MEASURED", 20)


def new(folder: Path, name: str, *words: str) -> Path:
    assert main(["plugin", "new", "driver", name, "--into", str(folder), *words]) == exits.OK
    return folder / name


def test_new_writes_a_project_and_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = new(tmp_path, "kiln_one", "--lang", "c")
    captured = capsys.readouterr()
    assert captured.out == f"{folder}\n"
    assert "edge plugin build && edge plugin test" in captured.err
    assert (folder / "driver.h").is_file()
    assert main(["plugin", "new", "driver", "kiln_one", "--into", str(tmp_path), "--lang", "c"]) == exits.FAILED
    assert main(["plugin", "new", "driver", "Kiln", "--into", str(tmp_path)]) == exits.USAGE


@pytest.mark.parametrize(
    "words", [["driver", "kiln", "--lang", "cobol"], ["connector", "kiln"], ["driver"]], ids=lambda words: words[-1]
)
def test_new_with_words_it_does_not_know_is_a_misuse(tmp_path: Path, words: list[str]) -> None:
    assert main(["plugin", "new", *words, "--into", str(tmp_path)]) == exits.USAGE
    assert list(tmp_path.iterdir()) == []


def test_build_of_python_has_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "build", str(new(tmp_path, "kiln_two"))]) == exits.OK
    assert "nothing to build" in capsys.readouterr().err


def test_test_reports_each_check_and_fails_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = new(tmp_path, "kiln_three")
    words = ["plugin", "test", str(folder), "--rounds", "20"]
    capsys.readouterr()
    assert main([*words, "-o", "jsonl"]) == exits.OK
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["check"] for row in rows if row["verdict"] == "skip"] == ["artifact"]
    assert captured.err.splitlines()[-1] == "kiln_three 0.1.0: 13 passed, 1 skipped"
    vectors = folder / "tests" / "vectors.json"
    vectors.write_text(vectors.read_text().replace('"value": 7}', '"value": 8}'))
    assert main([*words, "-o", "table"]) == exits.FAILED
    captured = capsys.readouterr()
    assert re.search(r"(?m)^FAIL  known answers .*counter is 7, expected 8", captured.out)
    assert re.search(r"\d failed", captured.err)


def test_test_holds_the_vectors_against_the_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = new(tmp_path, "kiln_four")
    vectors = folder / "tests" / "vectors.json"
    vectors.write_text(vectors.read_text().replace('"address": "0"', '"address": "bit 0"'))
    assert main(["plugin", "test", str(folder), "--rounds", "20", "-o", "jsonl"]) == exits.FAILED
    first = json.loads(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("{")))
    assert (first["check"], first["verdict"]) == ("schema", "FAIL")
    assert first["detail"].startswith('tag counter: "bit 0" does not look like')


def test_project_that_was_published_is_worked_on_and_published_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, key = new(tmp_path, "kiln_five"), tmp_path / "maker"
    assert main(["plugin", "keygen", str(key)]) == exits.OK
    publish = ["publish", str(folder), "--sign", f"{key}.key", "--to", str(tmp_path)]
    assert main(publish) == exits.OK
    assert main(publish) == exits.OK
    assert "other content" not in capsys.readouterr().err
    schema = folder / "schema.json"
    schema.write_text(f"{schema.read_text()}\n")
    assert main(["plugin", "build", str(folder)]) == exits.OK
    assert main(["plugin", "test", str(folder), "--rounds", "20"]) == exits.OK
    assert main(publish) == exits.OK
    assert "kiln_five-0.1.0.edge was here with other content" in capsys.readouterr().err


def test_artifact_that_is_older_than_its_source_is_told(tmp_path: Path) -> None:
    folder = new(tmp_path, "kiln_six", "--lang", "c")
    assert stale(project_manifest(folder)) == ()
    (folder / "plugin.so").write_bytes(b"")
    for source in folder.glob("*.[ch]"):
        os.utime(source, (1, 1))
    assert stale(project_manifest(folder)) == (), "the simulator is no part of the driver"
    os.utime(folder / "plugin.so", (0, 0))
    (told,) = stale(project_manifest(folder))
    assert told.startswith("plugin.so is older than driver.c, driver.h, json.h, ")
    assert told.endswith("; `edge plugin build` makes it anew")


@pytest.mark.parametrize("words", [[], ["--rounds", "0"]])
def test_test_of_what_is_no_driver_is_refused(tmp_path: Path, words: list[str]) -> None:
    assert main(["plugin", "test", str(tmp_path), *words]) == (exits.USAGE if words else exits.MISCONFIGURED)
