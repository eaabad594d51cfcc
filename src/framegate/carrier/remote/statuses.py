"""What an answer of a driver means to the gateway: which error a call raises, which outcome a write has.

Native drivers answer with the statuses of contract/driver.h. A Python driver raises errors of its own; they come as
JSON and are raised again, as what they were, where they are one of the contract's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from framegate.carrier.child.abi import Status
from framegate.carrier.child.wire import ERROR, LENGTH, NOT_LOADED
from framegate.carrier.remote.calls import Reply
from framegate.contract.command import Outcome
from framegate.contract.errors import (
    Busy,
    DeviceRefused,
    FrameBroken,
    GatewayError,
    Misconfigured,
    NoReply,
    NotConnected,
)
from framegate.contract.frame import Batch
from framegate.contract.quality import Quality, is_bad

BUSY_S = 1.0
BUSY_S_MAX = 3_600.0
TEXT_CHARACTERS_MAX = 2_000
_CODE = re.compile(r"E[0-9]{4}")
_WORDS: dict[int, str] = {
    Status.TIMEOUT: "the device did not answer in time",
    Status.CLOSED: "the line was closed",
    Status.REFUSED: "the device refused",
    Status.INVALID: "what came is not valid",
    Status.UNSUPPORTED: "this is not supported",
    Status.INTERNAL: "an error inside the driver",
    Status.CANCELLED: "the call was cancelled",
    Status.NOT_SENT: "nothing was sent",
    Status.BUSY: "the device asks for patience",
}
_REFUSALS: dict[int, Quality] = {
    Status.REFUSED: Quality.BAD_DEVICE_FAILURE,
    Status.UNSUPPORTED: Quality.BAD_NOT_SUPPORTED,
}
_PLAIN: dict[Any, type[NotConnected | NoReply | FrameBroken]] = {
    "NotConnected": NotConnected, "NoReply": NoReply, "FrameBroken": FrameBroken,
}  # fmt: skip
_OUTCOMES: dict[int, Outcome] = {
    Status.OK: Outcome.CONFIRMED, Status.REFUSED: Outcome.REJECTED, Status.INVALID: Outcome.REJECTED,
    Status.UNSUPPORTED: Outcome.REJECTED, Status.NOT_SENT: Outcome.NOT_SENT, Status.BUSY: Outcome.NOT_SENT,
}  # fmt: skip


def words_of(status: int) -> str:
    """A status in words; any number may come."""
    return _WORDS.get(status, f"status {status}, which contract/driver.h does not have")


def outcome_of(status: int) -> tuple[Outcome, str]:
    """What became of a written row, and why."""
    outcome = _OUTCOMES.get(status, Outcome.UNKNOWN)
    return outcome, "" if outcome is Outcome.CONFIRMED else words_of(status)


def text_of(reply: Reply) -> str:
    """The driver's own words."""
    return reply.body.decode(errors="replace").strip()[:TEXT_CHARACTERS_MAX]


def refusal(where: str, reply: Reply) -> GatewayError:
    """Why a driver was not created, knows no plan, or did not connect."""
    status = reply.status
    if status == ERROR:
        return _raised(where, error_in(reply)[0], ())
    told = f"{where}: {text_of(reply) or words_of(status)}"
    if status == NOT_LOADED:
        return Misconfigured(f"{told}; build it for this system, with every function that it calls", code="E4513")
    if status in {Status.INVALID, Status.UNSUPPORTED}:
        return Misconfigured(f"{told}; correct the options of its row", code="E4514")
    if status == Status.BUSY:
        return Busy(told, wait_s=BUSY_S, code="E4526")
    return NotConnected(told, code="E4516")


def poll_failure(where: str, reply: Reply, partial: Sequence[Batch] = ()) -> GatewayError:
    """Why a poll brought less than all. partial: the rows that it did bring."""
    status = reply.status
    if status == ERROR:
        return _raised(where, error_in(reply)[0], partial)
    told = f"{where}: {words_of(status)}"
    if status in {Status.TIMEOUT, Status.CANCELLED}:
        return NoReply(told, code="E4520", partial=partial)
    if status in _REFUSALS:
        return DeviceRefused(told, quality=_REFUSALS[status], code="E4522", partial=partial)
    if status == Status.INVALID:
        return FrameBroken(told, code="E4523", partial=partial)
    if status == Status.BUSY:
        return Busy(told, wait_s=BUSY_S, code="E4526", partial=partial)
    return NotConnected(told, code="E4521", partial=partial)


def error_in(reply: Reply) -> tuple[Any, bytes]:
    """The error that an answer of status ERROR begins with, {} where it is none, and what is behind it."""
    if len(reply.body) < LENGTH.size:
        return {}, b""
    end = LENGTH.size + LENGTH.unpack_from(reply.body)[0]
    try:
        error = json.loads(reply.body[LENGTH.size : end])
    except (ValueError, RecursionError):
        error = {}
    return error if isinstance(error, dict) else {}, reply.body[end:]


def _raised(where: str, error: dict[str, Any], partial: Sequence[Batch]) -> GatewayError:
    """What a Python driver raised; nothing in it is believed that is not bounded."""
    code = error.get("code")
    code = code if isinstance(code, str) and _CODE.fullmatch(code) else None
    text = str(error.get("text", ""))[:TEXT_CHARACTERS_MAX]
    kind = error.get("class")
    if isinstance(kind, str) and kind in _PLAIN:
        return _PLAIN[kind](text, code=code, partial=partial)
    if kind == "Misconfigured":
        return Misconfigured(text, code=code)
    if kind == "Busy":
        wait_s = error.get("wait_s")
        is_time = isinstance(wait_s, int | float) and 0 <= wait_s <= BUSY_S_MAX
        return Busy(text, wait_s=float(wait_s) if is_time else BUSY_S, code=code, partial=partial)  # type: ignore[arg-type]  # it is a number
    if kind == "DeviceRefused":
        quality = error.get("quality")
        is_status = isinstance(quality, int) and 0 <= quality < 1 << 32 and is_bad(quality)
        quality = quality if is_status else Quality.BAD_DEVICE_FAILURE
        return DeviceRefused(text, quality=quality, code=code, partial=partial)  # type: ignore[arg-type]  # as above
    return NotConnected(f"{where}: {text or 'an error inside the driver'}; report it to its maker", code="E4517")
