"""Tokens and the audit log over the API, on a real access room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from framegate.access.room import AccessRoom, open_access
from framegate.api.app import Api
from framegate.api.live import Live
from framegate.api.operation import Site
from framegate.endpoint.clock import SystemClock
from framegate.observe.metrics import Metrics
from framegate.testing.doors import MemoryDesk
from framegate.testing.fakes import CollectingLog


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[AccessRoom]:
    room = open_access(tmp_path, "gw", "plant", (), SystemClock(), CollectingLog())
    yield room
    await room.close()


@pytest.fixture
async def client(room: AccessRoom, face: Any) -> AsyncIterator[httpx2.AsyncClient]:
    async def scrape() -> bytes:
        return b""

    clock, metrics = SystemClock(), Metrics()
    site = Site(face, MemoryDesk(), room, clock, lambda: "", scrape)
    app = Api(site, room.audit, CollectingLog(), metrics, Live(face, room, clock, metrics))
    transport = httpx2.ASGITransport(app, raise_app_exceptions=True)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8470/api/v1") as client:
        yield client
    await app.settle()


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


async def test_set_up_token_makes_the_first_admin_and_nothing_else(
    room: AccessRoom, client: httpx2.AsyncClient
) -> None:
    setup = bearer(room.setup_token())
    wrong = await client.post("/tokens", json={"name": "eve", "role": "operator"}, headers=setup)
    assert wrong.status_code == 401
    assert (await client.get("/tags", headers=setup)).status_code == 403
    made = await client.post("/tokens", json={"name": "anna", "role": "admin"}, headers=setup)
    assert made.status_code == 201
    admin = bearer(made.json()["text"])
    assert (await client.get("/tags", headers=admin)).status_code == 200
    again = await client.post("/tokens", json={"name": "eve", "role": "admin"}, headers=setup)
    assert again.status_code == 401


async def test_token_is_made_listed_without_its_secret_and_revoked(
    room: AccessRoom, client: httpx2.AsyncClient
) -> None:
    first = await client.post("/tokens", json={"name": "anna", "role": "admin"}, headers=bearer(room.setup_token()))
    admin = bearer(first.json()["text"])
    wish = {"name": "line4", "permissions": ["tags:read"], "tags": ["pump*"], "expires_s": 3600}
    made = (await client.post("/tokens", json=wish, headers=admin)).json()
    limited = bearer(made["text"])
    assert (await client.get("/tags", headers=limited)).status_code == 200
    assert (await client.get("/tokens", headers=limited)).status_code == 403
    listed = await client.get("/tokens", headers=admin)
    assert [(token["name"], token["tags"]) for token in listed.json()["tokens"]] == [
        ("anna", ["*"]),
        ("line4", ["pump*"]),
    ]
    assert made["text"] not in listed.text
    assert (await client.delete("/tokens/line4", headers=admin)).status_code == 200
    assert (await client.get("/tags", headers=limited)).status_code == 401
    assert (await client.delete("/tokens/line4", headers=admin)).status_code == 404


async def test_audit_log_tells_what_was_done_and_no_secret(room: AccessRoom, client: httpx2.AsyncClient) -> None:
    made = await client.post("/tokens", json={"name": "anna", "role": "admin"}, headers=bearer(room.setup_token()))
    text = made.json()["text"]
    page = await client.get("/audit", headers=bearer(text))
    actions = {(record["action"], record["outcome"]) for record in page.json()["records"]}
    assert ("tokens.create", "begun") in actions
    assert text not in page.text
