"""The witness: sees what enters the bus, what leaves for each remote and what lies on the medium, and checks it.

It stands outside the gateway and outlives its crashes. It believes nothing the gateway says of itself; where it has to
ask (a gap, a cursor), it looks at what is on the medium. The checks are in invariants_log.py and invariants_remote.py;
what concerns one connector alone is in witness_remote.py. The first break ends the simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from framegate.bus.books import Books
from framegate.bus.gaps import decode_gap
from framegate.bus.replay import Replay
from framegate.bus.store import Store
from framegate.contract.frame import Batch, Gap, Placed, Position
from framegate.contract.ports import Change, Disk, Family, FrameSink
from framegate.contract.quality import is_bad
from framegate.observe.metrics import Metrics
from framegate.testing.simulation import invariants_log as law
from framegate.testing.simulation.disk import Medium, SimDisk
from framegate.testing.simulation.ledger import Ledger
from framegate.testing.simulation.loop import Process, SimLoop
from framegate.testing.simulation.platter import Platter, first_of, rows_of
from framegate.testing.simulation.witness_remote import RemoteWitness


class Break(NamedTuple):
    """A promise that did not hold."""

    id: str
    text: str
    time_s: float

    def __str__(self) -> str:
        return f"{self.id} at {self.time_s:.6f} s: {self.text}"


class Witness:
    """Of one simulation.

    breaks    what did not hold
    remotes   by connector
    durable   highest position that was ever called durable
    """

    def __init__(self, loop: SimLoop, medium: Medium) -> None:
        self.breaks: list[Break] = []
        self.ledger = Ledger()
        self.remotes: dict[str, RemoteWitness] = {}
        self.durable = 0
        self.rows = self.dropped = 0
        self.loop, self.medium = loop, medium
        self._kept = 0  # last position that would survive
        self._named: set[Gap] = set()  # that were durable once; damage may take their entries since
        self._lost: list[law.Range] = []  # tails that crashes took
        self.watch(medium.platter)

    def check(self, promise: Callable[..., str], /, *what: object, **named: object) -> None:
        """Note what a check has to say, under the id its name begins with."""
        text = promise(*what, **named)
        if text:
            self.broke(promise.__name__.partition("_")[0].upper(), text)

    def broke(self, id_: str, text: str) -> None:
        self.breaks.append(Break(id_, text, self.loop.time()))
        self.loop.note(f"broken {id_} {text}")

    def watch(self, platter: Platter) -> None:
        """Of another medium from now on."""
        platter.on_written, platter.on_kept, platter.on_drop = self._written, self._synced, self._dropping

    # -- the medium -----------------------------------------------------------------------------------------------

    def _written(self, changes: Sequence[Change]) -> None:
        if not self.medium.is_power_feared:
            self._count(changes)

    def _synced(self, changes: Sequence[Change]) -> None:
        if self.medium.is_power_feared:
            self._count(changes)

    def _count(self, changes: Sequence[Change]) -> None:
        for family, key, value in changes:
            if family == "frames" and value is not None:
                self._kept = max(self._kept, first_of(key) + rows_of(value) - 1)
            elif family == "gaps" and value is not None:
                gap = decode_gap(key, value)
                self._kept = max(self._kept, gap.last)
                self._named.add(gap)

    def _dropping(self, family: Family, stop: bytes) -> None:
        self.loop.note(f"drop {family} {stop.hex()}")
        if family == "frames":
            cursors = {name: remote.durable_cursor for name, remote in self.remotes.items() if remote.has_begun}
            named = [*self._named, *self.medium.kept_gaps()]
            self.check(law.i7_gap_before_deletion, first_of(stop), cursors, named)

    # -- lives ----------------------------------------------------------------------------------------------------

    def crashed(self) -> None:
        for remote in self.remotes.values():
            remote.crashed()

    def opened(self, store: Store, disk: SimDisk) -> None:
        """A store was opened: compare it with everything that was promised before."""
        head = store.wal.head
        self.check(law.i2_nothing_durable_is_forgotten, head, self.durable)
        for remote in self.remotes.values():
            self.check(law.i4_what_has_left_is_never_reused, head, remote.sent)
        before = self.ledger.head
        self._lost.append((self.durable + 1, max(before, head)))
        self.ledger.forget_after(head)
        self.compare(store, disk)

    def compare(self, store: Store, disk: SimDisk) -> None:
        """Read the whole log and hold it against the ledger."""
        placed, missing = read_back(disk, store.books, store.wal.head)
        durable = (item for item in placed if item.last <= self.durable)
        self.check(law.i1_rows_read_back_identical, self.ledger, durable)
        self.check(law.i3_tail_is_whole, self.ledger, placed, self.durable)
        rotten = list(self.medium.platter.rotten.items())
        self.check(law.i2_log_has_no_hole, missing, store.books.gaps.all(), rotten)
        self.check_gaps(store)
        named = len(store.catalogue)
        for item in placed:
            self.check(law.i9_record_has_its_names, item.batch.tag.tolist(), named)

    def check_gaps(self, store: Store) -> None:
        lost = [*self._lost, *self.medium.platter.rotted]
        self.check(law.i6_gap_names_what_is_lost, store.books.gaps.all(), lost)

    def sink(self, inner: FrameSink, store: Store, metrics: Metrics, process: Process) -> WatchedSink:
        return WatchedSink(self, inner, store, metrics, process)

    def durable_moved(self, durable: int, disk: SimDisk) -> None:
        """The gateway calls everything up to here durable."""
        self.loop.note(f"durable {durable}")
        self.check(law.i1_durable_head_is_synced, durable, self._kept)
        self.check(law.i5_failed_handle_is_not_believed, is_poisoned=disk.is_poisoned, durable=durable)
        self.durable = max(self.durable, durable)

    @property
    def kept(self) -> int:
        return self._kept


def read_back(disk: Disk, books: Books, head: int) -> tuple[list[Placed], list[law.Range]]:
    """Every record that can be read, and the ranges that cannot, from the oldest row kept to the head."""
    missing: list[law.Range] = []
    replay = Replay(disk, books.layouts.column, lambda first, last, _why: missing.append((first, last)), books.is_named)
    return [item for item in replay.verified(books.trim, head) if item.first >= books.trim], missing


class WatchedSink:
    """A FrameSink that writes down what goes through it, and whether its device spoke up."""

    def __init__(self, witness: Witness, inner: FrameSink, store: Store, metrics: Metrics, process: Process) -> None:
        self._witness, self._inner, self._store, self._process = witness, inner, store, process
        self._dropped_total = metrics.counter("edge_bus_dropped_rows_total")
        self._dropped = 0
        self._told: dict[int, bool] = {}  # by tag: whether the newest row is Bad

    @property
    def is_paused(self) -> bool:
        return self._inner.is_paused

    def publish(self, batches: Sequence[Batch]) -> None:
        if not self._process.is_alive:
            return
        before = self._store.wal.head
        try:
            self._inner.publish(batches)
        finally:
            self._write_down(batches, before)

    def asking(self, tags: Sequence[int]) -> None:
        """A scan of these tags begins: each has something to say, unless it was last said that it is Bad."""
        for tag in tags:
            if not self._told.get(tag, False):
                self._told.pop(tag, None)

    def answered(self, tags: Iterable[int]) -> None:
        self._witness.check(law.b1_every_scan_is_answered, tags, self._told)

    def _write_down(self, batches: Sequence[Batch], before: Position) -> None:
        witness, wal, gaps = self._witness, self._store.wal, self._store.books.gaps
        rows = sum(len(batch.tag) for batch in batches)
        witness.check(law.b2_every_row_has_a_place, rows, before, wal.head)
        first, dropped = before + 1, 0
        for batch in batches:
            last = first + len(batch.tag) - 1
            if gaps.uncovered(first, last):
                witness.ledger.take(first, batch)
            else:
                witness.ledger.lose(first, last)
                dropped += len(batch.tag)
            first = last + 1
            self._told.update(dict.fromkeys(batch.tag.tolist(), is_bad(int(batch.quality[-1]))))
        witness.rows += rows
        witness.dropped += dropped
        self._dropped += dropped
        if dropped:
            self._check_drops()

    def _check_drops(self) -> None:
        full = self._store.books.gaps.rows["disk_full"]
        if self._store.options.disk_full != "drop_oldest":  # there the oldest rows make gaps, too
            self._witness.check(law.i8_drops_are_counted_as_gaps, self._dropped, int(self._dropped_total.value), full)
