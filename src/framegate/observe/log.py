"""Log lines: one JSON object per event, on stderr.

    log.warning("slot_backoff", driver_id="mb1", reason="E2100 ...", wait_s=4.0)

INFO: what an operator asked for has happened. WARNING: the gateway recovered, nothing lost. ERROR: data lost or a
person must act. State changes are logged once; repeats are counted. Keys that look like secrets are masked.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import orjson
import structlog

from framegate.contract.ports import Log

_SECRET_KEYS = ("password", "secret", "token", "private_key", "passphrase", "credential")
_MASK = "***"


def make_log(stream: TextIO | None = None, *, level: str = "info", **bound: Any) -> Log:
    """A logger that writes JSON lines to `stream` (stderr by default) from `level` up."""
    logger = structlog.wrap_logger(
        structlog.PrintLogger(stream or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            mask_secrets,
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
    )
    return cast(Log, logger.bind(**bound))


def mask_secrets(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of every key that names a secret."""
    for key in event:
        if any(word in key.lower() for word in _SECRET_KEYS):
            event[key] = _MASK
    return event


def _dumps(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()
