"""Letters: what an outbox does with messages that its remote refuses for good - set them aside, send them again.

Where letters are kept is behind a port (ports.DeadLetters). When a message counts as refused for good is the
outbox's to decide (O7).
"""

from __future__ import annotations

import asyncio

from framegate.contract.connector import Connector, Window
from framegate.contract.errors import Busy, NoReply, PayloadRefused
from framegate.contract.frame import Position
from framegate.contract.letter import DeadLetter
from framegate.contract.ports import Clock, DeadLetters, Log
from framegate.northbound.meters import OutboxMeters

RESEND_S = 10.0
BUSY_S = (0.05, 2.0)  # shortest and longest wait before a letter is offered again to a remote that asks for patience
REASON_CHARACTERS_MAX = 1_000


class Letters:
    """Sets the messages of one outbox aside."""

    __slots__ = ("_clock", "_connector", "_kept", "_log", "_meters")

    def __init__(self, connector: str, kept: DeadLetters | None, clock: Clock, log: Log, meters: OutboxMeters) -> None:
        """kept  without it letters are only counted and logged"""
        self._connector, self._kept = connector, kept
        self._clock, self._log, self._meters = clock, log, meters

    def set_aside(self, alone: Window, error: PayloadRefused, tries: int) -> None:
        """Keep a window of one message, before the cursor passes it."""
        self._meters.refusals.value += 1
        self._meters.dead_letters.value += 1
        position, rows = alone.first, alone.rows[0]
        self._log.error("outbox_dead_letter", connector=self._connector, pos=position, rows=rows, reason=str(error))
        if self._kept is None:
            return
        now_ns = self._clock.now_ns()
        letter = DeadLetter(
            connector=self._connector,
            position=position,
            rows=rows,
            key=alone.key[0],
            payload=alone.payload[0],
            encoding=alone.encoding,
            reason=str(error)[:REASON_CHARACTERS_MAX],
            since_ns=now_ns,
            tried_ns=now_ns,
            tries=tries,
        )
        self._kept.keep(letter)


async def send_again(connector: Connector, letter: DeadLetter, clock: Clock) -> None:
    """Hand one letter to an open connector, beside its live windows; returns when the remote has it.

    raises  PayloadRefused - refused again; NotConnected - the connection broke; NoReply E2406 - no answer in RESEND_S
    """
    window = _window_of(letter)
    try:
        async with asyncio.timeout(RESEND_S):
            while True:
                try:
                    await connector.send(window)
                except Busy as error:
                    shortest, longest = BUSY_S
                    await clock.sleep(max(shortest, min(error.wait_s, longest)))
                else:
                    return
    except TimeoutError:
        text = f"letter {letter.id}: the remote did not acknowledge it within {RESEND_S:g} s; it stays, try again"
        raise NoReply(text, code="E2406") from None


def _window_of(letter: DeadLetter) -> Window:
    last = Position(max(letter.position, letter.position + letter.rows - 1))
    return Window(
        letter.position, last, [letter.key], [letter.payload], [letter.position], [letter.rows], letter.encoding
    )
