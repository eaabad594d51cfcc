"""The live channel, seen by the client of the websockets library; and clients that mean no good."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from framegate.api import connection, live
from framegate.api.live import CLIENTS_PER_PEER_MAX, MESSAGE_BYTES_MAX, WISHES_BURST
from framegate.api.live_frame import frame_of
from framegate.api.server import Server
from framegate.config import ApiRow
from framegate.observe.api_face import LatestColumns
from framegate.testing.plant import until

Open = Callable[..., Any]


@pytest.fixture
async def server(stage: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(live, "INTERVAL_S", 0.02)
    server = await stage.serve(ApiRow(listen="127.0.0.1:0", origins=("https://console.plant",)))
    yield server
    await server.close()


@pytest.fixture
def opened(server: Server, stage: Any) -> Open:
    def open_(who: str = "viewer", **more: Any) -> Any:
        headers = {"Authorization": getattr(stage, who)} if who else {}
        return connect(f"ws://{server.address}/api/v1/live", additional_headers=headers, proxy=None, **more)

    return open_


async def said(client: ClientConnection) -> Any:
    """The next message: a text as an object, a frame as (is_snapshot, {place: (value, level)})."""
    async with asyncio.timeout(5):
        message = await client.recv()
    if isinstance(message, str):
        return json.loads(message)
    return frame(message)


def frame(data: bytes) -> tuple[bool, dict[int, tuple[float | None, int]]]:
    """A frame read by the description alone."""
    _, count, flags = struct.unpack_from("<dII", data)
    assert len(data) == 16 + 13 * count
    value = struct.unpack_from(f"<{count}d", data, 16)
    place = struct.unpack_from(f"<{count}I", data, 16 + 8 * count)
    level = data[16 + 12 * count :]
    shown = [None if number != number else number for number in value]  # noqa: PLR0124 - NaN
    return bool(flags & 1), dict(zip(place, zip(shown, level, strict=True), strict=True))


async def ending(client: ClientConnection) -> tuple[int, str]:
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(5):
            while True:
                await client.recv()
    return client.close_code or 0, client.close_reason or ""


async def test_window_then_snapshot_then_what_changes(opened: Open, stage: Any) -> None:
    async with opened() as client:
        await client.send(json.dumps({"filter": "", "lo": 0, "hi": 5}))
        window = (await said(client))["window"]
        assert (window["names"][:2], window["total"], window["generation"]) == (["t1", "t2"], 6, 12)
        assert await said(client) == (True, {0: (1.5, 0), 1: (2.5, 0), 2: (7.0, 0), 3: (None, 0), 4: (None, 0)})
        assert await said(client) == {"texts": {"3": "open", "4": str(2**60)}}
        stage.change(2, 9.0)
        assert await said(client) == (False, {1: (9.0, 0)})
        await client.send(json.dumps({"filter": "t*", "lo": 1, "hi": 2}))
        assert (await said(client))["window"]["names"] == ["t2"]
        assert await said(client) == (True, {0: (9.0, 0)})


async def test_window_by_names_keeps_their_places(opened: Open, stage: Any) -> None:
    stage.mine = stage.access.add("viewer", ("t1",), "mine")
    async with opened("mine") as client:
        await client.send(json.dumps({"tags": ["nix", "t2", "t1"]}))
        assert (await said(client))["window"]["names"] == [None, None, "t1"]
        assert await said(client) == (True, {2: (1.5, 0)})


async def test_quiet_window_says_that_it_is_alive(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "ALIVE_S", 0.05)
    async with opened() as client:
        await client.send(json.dumps({"tags": ["t1"]}))
        await said(client)
        await said(client)
        assert await said(client) == (False, {})


async def test_new_configuration_brings_a_new_window(opened: Open, stage: Any) -> None:
    async with opened() as client:
        await client.send(json.dumps({"tags": ["t1"]}))
        await said(client)
        await said(client)
        stage.tables.generation += 1
        assert (await said(client))["window"]["generation"] == 13
        assert (await said(client))[0] is True


async def test_credentials_may_come_first_as_a_message(opened: Open, stage: Any) -> None:
    async with opened("") as client:
        await client.send(json.dumps({"authorization": stage.viewer}))
        await client.send(json.dumps({"tags": ["t1"]}))
        assert "window" in await said(client)
    async with opened("") as client:
        await client.send(json.dumps({"authorization": "Bearer nix"}))
        assert await ending(client) == (1008, "E4300 no valid credentials; send Authorization: Bearer TOKEN")


async def test_channel_ends_with_its_credentials(opened: Open, stage: Any) -> None:
    async with opened() as client:
        await client.send(json.dumps({"tags": ["t1"]}))
        await said(client)
        stage.access.revoked.add("viewer")
        assert await ending(client) == (1008, "E4300 the credentials have ended")


async def test_wrong_credentials_are_refused_before_anything_opens(server: Server) -> None:
    url = f"ws://{server.address}/api/v1/live"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, additional_headers={"Authorization": "Bearer nix"}, proxy=None)
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body or b"")["code"] == "E4300"


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("{own}", True),
        ("https://console.plant", True),
        ("https://evil.example", False),
        ("http://127.0.0.1:1", False),
        ("null", False),
    ],
)
async def test_origin_of_a_page_is_looked_at(opened: Open, server: Server, origin: str, is_allowed: bool) -> None:
    own = f"http://{server.address}"
    client = opened(origin=Origin(origin.replace("{own}", own)))
    if is_allowed:
        async with client:
            return
    with pytest.raises(InvalidStatus) as refused:
        await client
    assert refused.value.response.status_code == 403


async def test_name_that_resolves_here_is_no_own_origin(server: Server, stage: Any) -> None:
    """DNS rebinding: the page's own name leads to this machine, so Origin and Host agree."""
    host, _, port = server.address.rpartition(":")
    with pytest.raises(InvalidStatus) as refused:
        await connect(
            f"ws://evil.example:{port}/api/v1/live", host=host, origin=Origin(f"http://evil.example:{port}"),
            additional_headers={"Authorization": stage.viewer}, proxy=None,
        )  # fmt: skip
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "message",
    ["{", "[]", '{"lo": -1}', '{"lo": 0, "hi": 5001}', '{"lo": 9, "hi": 1}', '{"hi": 1e400}', b"\x00", '{"x": 1}',
     '{"tags": [1]}'],
)  # fmt: skip
async def test_message_that_is_none_ends_the_channel(opened: Open, message: str | bytes) -> None:
    async with opened() as client:
        await client.send(message)
        code, reason = await ending(client)
        assert (code, reason[:5]) == (1008, "E4250")


async def test_message_beyond_its_size_ends_the_channel(opened: Open) -> None:
    async with opened() as client:
        with contextlib.suppress(ConnectionClosed):
            await client.send('{"filter": "' + "a" * MESSAGE_BYTES_MAX + '"}')
        assert (await ending(client))[0] in {1009, 1006}


async def test_flood_of_windows_ends_the_channel(opened: Open) -> None:
    async with opened() as client:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(int(WISHES_BURST) + 20):
                await client.send('{"tags": ["t1"]}')
        assert (await ending(client))[1].startswith("E4236")


async def test_silent_client_is_let_go(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HELLO_WAIT_S", 0.05)
    for who in ("", "viewer"):
        async with opened(who) as client:
            assert (await ending(client))[0] == 1008


async def test_crowd_of_clients_is_refused_and_leaves_room_again(opened: Open, server: Server, stage: Any) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(CLIENTS_PER_PEER_MAX):
            await stack.enter_async_context(opened())
        assert stage.metrics.gauge("edge_api_live_clients").sample() == CLIENTS_PER_PEER_MAX
        with pytest.raises(InvalidStatus) as refused:
            await opened()
        assert refused.value.response.status_code == 503
    await until(lambda: not stage.metrics.gauge("edge_api_live_clients").sample(), "room")


async def test_client_that_reads_nothing_is_cut_and_others_go_on(
    opened: Open, server: Server, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SEND_WAIT_S", 0.2)
    monkeypatch.setattr(connection, "LIVE_CLOSE_WAIT_S", 0.1)
    stage.change(4, "x" * 500_000)
    async with opened(max_queue=1) as deaf, opened() as good:
        deaf.transport.pause_reading()
        await deaf.send(json.dumps({"tags": ["state"]}))
        await good.send(json.dumps({"tags": ["t1"]}))
        assert "window" in await said(good)
        async with asyncio.timeout(20):
            number = 0
            while stage.metrics.gauge("edge_api_live_clients").sample() > 1:
                number += 1
                stage.change(4, f"{number}" + "x" * 500_000)
                await asyncio.sleep(0.02)
        stage.change(1, 77.0)
        while await said(good) != (False, {0: (77.0, 0)}):
            pass
        deaf.transport.abort()


async def test_pings_without_reading_do_not_fill_the_memory(server: Server, stage: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(connection, "LIVE_BUFFER_BYTES_MAX", 64_000)
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade\r\n"
    writer.write(f"GET /api/v1/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n{key}\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 101")
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    ping = b"\x89\xfd\x00\x00\x00\x00" + b"p" * 125
    is_cut = False
    async with asyncio.timeout(20):
        while not is_cut:
            writer.write(ping * 500)
            try:
                await writer.drain()
            except ConnectionError:
                is_cut = True
    writer.close()


def test_frame_of_five_thousand_changes_has_thirteen_bytes_each() -> None:
    size = 5_000
    columns = LatestColumns(
        np.random.default_rng(4711).normal(size=size), np.zeros(size, np.uint64), np.zeros(size, np.uint32),
        np.ones(size, np.bool_), np.zeros(size, np.bool_), np.zeros(size, np.bool_),
    )  # fmt: skip
    data = frame_of(columns, np.arange(size), 1.0, is_snapshot=False)
    assert len(data) / size <= 20
    assert frame(data)[1][4_999] == (columns.value[4_999], 0)
