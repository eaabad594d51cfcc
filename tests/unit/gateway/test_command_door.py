"""The door of a connector: who asks is settled, and what may be written is looked up at the moment of asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from framegate.config import ConnectorRow
from framegate.contract.command import Asker, Command, CommandRecord, Outcome, Stage
from framegate.gateway.command_door import asker_of, command_door

ROW = ConnectorRow(
    "cloud", "mqtt", "broker", "json", 32, "", "none", "ms", {"commands": {"tags": ["pump*", "valve?.open"]}}, True,
    1_000, 4, 0.0, "oldest", "in_order", "",
)  # fmt: skip


class Desk:
    """Keeps what it is given, and refuses what the asker may not write."""

    def __init__(self) -> None:
        self.askers: list[str] = []
        self.records: dict[str, CommandRecord] = {}

    async def submit(self, commands: Sequence[Command], asker: Asker) -> Sequence[CommandRecord]:
        self.askers.append(asker.origin)
        for command in commands:
            outcome = None if asker.may(command.tag) else Outcome.REJECTED
            self.records[command.id] = CommandRecord(command, asker.origin, Stage.ACCEPTED, outcome, "", "", 1, 0)
        return [self.records[command.id] for command in commands]

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - as the Protocol has it
        return self.records.get(id)

    def find(self, id: str) -> CommandRecord | None:  # noqa: A002 - as the Protocol has it
        return self.records.get(id)

    def recent(self, limit: int, before: str = "") -> Sequence[CommandRecord]:
        return list(self.records.values())[:limit]


def row_with(**change: Any) -> ConnectorRow:
    return replace(ROW, **change)


async def test_commands_come_from_the_connector_and_only_to_tags_of_its_row() -> None:
    desk = Desk()
    door = command_door(desk, "cloud", lambda: ROW)
    assert door is not None
    asked = [Command(str(n), tag, 1) for n, tag in enumerate(("pump7.speed", "valve1.open", "valve10.open", "Pump1"))]
    records = await door.submit(asked)
    assert desk.askers == ["north:cloud"]
    assert [record.outcome for record in records] == [None, None, Outcome.REJECTED, Outcome.REJECTED]
    assert await door.wait("0", 0.0) is records[0]
    assert await door.wait("none", 0.0) is None


@pytest.mark.parametrize(
    "row",
    [
        None,
        row_with(options={}),
        row_with(options={"commands": {}}),
        row_with(options={"commands": {"tags": []}}),
        row_with(options={"commands": {"tags": "pump*"}}),
        row_with(options={"commands": ["pump*"]}),
        row_with(enabled=False),
    ],
)
def test_row_that_allows_no_tag_has_no_door(row: ConnectorRow | None) -> None:
    assert command_door(Desk(), "cloud", lambda: row) is None


@pytest.mark.parametrize("later", [None, row_with(options={}), row_with(options={"commands": {"tags": ["fan*"]}})])
def test_permission_ends_with_the_row_that_gave_it(later: ConnectorRow | None) -> None:
    rows = {"cloud": ROW}
    asker = asker_of("cloud", lambda: rows.get("cloud"))
    assert asker.may("pump7.speed")
    if later is None:
        del rows["cloud"]
    else:
        rows["cloud"] = later
    assert not asker.may("pump7.speed")


async def test_user_of_the_remote_is_kept_with_the_origin_and_gives_no_rights() -> None:
    desk = Desk()
    door = command_door(desk, "cloud", lambda: ROW)
    assert door is not None
    records = await door.submit([Command("1", "pump7.speed", 1), Command("2", "boiler.heat", 1)], "alice")
    assert [record.origin for record in records] == ["north:cloud/alice"] * 2
    assert [record.outcome for record in records] == [None, Outcome.REJECTED]
