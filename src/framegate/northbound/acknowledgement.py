"""A row of `command.ack` as a CmdAckFrame: JSON text in the log, a message of its own in protobuf. Pure.

The bytes are those that the generated class would write (contract/frame.proto).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from framegate.contract.command import Outcome
from framegate.northbound.wire import field_bytes, field_fixed64, field_varint

_OUTCOME: Final[Mapping[str, int]] = {outcome.name.lower(): outcome.value for outcome in Outcome}
_TEXTS: Final = ((4, "reason"), (6, "origin"), (7, "code"))


def acknowledgement(text: object) -> bytes | None:
    """CmdAckFrame of a row's text; None where it is the text of something else."""
    try:
        row = orjson.loads(text)  # type: ignore[arg-type]  # what is no text raises
        head = field_bytes(1, row["id"].encode()) + field_bytes(2, row["tag"].encode())
        texts = {number: row[name].encode() for number, name in _TEXTS}
        outcome, time = field_varint(3, _OUTCOME[row["outcome"]]), field_fixed64(5, row["ts"])
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return None
    reason, origin, code = (field_bytes(number, data) if data else b"" for number, data in texts.items())
    return head + outcome + reason + time + origin + code
