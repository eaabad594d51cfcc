"""What a failure means for a slot: which quality its rows get, what follows, and what to tell the operator.

The only place that sorts exceptions of drivers. Anything that is no GatewayError is a bug of the driver.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from framegate.contract.errors import (
    Busy,
    DeviceRefused,
    FrameBroken,
    GatewayError,
    Misconfigured,
    NoReply,
    NotConnected,
)
from framegate.contract.quality import Quality, is_bad
from framegate.runtime.lifecycle import Event

TRACEBACK_CHARACTERS_MAX = 8192
_BUG = "a bug in the plugin; the gateway restarts the driver, please report the logged traceback"
_TABLES = "correct the tables, then run `edge check`; the gateway waits for new tables"
_LINE = "the gateway reconnects by itself; check power, network and address of the endpoint"
_SILENCE = "check wiring, unit id and power; the gateway keeps asking"
_GARBAGE = "check framing, baud rate and parity; the gateway keeps asking"
_PATIENCE = "the device asked for patience; the gateway asks again by itself"
_REFUSAL = "check that address and access exist in the device"


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure, sorted.

    event       what it does to the slot's state; None: only these rows are Bad, scans go on
    quality     StatusCode of the rows that could not be read
    is_silence  no usable reply at all: counts towards quarantine
    wait_s      patience the device asked for
    """

    event: Event | None
    quality: int
    code: str
    text: str
    hint: str
    is_silence: bool = False
    wait_s: float = 0.0


_SORTED: tuple[tuple[type[GatewayError], Event | None, Quality, str], ...] = (
    (Misconfigured, Event.REFUSED, Quality.BAD_CONFIGURATION_ERROR, _TABLES),
    (NotConnected, Event.LOST, Quality.BAD_NOT_CONNECTED, _LINE),
    (NoReply, None, Quality.BAD_TIMEOUT, _SILENCE),
    (FrameBroken, None, Quality.BAD_DECODING_ERROR, _GARBAGE),
    (Busy, None, Quality.BAD_RESOURCE_UNAVAILABLE, _PATIENCE),
    (DeviceRefused, None, Quality.BAD_DEVICE_FAILURE, _REFUSAL),
    (GatewayError, None, Quality.BAD_COMMUNICATION_ERROR, _REFUSAL),
)


def failure_of(error: BaseException) -> Failure:
    """Sort what a driver raised."""
    if not isinstance(error, GatewayError):
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return Failure(Event.BROKEN, Quality.BAD_UNEXPECTED_ERROR, "E4100", text, _BUG)
    event, quality, hint = next(row[1:] for row in _SORTED if isinstance(error, row[0]))
    return Failure(
        event,
        error.quality if isinstance(error, DeviceRefused) and is_bad(error.quality) else quality,
        error.stable_code,
        error.text,
        hint,
        is_silence=isinstance(error, FrameBroken | NoReply) and not error.partial,
        wait_s=error.wait_s if isinstance(error, Busy) else 0.0,
    )


def traceback_text(error: BaseException) -> str:
    """The traceback of a bug, its innermost end kept when it is long."""
    return "".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS_MAX:]
