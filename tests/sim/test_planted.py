"""Bugs planted on purpose: a simulation that did not find each of them, by the promise it breaks, would prove nothing.

Each is put in place of a part of the gateway; the product's code has no switch for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from framegate.bus.books import Books
from framegate.bus.commit import Then
from framegate.bus.mark import HighWaterMark
from framegate.bus.options import StoreOptions
from framegate.bus.record import key_of
from framegate.bus.recovery import Recovered, load
from framegate.bus.retention import Retention
from framegate.bus.store import Store
from framegate.contract.connector import Window
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Position
from framegate.contract.owed import OwedRange
from framegate.contract.ports import Clock, Disk, Log
from framegate.northbound.flight import Flight, FlightState
from framegate.northbound.lanes import Lanes
from framegate.northbound.options import OutboxOptions
from framegate.northbound.outbox import Outbox
from framegate.testing.simulation.gateway import Parts
from framegate.testing.simulation.simulation import Report, simulate
from framegate.testing.simulation.worker import SimWorker

SEEDS_MAX = 100


class AnswersBeforeSyncing(SimWorker):
    """Tells the log that its work is done before it is; the opening of the store, its first work, is spared."""

    _is_open = False

    def do(self, work: Callable[[], None], then: Then) -> None:
        if not self._is_open:
            self._is_open = True
            super().do(work, then)
            return
        super().do(lambda: None, then)
        super().do(work, _ignore)


def _ignore(error: StoreFailed | None) -> None:
    return


class BelievesFailedSyncs(SimWorker):
    """Hides that a sync has failed."""

    def do(self, work: Callable[[], None], then: Then) -> None:
        def hide(error: StoreFailed | None) -> None:
            then(None if error is not None and "while syncing" in error.text else error)

        super().do(work, hide)


class CommitsWhenSending(Outbox):
    """Moves the cursor when a window is sent, not when it is acknowledged."""

    def _start(self, group: asyncio.TaskGroup, flight: Flight) -> None:
        super()._start(group, flight)
        self._cursors.commit(self.name, flight.last)


class OffersNewestFirst(Outbox):
    """After a lost connection sends what waits in the wrong order."""

    def _offer_again(self, group: asyncio.TaskGroup, lanes: Lanes) -> None:
        for flight in reversed(lanes.waiting()):
            if flight.isolated is None:
                self._start(group, flight)


class SendsTooMuchAhead(Outbox):
    """Has four times as many windows under way as its options allow."""

    def __init__(self, *parts: Any, options: OutboxOptions, **named: Any) -> None:
        options = replace(options, windows_in_flight=4 * options.windows_in_flight)
        super().__init__(*parts, options=options, **named)


class SetsAsideAtOnce(Outbox):
    """Takes the first refusal for the last."""

    def _book_refusal(self, flight: Flight, window: Window, error: Any) -> None:
        super()._book_refusal(flight, window, error)
        flight.state = FlightState.DONE
        self._letters.set_aside(window, error, flight.refusals)
        assert self._lanes is not None
        self._land(self._lanes, flight)


class ForgetsWhatIsOwed(Outbox):
    """Lets live rows overtake, and does not come back for what they left behind."""

    def _on_overtaken(self, fresh: OwedRange) -> None:
        assert self._lanes is not None
        self._lanes.backlog._ranges.clear()
        super()._on_overtaken(fresh)


class OvertakesWhatIsUnderWay(Lanes):
    """Lets live rows overtake from where they were read, not from where they were acknowledged."""

    __slots__ = ()

    def _turns(self) -> bool:
        if self.backlog.is_behind(self.reader.backlog_rows, self._rows_max, self._clock.monotonic()):
            self.backlog.live = self.reader.position
            self.reader.begin(self.backlog.overtake(self._source.durable).last)
        return False


class HastyLanes(Outbox):
    def _begin(self) -> Lanes:
        lanes = super()._begin()
        lanes.__class__ = OvertakesWhatIsUnderWay
        return lanes


class DeletesBeforeTelling(Retention):
    """Deletes rows, then notes the gap."""

    def tick(self, bytes_used: int) -> None:
        deletion = self._due(bytes_used)
        if deletion is not None:
            with contextlib.suppress(StoreFailed):
                self._disk.drop_range("frames", key_of(0), key_of(deletion.stop))
        super().tick(bytes_used)


class HastyStore(Store):
    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        opened, worker, options, clock, log, metrics = parts
        self._retention = DeletesBeforeTelling(opened.disk, self.wal, worker, options, clock, log, metrics)


def load_forgetful(
    disk: Disk, options: StoreOptions, mark: HighWaterMark, clock: Clock, log: Log
) -> tuple[Books, Recovered]:
    """Goes on behind the high-water mark, which is older than the store after a power cut: positions are used again."""
    books, recovered = load(disk, options, mark, clock, log)
    return books, Recovered(Position(min(recovered.head, mark.position)), recovered.lost)


def load_silent(
    disk: Disk, options: StoreOptions, mark: HighWaterMark, clock: Clock, log: Log
) -> tuple[Books, Recovered]:
    """Finds rows missing and makes no gap of it."""
    books, recovered = load(disk, options, mark, clock, log)
    damage = [gap for gap in books.gaps.all() if gap.reason == "damage"]
    for gap in damage:
        books.gaps._gaps.remove(gap)
        books.gaps._changed.pop(gap.first, None)
    return books, recovered


PLANTED = [
    pytest.param(Parts(worker=AnswersBeforeSyncing), {"I1"}, id="acknowledge before sync"),
    pytest.param(Parts(worker=BelievesFailedSyncs), {"I1", "I5"}, id="believe a handle whose sync failed"),
    pytest.param(Parts(outbox=CommitsWhenSending), {"O2"}, id="cursor before acknowledgement"),
    pytest.param(Parts(store=HastyStore), {"I7"}, id="trim before gap record"),
    pytest.param(Parts(outbox=OffersNewestFirst), {"O4"}, id="reorder after reconnect"),
    pytest.param(Parts(load=load_forgetful), {"I1", "I2"}, id="reuse of a position"),
    pytest.param(Parts(load=load_silent), {"I2"}, id="loss without a gap"),
    pytest.param(Parts(outbox=ForgetsWhatIsOwed), {"O2"}, id="overtaken rows forgotten"),
    pytest.param(Parts(outbox=HastyLanes), {"O2", "O4"}, id="overtaken before acknowledgement"),
    pytest.param(Parts(outbox=SendsTooMuchAhead), {"O5"}, id="more under way than promised"),
    pytest.param(Parts(outbox=SetsAsideAtOnce), {"O7"}, id="dead letter at the first refusal"),
]


def first_break(parts: Parts) -> tuple[int, Report]:
    """The first seed that finds a bug, and what it found."""
    for seed in range(SEEDS_MAX):
        report = simulate(seed, parts=parts)
        if report.breaks:
            return seed + 1, report
    raise AssertionError(f"not found in {SEEDS_MAX} seeds")


@pytest.mark.parametrize(("parts", "ids"), PLANTED)
def test_planted_bug_is_found_by_the_promise_it_breaks(parts: Parts, ids: set[str]) -> None:
    seeds, report = first_break(parts)
    print(f"found after {seeds} seeds: {report.breaks[0]}")  # noqa: T201 - pytest shows it
    assert report.breaks[0].id in ids
