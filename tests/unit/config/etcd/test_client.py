"""The client against servers that are broken or mean: it ends in time, in bounds, and with an error that says why."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.config.etcd import answers, client
from framegate.config.etcd.client import Client
from framegate.config.etcd.options import CentreOptions
from framegate.contract.errors import FrameBroken, GatewayError, Misconfigured, NotConnected
from framegate.endpoint.endpoint import CredentialsReference

SECRET = "hunter2-secret"
Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
KEYS = st.sampled_from(
    ["result", "header", "revision", "events", "kvs", "key", "value", "mod_revision", "error", "message", "code",
     "canceled", "cancel_reason", "compact_revision", "more", "grpc_code", "TTL", "token"]
)  # fmt: skip
LIKELY = st.recursive(JSON_VALUES, lambda inner: st.dictionaries(KEYS, inner | st.lists(inner, max_size=2), max_size=4))


def options(*urls: str, login: bool = False) -> CentreOptions:
    reference = CredentialsReference("user", SECRET) if login else None
    return CentreOptions(urls, "s", "g", "i", Path(), credentials=reference)


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """A server that answers each connection its own way, after it has read one request."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@contextlib.asynccontextmanager
async def asking(*urls: str, login: bool = False) -> AsyncIterator[Client]:
    made = Client(options(*urls, login=login))
    try:
        yield made
    finally:
        await made.close()


def reply(body: bytes, *, status: str = "200 OK", more: str = "") -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body)
        await writer.drain()

    return serve


async def raw_text(writer: asyncio.StreamWriter, text: bytes) -> None:
    writer.write(text)
    await writer.drain()


async def oversized(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        await raw_text(writer, b"x" * 65_536)


async def trickling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        await raw_text(writer, b" ")
        await asyncio.sleep(0.02)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await raw_text(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")


async def babbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await raw_text(writer, b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


async def endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        await raw_text(writer, b"X-A: " + b"a" * 1_000 + b"\r\n")


def kv(**more: Any) -> bytes:
    return json.dumps({"header": {"revision": "5"}, "kvs": [{"key": "YQ==", "value": "Yg==", **more}]}).encode()


@pytest.mark.parametrize(
    ("serve", "kind", "code"),
    [
        (oversized, FrameBroken, "E1175"),
        (trickling, NotConnected, "E1171"),
        (silent, NotConnected, "E1171"),
        (closing, NotConnected, "E1171"),
        (babbling, NotConnected, "E1171"),
        (endless_head, NotConnected, "E1171"),
        (reply(b"not json"), FrameBroken, "E1175"),
        (reply(b"[1]"), FrameBroken, "E1175"),
        (reply(b"\xff\xfe{}"), FrameBroken, "E1175"),
        (reply(b'{"a":' * 100_000), FrameBroken, "E1175"),
        (reply(kv(value="!!")), FrameBroken, "E1175"),
        (reply(kv(value=7)), FrameBroken, "E1175"),
        (reply(kv(mod_revision="many")), FrameBroken, "E1175"),
        (reply(kv(mod_revision=1.5)), FrameBroken, "E1175"),
        (reply(b'{"kvs": {}}'), FrameBroken, "E1175"),
        (reply(b'{"kvs": [1]}'), FrameBroken, "E1175"),
        (reply(b'{"header": 1}'), FrameBroken, "E1175"),
        (reply(json.dumps({"kvs": [{"key": "YQ=="}] * 3}).encode()), FrameBroken, "E1175"),
        (reply(b"\x1f\x8b\x08junk", more="Content-Encoding: gzip\r\n"), FrameBroken, "E1175"),
        (reply(b"", status="302 Found", more="Location: http://127.0.0.1:1/\r\n"), FrameBroken, "E1175"),
        (reply(b"<html>", status="404 Not Found"), FrameBroken, "E1175"),
        (reply(b"<html>", status="503 Service Unavailable"), NotConnected, "E1171"),
        (reply(b'{"message": 5, "code": "x"}', status="500 Oops"), GatewayError, "E1180"),
        (reply(b'{"error": "etcdserver: no leader", "code": 14}', status="503 No"), NotConnected, "E1171"),
        (reply(b'{"error": "etcdserver: permission denied", "code": 7}', status="403 No"), Misconfigured, "E1173"),
        (reply(b'{"message": "mvcc: database space exceeded", "code": 8}', status="429 No"), GatewayError, "E1179"),
    ],
)  # fmt: skip
async def test_range_from_a_bad_server_ends_in_a_known_error(
    monkeypatch: pytest.MonkeyPatch, serve: Serve, kind: type[GatewayError], code: str
) -> None:
    monkeypatch.setattr(client, "SILENCE_S_MAX", 0.3)
    async with serving(serve) as url, asking(url) as asked:
        begun = time.monotonic()
        with pytest.raises(kind) as caught:
            await asked.range("a", seconds=0.5)
        assert time.monotonic() - begun < 10.0, "it has half a second; a server that trickles never ends"
    assert caught.value.stable_code == code
    assert url in caught.value.text
    assert len(caught.value.text) < 500


@pytest.mark.parametrize(
    ("serve", "kind"),
    [
        (oversized, FrameBroken),
        (closing, NotConnected),
        (reply(b'{"result": 5}\n'), FrameBroken),
        (reply(b"[]\n"), FrameBroken),
        (reply(b'{"result": {"events": 5}}\n'), FrameBroken),
        (reply(b'{"error": {"grpc_code": 14, "message": "transport is closing"}}'), NotConnected),
        (reply(b'{"result": {"canceled": true, "cancel_reason": "permission denied"}}'), Misconfigured),
        (reply(b'{"result": {"canceled": true, "cancel_reason": ["x"]}}'), GatewayError),
        (reply(b'{"error": "etcdserver: permission denied"}', status="403 No"), Misconfigured),
        (reply(b""), NotConnected),
    ],
)
async def test_watch_of_a_bad_server_ends_in_a_known_error(serve: Serve, kind: type[GatewayError]) -> None:
    async with serving(serve) as url, asking(url) as asked:
        with pytest.raises(kind):
            async for _ in asked.watch("a", 1):
                pass


async def test_watch_says_that_its_past_was_compacted() -> None:
    body = (
        b'{"result":{"header":{"revision":"9"},"created":true}}\n{"result":{"canceled":true,"compact_revision":"9"}}\n'
    )
    async with serving(reply(body)) as url, asking(url) as asked:
        seen = [moved async for moved in asked.watch("a", 1)]
    assert [(moved.revision, moved.events, moved.compacted) for moved in seen] == [(9, 0, False), (0, 0, True)]


async def test_watch_takes_messages_in_any_pieces() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for byte in b'{"result":{"created":true}}\n\n{"result":{"header":{"revision":"3"},"events":[{},{}]}}\n':
            await raw_text(writer, bytes((byte,)))
            await asyncio.sleep(0)

    async with serving(serve) as url, asking(url) as asked:
        watch = asked.watch("a", 1)
        seen = [(moved.revision, moved.events) for moved in (await anext(watch), await anext(watch))]
        with pytest.raises(NotConnected):
            await anext(watch)
    assert seen == [(0, 0), (3, 2)]


async def test_next_member_answers_for_one_that_is_away_or_mute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENCE_S_MAX", 0.3)
    async with serving(silent) as mute, serving(reply(kv())) as good, asking("http://127.0.0.1:9", mute, good) as asked:
        assert (await asked.range("a")).rows[0].value == b"b"
        assert asked.where == good
        assert (await asked.range("a")).revision == 5


async def test_transaction_that_may_have_arrived_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENCE_S_MAX", 0.3)
    arrived = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        arrived += 1

    async with serving(count) as first, serving(count) as second, asking("http://127.0.0.1:9", first, second) as asked:
        with pytest.raises(NotConnected):
            await asked.transact([], [])
    assert arrived == 1


async def test_login_that_is_refused_names_no_secret() -> None:
    body = b'{"error": "etcdserver: authentication failed, invalid user ID or password", "code": 3}'
    async with serving(reply(body, status="400 Bad Request")) as url, asking(url, login=True) as asked:
        with pytest.raises(Misconfigured) as caught:
            await asked.range("a")
    assert caught.value.stable_code == "E1172"
    assert SECRET not in str(caught.value)
    assert base64.b64encode(SECRET.encode()).decode() not in repr(caught.value.__cause__)


@pytest.mark.parametrize("token", [b'"a\\r\\nX-Evil: 1"', b"5", b"null", '"é"'.encode()])
async def test_login_with_a_token_unfit_for_a_header_is_refused(token: bytes) -> None:
    async with serving(reply(b'{"token": ' + token + b"}")) as url, asking(url, login=True) as asked:
        with pytest.raises(FrameBroken, match="the login brought no token"):
            await asked.range("a")


async def test_damaged_http_ends_in_a_known_error() -> None:
    dice = random.Random(5)
    sound = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(kv()), kv())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        damaged = bytearray(sound)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        await raw_text(writer, bytes(damaged[: dice.randint(1, len(damaged) * 2)]))

    async with serving(serve) as url, asking(url) as asked:
        for _ in range(300):
            with contextlib.suppress(GatewayError):
                assert isinstance(await asked.range("a"), client.Found)


async def test_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with serving(reply(kv())) as url, asking(url) as asked:
        assert (await asked.range("a")).rows


@settings(max_examples=500)
@given(LIKELY)
def test_any_answer_becomes_a_record_or_a_known_error(value: Any) -> None:
    with contextlib.suppress(GatewayError):
        answer = answers.parse(json.dumps(value).encode(), "x")
        assert isinstance(answers.error_of(answer, "x"), GatewayError)
        with contextlib.suppress(GatewayError):
            answers.rows_of(answer, "x")
        Client(options("http://127.0.0.1:9"))._moved(answer, "x")


@given(st.binary(max_size=100), st.integers(300, 600))
def test_any_refusal_becomes_a_known_error(data: bytes, status: int) -> None:
    assert isinstance(answers.refusal(data, status, "x"), GatewayError)
