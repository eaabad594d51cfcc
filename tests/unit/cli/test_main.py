"""The front door: exit codes, one-line errors, forms of output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import yaml

from framegate import __version__
from framegate.cli import exits
from framegate.cli.main import main
from framegate.cli.refusal import exit_code
from framegate.contract.errors import (
    Busy,
    DeviceRefused,
    GatewayError,
    Misconfigured,
    NoReply,
    NotConnected,
    StoreFailed,
)


def edge(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "framegate", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_version_in_a_pipe_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == exits.OK
    assert orjson.loads(capsys.readouterr().out)["framegate"] == __version__


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "yaml", "csv"])
def test_version_in_every_form_says_the_version(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "-o", form]) == exits.OK
    out = capsys.readouterr().out
    assert __version__ in out
    if form == "yaml":
        assert yaml.safe_load(out)["framegate"] == __version__


def test_version_needs_neither_numpy_nor_the_command_line_library() -> None:
    code = (
        "import sys; from framegate.cli.main import main; main(['version']);"
        "print(sorted({'numpy', 'cyclopts', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_verb_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    out = capsys.readouterr().out
    for verb in ("run", "demo", "check", "init", "tags", "top", "wal", "version"):
        assert f" {verb} " in out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            ["tgas", "ls"],
            "no command tgas (did you mean tags?); one of run, demo, verify-delivery, check, init, top",
        ),
        (["tags", "lss"], "no command tags lss (did you mean ls?); one of ls, get, watch"),
        (["wal", "x"], "no command wal x; one of stat, ls, verify"),
        (["dlq", "x"], "no command dlq x; one of ls, retry, export, drop"),
        (["check", "--hom", "x"], "Did you mean --home?"),
        (["version", "-o", "xml"], "xml"),
        (["tags", "get"], "TAGS"),
    ],
)
def test_misuse_ends_with_2_and_a_hint(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == exits.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert hint in captured.err
    assert captured.err.startswith("edge: ")


@pytest.mark.parametrize("words", [["tags", "ls"], ["tags", "watch"], ["tags", "get", "a"], ["top"], ["top", "--once"]])
def test_live_verb_without_a_gateway_ends_with_69_in_one_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--home", str(tmp_path)]) == exits.UNREACHABLE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(
        f"E4010 gateway in {tmp_path}: not running; start it with `edge run --home {tmp_path}`"
    )


def test_error_under_edge_debug_shows_where_it_was_raised(tmp_path: Path) -> None:
    done = edge("top", "--once", EDGE_HOME=str(tmp_path), EDGE_DEBUG="1")
    assert done.returncode == exits.UNREACHABLE
    assert "Traceback" in done.stderr
    assert "Traceback" not in edge("top", "--once", EDGE_HOME=str(tmp_path), EDGE_DEBUG="").stderr


def test_home_comes_from_the_environment_unless_it_is_given(tmp_path: Path) -> None:
    assert f"gateway in {tmp_path}:" in edge("tags", "ls", EDGE_HOME=str(tmp_path)).stderr
    assert f"gateway in {tmp_path}/b:" in edge("tags", "ls", "--home", f"{tmp_path}/b", EDGE_HOME=str(tmp_path)).stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Misconfigured("x"), exits.MISCONFIGURED),
        (Misconfigured("x", code="E4002"), exits.NOT_PERMITTED),
        (Misconfigured("x", code="E4003"), exits.TRY_AGAIN),
        (NotConnected("x"), exits.UNREACHABLE),
        (NotConnected("x", code="E4011"), exits.NOT_PERMITTED),
        (Busy("x", wait_s=1.0), exits.TRY_AGAIN),
        (NoReply("x"), exits.TIMED_OUT),
        (DeviceRefused("x", quality=0), exits.FAILED),
        (StoreFailed("x"), exits.FAILED),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error: GatewayError, code: int) -> None:
    assert exit_code(error) == code


def test_reader_that_leaves_early_is_not_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "framegate", "version", "-o", "json"],
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (exits.OK, b"")
