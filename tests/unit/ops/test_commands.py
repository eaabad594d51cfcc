"""Commands over the control socket, both ends together, with a desk in memory behind it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from framegate.contract.command import Asker, Command, CommandRecord, Outcome, Stage
from framegate.contract.errors import Busy, DeviceRefused, GatewayError, StoreFailed
from framegate.ops.control import ControlServer
from tests.unit.ops.conftest import ask


class FakeDesk:
    """Keeps what it is given; every command is confirmed when somebody waits for it."""

    def __init__(self) -> None:
        self.records: dict[str, CommandRecord] = {}
        self.error: GatewayError | None = None

    async def submit(self, commands: Sequence[Command], asker: Asker) -> Sequence[CommandRecord]:
        if self.error is not None:
            raise self.error
        for command in commands:
            assert asker.may(command.tag)
            self.records[command.id] = CommandRecord(command, asker.origin, Stage.ACCEPTED, None, "", "", 1, 0)
        return [self.records[command.id] for command in commands]

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - the contract's word
        record = self.records.get(id)
        if record is not None and seconds > 0:
            record = self.records[id] = replace(record, outcome=Outcome.CONFIRMED, ended=2)
        return record

    def find(self, id: str) -> CommandRecord | None:  # noqa: A002 - the contract's word
        return self.records.get(id)

    def recent(self, limit: int, before: str = "") -> Sequence[CommandRecord]:
        ids = sorted(self.records, reverse=True)
        return [self.records[id_] for id_ in ids if not before or id_ < before][:limit]


@pytest.fixture(autouse=True)
def desk(face: Any) -> FakeDesk:
    face.commands = FakeDesk()
    return face.commands  # type: ignore[no-any-return]


async def raw(server: ControlServer, request: object) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(server.path)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        async with asyncio.timeout(5):
            return json.loads(await reader.readline())  # type: ignore[no-any-return]
    finally:
        writer.close()


@pytest.mark.parametrize("value", [42, -1.5, True, "auto", b"\x00\xff", (1 << 64) - 1])
async def test_write_carries_the_command_whole_and_the_users_id(
    server: ControlServer, desk: FakeDesk, value: Any
) -> None:
    command = Command("n1", "pump", value, 0, 7.5, verify=True, select=True)
    (record,) = await ask(server, lambda client: client.write([command]))
    assert desk.records["n1"].command == command
    assert type(desk.records["n1"].command.value) is type(value)
    assert (record.origin, record.stage, record.outcome) == (f"local:uid {os.getuid()}", Stage.ACCEPTED, None)


async def test_command_waits_for_its_outcome(server: ControlServer) -> None:
    await ask(server, lambda client: client.write([Command("n1", "pump", 1)]))
    assert (await ask(server, lambda client: client.command("n1"))).outcome is None
    assert (await ask(server, lambda client: client.command("n1", 3.0))).outcome is Outcome.CONFIRMED


async def test_command_that_nobody_knows_is_named(server: ControlServer) -> None:
    with pytest.raises(DeviceRefused, match="E4219 command n9"):
        await ask(server, lambda client: client.command("n9"))


async def test_commands_come_page_by_page_newest_first(server: ControlServer, desk: FakeDesk) -> None:
    commands = [Command(f"n{i:04}", "pump", i) for i in range(1_201)]
    for start in range(0, 1_201, 100):
        await desk.submit(commands[start : start + 100], Asker("local:uid 0", bool))
    found = await ask(server, lambda client: list(client.commands(1_150)))
    assert [record.command.id for record in found] == [f"n{i:04}" for i in range(1_200, 50, -1)]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(Busy("full", wait_s=1.0, code="E4204"), Busy), (StoreFailed("full", code="E4218"), StoreFailed)],
)
async def test_refusal_of_the_desk_arrives_as_what_it_is(
    server: ControlServer, desk: FakeDesk, error: GatewayError, kind: type[GatewayError]
) -> None:
    desk.error = error
    with pytest.raises(kind, match=error.stable_code):
        await ask(server, lambda client: client.write([Command("n1", "pump", 1)]))


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "write"},
        {"op": "write", "commands": []},
        {"op": "write", "commands": [{"id": "n", "tag": "t", "value": 1}] * 101},
        {"op": "write", "commands": ["n"]},
        {"op": "write", "commands": [{"id": "n", "tag": "t"}]},
        {"op": "write", "commands": [{"id": "n", "tag": "t", "value": {"bytes": "!"}}]},
        {"op": "write", "commands": [{"id": "n", "tag": "t", "value": 1, "ttl_s": "soon"}]},
        {"op": "command", "id": "n", "wait_s": 1e9},
        {"op": "command", "id": "n", "wait_s": "long"},
        {"op": "commands", "limit": 0},
        {"op": "commands", "limit": "all"},
    ],
)
async def test_request_that_is_wrong_is_refused_and_nothing_is_written(
    server: ControlServer, desk: FakeDesk, request_: object
) -> None:
    assert (await raw(server, request_))["code"] == "E4013"
    assert desk.records == {}
