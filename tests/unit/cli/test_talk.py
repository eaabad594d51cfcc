"""What `edge` says while something takes long."""

from __future__ import annotations

import time

import pytest

from framegate.cli import talk


def test_patience_says_what_takes_long_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(talk, "QUIET_S", 0.01)
    monkeypatch.setattr(talk, "AGAIN_S", 0.01)
    said = ""
    with talk.patience("acme: is compiled"):
        deadline = time.monotonic() + 5.0
        while said.count("acme: is compiled ... 0 s") < 2:
            assert time.monotonic() < deadline
            said += capsys.readouterr().err


def test_patience_says_nothing_of_what_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    with talk.patience("acme: is compiled"):
        pass
    assert capsys.readouterr().err == ""
