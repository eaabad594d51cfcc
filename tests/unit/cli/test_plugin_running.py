"""`edge plugin` where a gateway runs in the home: what is handed on, and what is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from framegate.cli import exits
from framegate.cli.main import main

Serving = Callable[[Any, Path], AbstractContextManager[None]]
Printed = pytest.CaptureFixture[str]


@pytest.fixture
def home(face: Any, serving: Serving, tmp_path: Path) -> Iterator[Path]:
    with serving(face, tmp_path):
        yield tmp_path


def test_rollback_hands_on_its_reason(face: Any, home: Path, capsys: Printed) -> None:
    words = ["plugin", "rollback", "acme", "1.0.0", "--reason", "it drops values", "--home", str(home)]
    assert main(words) == exits.OK
    assert face.plugins.reasons == ["it drops values"]
    assert "acme 1.0.0 is active" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [False, KeyboardInterrupt()])
@pytest.mark.parametrize("is_accepted_meanwhile", [False, True])
def test_install_that_is_declined_takes_away_what_waits_and_never_the_plugin(
    face: Any, home: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, is_accepted_meanwhile: bool
) -> None:
    face.plugins.asks = ("network: opens connections of its own",)

    def asked(question: str, *, yes: bool) -> bool:
        assert "acme" in face.plugins.waiting
        if is_accepted_meanwhile:
            face.plugins.waiting.clear()
        if isinstance(answer, BaseException):
            raise answer
        return False

    monkeypatch.setattr("framegate.cli.plugin_install.agrees", asked)
    assert main(["plugin", "install", "acme-1.3.0.edge", "--home", str(home)]) != exits.OK
    assert face.plugins.waiting == {}
    assert face.plugins.active["acme"].version == "1.2.0"


def test_remove_says_whether_the_plugin_or_a_package_that_waited_is_gone(
    face: Any, home: Path, capsys: Printed
) -> None:
    face.plugins.asks = ("network: opens connections of its own",)
    face.plugins._stage("drop")
    remove = ["plugin", "remove", "acme", "--yes", "--home", str(home)]
    assert main(remove) == exits.OK
    assert capsys.readouterr().err == "acme: the package that waited is gone; acme 1.2.0 stays active\n"
    assert main(remove) == exits.OK
    assert "edge plugin rollback acme" in capsys.readouterr().err
