"""etcd's answers, judged before they are believed: JSON of a bounded size in, plain records or an error out.

The gateway of etcd writes int64 as text, bytes as base64, and leaves out what is zero. Errors come as
`{"error": ..., "message": ..., "code": <gRPC code>}`, in a stream as `{"error": {"grpc_code": ..., "message": ...}}`.
Source: etcd v3.4 Documentation/dev-guide/api_grpc_gateway.md and rpc.proto; gRPC status codes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from framegate.contract.errors import FrameBroken, GatewayError, Misconfigured, NotConnected

Answer: TypeAlias = Mapping[str, Any]

SAID_CHARACTERS_MAX = 200
"""Characters of a server's own words that a message repeats."""
_NOT_FOUND, _DENIED, _EXHAUSTED, _UNAVAILABLE, _UNAUTHENTICATED = 5, 7, 8, 14, 16
_AWAY = frozenset((1, 4, _UNAVAILABLE))  # cancelled, deadline exceeded, unavailable
_NO_SPACE = "database space exceeded"
_LOGIN_AGAIN = ("invalid auth token", "user name is empty", "revision of auth store is old")
_LOGIN_REFUSED = ("authentication failed", "invalid user ID or password", "user name not found")
_DENIED_WORDS = "permission denied"


class LoginNeeded(Misconfigured):
    """The token is missing, unknown or too old; logging in again may help."""

    code = "E1172"


class LeaseGone(GatewayError):
    """The lease has expired: etcd heard nothing for its time to live."""

    code = "E1182"


@dataclass(frozen=True, slots=True)
class Row:
    """One key as a range answers it; `value` is empty where only keys were asked for."""

    key: str
    value: bytes
    mod_revision: int


def parse(data: bytes, where: str) -> Answer:
    """A JSON object; raises FrameBroken E1175."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise broken(where, "what came is no JSON") from None
    if not isinstance(found, dict):
        raise broken(where, "what came is no JSON object")
    return found


def whole(answer: Answer, key: str, where: str) -> int:
    """An int64; 0 where it is left out. Raises FrameBroken E1175."""
    value = answer.get(key, 0)
    try:
        if isinstance(value, bool | float):
            raise ValueError  # noqa: TRY004, TRY301 - one reason, one text
        return int(value)
    except (ValueError, TypeError):
        raise broken(where, f"{key} is no whole number") from None


def record(answer: Answer, key: str, where: str) -> Answer:
    """An object inside; empty where it is left out. Raises FrameBroken E1175."""
    value = answer.get(key, {})
    if not isinstance(value, dict):
        raise broken(where, f"{key} is no object")
    return value


def records(answer: Answer, key: str, where: str) -> list[Answer]:
    """A list of objects inside; empty where it is left out. Raises FrameBroken E1175."""
    value = answer.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise broken(where, f"{key} is no list of objects")
    return value


def data_of(answer: Answer, key: str, where: str) -> bytes:
    """Bytes from base64; empty where they are left out. Raises FrameBroken E1175."""
    try:
        return base64.b64decode(answer.get(key, ""), validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise broken(where, f"{key} is no base64") from None


def rows_of(answer: Answer, where: str) -> list[Row]:
    """The keys of a range; raises FrameBroken E1175."""
    return [
        Row(
            data_of(kv, "key", where).decode("utf-8", "replace"),
            data_of(kv, "value", where),
            whole(kv, "mod_revision", where),
        )
        for kv in records(answer, "kvs", where)
    ]


def broken(where: str, what: str) -> FrameBroken:
    """Bytes that are no answer of an etcd."""
    text = f"{where}: {what}; is this the client address of an etcd 3.4 or later?"
    return FrameBroken(text, code="E1175")


def refusal(data: bytes, status: int, where: str) -> GatewayError:
    """The error that an answer other than 200 stands for."""
    try:
        answer = parse(data, where)
    except FrameBroken:
        if status in {408, 429, 502, 503, 504}:
            return NotConnected(f"{where}: answers with HTTP {status}; it is starting, stopping or busy", code="E1171")
        return broken(where, f"it answers with HTTP {status} and no reason")
    return error_of(answer, where)


def error_of(answer: Answer, where: str) -> GatewayError:
    """The error that etcd's own words stand for; `answer` is an error object."""
    inner = answer.get("error")
    source = inner if isinstance(inner, dict) else answer
    said = source.get("message") or source.get("error")
    said = said[:SAID_CHARACTERS_MAX] if isinstance(said, str) else "no reason given"
    code = source.get("code", source.get("grpc_code"))
    return error_from(code if isinstance(code, int) else 0, said, where)


def error_from(code: int, said: str, where: str) -> GatewayError:
    """The error that a gRPC code with its words stands for; `code` 0 where only the words are known."""
    known = _login_error(code, said, where) or _space_error(code, said, where)
    if known is not None:
        return known
    if code == _NOT_FOUND and "lease" in said:
        return LeaseGone(f"{where}: {said}; the report is written again under a new lease")
    if code in _AWAY or "no leader" in said or "timed out" in said:
        text = f"{where}: etcd cannot answer now ({said}); check that most of its members run"
        return NotConnected(text, code="E1171")
    return GatewayError(f"{where}: etcd refuses ({said}); see its log", code="E1180")


def _login_error(code: int, said: str, where: str) -> GatewayError | None:
    if any(words in said for words in _LOGIN_REFUSED):
        text = f"{where}: etcd does not accept this user name and password; correct credentials in config-centre.yml"
        return Misconfigured(text, code="E1172")
    if code == _UNAUTHENTICATED or any(words in said for words in _LOGIN_AGAIN):
        hint = "name a user of etcd under credentials in config-centre.yml; a certificate's name does not count here"
        return LoginNeeded(f"{where}: etcd asks for a login ({said}); {hint}")
    if code == _DENIED or _DENIED_WORDS in said:
        hint = "grant the user's role the keys (etcdctl role grant-permission)"
        return Misconfigured(f"{where}: etcd does not permit this ({said}); {hint}", code="E1173")
    return None


def _space_error(code: int, said: str, where: str) -> GatewayError | None:
    if code == _EXHAUSTED and _NO_SPACE in said:
        hint = "compact and defragment it, then etcdctl alarm disarm"
        return GatewayError(f"{where}: etcd is full ({said}); {hint}", code="E1179")
    if "request is too large" in said:
        text = f"{where}: etcd takes smaller requests only ({said}); set its --max-request-bytes to 1572864 or more"
        return GatewayError(text, code="E1179")
    return None
