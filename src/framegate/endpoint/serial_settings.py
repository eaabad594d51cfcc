"""Settings of a serial port, as the query of a serial URL carries them.

    serial:///dev/ttyUSB0?baud=9600&parity=E&bytesize=8&stopbits=1&pacing=4ms
    serial:///dev/ttyS1?rs485=on&rts_on_send=1&rts_after_send=0&delay_before_send=0ms&delay_after_send=1ms

`pacing` replaces the silence that follows from the baud rate. `rs485=on` asks the kernel to drive the
transmitter; most USB adapters switch by themselves and want it off. Source of the silence: MODBUS over
Serial Line V1.02, 2.5.1.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from framegate.endpoint.quantity import seconds_from

BAUD_MIN = 50
BAUD_MAX = 4_000_000
PACING_S_MAX = 1.0
SILENCE_CHARACTERS = 3.5
SILENCE_FAST_S = 0.00175
"""Above 19,200 baud the standard fixes the silence, so that receivers need no faster timer."""
SILENCE_FAST_BAUD = 19_200

_RS485_KEYS = ("rts_on_send", "rts_after_send", "delay_before_send", "delay_after_send")
SERIAL_KEYS = ("baud", "parity", "bytesize", "stopbits", "pacing", "rs485", *_RS485_KEYS)
_FLAGS = {"1": True, "on": True, "true": True, "yes": True, "0": False, "off": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class Rs485:
    """How the kernel drives the transmitter of an RS-485 port."""

    rts_on_send: bool = True
    rts_after_send: bool = False
    delay_before_send_s: float = 0.0
    delay_after_send_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SerialSettings:
    """pacing_s: silence between frames in place of the computed one; None: computed."""

    baud: int = 9600
    parity: str = "N"
    bytesize: int = 8
    stopbits: float = 1
    pacing_s: float | None = None
    rs485: Rs485 | None = None

    @property
    def character_s(self) -> float:
        """Time one character takes on the wire: start bit, data, parity, stop bits."""
        return (1 + self.bytesize + (self.parity != "N") + self.stopbits) / self.baud

    @property
    def silence_s(self) -> float:
        """Silence that ends a frame: 3.5 characters, 1.75 ms above 19,200 baud, or what the URL says."""
        if self.pacing_s is not None:
            return self.pacing_s
        return SILENCE_FAST_S if self.baud > SILENCE_FAST_BAUD else SILENCE_CHARACTERS * self.character_s


def settings_from_query(query: Mapping[str, str]) -> SerialSettings:
    """Settings in the query of a serial URL; its keys are known to be SERIAL_KEYS.

    raises ValueError - naming the key, its value and what is allowed
    """
    baud = query.get("baud", "9600")
    if not baud.isdecimal() or not BAUD_MIN <= int(baud) <= BAUD_MAX:
        raise ValueError(f"baud={baud} must be a number from {BAUD_MIN} to {BAUD_MAX}, e.g. baud=9600")
    return SerialSettings(
        baud=int(baud),
        parity=_choice(query, "parity", ("N", "E", "O")),
        bytesize=int(_choice(query, "bytesize", ("8", "7", "6", "5"))),
        stopbits=float(_choice(query, "stopbits", ("1", "1.5", "2"))),
        pacing_s=_duration(query, "pacing") if "pacing" in query else None,
        rs485=_rs485(query),
    )


def _rs485(query: Mapping[str, str]) -> Rs485 | None:
    if not _flag(query, "rs485", default=False):
        stray = [key for key in _RS485_KEYS if key in query]
        if stray:
            raise ValueError(f"{stray[0]} has no effect without rs485=on; add it, or remove {stray[0]}")
        return None
    return Rs485(
        rts_on_send=_flag(query, "rts_on_send", default=True),
        rts_after_send=_flag(query, "rts_after_send", default=False),
        delay_before_send_s=_duration(query, "delay_before_send"),
        delay_after_send_s=_duration(query, "delay_after_send"),
    )


def _choice(query: Mapping[str, str], key: str, allowed: tuple[str, ...]) -> str:
    """One of the allowed texts; the first is the default."""
    value = query.get(key, allowed[0]).upper()
    if value not in allowed:
        raise ValueError(f"{key}={query[key]} is unknown; allowed: {', '.join(allowed)}")
    return value


def _flag(query: Mapping[str, str], key: str, *, default: bool) -> bool:
    text = query.get(key)
    if text is None:
        return default
    if text.lower() not in _FLAGS:
        raise ValueError(f"{key}={text} is unknown; allowed: on, off")
    return _FLAGS[text.lower()]


def _duration(query: Mapping[str, str], key: str) -> float:
    try:
        seconds = seconds_from(query.get(key, "0ms"))
    except ValueError as error:
        raise ValueError(f"{key}={query[key]}: {error}") from error
    if seconds > PACING_S_MAX:
        raise ValueError(f"{key}={query[key]} is longer than {PACING_S_MAX:g} s; write a time such as 4ms")
    return seconds
