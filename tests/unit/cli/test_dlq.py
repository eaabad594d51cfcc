"""`edge dlq` against a control socket with a gateway's face behind it, and against the store of a stopped one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from framegate.bus.letters import LetterBook
from framegate.bus.rocks import RocksDisk
from framegate.cli import exits
from framegate.cli.main import main
from framegate.contract.errors import NotConnected
from framegate.contract.letter import DeadLetter

Serving = Callable[[Any, Path], AbstractContextManager[None]]
Printed = pytest.CaptureFixture[str]


@pytest.fixture
def home(face: Any, make_letter: Callable[..., DeadLetter], serving: Serving, tmp_path: Path) -> Iterator[Path]:
    """A running gateway with letters cloud/1 and cloud/2 and other/1."""
    face.letters.add(make_letter(1), make_letter(2), make_letter(1, "other"))
    with serving(face, tmp_path):
        yield tmp_path


@pytest.fixture
def stopped(make_letter: Callable[..., DeadLetter], tmp_path: Path) -> Path:
    """The home of a gateway that does not run, with letters cloud/1 and cloud/2."""
    (tmp_path / "data").mkdir()
    disk = RocksDisk(tmp_path / "data" / "store", create=True)
    book = LetterBook(disk)
    book.keep(make_letter(1))
    book.keep(make_letter(2))
    disk.write(book.take_changes())
    disk.close()
    return tmp_path


def edge(home: Path, *words: str) -> int:
    return main([*words, "--home", str(home)])


def rows(printed: Printed) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.readouterr().out.splitlines()]


def test_ls_lists_letters_by_connector_and_position(home: Path, capsys: Printed) -> None:
    assert edge(home, "dlq", "ls") == exits.OK
    listed = rows(capsys)
    assert [row["id"] for row in listed] == ["cloud/1", "cloud/2", "other/1"]
    assert (listed[0]["topic"], listed[0]["tries"], listed[0]["reason"]) == ("t/a", 6, "E5107 no")
    assert edge(home, "dlq", "ls", "--connector", "other", "--json") == exits.OK
    assert [row["id"] for row in json.loads(capsys.readouterr().out)] == ["other/1"]


def test_ls_without_letters_says_so(home: Path, capsys: Printed) -> None:
    assert edge(home, "dlq", "ls", "-c", "third") == exits.OK
    assert capsys.readouterr() == ("", "no letters of connector third\n")


def test_ls_of_a_stopped_gateway_reads_its_store(stopped: Path, capsys: Printed) -> None:
    assert edge(stopped, "dlq", "ls") == exits.OK
    assert [row["id"] for row in rows(capsys)] == ["cloud/1", "cloud/2"]


def test_ls_where_nothing_ever_ran_says_so(tmp_path: Path, capsys: Printed) -> None:
    assert edge(tmp_path, "dlq", "ls") == exits.FAILED
    assert "E3009" in capsys.readouterr().err


@pytest.mark.parametrize("state", ["home", "stopped"])
def test_export_loses_no_byte(
    state: str, request: pytest.FixtureRequest, make_letter: Callable[..., DeadLetter], tmp_path: Path, capsys: Printed
) -> None:
    home, file = request.getfixturevalue(state), tmp_path / "letters.jsonl"
    assert edge(home, "dlq", "export", str(file), "-c", "cloud") == exits.OK
    text, other = map(json.loads, file.read_text("utf-8").splitlines())
    assert text["payload"].encode() == make_letter(1).payload
    assert base64.b64decode(other["payload_base64"]) == make_letter(2).payload
    assert (text["topic"], text["position"], text["rows"], text["tries"]) == ("t/a", 1, 1, 6)
    assert capsys.readouterr().err == "2 letters written\n"


def test_export_to_stdout_is_the_same(stopped: Path, capsys: Printed) -> None:
    assert edge(stopped, "dlq", "export", "-") == exits.OK
    assert [row["id"] for row in rows(capsys)] == ["cloud/1", "cloud/2"]


def test_export_over_a_file_keeps_that_file(stopped: Path, tmp_path: Path, capsys: Printed) -> None:
    file = tmp_path / "precious"
    file.write_text("precious")
    assert edge(stopped, "dlq", "export", str(file)) == exits.FAILED
    assert "E4024" in capsys.readouterr().err
    assert file.read_text() == "precious"


def test_retry_sends_in_order_and_says_how_each_ended(face: Any, home: Path, capsys: Printed) -> None:
    face.letters.outcome.update({"cloud/2": "refused", "other/1": NotConnected("away", code="E2405")})
    assert edge(home, "dlq", "retry", "--all") == exits.FAILED
    assert [(row["id"], row["outcome"]) for row in rows(capsys)] == [
        ("cloud/1", "taken"),
        ("cloud/2", "refused"),
        ("other/1", "not sent"),
    ]
    assert list(face.letters.kept) == ["cloud/2", "other/1"]


def test_retry_of_named_letters_keeps_the_order_of_positions(face: Any, home: Path) -> None:
    assert edge(home, "dlq", "retry", "other/1", "cloud/2", "cloud/1") == exits.OK
    assert face.letters.retried == ["cloud/1", "cloud/2", "other/1"]


def test_retry_of_one_connector_leaves_the_others(face: Any, home: Path) -> None:
    assert edge(home, "dlq", "retry", "--connector", "other") == exits.OK
    assert list(face.letters.kept) == ["cloud/1", "cloud/2"]


@pytest.mark.parametrize("words", [[], ["cloud/1", "--all"], ["cloud/1", "-c", "cloud"]])
def test_retry_that_is_not_clear_sends_nothing(words: list[str], face: Any, home: Path, capsys: Printed) -> None:
    assert edge(home, "dlq", "retry", *words) == exits.USAGE
    assert "E4025" in capsys.readouterr().err
    assert face.letters.retried == []


@pytest.mark.parametrize("words", [["retry", "--all"], ["drop", "cloud/1"]])
def test_acting_needs_a_running_gateway(words: list[str], stopped: Path) -> None:
    assert edge(stopped, "dlq", *words) == exits.UNREACHABLE


def test_drop_of_an_unknown_letter_names_it_and_drops_the_others(face: Any, home: Path, capsys: Printed) -> None:
    assert edge(home, "dlq", "drop", "cloud/9", "cloud/1") == exits.FAILED
    assert "E4019 letter cloud/9" in capsys.readouterr().err
    assert "cloud/1" not in face.letters.kept
