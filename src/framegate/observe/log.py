"""Log lines: one JSON object per event, on stderr.

    log.warning("slot_backoff", driver_id="mb1", reason="E2100 ...", wait_s=4.0)

INFO: what an operator asked for has happened. WARNING: the gateway recovered, nothing lost. ERROR: data lost or a
person must act. State changes are logged once; repeats are counted. Keys that look like secrets are masked. Written
here and not with a logging library because this is all of it, and the smallest library cost 0.1 s of start-up.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, TextIO, TypeAlias

import orjson

from framegate.contract.ports import Log

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
LINE_BYTES_MAX = 16 * 1024
_RANK: dict[str, int] = {"debug": 0, "info": 1, "warning": 2, "error": 3}
SECRET_WORDS = ("password", "secret", "token", "private_key", "passphrase", "credential")
"""A key with one of them in its name holds what nobody may read."""
MASK = "***"


def make_log(stream: TextIO | None = None, *, level: Level = "info", **bound: Any) -> Log:
    """A logger that writes JSON lines to `stream` (stderr by default) from `level` up; `bound` goes on every line."""
    return JsonLog(stream or sys.stderr, _RANK[level], bound)


@lru_cache(1_024)
def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in SECRET_WORDS)


class JsonLog:
    """Satisfies contract.ports.Log."""

    __slots__ = ("_bound", "_rank", "_stream")

    def __init__(self, stream: TextIO, rank: int, bound: dict[str, Any]) -> None:
        self._stream, self._rank, self._bound = stream, rank, bound

    def debug(self, event: str, **values: Any) -> None:
        self._write("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        self._write("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        self._write("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        self._write("error", event, values)

    def _write(self, level: Level, event: str, values: dict[str, Any]) -> None:
        if _RANK[level] < self._rank:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"timestamp": now, "level": level, "event": event, **self._bound, **values}
        for key in record:
            if _is_secret(key):
                record[key] = MASK
        line = orjson.dumps(record, default=str, option=orjson.OPT_SERIALIZE_NUMPY)
        if len(line) > LINE_BYTES_MAX:
            record = {
                "timestamp": now,
                "level": level,
                "event": event,
                "cut": line[: LINE_BYTES_MAX // 2].decode(errors="replace"),
            }
            line = orjson.dumps(record)
        self._stream.write(line.decode() + "\n")
        self._stream.flush()
