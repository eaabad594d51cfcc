"""The live channel: a WebSocket on which a client watches a window of tags.

    client   {"authorization": "Bearer ..."}          first, where the handshake could not carry it (browsers)
             {"filter": "pump*", "lo": 0, "hi": 50}   rows lo to hi-1 of the tags that match; again whenever it scrolls
             {"tags": ["pump7.speed"]}                or these, in this order
    server   {"window": {...}}, a snapshot, then what has changed, five times a second (live_frame.py)

Nothing is queued for a client: a frame is made when the one before has left, of what is newest then, so a slow client
gets fewer and newer frames and never holds anybody up. Clients, messages, windows and waits are bounded; the channel
ends with the credentials that opened it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from ipaddress import ip_address
from typing import Annotated, Final, TypeVar

import msgspec
import numpy as np
import orjson
from msgspec import Meta
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from framegate.api.live_frame import changed_rows, frame_of
from framegate.api.problem import CONTENT_TYPE, Problem, problem, problem_of
from framegate.api.rate import Rates
from framegate.api.tags import Filter, json_of
from framegate.contract.access import Access, Permission, Principal
from framegate.contract.errors import Denied, GatewayError
from framegate.contract.frame import Int64Column
from framegate.contract.ports import Clock
from framegate.observe.api_face import ApiFace, LatestColumns
from framegate.observe.face import TagRow
from framegate.observe.metrics import Metrics

CLIENTS_MAX: Final = 64
CLIENTS_PER_PEER_MAX: Final = 16
MESSAGE_BYTES_MAX: Final = 256 << 10
WINDOW_TAGS_MAX: Final = 5_000
INTERVAL_S: Final = 0.2
ALIVE_S: Final = 2.0
"""A window without changes sends an empty frame this often, so that silence means trouble."""
HELLO_WAIT_S: Final = 5.0
"""For credentials, and for the first window after them."""
SEND_WAIT_S: Final = 10.0
WISHES_PER_S: Final = 10.0
WISHES_BURST: Final = 30.0
"""Windows that one principal may ask for, over all its channels."""
PIECE_TAGS: Final = 500
CLOSE_WAIT_S: Final = 1.0
POLICY: Final = 1008
REASON_BYTES_MAX: Final = 120
"""Of a close frame; RFC 6455, 5.5."""
_ORIGIN: Final = re.compile(r"https?://(.+)").fullmatch
_NONE: Final[Int64Column] = np.array([], np.int64)
_ROWS: Final = Meta(ge=0, le=1 << 31)


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Credentials in the first message."""

    authorization: Annotated[str, Meta(max_length=4_096)]


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A window: rows lo to hi-1 of the tags that match, or tags by name."""

    filter: Filter = ""
    lo: Annotated[int, _ROWS] = 0
    hi: Annotated[int, _ROWS] = 100
    tags: Annotated[list[Annotated[str, Meta(max_length=128)]], Meta(max_length=WINDOW_TAGS_MAX)] | None = None


class _Over(Exception):
    """The channel ends: close code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Live:
    """The ASGI application at /api/v1/live; origins: of web pages that may use it besides the API's own."""

    def __init__(
        self, face: ApiFace, access: Access, clock: Clock, metrics: Metrics, *, origins: tuple[str, ...] = ()
    ) -> None:
        self._face, self._access, self._clock, self._origins = face, access, clock, origins
        self._wishes = Rates(WISHES_PER_S, WISHES_BURST)
        self._peers: Counter[str] = Counter()
        metrics.gauge("edge_api_live_clients").read = lambda: float(self._peers.total())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        peer = socket.client.host if socket.client is not None else ""
        await socket.receive()  # websocket.connect
        if self._peers.total() >= CLIENTS_MAX or self._peers[peer] >= CLIENTS_PER_PEER_MAX:
            text = f"{CLIENTS_MAX} live channels at once, {CLIENTS_PER_PEER_MAX} of one address; close one of them"
            await _deny(socket, problem("E4248", text))
            return
        self._peers[peer] += 1
        try:
            await self._converse(socket, peer)
        except WebSocketDisconnect:
            pass
        finally:
            self._peers[peer] -= 1
            self._peers += Counter()  # drops peers that have none left

    async def _converse(self, socket: WebSocket, peer: str) -> None:
        origin = socket.headers.get("origin", "")
        if origin and not self._is_allowed(origin, socket.headers.get("host", "")):
            await _deny(socket, problem("E4249", "this web page is of another origin; see gateway.api.origins"))
            return
        authorization = socket.headers.get("authorization", "")
        try:
            principal = await self._authenticated(authorization, peer) if authorization else None
        except GatewayError as error:
            await _deny(socket, problem_of(error))
            return
        await socket.send({"type": "websocket.accept"})
        try:
            if principal is None:
                principal = await self._authenticated(await _hello(socket), peer)
            await _Channel(self._face, self._access, self._clock, self._wishes, socket, principal).run()
        except _Over as over:
            await _close(socket, over.code, over.reason)
        except GatewayError as error:
            await _close(socket, POLICY, str(error))
        except TimeoutError:
            await _close(socket, POLICY, "E4245 nothing came, or nothing was taken, within the deadline")

    async def _authenticated(self, authorization: str, peer: str) -> Principal:
        principal = await self._access.authenticate(authorization, peer)
        if not principal.may(Permission.TAGS_READ):
            raise Denied("live: these credentials lack the permission tags:read", code="E4243")
        return principal

    def _is_allowed(self, origin: str, host: str) -> bool:
        """A page of this API's own address, or of a listed origin.

        A name that resolves to this machine today may be anybody's (DNS rebinding), so own addresses are numbers and
        localhost; names are to be listed.
        """
        if origin in self._origins:
            return True
        found = _ORIGIN(origin)
        return found is not None and found[1] == host and _is_number(host)


class _Channel:
    """One client with its principal, from its first window to its end."""

    def __init__(
        self, face: ApiFace, access: Access, clock: Clock, wishes: Rates, socket: WebSocket, principal: Principal
    ) -> None:
        self._face, self._access, self._clock, self._wishes = face, access, clock, wishes
        self._socket, self._principal = socket, principal
        self._wish: Wish | None = None
        self._is_fresh = False  # there is a wish that no window was made of
        self._generation = -1  # that the window was made in
        self._matched, self._matched_by = _NONE, ("", -1)
        self._ids = _NONE
        self._seen: LatestColumns | None = None  # what the client has
        self._told_at = 0.0

    async def run(self) -> None:
        """Serve until the client leaves; raises _Over, TimeoutError, WebSocketDisconnect."""
        reader = asyncio.create_task(self._read(), name="live-reader")
        try:
            async with asyncio.timeout(HELLO_WAIT_S):
                while self._wish is None and not reader.done():
                    await asyncio.wait((reader,), timeout=INTERVAL_S)
            while not reader.done():
                if not self._access.is_valid(self._principal):
                    raise _Over(POLICY, "E4300 the credentials have ended")
                if self._is_fresh or self._generation != self._face.tables.generation:
                    await self._begin_window()
                await self._tell()
                await asyncio.wait((reader,), timeout=INTERVAL_S)
            reader.result()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    # -- from the client ------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            wish = _parsed(await _message(self._socket), Wish)
            if self._wishes.take(self._principal.name, self._clock.monotonic()):
                raise _Over(POLICY, f"E4236 more than {WISHES_PER_S:.0f} windows a second")
            if wish.tags is None and not 0 <= wish.hi - wish.lo <= WINDOW_TAGS_MAX:
                raise _Over(POLICY, f"E4250 a window has 0 to {WINDOW_TAGS_MAX} tags")
            self._wish, self._is_fresh = wish, True

    # -- to the client --------------------------------------------------------------------------------------------

    async def _begin_window(self) -> None:
        """Look up the tags of the newest wish and tell the client which they are."""
        wish = self._wish
        assert wish is not None
        self._is_fresh, self._generation = False, self._face.tables.generation
        if wish.tags is not None:
            rows = [self._visible(name) for name in wish.tags]
            lo, total = 0, len(rows)
        else:
            matched = await self._match(wish.filter)
            lo, total = wish.lo, len(matched)
            rows = await self._rows_of(matched[wish.lo : wish.hi])
        self._ids = np.array([0 if row is None else row.id for row in rows], np.int64)
        self._seen = None
        window = {
            "generation": self._generation,
            "lo": lo,
            "total": total,
            "ids": [0 if row is None else row.id for row in rows],
            "names": [None if row is None else row.name for row in rows],
            "units": [None if row is None else row.unit for row in rows],
            "types": [None if row is None else row.type for row in rows],
        }
        await self._send(text=orjson.dumps({"window": window}).decode())

    async def _tell(self) -> None:
        """Send what has changed since the last frame, if anything has, or that nothing has, now and then."""
        latest = self._face.frames.latest(self._ids)
        changed = changed_rows(latest, self._seen)
        now = self._clock.monotonic()
        is_snapshot = self._seen is None
        if not is_snapshot and not len(changed) and now - self._told_at < ALIVE_S:
            return
        self._seen, self._told_at = latest, now
        await self._send(data=frame_of(latest, changed, self._clock.now_ns() / 1e6, is_snapshot=is_snapshot))
        texts = self._texts(latest, changed)
        if texts:
            await self._send(text=orjson.dumps({"texts": texts}).decode())

    def _texts(self, latest: LatestColumns, changed: Int64Column) -> dict[str, object]:
        """What a float64 cannot hold, by its place in the window; integers as text."""
        places = changed[(latest.is_object | latest.is_wide)[changed]].tolist()
        rows = self._face.values(self._ids[places].tolist())
        return {
            str(place): str(row.value) if isinstance(row.value, int) else json_of(row.value)
            for place, row in zip(places, rows, strict=True)
        }

    async def _match(self, pattern: str) -> Int64Column:
        """Ids of all tags of a filter; kept until the filter or the configuration changes: clients scroll."""
        key = (pattern, self._generation)
        if self._matched_by != key:
            self._matched = await self._face.frames.match(pattern, self._may)
            self._matched_by = key
        return self._matched

    async def _rows_of(self, ids: Int64Column) -> list[TagRow | None]:
        rows: list[TagRow | None] = []
        for start in range(0, len(ids), PIECE_TAGS):
            rows += self._face.values(ids[start : start + PIECE_TAGS].tolist())
            await asyncio.sleep(0)
        return rows

    def _visible(self, name: str) -> TagRow | None:
        return self._face.value(name) if self._may(name) else None

    def _may(self, name: str) -> bool:
        return self._principal.may(Permission.TAGS_READ, name)

    async def _send(self, *, text: str | None = None, data: bytes | None = None) -> None:
        async with asyncio.timeout(SEND_WAIT_S):
            await self._socket.send({"type": "websocket.send", "text": text, "bytes": data})


M = TypeVar("M", Hello, Wish)


async def _hello(socket: WebSocket) -> str:
    async with asyncio.timeout(HELLO_WAIT_S):
        return _parsed(await _message(socket), Hello).authorization


async def _message(socket: WebSocket) -> str:
    """The next message; raises WebSocketDisconnect, _Over."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    if text is None:
        raise _Over(POLICY, "E4250 a message to the live channel is a text with one JSON object")
    return str(text)


def _parsed(text: str, kind: type[M]) -> M:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _Over(POLICY, f"E4250 {error}") from error


async def _deny(socket: WebSocket, found: Problem) -> None:
    """Refuse a handshake, in words where the client can read them."""
    body = msgspec.json.encode(found)
    await socket.send_denial_response(Response(body, found.status, media_type=CONTENT_TYPE))


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):  # it may be gone, or take nothing
        async with asyncio.timeout(CLOSE_WAIT_S):
            await socket.close(code, reason.encode()[:REASON_BYTES_MAX].decode("utf-8", "ignore"))


def _is_number(host: str) -> bool:
    """Whether a Host header is an address or localhost, with or without a port."""
    name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
    try:
        return name == "localhost" or bool(ip_address(name.strip("[]")))
    except ValueError:
        return False
