"""Writes of masters as commands, and outcomes of commands as answers.

    every command CONFIRMED                              the normal answer
    refused: no such tag, read-only, not allowed         02 illegal data address
    refused for any other reason, by desk or device      03 illegal data value
    not sent: too many wait, too fast, the log is full   06 server device busy
    not sent for any other reason                        0A gateway path unavailable
    unknown; some confirmed and some not                 04 server device failure
    no outcome within the time-out                       0B gateway target failed to respond

So a master can tell: after 04 and 0B the write may have been carried out, in part or later; after any other exception
it surely was not. `codec.EXCEPTIONS` reads them the same way. Source: MODBUS Application Protocol V1.1b3, 7;
docs/decisions/0023-modbus-bridge.md.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Sequence
from itertools import count
from typing import Final

from framegate.contract.command import BATCH_MAX, Command, CommandRecord, Outcome
from framegate.contract.connector import CommandDoor
from framegate.contract.errors import Busy, GatewayError, StoreFailed
from framegate_plugins.modbus.codec import (
    DEVICE_BUSY,
    DEVICE_FAILURE,
    GATEWAY_SILENCE,
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    PATH_UNAVAILABLE,
)
from framegate_plugins.modbus.write_plan import TagWrite

DONE: Final = 0
SEND_SHARE: Final = 0.8
"""Part of the time-out within which a command has to be sent; the rest is for the outcome of one that was sent late."""
_NO_ADDRESS: Final = frozenset(("E4201", "E4202", "E4205"))
_PATIENCE: Final = frozenset(("E4204", "E4209", "E4218"))
_MAYBE: Final = frozenset((DEVICE_FAILURE, GATEWAY_SILENCE))
"""After these a write may have been carried out."""


class Writes:
    """Hands in what one bridge's masters write. Ids are unique over restarts: a run has a random part of its own."""

    def __init__(self, door: CommandDoor | None, timeout_s: float) -> None:
        self._door = door
        self._timeout_s = timeout_s
        self._run = f"modbus-{secrets.token_hex(8)}"
        self._numbers = count(1)

    async def carry_out(self, writes: Sequence[TagWrite]) -> int:
        """Exception code of the answer to one request; DONE: the write was carried out whole."""
        if self._door is None:
            return ILLEGAL_ADDRESS
        ttl_s = SEND_SHARE * self._timeout_s
        commands = [Command(f"{self._run}-{next(self._numbers)}", tag, value, ttl_s=ttl_s) for tag, value in writes]
        if any(isinstance(command.value, float) and not math.isfinite(command.value) for command in commands):
            return ILLEGAL_VALUE
        answers: list[int] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                for start in range(0, len(commands), BATCH_MAX):
                    records = await self._door.submit(commands[start : start + BATCH_MAX])
                    answers += [await self._answer(self._door, record) for record in records]
        except TimeoutError:
            answers.append(GATEWAY_SILENCE)
        except (Busy, StoreFailed):
            answers.append(DEVICE_BUSY)
        except GatewayError:  # the way to the desk broke: nobody knows
            answers.append(DEVICE_FAILURE)
        return _of_all(answers)

    async def _answer(self, door: CommandDoor, record: CommandRecord) -> int:
        if record.outcome is None:
            found = await door.wait(record.command.id, self._timeout_s)
            return DEVICE_FAILURE if found is None else exception_of(found)
        return exception_of(record)


def exception_of(record: CommandRecord) -> int:
    """The answer that one command's outcome is; see above."""
    if record.outcome is Outcome.CONFIRMED:
        return DONE
    if record.outcome is Outcome.REJECTED:
        if record.code in _NO_ADDRESS:
            return ILLEGAL_ADDRESS
        return DEVICE_BUSY if record.code in _PATIENCE else ILLEGAL_VALUE
    if record.outcome is Outcome.NOT_SENT:
        return DEVICE_BUSY if record.code in _PATIENCE else PATH_UNAVAILABLE
    return GATEWAY_SILENCE if record.outcome is None else DEVICE_FAILURE


def _of_all(answers: Sequence[int]) -> int:
    """One answer for a request that wrote several tags; its word on what was carried out has to hold for all."""
    refused = [answer for answer in answers if answer != DONE]
    if not refused:
        return DONE
    if DEVICE_FAILURE in refused or (len(refused) < len(answers) and not set(refused) & _MAYBE):
        return DEVICE_FAILURE
    return GATEWAY_SILENCE if GATEWAY_SILENCE in refused else refused[0]
