"""Plugins on the control socket: the same records on both ends, and every change noted first."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from framegate.contract.errors import Busy, FrameBroken, GatewayError, Misconfigured, StoreFailed
from framegate.ops.control import ControlServer
from framegate.ops.message import encode
from tests.unit.ops.conftest import ask


async def test_plugin_ls_gives_the_same_records(server: ControlServer, face: Any) -> None:
    face.plugins.asks = ("opens network connections itself",)
    staged = await ask(server, lambda client: client.plugin_stage(Path("/srv/acme-1.3.0.edge")))
    assert staged == face.plugins.waiting["acme"]
    plugins, waiting = await ask(server, lambda client: client.plugin_ls())
    assert plugins == face.plugins.plugins()
    assert waiting == [staged]


async def test_changes_carry_who_asked_and_are_noted_first(server: ControlServer, face: Any) -> None:
    staged = await ask(server, lambda client: client.plugin_stage(Path("/srv/acme-1.3.0.edge")))
    change = await ask(server, lambda client: client.plugin_activate("acme", staged.accept))
    assert (change.before, change.version, change.devices) == ("1.2.0", "1.3.0", ("meter",))
    assert (await ask(server, lambda client: client.plugin_rollback("acme"))).version == "1.1.0"
    assert (await ask(server, lambda client: client.plugin_rollback("acme", "1.0.0"))).version == "1.0.0"
    assert (await ask(server, lambda client: client.plugin_remove("acme"))).version == ""
    noted = [(entry.action, entry.target) for entry in face.audit.entries]
    assert noted == [
        ("plugins.install", "acme-1.3.0.edge"),
        ("plugins.install", "acme"),
        ("plugins.rollback", "acme"),
        ("plugins.rollback", "acme"),
        ("plugins.remove", "acme"),
    ]
    assert {by.partition(":")[0] for by in face.plugins.by} == {"local"}
    assert {entry.actor.partition(" ")[0] for entry in face.audit.entries} == {"local:uid"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Misconfigured("undone", code="E4653"), Misconfigured),
        (Misconfigured("not signed by a trusted key", code="E4610"), Misconfigured),
        (Busy("another", wait_s=1.0, code="E4661"), Busy),
        (FrameBroken("too large", code="E4658"), FrameBroken),
        (StoreFailed("no room", code="E4665"), StoreFailed),
    ],
)
async def test_refusal_is_the_same_kind_of_error_at_the_other_end(
    server: ControlServer, face: Any, error: GatewayError, kind: type[GatewayError]
) -> None:
    face.plugins.trouble = error
    with pytest.raises(kind) as caught:
        await ask(server, lambda client: client.plugin_rollback("acme"))
    assert str(caught.value) == str(error)


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "plugin_stage", "file": "relative.edge"},
        {"op": "plugin_stage"},
        {"op": "plugin_activate", "name": "acme"},
        {"op": "plugin_activate", "name": "acme", "accept": 7},
        {"op": "plugin_rollback", "name": ""},
        {"op": "plugin_remove", "name": "a\0b"},
    ],
)
async def test_malformed_request_is_refused_and_changes_nothing(
    server: ControlServer, face: Any, request_: dict[str, Any]
) -> None:
    reader, writer = await asyncio.open_unix_connection(server.path)
    writer.write(encode(request_))
    async with asyncio.timeout(5):
        assert b"E4013" in await reader.readline()
    writer.close()
    assert face.plugins.by == []
    assert face.audit.entries == []
