"""Records of commands as the store keeps them: JSON, then CRC32C over key and JSON. Pure.

Bytes as a value travel as base64 in an object of their own, so that they come back as bytes and not as text.
"""

from __future__ import annotations

import base64
from typing import Any

import google_crc32c
import orjson

from framegate.contract.command import Command, CommandRecord, Outcome, Stage
from framegate.contract.errors import StoreFailed

_CHECK_BYTES = 4
DAMAGED = "E3003"


def encode_record(key: bytes, record: CommandRecord) -> bytes:
    """A record as the store keeps it."""
    command = record.command
    value: Any = command.value
    body = orjson.dumps(
        {
            "id": command.id,
            "tag": command.tag,
            "value": {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value,
            "issued": command.issued,
            "ttl": command.ttl_s,
            "mode": [command.verify, command.retry, command.select],
            "origin": record.origin,
            "stage": record.stage.value,
            "outcome": record.outcome.value if record.outcome else 0,
            "code": record.code,
            "reason": record.reason,
            "received": record.received,
            "ended": record.ended,
        }
    )
    check: int = google_crc32c.value(key + body)
    return body + check.to_bytes(_CHECK_BYTES, "little")


def decode_record(key: bytes, data: bytes) -> CommandRecord:
    """The record of an entry; raises StoreFailed E3003."""
    body = data[:-_CHECK_BYTES]
    check: int = google_crc32c.value(key + body)
    if check != int.from_bytes(data[-_CHECK_BYTES:], "little"):
        raise _damaged(key, "its check sum is wrong")
    try:
        return _record(orjson.loads(body))
    except (ValueError, TypeError, LookupError) as error:
        raise _damaged(key, str(error)) from error


def _record(row: Any) -> CommandRecord:
    value: Any = row["value"]
    if isinstance(value, dict):
        value = base64.b64decode(value["bytes"])
    verify, retry, select = row["mode"]
    command = Command(row["id"], row["tag"], value, row["issued"], row["ttl"], verify, retry, select)
    outcome = Outcome(row["outcome"]) if row["outcome"] else None
    return CommandRecord(
        command, row["origin"], Stage(row["stage"]), outcome, row["code"], row["reason"], row["received"], row["ended"]
    )


def _damaged(key: bytes, why: str) -> StoreFailed:
    text = f"durable log, command {key.hex()}: {why}; run `edge wal verify` and check the disk"
    return StoreFailed(text, code=DAMAGED)
