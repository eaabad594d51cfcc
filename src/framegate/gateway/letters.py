"""The desk for dead letters: what an operator may do with what the remotes refused for good.

Satisfies observe.face.LetterFace. Letters of one connector go out one at a time, beside its live rows, which neither
wait for them nor are reordered by them; a letter itself arrives late, with its old position and time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from framegate.bus.letters import LetterBook
from framegate.contract.errors import Busy, DeviceRefused, NotConnected, PayloadRefused
from framegate.contract.letter import DeadLetter
from framegate.contract.ports import Clock, Log
from framegate.contract.quality import Quality
from framegate.northbound.letters import REASON_CHARACTERS_MAX
from framegate.northbound.outbox import Outbox
from framegate.observe.face import LetterRow
from framegate.observe.metrics import Metrics

UNDER_WAY_S = 1.0


class LetterDesk:
    """Serves `edge dlq` on a running gateway."""

    def __init__(
        self, book: LetterBook, outboxes: Mapping[str, Outbox], clock: Clock, log: Log, metrics: Metrics
    ) -> None:
        self._book, self._outboxes = book, outboxes
        self._clock, self._log, self._metrics = clock, log, metrics
        self._under_way: set[str] = set()  # connectors that a letter is being sent to

    def rows(self, connector: str, after: str, limit: int) -> Sequence[LetterRow]:
        return self._book.rows(connector, _place(after) if after else ("", -1), limit)

    def letter(self, id_: str) -> DeadLetter:
        return self._book.letter(self._row(id_))

    async def retry(self, id_: str) -> LetterRow | None:
        letter = self.letter(id_)
        outbox = self._outboxes.get(letter.connector)
        if outbox is None:
            text = f"letter {id_}: connector {letter.connector} does not run; enable its row in drivers.yml and restart"
            raise NotConnected(text, code="E2405")
        if letter.connector in self._under_way:
            text = f"letter {id_}: another letter of connector {letter.connector} is being sent; try again"
            raise Busy(text, wait_s=UNDER_WAY_S, code="E4023")
        self._under_way.add(letter.connector)
        try:
            await outbox.resend(letter)
        except PayloadRefused as error:
            return self._refused(letter, str(error))
        finally:
            self._under_way.discard(letter.connector)
        self._taken(letter)
        return None

    def drop(self, id_: str) -> None:
        row = self._row(id_)
        self._book.remove(row)
        self._log.info("dead_letter_dropped", connector=row.connector, pos=row.position, rows=row.rows)

    def _taken(self, letter: DeadLetter) -> None:
        row = self._book.row(letter.connector, letter.position)
        if row is not None:
            self._book.remove(row)
        self._metrics.counter("edge_dead_letters_resent_total", connector=letter.connector, outcome="taken").value += 1
        self._log.info(
            "dead_letter_resent",
            connector=letter.connector,
            pos=letter.position,
            rows=letter.rows,
            tries=letter.tries + 1,
        )

    def _refused(self, letter: DeadLetter, reason: str) -> LetterRow | None:
        name, tries = letter.connector, letter.tries + 1
        self._metrics.counter("edge_dead_letters_resent_total", connector=name, outcome="refused").value += 1
        self._log.warning(
            "dead_letter_refused", connector=name, pos=letter.position, rows=letter.rows, tries=tries, reason=reason
        )
        if self._book.row(name, letter.position) is None:  # dropped, or made room, while it was under way
            return None
        now_ns = self._clock.now_ns()
        self._book.keep(replace(letter, reason=reason[:REASON_CHARACTERS_MAX], tried_ns=now_ns, tries=tries))
        return self._book.row(name, letter.position)

    def _row(self, id_: str) -> LetterRow:
        row = self._book.row(*_place(id_))
        if row is None:
            text = f"letter {id_}: no such letter; `edge dlq ls` lists them"
            raise DeviceRefused(text, code="E4019", quality=Quality.BAD_NODE_ID_UNKNOWN)
        return row


def _place(id_: str) -> tuple[str, int]:
    connector, _, position = id_.rpartition("/")
    return connector, int(position) if position.isdecimal() and len(position) <= 20 else -1
