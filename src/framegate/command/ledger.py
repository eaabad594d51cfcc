"""The ledger: states of commands become durable, and with each outcome the row that acknowledges it (C2).

What is told of a command - record, row, metric, log line - is told once its outcome is durable, never before. Commands
that end in one turn of the loop end in one commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import orjson

from framegate.command.entry import Entry, ended, staged
from framegate.command.journal import Journal
from framegate.command.meters import Meters
from framegate.contract.command import CommandRecord, Outcome, Stage
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, uniform_quality, uniform_time
from framegate.contract.ports import Clock, Log
from framegate.contract.quality import Quality

REASON_CHARACTERS_MAX = 500


class Verdict(NamedTuple):
    """What became of a command."""

    entry: Entry
    outcome: Outcome
    code: str = ""
    reason: str = ""


class Ledger:
    """Writes what is decided. Used on the loop.

    ack_tag  catalogue id of the tag `command.ack`; None: there are no such rows
    """

    def __init__(self, journal: Journal, clock: Clock, log: Log, meters: Meters) -> None:
        self.ack_tag: int | None = None
        self._journal, self._clock, self._log, self._meters = journal, clock, log, meters

    def take(self, entries: Sequence[Entry], kept: Callable[[], None]) -> None:
        """Commands that have just been accepted, or refused: `last` says which. Raises StoreFailed, Busy."""
        now = self._clock.now_ns()
        self._journal.add(entries)
        refused = [entry for entry in entries if entry.is_decided]

        def done() -> None:
            self._tell(refused)
            kept()

        rows = self._acknowledgements([entry.last for entry in refused], now)
        self._journal.write([(entry, entry.last) for entry in entries], rows, now, done)

    async def dispatch(self, entries: Sequence[Entry], deadline: float) -> None:
        """These are about to be sent; durable on return. Raises StoreFailed - not by the deadline."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        changed = [(entry, staged(entry.last, Stage.DISPATCHED)) for entry in entries]
        self._journal.write(changed, (), self._clock.now_ns(), lambda: None if done.done() else done.set_result(None))
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                await done
        except TimeoutError:
            text = "the log did not take the command before its deadline; nothing was sent"
            raise StoreFailed(text, code="E4218") from None

    def end(self, verdicts: Iterable[Verdict]) -> None:
        """Outcomes, all in one commit. A command that has one already keeps it."""
        now = self._clock.now_ns()
        changed: list[tuple[Entry, CommandRecord]] = []
        for entry, outcome, code, reason in verdicts:
            if not entry.is_decided:
                record = ended(entry.last, outcome, code, reason[:REASON_CHARACTERS_MAX], now)
                changed.append((entry, record))
        if not changed:
            return
        entries = [entry for entry, _ in changed]
        rows = self._acknowledgements([record for _, record in changed], now)
        try:
            self._journal.write(changed, rows, now, lambda: self._tell(entries))
        except StoreFailed as error:  # the gateway stops: the next run says what can be known
            self._log.error("command_unkept", commands=len(entries), reason=str(error))

    def _tell(self, entries: Sequence[Entry]) -> None:
        """Metrics and log follow in the next turn of the loop: whoever waits for an outcome goes first."""
        if entries:
            asyncio.get_running_loop().call_soon(self._told, entries)

    def _told(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            record = entry.last
            self._meters.ended(record)
            told = {
                "id": record.command.id,
                "tag": record.command.tag,
                "origin": record.origin,
                "outcome": outcome_word(record.outcome),
                "code": record.code,
                "reason": record.reason,
            }
            if record.outcome is Outcome.CONFIRMED:
                self._log.info("command_ended", **told)
            else:
                self._log.warning("command_failed", **told)

    def _acknowledgements(self, records: Sequence[CommandRecord], now: int) -> Sequence[Batch]:
        """One row for each outcome; CmdAckFrame of contract/frame.proto, as JSON."""
        if self.ack_tag is None or not records:
            return ()
        value = np.empty(len(records), np.object_)
        value[:] = [acknowledgement(record) for record in records]
        tag = np.full(len(records), self.ack_tag, np.int32)
        return (Batch(tag, value, uniform_quality(Quality.GOOD), uniform_time(now), now),)


def acknowledgement(record: CommandRecord) -> str:
    """CmdAckFrame as JSON text."""
    fields = {
        "id": record.command.id,
        "tag": record.command.tag,
        "outcome": outcome_word(record.outcome),
        "code": record.code,
        "reason": record.reason,
        "ts": record.ended,
        "origin": record.origin,
    }
    return orjson.dumps(fields).decode()


def outcome_word(outcome: Outcome | None) -> str:
    """As people, metrics and rows name it: "confirmed", "not_sent"; "" while there is none."""
    return "" if outcome is None else outcome.name.lower()
