"""What the witness knows of one connector: sent, answered, arrived, set aside, and where its cursor is.

`sent` and `arrived` are seen on the simulated network and at the broker, cursors where the outbox commits them and on
the medium. Checks are in invariants_remote.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Protocol

from framegate.bus.store import Store
from framegate.contract.connector import Window
from framegate.contract.frame import Position
from framegate.contract.letter import DeadLetter
from framegate.contract.owed import Owed
from framegate.contract.ports import Cursors
from framegate.northbound.options import OutboxOptions
from framegate.testing.account import Account
from framegate.testing.simulation import invariants_remote as law
from framegate.testing.simulation.disk import Medium
from framegate.testing.simulation.invariants_log import Range, i4_nothing_leaves_before_it_is_durable, uncovered
from framegate.testing.simulation.ledger import Ledger
from framegate.testing.simulation.loop import Process, SimLoop
from framegate.testing.simulation.remote import Publish, SimBroker

CURSOR_LAG_S = 1.5  # linger of a cursor, two pieces of work of a quick disk, and a late loop


class LogWitness(Protocol):
    """Who sees the log's side; `kept`: last position that would survive a crash."""

    ledger: Ledger
    medium: Medium
    loop: SimLoop

    @property
    def kept(self) -> int: ...

    def check(self, promise: Callable[..., str], /, *what: object, **named: object) -> None: ...


class RemoteWitness:
    """One connector over all lives of the gateway.

    lost, out_of_order  rows that had not arrived, unexplained, when they should have; that arrived after a later one
    begun_at   cursor with which the connector began for the first time; nothing before it is owed
    sent       last position that was ever handed to the network
    in_flight_max  most rows that were on their way at once
    """

    def __init__(
        self, log: LogWitness, name: str, broker: SimBroker, options: OutboxOptions, batch_rows_max: int
    ) -> None:
        self.name, self.broker, self.options = name, broker, options
        self.begun_at: int | None = None
        self.sent = self.cursor = 0
        self.in_flight_max = self.lost = self.out_of_order = 0
        self.answered: set[int] = set()
        self.letters: dict[int, frozenset[int]] = {}  # positions in each dead letter, by its first
        self._batch_rows_max = batch_rows_max
        self._log, self._check = log, log.check
        broker.on_taken = self.arrived
        self._store: Store | None = None
        # On this connection, by lane (live, back-fill): what must be sent next at the latest.
        self._next = {False: 1, True: 1}
        self._on_way: list[Window] = []
        self.owed = Owed(Position(0))
        self._commits: list[tuple[float, int]] = []
        self._compared: set[int] = set()
        self._newest: dict[tuple[bool, int], int] = {}  # position that has arrived, by lane and tag
        self._old_gaps: list[Range] = []  # told in earlier lives; damage may have taken them since

    # -- lives ----------------------------------------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        return self.begun_at is not None

    @property
    def account(self) -> Account:
        return self.broker.account

    @property
    def durable_cursor(self) -> int:
        """What a crash would leave of the cursor at least."""
        return self._log.medium.kept_cursor(self.name)

    def lives(self, store: Store) -> None:
        """A new life of the gateway; its outbox will load the cursor."""
        if self._store is not None:
            self._old_gaps += [(gap.first, gap.last) for gap in self._store.books.gaps.all()]
        self._store = store

    def crashed(self) -> None:
        """What it had committed a while ago is not known of the next life."""
        self._commits.clear()

    def owed_cursor(self, calm_s: float) -> None:
        """The disk was well for so long: cursors older than their lag must be durable."""
        owed = self.cursor_at(self._log.loop.time() - CURSOR_LAG_S)
        if calm_s > 2 * CURSOR_LAG_S and owed is not None:
            self._check(law.o5_cursor_is_durable_in_time, self.durable_cursor, owed, CURSOR_LAG_S)

    def cursor_at(self, time_s: float) -> int | None:
        """Where the cursor was then; None if it has not moved in this life until then."""
        index = bisect_right(self._commits, (time_s, 1 << 63)) - 1
        return self._commits[index][1] if index >= 0 else None

    def cursors(self, inner: Cursors, process: Process) -> WatchedCursors:
        return WatchedCursors(self, inner, process)

    def loaded(self, position: Position | None) -> None:
        if position is not None and self.has_begun:
            self._check(law.o1_cursor_never_moves_back, self.durable_cursor, position)
        if position is not None:
            self.cursor = position
            self.owed = Owed(position)

    def loaded_owed(self, owed: Owed | None) -> None:
        if owed is not None:
            self._check_owed(owed)
            self.owed = owed

    def committed(self, owed: Owed) -> None:
        position = owed.cursor
        self._log.loop.note(f"cursor {self.name} {owed}")
        if self.begun_at is None:
            self.begun_at = self.cursor = self.sent = position
        self._check(law.o1_cursor_never_moves_back, self.cursor, position)
        self._check(law.o2_cursor_covers_what_was_answered, self.cursor, position, self.answered, self.explained())
        self._check_owed(owed)
        self.cursor, self.owed = position, owed
        self._commits.append((self._log.loop.time(), position))

    def _check_owed(self, owed: Owed) -> None:
        """What counts as acknowledged beyond the cursor was."""
        known = [*self.explained(), *((entry.after + 1, entry.last) for entry in owed.ranges)]
        self._check(law.o2_cursor_covers_what_was_answered, owed.cursor, owed.live, self.answered, known)

    # -- on the way -----------------------------------------------------------------------------------------------

    def connected(self) -> None:
        self._next = {False: self.owed.live + 1, True: self.cursor + 1}
        self._on_way.clear()

    def sending(self, window: Window) -> None:
        self._log.loop.note(f"send {self.name} {window.first}-{window.last}")
        if any(window.rows):  # the notice of a gap may leave at once: no row is in it
            self._check(i4_nothing_leaves_before_it_is_durable, window.last, self._log.kept)
        if window.last >= self._next[window.is_backfill]:  # else it is offered again
            self._on_way.append(window)
        self._check_order(window)
        self.sent = max(self.sent, window.last)
        in_flight = self._in_flight()
        self.in_flight_max = max(self.in_flight_max, in_flight)
        self._check(law.o5_rows_in_flight_are_bounded, in_flight, self._limit())

    def was_answered(self, message: Publish) -> None:
        self.answered.update(message.positions)

    def arrived(self, message: Publish) -> None:
        """The remote has taken a message: its account has booked it."""
        account = self.account
        self._check(law.o6_position_means_one_row, account)
        for position in message.positions:
            if position in self._compared:
                continue
            self._compared.add(position)
            row = self._log.ledger.row(position)
            tag = 0 if row is None else row.tag
            newest = self._newest.get((message.is_backfill, tag), 0)
            if not any(position in held for held in self.letters.values()):
                self.out_of_order += position < newest
                self._check(law.o4_each_tag_in_order, position, newest)
            self._newest[message.is_backfill, tag] = max(position, newest)
            name = "" if row is None or self._store is None else self._store.catalogue.tag(row.tag).name
            self._check(law.o6_row_arrives_as_it_was_taken, self._log.ledger, account.frames[position], name)

    def set_apart(self, letter: DeadLetter) -> None:
        """A message is about to be kept as a dead letter."""
        positions = self.account.positions(letter.payload)
        refused = self.broker.refused.get(letter.position, 0)
        self._check(law.o7_only_poison_is_set_aside, positions, self.broker.poison, refused, self.options.refusals_max)
        self.letters[letter.position] = frozenset(positions)

    # -- at the end -----------------------------------------------------------------------------------------------

    def check_arrival(self, durable: int) -> None:
        after, explained = self.begun_at or 0, self.explained()
        missing = law.not_arrived(after, durable, self.account.frames, explained)
        self.lost = len(missing)
        self._check(law.o3_everything_durable_has_arrived, missing)

    def explained(self) -> list[Range]:
        return [*self._gaps(), *self._old_gaps, *((position, position) for position in self.set_aside())]

    def set_aside(self) -> list[int]:
        """Positions in the dead letters that the store holds now: one that a crash took explains nothing."""
        rows = () if self._store is None else self._store.books.letters.rows(self.name)
        return [position for row in rows for position in sorted(self.letters.get(row.position, ()))]

    def _gaps(self) -> list[Range]:
        assert self._store is not None
        books = self._store.books
        return [(gap.first, gap.last) for gap in books.gaps.all()]

    def _limit(self) -> int:
        rows = self.options.window_rows
        return self.options.windows_in_flight * (rows - 1 + min(self._batch_rows_max, 2 * rows))

    def _in_flight(self) -> int:
        """Rows that were sent on this connection and do not count as acknowledged yet; a gap's notice holds none."""
        landed = {False: self.owed.live, True: self.owed.cursor}
        self._on_way = [window for window in self._on_way if window.last > landed[window.is_backfill]]
        return sum(sum(window.rows) for window in self._on_way)

    def _check_order(self, window: Window) -> None:
        """Within a lane nothing is left out: live rows pass over what is owed, back-fill over what was answered."""
        lane = window.is_backfill
        owed = () if lane else [(entry.after + 1, entry.last) for entry in self.owed.ranges]
        skipped: Iterable[Range] = uncovered(self._next[lane], window.first - 1, [*self.explained(), *owed])
        waiting = next((p for a, b in skipped for p in range(a, b + 1) if p not in self.answered), window.first)
        self._check(law.o4_nothing_overtakes_a_failure, window.first, waiting)
        self._next[lane] = max(self._next[lane], window.last + 1)


class WatchedCursors:
    """Cursors of one life, in front of the witness's eyes."""

    def __init__(self, witness: RemoteWitness, inner: Cursors, process: Process) -> None:
        self._witness, self._inner, self._process = witness, inner, process

    def load(self, connector: str) -> Position | None:
        position = self._inner.load(connector)
        if self._process.is_alive:
            self._witness.loaded(position)
        return position

    def commit(self, connector: str, position: Position) -> None:
        if self._process.is_alive:
            self._witness.committed(Owed(position))
        self._inner.commit(connector, position)

    def load_owed(self, connector: str) -> Owed | None:
        owed = self._inner.load_owed(connector)
        if self._process.is_alive:
            self._witness.loaded_owed(owed)
        return owed

    def commit_owed(self, connector: str, owed: Owed) -> None:
        if self._process.is_alive:
            self._witness.committed(owed)
        self._inner.commit_owed(connector, owed)
