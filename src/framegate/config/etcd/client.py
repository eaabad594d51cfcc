"""A small client of etcd's v3 JSON gateway: range, transaction, lease, watch; login, several members, TLS.

    client = Client(options, clock)
    found = await client.range("edge/plant1/line4/head")
    async for moved in client.watch("edge/plant1/line4/head", found.revision + 1): ...
    await client.close()

A request goes to one member; when that is away, to the next, once around. What might have changed something is not
sent twice. Every request has a deadline, every answer a bound, and no proxy, cookie, redirect or compression is
believed in. The gateway of etcd cannot tell users by their certificate's common name: who needs a user logs in with a
password. Source: etcd v3.4 rpc.proto; Documentation/dev-guide/api_grpc_gateway.md.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from framegate.config.etcd import answers
from framegate.config.etcd.answers import Answer, LoginNeeded, Row
from framegate.config.etcd.options import CentreOptions
from framegate.contract.errors import FrameBroken, GatewayError, NotConnected
from framegate.endpoint.loss import tls_refusal
from framegate.endpoint.secret import resolve
from framegate.endpoint.thread import in_thread
from framegate.endpoint.tls import client_context

if TYPE_CHECKING:
    import httpx2

CONNECT_S_MAX = 1.5
SILENCE_S_MAX = 2.5
"""Longest wait for the next piece of an answer, and for room for the next piece of a request."""
REQUEST_S_MAX = 2.5
TRANSFER_S_MAX = 60.0
"""For requests that carry a chunk of a table: 1 MiB over a thin line takes its time."""
ANSWER_BYTES_MAX = 8 << 20
WATCH_LINE_BYTES_MAX = 1 << 20
"""One message of a watch: events of one small key."""
CONNECTIONS_MAX = 4

Compare: TypeAlias = Mapping[str, Any]
Operation: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What a range answers. `revision` is the store's, `more` says that a limit cut the list."""

    revision: int
    rows: Sequence[Row]
    more: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """One message of a watch: `events` changes, store at `revision`. `compacted`: it began too far back, and ended."""

    revision: int
    events: int
    compacted: bool = False


class Client:
    """One etcd cluster. Used from one loop; connections are made when they are needed."""

    def __init__(self, options: CentreOptions) -> None:
        self._options = options
        self._member = 0
        self._token = ""
        self._http: httpx2.AsyncClient | None = None

    @property
    def where(self) -> str:
        """Address of the member that is asked now."""
        return self._options.endpoints[self._member]

    async def close(self) -> None:
        """Drop every connection. Idempotent."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    # -- verbs ------------------------------------------------------------------------------------------------------

    async def range(
        self,
        key: str,
        *,
        is_prefix: bool = False,
        limit: int = 1,
        keys_only: bool = False,
        newest_first: bool = False,
        seconds: float = REQUEST_S_MAX,
    ) -> Found:
        """One key, or all that begin with it, as the majority of the cluster has them.

        limit   rows at most;  newest_first  by creation, else by key;  seconds  for the whole answer
        raises  NotConnected, FrameBroken, Misconfigured, GatewayError - see answers.py; so do all verbs
        """
        body: dict[str, Any] = {"key": _text(key), "limit": str(limit), "keys_only": keys_only}
        if is_prefix:
            body["range_end"] = _text(key[:-1] + chr(ord(key[-1]) + 1))
        if newest_first:
            body |= {"sort_order": "DESCEND", "sort_target": "CREATE"}
        answer = await self._ask("/v3/kv/range", body, seconds=seconds)
        header = answers.record(answer, "header", self.where)
        rows = answers.rows_of(answer, self.where)
        if len(rows) > limit:
            raise answers.broken(self.where, f"{len(rows)} keys came where {limit} were asked for")
        return Found(answers.whole(header, "revision", self.where), rows, bool(answer.get("more")))

    async def transact(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> bool:
        """Do all operations if every comparison holds, else none; whether they were done.

        raises  NotConnected - also where it is not known whether they were
        """
        # A thin line drains what the system has buffered long after it was written: the answer may take all the time.
        body = {"compare": list(compares), "success": list(operations)}
        answer = await self._ask("/v3/kv/txn", body, seconds=TRANSFER_S_MAX, is_repeatable=False)
        return answer.get("succeeded") is True

    async def put(self, key: str, value: bytes, lease: int) -> None:
        """Write one key that goes with its lease. Raises LeaseGone where that has expired."""
        await self._ask("/v3/kv/put", {"key": _text(key), "value": _data(value), "lease": str(lease)})

    async def grant(self, seconds: int) -> int:
        """A new lease that lives so long without keep_alive; its id."""
        answer = await self._ask("/v3/lease/grant", {"TTL": str(seconds)})
        return answers.whole(answer, "ID", self.where)

    async def keep_alive(self, lease: int) -> None:
        """Begin a lease's time anew. Raises LeaseGone where it has expired."""
        answer = await self._ask("/v3/lease/keepalive", {"ID": str(lease)})
        result = answers.record(answer, "result", self.where)
        if answers.whole(result, "TTL", self.where) <= 0:
            raise answers.LeaseGone(f"{self.where}: the lease has expired; the report is written again")

    async def watch(self, key: str, revision: int) -> AsyncIterator[Moved]:
        """Changes of one key from a revision on, for as long as the connection stands.

        The first message says that the watch stands. A network that swallows everything ends nothing: whoever watches
        looks for himself now and then.
        raises  NotConnected - the connection ended
        """
        await self._log_in()
        where = self.where
        body = {"create_request": {"key": _text(key), "start_revision": str(revision)}}
        async with self._stream(where, "/v3/watch", body, None) as response:
            if response.status_code != 200:
                raise answers.refusal(await _bounded(response, where), response.status_code, where)
            async for line in _lines(response, where):
                moved = self._moved(answers.parse(line, where), where)
                yield moved
                if moved.compacted:
                    return
        raise NotConnected(f"{where}: etcd ended the watch; it begins again by itself", code="E1171")

    def _moved(self, message: Answer, where: str) -> Moved:
        if "error" in message:
            raise self._told(answers.error_of(message, where))
        result = answers.record(message, "result", where)
        revision = answers.whole(answers.record(result, "header", where), "revision", where)
        if answers.whole(result, "compact_revision", where):
            return Moved(revision, 0, compacted=True)
        if result.get("canceled"):
            reason = result.get("cancel_reason")
            said = reason[: answers.SAID_CHARACTERS_MAX] if isinstance(reason, str) else "the watch was cancelled"
            raise self._told(answers.error_from(0, said, where))
        return Moved(revision, len(answers.records(result, "events", where)))

    def _told(self, error: GatewayError) -> GatewayError:
        """The error of a watch; its token is not used again where that is the reason."""
        if isinstance(error, LoginNeeded):
            self._token = ""
        return error

    # -- requests ---------------------------------------------------------------------------------------------------

    async def _ask(
        self, path: str, body: Mapping[str, Any], *, seconds: float = REQUEST_S_MAX, is_repeatable: bool = True
    ) -> Answer:
        """One answer, with a login before it where one is needed, and after it where the token was too old."""
        await self._log_in()
        token = self._token
        try:
            return await self._ask_around(path, body, seconds, is_repeatable=is_repeatable)
        except LoginNeeded:
            if self._options.credentials is None:
                raise
        if self._token == token:
            self._token = ""
        await self._log_in()
        return await self._ask_around(path, body, seconds, is_repeatable=is_repeatable)

    async def _ask_around(self, path: str, body: Mapping[str, Any], seconds: float, *, is_repeatable: bool) -> Answer:
        """One answer, from the first member that gives one."""
        lost: NotConnected | FrameBroken | None = None
        for _ in self._options.endpoints:
            where = self.where
            try:
                return await self._exchange(where, path, body, seconds, SILENCE_S_MAX if is_repeatable else seconds)
            except (NotConnected, FrameBroken) as error:
                lost = error
                self._member = (self._member + 1) % len(self._options.endpoints)
                if not is_repeatable and not isinstance(error, _NeverLeft):
                    break
        assert lost is not None
        raise lost

    async def _exchange(
        self, where: str, path: str, body: Mapping[str, Any], seconds: float, silence_s: float
    ) -> Answer:
        try:
            async with asyncio.timeout(seconds):
                return await self._received(where, path, body, silence_s)
        except TimeoutError:
            text = f"{where}: no answer within {seconds:g} s; check etcd and network"
            raise NotConnected(text, code="E1171") from None

    async def _received(self, where: str, path: str, body: Mapping[str, Any], silence_s: float) -> Answer:
        async with self._stream(where, path, body, silence_s) as response:
            data = await _bounded(response, where)
        if response.status_code != 200:
            raise answers.refusal(data, response.status_code, where)
        return answers.parse(data, where)

    async def _log_in(self) -> None:
        """Get a token, where there is a user and none yet. A cluster without authentication gives none."""
        login = self._options.credentials
        if login is None or self._token:
            return
        base = self._options.base
        name, password = await in_thread(
            "secrets", lambda: (resolve(login.username, base), resolve(login.password, base))
        )
        body = {"name": name, "password": password}
        try:
            answer = await self._ask_around("/v3/auth/authenticate", body, REQUEST_S_MAX, is_repeatable=True)
        except GatewayError as error:
            if "authentication is not enabled" in error.text:
                return
            raise
        token = answer.get("token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise answers.broken(self.where, "the login brought no token")
        self._token = token

    @contextlib.asynccontextmanager
    async def _stream(
        self, where: str, path: str, body: Mapping[str, Any], silence_s: float | None
    ) -> AsyncIterator[httpx2.Response]:
        """A response whose head has come. What goes wrong on the way becomes NotConnected.

        silence_s  longest wait for a piece of the answer; None for a watch, which may have nothing to say for days
        """
        import httpx2  # noqa: PLC0415 - 0.15 s that a gateway without a config centre does not spend

        http = await self._ready()
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if self._token and path != "/v3/auth/authenticate":
            headers["Authorization"] = self._token
        name = self._options.tls.server_name
        timeout = httpx2.Timeout(SILENCE_S_MAX, connect=CONNECT_S_MAX, read=silence_s)
        try:
            async with http.stream(
                "POST",
                where + path,
                content=orjson.dumps(body),
                headers=headers,
                timeout=timeout,
                extensions={"sni_hostname": name} if name else {},
            ) as response:
                yield response
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            text = f"{where}: cannot be reached ({_words(error)}); check address, network and etcd"
            raise self._tls_refusal(where, error, text, _NeverLeft) from error
        except (httpx2.RequestError, ssl.SSLError, ConnectionError) as error:
            text = f"{where}: the connection broke ({_words(error)}); check etcd and network"
            if where.startswith("https:") and self._options.tls.cert is None:
                text += ", and name a certificate as tls.cert if etcd asks for one (--client-cert-auth)"
            raise self._tls_refusal(where, error, text, NotConnected) from error

    async def _ready(self) -> httpx2.AsyncClient:
        if self._http is None:
            import httpx2  # noqa: PLC0415 - see _stream

            options = self._options
            is_tls = any(url.startswith("https:") for url in options.endpoints)
            context = (
                await in_thread("tls-files", lambda: client_context(options.tls, options.base)) if is_tls else False
            )
            limits = httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
            self._http = httpx2.AsyncClient(verify=context, trust_env=False, limits=limits)
        return self._http

    def _tls_refusal(self, where: str, error: Exception, text: str, kind: type[NotConnected]) -> NotConnected:
        """What TLS has to say where it was the reason, even after the handshake (RFC 8446, 4.4.2.4); else the text."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                refused = tls_refusal(where, cause, self._options.tls.minimum.value)
                return kind(refused.text, code=refused.stable_code)
            cause = cause.__cause__ or cause.__context__
        return kind(text, code="E1171")


class _NeverLeft(NotConnected):
    """The request did not reach the member: another one may be asked without doubt."""


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _bounded(response: httpx2.Response, where: str) -> bytes:
    """The body of an answer; raises FrameBroken when it has no end."""
    parts, size = [], 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > ANSWER_BYTES_MAX:
            raise answers.broken(where, f"the answer is larger than {ANSWER_BYTES_MAX >> 20} MiB")
        parts.append(piece)
    return b"".join(parts)


async def _lines(response: httpx2.Response, where: str) -> AsyncIterator[bytes]:
    """Messages of a stream, one to a line, the last one even without its end of line."""
    kept = b""
    async for piece in response.aiter_raw():
        *whole, kept = (kept + piece).split(b"\n")
        for line in whole:
            if line:
                yield line
        if len(kept) > WATCH_LINE_BYTES_MAX:
            raise answers.broken(where, f"a message of the watch is larger than {WATCH_LINE_BYTES_MAX >> 20} MiB")
    if kept:
        yield kept


# -- parts of transactions ------------------------------------------------------------------------------------------


def is_absent(key: str) -> Compare:
    """Holds while the key does not exist."""
    return {"key": _text(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}


def is_unchanged(key: str, mod_revision: int) -> Compare:
    """Holds while nobody has written the key since that revision; 0: while it does not exist."""
    return {"key": _text(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(mod_revision)}


def put_of(key: str, value: bytes) -> Operation:
    return {"request_put": {"key": _text(key), "value": _data(value)}}


def removal_of(prefix: str) -> Operation:
    """Delete every key that begins with the prefix."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return {"request_delete_range": {"key": _text(prefix), "range_end": _text(end)}}


def _text(text: str) -> str:
    return _data(text.encode())


def _data(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
