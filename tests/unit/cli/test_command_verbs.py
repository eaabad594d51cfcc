"""`edge tags set` and `edge commands`: values by type, honest exit codes, ids that are unique."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from framegate.cli import commands, exits, tags
from framegate.cli.command_id import new_command_id
from framegate.contract.command import Asker, Command, CommandRecord, Outcome, Stage


class Serving(Protocol):
    def __call__(self, face: Any, home: Path) -> AbstractContextManager[None]: ...


@dataclass
class Desk:
    """Ends every command the same way, at once or never."""

    outcome: Outcome | None = Outcome.CONFIRMED
    taken: list[Command] = field(default_factory=list)

    async def submit(self, commands: Sequence[Command], asker: Asker) -> Sequence[CommandRecord]:
        self.taken += commands
        return [self._record(command) for command in commands]

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - the contract's words
        return next((self._record(command) for command in self.taken if command.id == id), None)

    def recent(self, limit: int, before: str = "") -> Sequence[CommandRecord]:
        return [] if before else [self._record(command) for command in reversed(self.taken)][:limit]

    def _record(self, command: Command) -> CommandRecord:
        code = "" if self.outcome in {None, Outcome.CONFIRMED} else "E4211"
        return CommandRecord(command, "local:uid 1", Stage.DISPATCHED, self.outcome, code, "because", 1, 2)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.CONFIRMED, exits.OK),
        (Outcome.REJECTED, exits.FAILED),
        (Outcome.NOT_SENT, exits.FAILED),
        (Outcome.UNKNOWN, exits.TRY_AGAIN),
        (None, exits.TRY_AGAIN),
    ],
)
def test_set_ends_with_what_is_known_of_the_device(
    face: Any, serving: Serving, tmp_path: Path, outcome: Outcome | None, code: int
) -> None:
    face.commands = desk = Desk(outcome)
    with serving(face, tmp_path):
        assert tags.set_value("t1", "2.5", wait="300ms", home=tmp_path) == code
        assert commands.show(desk.taken[0].id, home=tmp_path) == code
    assert [(command.tag, command.value, command.ttl_s) for command in desk.taken] == [("t1", 2.5, 30.0)]


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("bool", "On", True),
        ("bool", "0", False),
        ("bool", "maybe", "maybe"),
        ("int16", "-7", -7),
        ("uint64", "18446744073709551615", 18446744073709551615),
        ("int16", "1.5", 1.5),
        ("float32", "1e3", 1000.0),
        ("float32", "much", "much"),
        ("string", "12", "12"),
        ("bytes", "00ff", b"\x00\xff"),
    ],
)
def test_set_gives_the_value_the_type_of_its_tag(
    face: Any, serving: Serving, tmp_path: Path, type_: str, text: str, value: Any
) -> None:
    face.commands = desk = Desk()
    face.rows = [replace(row, type=type_) for row in face.rows]
    with serving(face, tmp_path):
        tags.set_value("t1", text, id_="mine", verify=True, home=tmp_path)
    (command,) = desk.taken
    assert (command.value, type(command.value)) == (value, type(value))
    assert (command.id, command.verify) == ("mine", True)


def test_show_of_an_unknown_command_fails(
    face: Any, serving: Serving, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face.commands = Desk()
    with serving(face, tmp_path):
        assert commands.show("n9", home=tmp_path) == exits.FAILED
        assert commands.ls(home=tmp_path) == exits.OK
    told = capsys.readouterr().err
    assert "E4219" in told
    assert "never asked to write" in told


def test_new_command_id_sorts_by_time_and_is_never_given_twice() -> None:
    ids = [new_command_id() for _ in range(1_000)]
    assert len(set(ids)) == len(ids)
    assert {len(id_) for id_ in ids} == {26}
    time.sleep(0.002)
    assert new_command_id() > max(ids)
