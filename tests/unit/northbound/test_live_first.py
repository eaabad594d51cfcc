"""Live first: two lanes over one log, against a remote that flaps and a gateway that crashes."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Self, cast

import numpy as np
import pytest

from framegate.contract.connector import ConnectorContext, Window
from framegate.contract.errors import Misconfigured, NotConnected, PayloadRefused
from framegate.contract.frame import Batch, Gap, Placed, Position, uniform_quality, uniform_time
from framegate.contract.owed import OWED_RANGES_MAX, Owed, OwedRange
from framegate.contract.ports import Lines
from framegate.northbound.backlog import BEHIND_S, Backlog
from framegate.northbound.encoder import make_encoder
from framegate.northbound.options import BacklogOrder, OutboxOptions
from framegate.northbound.outbox import Outbox
from framegate.northbound.pace import QUEUE_S, ROWS_MIN, Pace
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import AnyTag

DEADLINE_S = 30.0
ROWS_PER_BATCH = 3
OPTIONS = OutboxOptions(window_rows=6, windows_in_flight=4, refusals_max=1, backlog=BacklogOrder.LIVE_FIRST)
COMMITS_LOST_MAX = 5


class Clock:
    """Wall time counts calls; sleeping takes one turn of the loop."""

    def __init__(self) -> None:
        self.ns = 0

    def now_ns(self) -> int:
        self.ns += 1_000_000
        return self.ns

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Diary:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **values: self.events.append((event, values))

    def names(self) -> list[str]:
        return [event for event, _ in self.events]


class LogBook:
    """Durable rows, and cursors of which a crash loses the newest commits."""

    def __init__(self) -> None:
        self.items: list[Placed | Gap] = []
        self.durable = Position(0)
        self.wakes: list[Callable[[], None]] = []
        self.commits: list[Owed] = []
        self.on_commit: Callable[[Owed], None] = lambda _: None

    def add(self, batches: int) -> None:
        """Rows whose value is their position."""
        tag = np.arange(1, ROWS_PER_BATCH + 1, dtype=np.int32)
        for _ in range(batches):
            first = self.durable + 1
            values = np.arange(first, first + ROWS_PER_BATCH)
            self.items.append(Placed(Position(first), Batch(tag, values, uniform_quality(0), uniform_time(first), 1)))
            self.durable = Position(first + ROWS_PER_BATCH - 1)
        self.announce()

    def lose(self, rows: int) -> None:
        first, last = Position(self.durable + 1), Position(self.durable + rows)
        self.items.append(Gap(first, last, "disk_full", "full", "", 1))
        self.durable = last
        self.announce()

    def announce(self) -> None:
        for wake in self.wakes:
            wake()

    def read(self, after: Position, rows_max: int) -> Sequence[Placed | Gap]:
        found: list[Placed | Gap] = []
        rows = 0
        for item in self.items:
            if item.last > after:
                found.append(item)
                rows += item.last - item.first + 1
                if rows >= rows_max:
                    break
        return found

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        self.wakes.append(wake)
        return lambda: self.wakes.remove(wake)

    def load(self, connector: str) -> Position | None:
        return self.commits[-1].cursor if self.commits else None

    def load_owed(self, connector: str) -> Owed | None:
        return self.commits[-1] if self.commits and self.commits[-1].ranges else None

    def commit(self, connector: str, position: Position) -> None:
        self.commit_owed(connector, Owed(position))

    def commit_owed(self, connector: str, owed: Owed) -> None:
        assert not self.commits or owed.cursor >= self.commits[-1].cursor, "a cursor went back (O1)"
        self.on_commit(owed)
        self.commits.append(owed)


class Remote:
    """Takes rows in the order they are sent; a test may break the line or refuse.

    received  (position, whether it was marked as back-fill), in order of arrival
    acked     rows of which the outbox was told that they arrived
    """

    def __init__(self) -> None:
        self.received: list[tuple[int, bool]] = []
        self.acked: set[int] = set()
        self.windows: list[Window] = []
        self.opens = 0
        self.broken: set[int] = set()
        self.is_away = False
        self.answer: Callable[[Window], Any] = lambda _: None

    async def open(self, context: ConnectorContext) -> None:
        if self.is_away:
            raise NotConnected("away")
        self.opens += 1

    async def send(self, window: Window) -> None:
        self.windows.append(window)
        connection = self.opens
        if connection in self.broken:
            raise NotConnected("gone")
        refused = self.answer(window)
        if isinstance(refused, NotConnected):
            self.broken.add(connection)
        if isinstance(refused, Exception) and not getattr(refused, "is_taken", False):
            raise refused
        for payload in window.payload:
            message = json.loads(payload)
            assert message.get("backfill", False) is window.is_backfill
            self.received += [(frame["value"], window.is_backfill) for frame in message.get("frames", [])]
        if refused is not None:
            raise refused
        await asyncio.sleep(0)
        if self.is_away or connection in self.broken:
            raise NotConnected("gone")
        self.acked.update(range(window.first, window.last + 1))

    async def close(self) -> None:
        return

    def first_seen(self, *, is_backfill: bool) -> list[int]:
        """Rows that came first in this lane, in order."""
        seen: set[int] = set()
        lane: list[int] = []
        for position, mark in self.received:
            if position not in seen and mark is is_backfill:
                lane.append(position)
            seen.add(position)
        return lane


class Bench:
    """One life of an outbox over a log and a remote that outlive it."""

    def __init__(self, source: LogBook, remote: Remote, options: OutboxOptions = OPTIONS) -> None:
        self.source, self.remote, self.diary, self.metrics = source, remote, Diary(), Metrics()
        clock = Clock()
        live, backfill = (
            make_encoder(
                "json-batch",
                tenant="t",
                gateway="g",
                connector="c",
                template=template,
                batch=4,
                catalogue=AnyTag(),
                is_backfill=mark,
            )
            for template, mark in (("t/g", False), ("t/g/backfill", True))
        )
        self.outbox = Outbox(
            "c",
            remote,
            live,
            source,
            source,
            context=lambda lost: ConnectorContext("c", "g", "", cast(Lines, None), clock, self.diary, lost),
            clock=clock,
            dice=random.Random(1),
            log=self.diary,
            metrics=self.metrics,
            options=options,
            backfill_encoder=backfill,
        )

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.outbox.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """A crash: nothing is said good-bye to."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - any condition of the objects under test, not one event
                await asyncio.sleep(0)

    async def drained(self) -> None:
        await self.until(lambda: self.outbox.health.position == self.source.durable)


async def test_live_rows_leave_before_a_backlog_and_everything_arrives() -> None:
    source, remote = LogBook(), Remote()
    source.add(200)
    async with Bench(source, remote) as bench:
        await bench.until(lambda: len(remote.received) > 30)
        source.add(1)
        await bench.until(lambda: (601, False) in remote.received)
        assert bench.outbox.health.owed_rows > 300
        assert bench.metrics.gauge("edge_outbox_owed_rows", connector="c").sample() == bench.outbox.health.owed_rows
        assert bench.outbox.lag_rows < 603
        await bench.drained()
        assert bench.outbox.health.owed_rows == bench.outbox.lag_rows == 0
    assert remote.first_seen(is_backfill=True) == list(range(1, 601))
    assert remote.first_seen(is_backfill=False) == [601, 602, 603]
    assert len(remote.received) == 603
    keys = {(window.is_backfill, key) for window in remote.windows for key in window.key}
    assert keys == {(True, b"t/g/backfill"), (False, b"t/g")}
    assert source.commits[-1] == Owed(Position(603))
    assert bench.diary.names()[-2:] == ["outbox_overtaken", "outbox_backfilled"]


async def test_in_order_an_outage_leaves_one_unmarked_stream() -> None:
    source, remote = LogBook(), Remote()
    source.add(50)
    async with Bench(source, remote, OutboxOptions(window_rows=6)) as bench:
        await bench.drained()
    assert remote.received == [(position, False) for position in range(1, 151)]
    assert all(not owed.ranges for owed in source.commits)


async def test_a_short_outage_goes_on_in_order() -> None:
    source, remote = LogBook(), Remote()
    source.add(2)
    async with Bench(source, remote) as bench:
        await bench.drained()
    assert remote.received == [(position, False) for position in range(1, 7)]


async def test_owed_rows_are_delivered_after_the_option_was_taken_back() -> None:
    source, remote = LogBook(), Remote()
    source.add(100)
    source.commits.append(
        Owed(Position(250), (OwedRange(Position(10), Position(20)), OwedRange(Position(50), Position(90))))
    )
    async with Bench(source, remote, OutboxOptions(window_rows=6, windows_in_flight=1)) as bench:
        await bench.drained()
    assert remote.first_seen(is_backfill=True) == [*range(11, 21), *range(51, 91)]
    assert remote.first_seen(is_backfill=False) == list(range(251, 301))


async def test_a_gap_among_owed_rows_is_told_as_backfill_and_ends_with_them() -> None:
    source, remote = LogBook(), Remote()
    source.add(20)
    source.lose(100)
    source.add(20)
    source.commits.append(Owed(Position(216), (OwedRange(Position(30), Position(120)),)))
    async with Bench(source, remote) as bench:
        await bench.drained()
    notices = [json.loads(text) for window in remote.windows for text in window.payload if b'"gap"' in text]
    assert [(notice["gap"]["first"], notice["gap"]["last"], notice["backfill"]) for notice in notices] == [
        (61, 120, True)
    ]
    assert remote.first_seen(is_backfill=True) == list(range(31, 61))


async def test_poison_in_the_backlog_is_set_aside_and_both_lanes_go_on() -> None:
    source, remote = LogBook(), Remote()
    source.add(100)
    remote.answer = lambda window: (
        PayloadRefused("schema") if any(at <= 40 < at + 4 for at in window.position) else None
    )
    async with Bench(source, remote) as bench:
        await bench.until(lambda: len(remote.received) > 10)
        source.add(1)
        await bench.drained()
        assert bench.metrics.counter("edge_outbox_dead_letters_total", connector="c").value == 1
    assert 290 < len(remote.received) < 303


@pytest.mark.parametrize("seed", range(12))
async def test_flaps_outages_and_crashes_lose_nothing_and_keep_each_lane_in_order(seed: int) -> None:
    print("seed", seed)  # noqa: T201 - shown when the test fails
    dice, source, remote = random.Random(seed), LogBook(), Remote()
    repeats_max = 0

    def honest(owed: Owed) -> None:
        """Nothing counts as delivered that the remote has not acknowledged (O2)."""
        still = set(chain.from_iterable(range(entry.after + 1, entry.last + 1) for entry in owed.ranges))
        assert not set(range(1, owed.live + 1)) - still - remote.acked

    def answer(window: Window) -> Exception | None:
        nonlocal repeats_max
        if dice.random() > 0.03:
            return None
        repeats_max += 2 * OPTIONS.window_rows * OPTIONS.windows_in_flight
        lost = NotConnected("flap")
        lost.is_taken = dice.random() < 0.5  # type: ignore[attr-defined]
        return lost

    source.on_commit, remote.answer = honest, answer
    for _ in range(6):
        async with Bench(source, remote) as bench:
            for _ in range(8):
                remote.is_away = dice.random() < 0.4
                for _ in range(dice.randrange(1, 12)):
                    source.add(dice.randrange(4))
                    await asyncio.sleep(0)
                remote.is_away = False
                target = len(remote.acked) + dice.randrange(1, 60)
                await bench.until(lambda target=target: len(remote.acked) >= min(target, source.durable))  # type: ignore[misc]
            assert "outbox_broken" not in bench.diary.names()
        before = source.commits[-1]
        del source.commits[max(1, len(source.commits) - dice.randrange(COMMITS_LOST_MAX)) :]
        repeats_max += acknowledged(before) - acknowledged(source.commits[-1])
        repeats_max += 2 * OPTIONS.window_rows * OPTIONS.windows_in_flight
    async with Bench(source, remote) as bench:
        await bench.drained()
    assert {position for position, _ in remote.received} == set(range(1, source.durable + 1))
    for is_backfill in (False, True):
        lane = remote.first_seen(is_backfill=is_backfill)
        assert lane == sorted(lane)
    assert len(remote.received) - source.durable <= repeats_max
    assert remote.first_seen(is_backfill=True), "this seed never overtook; it proves nothing"


def acknowledged(owed: Owed) -> int:
    return owed.live - owed.rows


# -- bookkeeping ------------------------------------------------------------------------------------------------------


def test_backlog_full_of_ranges_goes_on_in_order() -> None:
    backlog = Backlog(Owed(Position(0)))
    for step in range(OWED_RANGES_MAX):
        backlog.reconnected()
        assert backlog.is_behind(100, 10, 0.0)
        backlog.overtake(Position(100 * step + 50))
        backlog.live_landed(Position(100 * step + 60))
    backlog.reconnected()
    assert not backlog.is_behind(100, 10, 0.0)
    backlog.backfill_landed(Position(50))
    assert backlog.is_behind(100, 10, 0.0)


def test_backlog_overtaken_twice_without_a_live_row_between_is_one_range() -> None:
    backlog = Backlog(Owed(Position(10)))
    backlog.overtake(Position(50))
    backlog.overtake(Position(90))
    assert backlog.owed == Owed(Position(90), (OwedRange(Position(10), Position(90)),))


def test_backlog_connected_lane_must_lag_for_a_while() -> None:
    backlog = Backlog(Owed(Position(0)))
    assert not backlog.is_behind(100, 10, 5.0)
    assert not backlog.is_behind(100, 10, 5.0 + BEHIND_S / 2)
    assert not backlog.is_behind(5, 10, 5.0 + BEHIND_S / 2)
    assert not backlog.is_behind(100, 10, 5.0 + BEHIND_S)
    assert backlog.is_behind(100, 10, 5.0 + 2 * BEHIND_S)


def steps(pace: Pace, link_rows_per_s: float, delay_s: float) -> Iterator[float]:
    """Answer times of two windows in flight on a thin, perhaps far, link."""
    while True:
        took_s = delay_s + 2 * pace.rows / link_rows_per_s
        pace.answered(pace.rows, took_s)
        yield took_s


@pytest.mark.parametrize(("rate", "delay_s"), [(1_000.0, 0.0), (10_000.0, 0.6), (1e7, 0.6), (1e7, 0.0)])
def test_pace_keeps_the_queue_short_and_a_fast_link_full(rate: float, delay_s: float) -> None:
    pace = Pace(4096)
    answers = [took_s for _, took_s in zip(range(50), steps(pace, rate, delay_s), strict=False)][10:]
    assert max(answers) - delay_s <= max(4 * QUEUE_S, 2 * ROWS_MIN / rate)
    assert rate < 1e6 or pace.rows == 4096


def test_live_first_needs_two_windows_in_flight() -> None:
    with pytest.raises(Misconfigured, match="windows_in_flight"):
        OutboxOptions(windows_in_flight=1, backlog=BacklogOrder.LIVE_FIRST)
