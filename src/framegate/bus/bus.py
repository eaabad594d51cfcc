"""The bus: where rows enter, get mapped, placed and remembered, and where connectors read them once they are durable.

Publishing is synchronous and bounded: past 80 % of the ring pollers are asked to pause, past 100 % rows become a
gap (B2). Readers get rows from the ring while they keep up, else from the store, and every hole as a Gap in its
place. Only durable positions are ever read (I4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from framegate.bus.fault import CLOSED, REFUSED
from framegate.bus.latest import Latest
from framegate.bus.meters import BusMeters
from framegate.bus.record import RECORD_ROWS_MAX
from framegate.bus.ring import Ring
from framegate.bus.rules import entries_of
from framegate.bus.wal import Wal, WalState
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, Gap, Placed, Position
from framegate.contract.ports import Change, Clock, Log, RuleState
from framegate.observe.metrics import Metrics

RING_ROWS = 262_144
RING_ROWS_SMALL = 8_192  # for boxes with little memory
PENDING_BYTES_MAX = 64 << 20  # rows of long texts fill the ring by their bytes
PAUSE_AT = 0.8
RESUME_AT = 0.6
DROP_LOG_INTERVAL_S = 10.0  # a full ring is told this often, not once per batch
Mapping = Callable[[Batch], Sequence[Batch]]


class Bus:
    """Satisfies FrameSink, FrameSource, RuleLog and CommandLog. Used from the loop thread.

    latest  newest row of every tag, durable or not
    rows    rows accepted since start
    """

    def __init__(
        self, wal: Wal, mapping: Mapping, clock: Clock, log: Log, metrics: Metrics, ring_rows: int = RING_ROWS
    ) -> None:
        self.latest = Latest()
        self.ring_rows_max = ring_rows
        self.is_paused = False
        self._wal, self._mapping, self._clock, self._log = wal, mapping, clock, log
        self._ring = Ring(ring_rows)
        self._meters = BusMeters(metrics)
        self._meters.pending.read = lambda: float(self.pending_rows)
        self._pause_rows = int(PAUSE_AT * ring_rows)
        self._wakes: list[Callable[[], None]] = []
        self._pressed: list[Callable[[bool], None]] = []
        self._views: list[Callable[[Sequence[Batch]], None]] = []
        self._drops_told_at = float("-inf")
        self._told = wal.durable
        wal.on_durable(self._moved)

    @property
    def rows(self) -> int:
        return self._meters.rows.value

    @property
    def pending_rows(self) -> int:
        """Rows accepted and not yet durable."""
        return self._wal.head - self._wal.durable

    # -- FrameSink ------------------------------------------------------------------------------------------------

    def publish(self, batches: Sequence[Batch]) -> None:
        """Take rows: map, place, ring, log. Never blocks; raises as `place` does."""
        mapping = self._mapping
        self.place([mapped for batch in batches for mapped in mapping(batch)])

    def place(self, batches: Sequence[Batch]) -> None:
        """Take rows that are mapped already: those of the mapping's own clock, and of rules.

        raises  StoreFailed E3011 - the ring is full and the policy is to block; the rows are in a gap
        """
        wal, keep, update = self._wal, self._ring.append, self.latest.update
        taken = count = refused = 0
        is_dropping = wal.state is WalState.FULL and wal.options.disk_full == "drop_new"
        room = 0 if is_dropping or wal.pending_bytes > PENDING_BYTES_MAX else self.ring_rows_max + wal.durable
        for batch in batches:
            rows = len(batch.tag)
            if not 0 < rows <= RECORD_ROWS_MAX or wal.head + rows > room:
                refused += self._publish_rest(batch)
                continue
            keep(wal.append(batch))
            update(batch)
            taken += rows
            count += 1
        self._meters.rows.value += taken
        self._meters.batches.value += count
        for view in self._views:
            view(batches)
        if not self.is_paused and (
            wal.head - wal.durable > self._pause_rows or wal.pending_bytes > PAUSE_AT * PENDING_BYTES_MAX
        ):
            self._press()
        if refused and wal.options.disk_full == "block":
            why = wal.error or "the disk is too slow for the rows that arrive"
            raise StoreFailed(f"bus: {refused} rows dropped, {self.pending_rows} wait for the log: {why}", code=REFUSED)

    # -- RuleLog --------------------------------------------------------------------------------------------------

    @property
    def head(self) -> Position:
        return self._wal.head

    def derive(self, batches: Sequence[Batch], states: Sequence[RuleState], kept: Callable[[], None]) -> None:
        """Place what rules derived; it and the states become durable in one piece, or none of them.

        raises  StoreFailed E3011 - not now; nothing was taken
        """
        if self.is_paused or self._wal.state in {WalState.FULL, WalState.CLOSED}:
            why = self._wal.error or "rows wait for the log"
            raise StoreFailed(f"bus: derived rows wait: {why}", code=REFUSED)
        self._place_with(batches, entries_of(states), kept)

    # -- CommandLog -----------------------------------------------------------------------------------------------

    @property
    def refusal(self) -> str:
        wal = self._wal
        return wal.error if wal.state in {WalState.FULL, WalState.FAILED, WalState.CLOSED} else ""

    def record(self, batches: Sequence[Batch], changes: Sequence[Change], kept: Callable[[], None]) -> None:
        """Place rows with changes of the store, in one piece; see CommandLog. Whoever calls bounds what it hands in."""
        if self._wal.state is WalState.CLOSED:
            raise StoreFailed("bus: the durable log is closed", code=CLOSED)
        self._place_with(batches, changes, kept)
        self._wal.hurry()  # somebody waits for the answer

    def _place_with(self, batches: Sequence[Batch], changes: Sequence[Change], kept: Callable[[], None]) -> None:
        for batch in batches:
            for piece in _pieces(batch):
                self._ring.append(self._wal.append(piece))
                self.latest.update(piece)
                self._meters.rows.value += len(piece.tag)
                self._meters.batches.value += 1
        for view in self._views:
            view(batches)
        self._wal.bind(changes, kept)
        if self._occupancy() >= PAUSE_AT:
            self._press()

    @property
    def mapping(self) -> Mapping:
        """What rows go through on their way in."""
        return self._mapping

    def swap_mapping(self, mapping: Mapping) -> None:
        """Use another mapping from the next batch on."""
        self._mapping = mapping

    def view(self, view: Callable[[Sequence[Batch]], None]) -> Callable[[], None]:
        """Call `view` with rows as they come, durable or not, for live views; returns the function that ends it."""
        self._views.append(view)
        return lambda: self._views.remove(view) if view in self._views else None

    def on_pressure(self, pressed: Callable[[bool], None]) -> Callable[[], None]:
        """Call `pressed` with True at pause and False at resume; returns the function that ends it."""
        self._pressed.append(pressed)
        return lambda: self._pressed.remove(pressed) if pressed in self._pressed else None

    # -- FrameSource ----------------------------------------------------------------------------------------------

    @property
    def durable(self) -> Position:
        return self._wal.durable

    def read(self, after: Position, rows_max: int) -> Sequence[Placed | Gap]:
        """The next durable rows and gaps after a position, in order, about rows_max rows; [] at the end."""
        wal = self._wal
        found: list[Placed | Gap] = []
        while after < wal.durable:
            gap = self._gap_at(after)
            if gap is not None and gap.first <= after + 1:
                after = Position(min(gap.last, wal.durable))
                found.append(gap._replace(last=after))
                continue
            stop = wal.durable if gap is None else Position(min(wal.durable, gap.first - 1))
            placed = self._ring.read(after, rows_max, stop) or wal.replay.read(after, rows_max, stop)
            if placed:
                return [*found, *placed]
            # The rows are lost, and by now a gap says so.
        return found

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on the loop whenever `durable` has moved; returns the unsubscribe function."""
        self._wakes.append(wake)
        return lambda: self._wakes.remove(wake) if wake in self._wakes else None

    async def flush(self) -> None:
        """Make everything that was published durable; logs and goes on when the disk does not."""
        try:
            await self._wal.flush()
        except StoreFailed as error:
            self._log.error("wal_unclean", reason=error.text, rows=self.pending_rows)

    # -----------------------------------------------------------------------------------------------------------

    def _gap_at(self, after: Position) -> Gap | None:
        """The next gap; below the oldest row kept, what is gone counts as one."""
        gap = self._wal.books.gaps.after(after)
        oldest = self._wal.books.oldest
        if after + 1 < oldest and (gap is None or gap.first > after + 1):
            last = Position(oldest - 1 if gap is None else min(oldest, gap.first) - 1)
            detail = "deleted before this connector asked for them"
            return Gap(Position(after + 1), last, "retention", detail, "", self._clock.now_ns())
        return gap

    def _moved(self) -> None:
        """The durable head or the log's state has moved."""
        wal = self._wal
        if self.is_paused or wal.state is WalState.FULL:
            self._press()
        if wal.durable == self._told:
            return
        self._told = wal.durable
        self._ring.evict(wal.durable)
        for wake in tuple(self._wakes):
            wake()

    def _occupancy(self) -> float:
        return max(self.pending_rows / self.ring_rows_max, self._wal.pending_bytes / PENDING_BYTES_MAX)

    def _press(self) -> None:
        """Pause or resume, and tell who wants to know."""
        occupancy = self._occupancy()
        is_blocked = self._wal.state is WalState.FULL and self._wal.options.disk_full == "block"
        is_paused = is_blocked or occupancy >= (RESUME_AT if self.is_paused else PAUSE_AT)
        if is_paused == self.is_paused:
            return
        self.is_paused = is_paused
        self._meters.paused.value = float(is_paused)
        event = "bus_paused" if is_paused else "bus_resumed"
        self._log.warning(event, rows=self.pending_rows, occupancy=round(occupancy, 3), reason=self._wal.error)
        for pressed in tuple(self._pressed):
            pressed(is_paused)

    def _is_over(self, rows: int) -> bool:
        wal = self._wal
        if wal.state is WalState.FULL and wal.options.disk_full == "drop_new":
            return True
        waiting = wal.head - wal.durable
        return waiting + rows > self.ring_rows_max or wal.pending_bytes > PENDING_BYTES_MAX

    def _publish_rest(self, batch: Batch) -> int:
        """A batch that is empty, too long for one record, or too much; returns the rows that were dropped."""
        rows = len(batch.tag)
        if rows == 0:
            return 0
        self._press()
        if rows > RECORD_ROWS_MAX:
            return sum(self._publish_piece(batch, start) for start in range(0, rows, RECORD_ROWS_MAX))
        self.latest.update(batch)
        self._wal.drop(rows, "disk_full", self._wal.error or "the log is slower than the rows that arrive")
        self._meters.dropped.value += rows
        now = self._clock.monotonic()
        if now - self._drops_told_at >= DROP_LOG_INTERVAL_S:
            self._drops_told_at = now
            self._log.error("bus_dropped", rows=self._meters.dropped.value, reason=self._wal.error)
        return rows

    def _publish_piece(self, batch: Batch, start: int) -> int:
        piece = _slice(batch, start, start + RECORD_ROWS_MAX)
        rows = len(piece.tag)
        if self._is_over(rows):
            return self._publish_rest(piece)
        self._ring.append(self._wal.append(piece))
        self.latest.update(piece)
        self._meters.rows.value += rows
        self._meters.batches.value += 1
        return 0


def _pieces(batch: Batch) -> Sequence[Batch]:
    """A batch as it is, or cut into what one record holds."""
    rows = len(batch.tag)
    if 0 < rows <= RECORD_ROWS_MAX:
        return (batch,)
    return [_slice(batch, start, start + RECORD_ROWS_MAX) for start in range(0, rows, RECORD_ROWS_MAX)]


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    quality, time = batch.quality, batch.source_time
    return Batch(
        batch.tag[start:stop],
        batch.value[start:stop],
        quality if len(quality) == 1 else quality[start:stop],
        time if len(time) == 1 else time[start:stop],
        batch.gateway_time,
    )
