"""The API of a whole gateway between simulators: what it shows is what the devices hold, and what it changes is so."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect

from framegate.api.server import serve_api
from framegate.config import ApiRow, load_tables
from framegate.config.history import read_texts
from framegate.endpoint.clock import SystemClock
from framegate.gateway.health import Health
from framegate.gateway.home import Home
from framegate.gateway.wiring import Gateway
from framegate.package.discover import discover
from framegate.testing import plant
from framegate.testing.doors import MemoryAccess, MemoryAudit, MemoryDesk
from framegate.testing.fakes import CollectingLog
from framegate_plugins.modbus.simulator import start as start_plc
from framegate_plugins.mqtt.simulator import start as start_broker

API = "/api/v1"
TAGS = 5


@dataclass
class Site:
    gateway: Gateway
    plc: Any
    client: httpx2.AsyncClient
    address: str
    token: str

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.client.get(f"{API}/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def value(self, tag: str) -> Any:
        return (await self.get(f"tags/{tag}"))["value"]


async def _nothing() -> bytes:
    return b""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    plc, broker = await start_plc({"units": [1]}), await start_broker({})
    plc.units[1].hold[0] = 21
    plant.write_config(
        tmp_path,
        endpoints={
            "plc": f"url: '{plc.url}'",
            "broker": f"url: '{broker.url}', credentials: {{username: u, password: 'hunter2'}}",
        },
        drivers={"d": "plugin: modbus, endpoint: plc, scan: {default: 50ms}"},
        connectors={"cloud": "plugin: mqtt, endpoint: broker"},
        variables=[f"tag: d.t{i}, source: d, address: 'hr:{i}', type: int16" for i in range(TAGS)],
    )  # fmt: skip
    home, plugins, log, access = Home(tmp_path), discover([]), CollectingLog(), MemoryAccess()
    home.prepare()
    gateway = Gateway(home, load_tables(home.config, plugins), plugins, log, SystemClock())
    await gateway.start()
    health = Health(gateway)
    await health.config.begin(read_texts(home.config))
    token = access.add("admin")
    server = await serve_api(
        health, MemoryDesk(), access, MemoryAudit(), ApiRow(listen="127.0.0.1:0"), log, gateway.metrics,
        clock=gateway.clock, base=home.config, ready=lambda: health.health().problem, scrape=_nothing,
    )  # fmt: skip
    async with httpx2.AsyncClient(base_url=f"http://{server.address}", headers={"authorization": token}) as client:
        yield Site(gateway, plc, client, server.address, token)
    await server.close()
    await health.config.close(1.0)
    await gateway.stop()
    await broker.close()
    await plc.close()


async def test_values_history_and_frames_are_what_the_device_held(site: Site) -> None:
    await plant.eventually(lambda: site.value("d.t0"), lambda value: value == 21, "the first value")
    site.plc.units[1].hold[0] = 22
    await plant.eventually(lambda: site.value("d.t0"), lambda value: value == 22, "the second value")
    durable = await plant.eventually(lambda: site.get("wal"), lambda wal: wal["wal"]["durable"] > 10 * TAGS, "rows")
    history = await plant.eventually(
        lambda: site.get("tags/d.t0/history", limit=1000),
        lambda page: {row["value"] for row in page["rows"]} >= {21, 22},
        "both values durable",
    )
    positions = [row["position"] for row in history["rows"]]
    assert positions == sorted(positions, reverse=True)
    older = await site.get("tags/d.t0/history", limit=2, cursor=positions[3])
    assert [row["position"] for row in older["rows"]] == positions[4:6]
    frames = await site.get("frames", range=f"3-{durable['wal']['durable']}", limit=TAGS)
    assert [row["position"] for row in frames["frames"]] == [3, 4, 5, 6, 7]
    assert frames["next"] == 8
    first = (await site.get("frames", range="1-5"))["frames"]
    assert {row["tag"] for row in first} == {f"d.t{i}" for i in range(TAGS)}
    assert {row["value"] for row in first} == {21, 0}


async def test_device_that_dies_shows_bad_values_and_stays_ready(site: Site) -> None:
    await plant.eventually(lambda: site.value("d.t0"), lambda value: value == 21, "the first value")
    await site.plc.close()
    row = await plant.eventually(lambda: site.get("tags/d.t0"), lambda row: row["quality"] >> 31 == 1, "Bad")
    assert row["value"] is None
    assert (await site.client.get("/readyz")).status_code == 200


async def test_live_channel_follows_the_device(site: Site) -> None:
    await plant.eventually(lambda: site.value("d.t0"), lambda value: value == 21, "the first value")
    url = f"ws://{site.address}{API}/live"
    async with connect(url, additional_headers={"Authorization": site.token}, proxy=None) as client:
        await client.send(json.dumps({"filter": "d.*", "lo": 0, "hi": TAGS}))
        window = json.loads(await client.recv())["window"]
        assert window["names"] == [f"d.t{i}" for i in range(TAGS)]
        snapshot = await client.recv(decode=False)
        assert struct.unpack_from("<II5d", snapshot, 8) == (TAGS, 1, 21.0, 0.0, 0.0, 0.0, 0.0)
        site.plc.units[1].hold[3] = 300
        async with asyncio.timeout(5):
            while struct.unpack_from("<I", frame := await client.recv(decode=False), 8)[0] == 0:
                pass
        assert struct.unpack_from("<dI", frame, 16) == (300.0, 3)


async def test_tables_are_read_tried_and_changed(site: Site) -> None:
    shown = await site.get("config")
    assert "hunter2" not in json.dumps(shown)
    variables = shown["tables"]["variables"].replace("tag: d.t0,", "scale: 2, tag: d.t0,")
    body = {"tables": {"variables": variables}, "reason": "twice"}
    steps = (await site.client.post(f"{API}/config/diff", json=body)).json()["steps"]
    assert steps
    done = await site.client.put(f"{API}/config", json=body, headers={"If-Match": shown["etag"]})
    assert (done.status_code, done.json()["generation"]) == (200, 2)
    await plant.eventually(lambda: site.value("d.t0"), lambda value: value == 42, "the new scale")
    assert b"hunter2" in read_texts(site.gateway.home.config)["endpoints"]
    late = await site.client.put(f"{API}/config", json=body, headers={"If-Match": shown["etag"]})
    assert late.status_code == 412
    newest = (await site.get("config/history"))["generations"][0]
    assert (newest["author"], newest["reason"], newest["source"]) == ("rest:admin", "twice", "api")
    back = await site.client.post(f"{API}/config/rollback", json={"generation": 1})
    assert back.json()["generation"] == 3
    await plant.eventually(lambda: site.value("d.t0"), lambda value: value == 21, "the old scale")


async def test_tables_with_a_masked_secret_or_a_mistake_are_refused_with_the_place(site: Site) -> None:
    shown = await site.get("config")
    masked = {"tables": {"endpoints": shown["tables"]["endpoints"]}}
    verdict = (await site.client.post(f"{API}/config/validate", json=masked)).json()
    assert verdict["is_valid"] is False
    assert "***" in shown["tables"]["endpoints"]
    assert verdict["problems"][0]["line"] > 0
    wrong = {"tables": {"variables": "variables:\n  - {tag: d.t0, source: nix, address: 'hr:0', type: int16}\n"}}
    refused = await site.client.put(f"{API}/config", json=wrong, headers={"If-Match": shown["etag"]})
    assert (refused.status_code, refused.json()["problems"][0]["table"]) == (422, "variables")
    assert refused.json()["problems"][0]["line"] == 2
    moved = {"tables": {"drivers": shown["tables"]["drivers"].replace("tenant: flow", "tenant: other")}}
    settings = await site.client.put(f"{API}/config", json=moved, headers={"If-Match": shown["etag"]})
    assert settings.json()["code"] == "E4031"


async def test_rewind_delivers_again(site: Site) -> None:
    await plant.eventually(lambda: site.get("wal"), lambda wal: wal["wal"]["durable"] > 50, "rows")
    await plant.eventually(
        lambda: site.get("connectors"), lambda found: found["connectors"][0]["rows"] > 40, "acknowledged rows"
    )
    answer = await site.client.post(f"{API}/frames", json={"connector": "cloud", "first": 11})
    assert (answer.status_code, answer.json()["after"], answer.json()["by"]) == (200, 10, "rest:admin")
