"""Problems: every answer that is no success, as RFC 9457 application/problem+json.

    {"type": "/api/v1/errors/E4014", "title": "TagUnknown", "status": 404, "detail": "tag nix: no such tag",
     "code": "E4014", "hint": "...", "docs": "/api/v1/errors/E4014"}

Code and hint are those of contract/errors.toml, so that an answer, a log line and the documents say the same. No stack
trace and no secret is ever in one. Source: RFC 9457, 3; RFC 9110, 15.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec

from framegate.contract.command import CommandRecord, Outcome
from framegate.contract.errors import (
    Busy,
    Denied,
    DeviceRefused,
    Expired,
    FrameBroken,
    GatewayError,
    Misconfigured,
    NoReply,
    NotConnected,
    StoreFailed,
)
from framegate.contract.law import law_text

CONTENT_TYPE: Final = "application/problem+json"
PROBLEMS_MAX: Final = 1_001
"""Mistakes in tables that one answer lists; the tables' check keeps 1,000 and a line that counts the rest."""

STATUS: Final[Mapping[str, int]] = {
    "E4014": 404, "E4019": 404, "E4032": 404, "E4201": 404, "E4202": 403, "E4203": 409, "E4205": 403, "E4206": 409,
    "E4207": 409, "E4208": 409, "E4209": 429, "E4216": 409, "E4217": 409, "E4219": 404, "E4230": 404, "E4231": 405,
    "E4232": 413, "E4233": 415, "E4234": 422, "E4235": 422, "E4236": 429, "E4237": 412, "E4238": 428, "E4239": 500,
    "E4243": 403, "E4245": 408, "E4246": 431, "E4247": 400, "E4248": 503, "E4249": 403, "E4251": 503, "E4300": 401,
    "E4653": 409, "E4656": 404, "E4657": 409, "E4658": 413, "E4659": 409, "E4660": 409, "E4662": 409,
    "E4301": 503, "E4305": 429, "E4307": 404, "E5034": 404, "E5035": 409,
}  # fmt: skip
"""Where the code says more than the kind of error does."""
_KINDS: Final = (
    (Misconfigured, 422), (Denied, 403), (Busy, 503), (DeviceRefused, 422), (Expired, 409), (FrameBroken, 400),
    (NoReply, 504), (NotConnected, 503), (StoreFailed, 503),
)  # fmt: skip
_OUTCOMES: Final[Mapping[Outcome | None, int]] = {
    None: 202,
    Outcome.CONFIRMED: 200,
    Outcome.REJECTED: 422,
    Outcome.NOT_SENT: 503,
    Outcome.UNKNOWN: 504,
}


class TableProblem(msgspec.Struct, frozen=True):
    """One mistake in one table, with its place where that is known; line and column count from 1."""

    table: str
    path: list[str | int]
    code: str
    text: str
    line: int = 0
    column: int = 0


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer that is no success.

    detail    what, where, why, next step
    hint      what the code means, whatever the place
    command   what became of the command, where one was taken
    problems  every mistake, where tables were refused
    request   id that the gateway's log names
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str
    docs: str
    command: Any = None
    problems: list[TableProblem] = []
    request: str = ""


@cache
def _meanings() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(law_text("errors.toml"))


def meaning_of(code: str) -> tuple[str, str] | None:
    """Name and help of a code; None where there is no such code."""
    entry = _meanings().get(code)
    return None if entry is None else (entry["name"], entry["help"])


def docs_of(code: str) -> str:
    """Where the API explains a code."""
    return f"/api/v1/errors/{code}"


def problem(code: str, detail: str, status: int = 0, **more: Any) -> Problem:
    """A problem by its code; the status follows from it unless given."""
    name, help_ = meaning_of(code) or (code, "")
    return Problem(docs_of(code), name, status or STATUS.get(code, 422), detail, code, help_, docs_of(code), **more)


def problem_of(error: GatewayError) -> Problem:
    """The problem that an error is for whoever asked."""
    code = error.stable_code
    mistakes = error.problems if isinstance(error, Misconfigured) else ()
    listed = [
        TableProblem(one.table, list(one.path), one.code, one.text, getattr(one, "line", 0), getattr(one, "column", 0))
        for one in mistakes[:PROBLEMS_MAX]
    ]
    return problem(code, error.text, _status_of(error), problems=listed)


def status_of_command(record: CommandRecord) -> int:
    """200 confirmed, 202 under way, 504 unknown; refused or not sent: by its code, 409 where it came too late."""
    code = record.code
    if record.outcome is Outcome.REJECTED:
        return 403 if code.startswith("E43") else STATUS.get(code, 422)  # who asks is known here, so never 401
    if record.outcome is Outcome.NOT_SENT:
        return 409 if code.startswith("E26") else STATUS.get(code, 503)
    return _OUTCOMES[record.outcome]


def _status_of(error: GatewayError) -> int:
    if error.stable_code in STATUS:
        return STATUS[error.stable_code]
    return next((status for kind, status in _KINDS if isinstance(error, kind)), 500)
