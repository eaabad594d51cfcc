"""The API as an ASGI application: from a request to its operation, past every check, and back.

    limits -> who asks -> rate -> may they -> form of body and parameters -> audit -> handler -> audit -> answer

Whatever goes wrong becomes a problem (problem.py); what nobody foresaw becomes a 500 with an id that the log names.
Limits of bytes and time on the wire are the server's (server.py).
"""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeAlias
from urllib.parse import parse_qsl

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from framegate.api.identity import ulid
from framegate.api.operation import PREFIX, Answer, Call, Operation, Site, Upload
from framegate.api.operations import OPERATIONS
from framegate.api.paths import Paths
from framegate.api.problem import CONTENT_TYPE, Problem, problem, problem_of
from framegate.api.rate import Rates
from framegate.contract.access import Audit, AuditEntry, Principal
from framegate.contract.errors import Busy, Denied, FrameBroken, GatewayError, StoreFailed
from framegate.contract.ports import Log
from framegate.observe.metrics import Counter, Metrics

IN_FLIGHT_MAX: Final = 128
"""Requests under way at once, over all clients."""
BODIES_BYTES_MAX: Final = 160 << 20
"""Of the bodies of all requests under way: three configurations, or a great many writes."""
RETRY_S: Final = 1.0
TRACE_FRAMES: Final = 5
LIVE: Final = f"{PREFIX}/live"
Head: TypeAlias = Mapping[bytes, bytes]
"""Headers of a request, by lower-case name; of several with one name the first."""
_ALWAYS: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_NOBODY: Final = Principal("", frozenset(), ())
_encoder: Final = msgspec.json.Encoder()


class _ClientGone(Exception):
    """The client hung up before its request was whole; there is nobody to answer."""


class Api:
    """One application, for one gateway. Used on the loop.

    live  takes the WebSocket at /api/v1/live
    """

    def __init__(
        self, site: Site, audit: Audit, log: Log, metrics: Metrics, live: ASGIApp,
        operations: Sequence[Operation] = OPERATIONS,
    ) -> None:  # fmt: skip
        self._site, self._audit, self._log, self._metrics = site, audit, log, metrics
        self._rates = Rates()
        self._in_flight = 0
        self._noting: set[asyncio.Task[None]] = set()  # bounded by what the audit log takes
        self._memory = _Memory()
        self._counters: dict[tuple[str, int], Counter] = {}
        self._live, self._paths = live, Paths(operations)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["raw_path"].decode("latin-1")
        if scope["type"] == "websocket":
            if path == LIVE:
                await self._live(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        methods, parameters = self._paths.find(path)
        operation = methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if operation is None:
            await _send(send, scope, *_no_such(path, scope["method"], methods))
            return
        id_ = ulid(self._site.clock.now_ns())
        try:
            answer, body = await self._guarded(operation, id_, parameters, scope, receive)
        except _ClientGone:
            return
        self._count(operation.id, answer.status)
        await _send(send, scope, answer, body)

    async def _guarded(
        self, operation: Operation, id_: str, parameters: Mapping[str, str], scope: Scope, receive: Receive
    ) -> tuple[Answer, bytes]:
        """The answer and its bytes, whatever goes wrong."""
        if self._in_flight >= IN_FLIGHT_MAX:
            self._metrics.counter("edge_api_refused_total", reason="overload").value += 1
            full = problem("E4251", f"{IN_FLIGHT_MAX} requests are under way; ask again in a moment")
            return _refused(full, (("retry-after", "1"),))
        self._in_flight += 1
        try:
            answer = await self._answer(operation, id_, parameters, scope, receive)
            return answer, answer.body if isinstance(answer.body, bytes) else _encoder.encode(answer.body)
        except GatewayError as error:
            return _refused(problem_of(error), _headers_of(error))
        except _ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 - the edge of a request: whoever asks is told, and the others go on
            trace = traceback.format_exception(error, limit=-TRACE_FRAMES)
            self._log.error("api_failed", operation=operation.id, request=id_, reason=repr(error), trace=trace)
            return _refused(problem("E4239", "the gateway failed on this request", request=id_))
        finally:
            self._in_flight -= 1

    async def _answer(
        self, operation: Operation, id_: str, parameters: Mapping[str, str], scope: Scope, receive: Receive
    ) -> Answer:
        head, peer = dict(reversed(scope["headers"])), _peer(scope)
        principal = await self._admitted(operation, head, peer)
        with _Share(self._memory) as share:
            call = Call(
                site=self._site,
                principal=principal,
                path=parameters,
                query=_query(operation, scope),
                body=await _body(operation, head, receive, share),
                headers={name: _header(head, name.encode()) for name in operation.headers},
                id=id_,
            )
            if not operation.is_change:
                return await operation.handler(call)
            return await self._carry_out(operation, call, peer)

    async def _admitted(self, operation: Operation, head: Head, peer: str) -> Principal:
        """Who asks, if they may; raises Denied, Busy."""
        permission = operation.permission
        if permission is None:
            self._pace(f"peer {peer}")
            return _NOBODY
        principal = await self._site.access.authenticate(_header(head, b"authorization"), peer)
        self._pace(principal.name)
        if not principal.may(permission):
            if operation.is_change:
                await self._note(AuditEntry(principal.name, operation.id, "", "denied", peer), "")
            text = f"{operation.id}: these credentials lack the permission {permission.value}"
            raise Denied(text, code="E4243")
        return principal

    def _pace(self, name: str) -> None:
        wait_s = self._rates.take(name, self._site.clock.monotonic())
        if wait_s:
            self._metrics.counter("edge_api_refused_total", reason="rate").value += 1
            raise Busy("too many requests; ask more slowly, or for more at a time", wait_s=wait_s, code="E4236")

    # -- audit ----------------------------------------------------------------------------------------------------

    async def _carry_out(self, operation: Operation, call: Call[Any, Any], peer: str) -> Answer:
        """What must be audited is not begun before that it begins is on disk; raises StoreFailed E4306 then.

        The answer does not wait until what came of it is there, too.
        """
        if not self._site.access.is_valid(call.principal):  # a body may take its time to come
            raise Denied("these credentials have ended meanwhile", code="E4300")
        name, target = call.principal.name, call.path.get(operation.target, "")
        details = {"request": call.id, **operation.details(call)}
        await self._audit.note(AuditEntry(name, operation.id, target, "begun", peer, details))
        try:
            answer = await operation.handler(call)
        except Exception as error:
            code = error.stable_code if isinstance(error, GatewayError) else "E4239"
            outcome = "denied" if isinstance(error, Denied) else code
            await self._note(AuditEntry(name, operation.id, target, outcome, peer, {"request": call.id}), call.id)
            raise
        done = {"request": call.id, **answer.note}
        entry = AuditEntry(name, operation.id, target, _outcome_of(answer), peer, done)
        task = asyncio.create_task(self._note(entry, call.id), name=f"audit {call.id}")
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)
        return answer

    async def settle(self) -> None:
        """What has been done is in the audit log, or its log says why not."""
        if self._noting:
            await asyncio.wait(self._noting)

    async def _note(self, entry: AuditEntry, request: str) -> None:
        """Keep what has happened already; a full disk does not undo it."""
        try:
            await self._audit.note(entry)
        except StoreFailed as error:
            self._log.error("api_audit_failed", operation=entry.action, request=request, reason=str(error))

    # -- answers --------------------------------------------------------------------------------------------------

    def _count(self, operation: str, status: int) -> None:
        key = (operation, status // 100)
        counter = self._counters.get(key)
        if counter is None:
            name = "edge_api_requests_total"
            counter = self._counters[key] = self._metrics.counter(name, operation=operation, status=f"{key[1]}xx")
        counter.value += 1


@dataclass(slots=True)
class _Memory:
    """What all bodies under way may take together, bytes."""

    left: int = BODIES_BYTES_MAX


class _Share:
    """What one request holds of it, from its first byte to its answer."""

    def __init__(self, memory: _Memory) -> None:
        self._memory, self._held = memory, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._memory.left += self._held

    def take(self, size: int) -> None:
        """Raises Busy E4251 where others hold all there is."""
        if size > self._memory.left:
            raise Busy("too many large requests are under way; ask again in a moment", wait_s=RETRY_S, code="E4251")
        self._memory.left -= size
        self._held += size


def _no_such(path: str, method: str, methods: Mapping[str, Operation]) -> tuple[Answer, bytes]:
    """What is told to whoever asks for a path, or a method of it, that there is not."""
    if not methods:
        return _refused(problem("E4230", f"no such path; {PREFIX}/openapi.json lists all of them"))
    allowed = ", ".join(sorted(methods))
    return _refused(problem("E4231", f"{path} has no {method[:16]}; it has {allowed}"), (("allow", allowed),))


def _header(head: Head, name: bytes) -> str:
    return head.get(name, b"").decode("latin-1")


def _query(operation: Operation, scope: Scope) -> msgspec.Struct:
    """Parameters of the query; raises FrameBroken E4235."""
    text = scope["query_string"].decode("latin-1")
    pairs = dict(parse_qsl(text, keep_blank_values=True)) if text else {}
    try:
        return msgspec.convert(pairs, operation.query, strict=False)
    except msgspec.ValidationError as error:
        raise FrameBroken(f"query: {str(error)[0].lower()}{str(error)[1:]}", code="E4235") from error


async def _body(operation: Operation, head: Head, receive: Receive, share: _Share) -> Any:
    """The body as the operation takes it; raises FrameBroken E4232, E4233, E4234; Busy."""
    if operation.body is None:
        return None
    if operation.body is Upload:
        return Upload(_pieces(receive, operation.body_bytes_max, head))
    kind = _header(head, b"content-type").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise FrameBroken(f"body: {kind[:64] or 'nothing'} is announced; send application/json", code="E4233")
    data = await _received(receive, operation.body_bytes_max, head, share)
    try:
        return msgspec.json.decode(data, type=operation.body)
    except msgspec.ValidationError as error:
        raise FrameBroken(f"body: {str(error)[0].lower()}{str(error)[1:]}", code="E4234") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise FrameBroken(f"body: no JSON ({error}); send one value as UTF-8", code="E4234") from error


async def _pieces(receive: Receive, bytes_max: int, head: Head) -> AsyncIterator[bytes]:
    """A body as it comes; raises FrameBroken E4232."""
    size = _announced(head)
    while True:
        if size > bytes_max:
            raise FrameBroken(f"body: more than {bytes_max:,} bytes; send less at a time", code="E4232")
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _announced(head: Head) -> int:
    """Bytes that a body announces; 0 where it does not, and more than any bound where the number is absurd."""
    announced = _header(head, b"content-length") or "0"
    return int(announced[:20]) if announced.isdecimal() else 0


async def _received(receive: Receive, bytes_max: int, head: Head, share: _Share) -> bytes:
    is_fitting = _announced(head) <= bytes_max
    size, parts = 0, []
    while is_fitting:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        share.take(len(parts[-1]))
        is_fitting = size <= bytes_max
        if is_fitting and not message.get("more_body", False):
            return b"".join(parts)
    raise FrameBroken(f"body: more than {bytes_max:,} bytes; send less at a time", code="E4232")


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


def _outcome_of(answer: Answer) -> str:
    return answer.body.code or "UNKNOWN" if isinstance(answer.body, Problem) else "ok"


def _refused(found: Problem, headers: tuple[tuple[str, str], ...] = ()) -> tuple[Answer, bytes]:
    return Answer(found, found.status, headers, CONTENT_TYPE), _encoder.encode(found)


def _headers_of(error: GatewayError) -> tuple[tuple[str, str], ...]:
    if isinstance(error, Busy):
        return (("retry-after", str(max(1, math.ceil(error.wait_s)))),)
    if isinstance(error, StoreFailed):
        return (("retry-after", str(math.ceil(RETRY_S))),)
    return (("www-authenticate", "Bearer"),) if error.stable_code == "E4300" else ()


async def _send(send: Send, scope: Scope, answer: Answer, body: bytes) -> None:
    raw = [(b"content-type", answer.content_type.encode()), (b"content-length", b"%d" % len(body)), *_ALWAYS]
    raw += [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
