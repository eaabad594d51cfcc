"""The outbox over a fake log and a scripted remote: promises O1 to O7, stop, and what it says of itself."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np
import pytest

from framegate.contract.connector import ConnectorContext, Window
from framegate.contract.errors import Busy, Misconfigured, NotConnected, PayloadRefused, StoreFailed
from framegate.contract.frame import Batch, Gap, Placed, Position, uniform_quality, uniform_time
from framegate.contract.letter import DeadLetter
from framegate.contract.owed import Owed
from framegate.contract.ports import Lines
from framegate.northbound.encoder import make_encoder
from framegate.northbound.health import OutboxState
from framegate.northbound.options import OutboxOptions, Start
from framegate.northbound.outbox import Outbox
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import AnyTag

DEADLINE_S = 20.0
FAST = OutboxOptions(window_rows=8)


class FakeClock:
    """Wall time counts calls; sleeping takes one turn of the loop and is remembered."""

    def __init__(self) -> None:
        self.ns = 0
        self.slept: list[float] = []

    def now_ns(self) -> int:
        self.ns += 1_000_000
        return self.ns

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


class FakeLog:
    """Durable rows, added at will; also the cursors."""

    def __init__(self) -> None:
        self.items: list[Placed | Gap] = []
        self.durable = Position(0)
        self.commits: list[int] = []
        self.wakes: list[Callable[[], None]] = []
        self.fails = 0
        self.owed: Owed | None = None
        self.tag = np.array([1, 2, 3], dtype=np.int32)

    def add(self, batches: int = 1) -> None:
        """Three rows per batch; the value of a row is its position."""
        for _ in range(batches):
            first = self.durable + 1
            values = np.arange(first, first + 3)
            batch = Batch(self.tag, values, uniform_quality(0), uniform_time(first), first)
            self.items.append(Placed(Position(first), batch))
            self.durable = Position(first + 2)
        self.announce()

    def lose(self, rows: int) -> None:
        gap = Gap(Position(self.durable + 1), Position(self.durable + rows), "disk_full", "full", "", 1)
        self.items.append(gap)
        self.durable = gap.last
        self.announce()

    def announce(self) -> None:
        for wake in self.wakes:
            wake()

    def read(self, after: Position, rows_max: int) -> Sequence[Placed | Gap]:
        if self.fails:
            self.fails -= 1
            raise StoreFailed("the log cannot be read")
        found: list[Placed | Gap] = []
        for item in self.items:
            if item.last > after:
                found.append(item)
                if sum(entry.last - entry.first + 1 for entry in found) >= rows_max:
                    break
        return found

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        self.wakes.append(wake)
        return lambda: self.wakes.remove(wake)

    def load(self, connector: str) -> Position | None:
        return Position(self.commits[-1]) if self.commits else None

    def commit(self, connector: str, position: Position) -> None:
        self.commits.append(position)
        self.owed = None

    def load_owed(self, connector: str) -> Owed | None:
        return self.owed

    def commit_owed(self, connector: str, owed: Owed) -> None:
        self.commits.append(owed.cursor)
        self.owed = owed if owed.ranges else None


class Remote:
    """A connector whose answers a test decides: `answer(window)` raises, waits, or returns to acknowledge."""

    def __init__(self) -> None:
        self.opens = self.closes = 0
        self.windows: list[Window] = []
        self.received: list[int] = []
        self.open_errors: list[Exception] = []
        self.under_way = self.under_way_max = 0
        self.context: ConnectorContext | None = None

    async def answer(self, window: Window) -> None:
        return

    async def open(self, context: ConnectorContext) -> None:
        self.opens += 1
        self.context = context
        if self.open_errors:
            raise self.open_errors.pop(0)

    async def send(self, window: Window) -> None:
        self.windows.append(window)
        self.under_way += 1
        self.under_way_max = max(self.under_way, self.under_way_max)
        try:
            await self.answer(window)
        finally:
            self.under_way -= 1
        self.take(window)

    def take(self, window: Window) -> None:
        for payload in window.payload:
            self.received += [frame["value"] for frame in json.loads(payload).get("frames", [])]

    async def close(self) -> None:
        self.closes += 1


class Diary:
    """Log events, by name."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def _add(self, level: str) -> Callable[..., None]:
        return lambda event, **values: self.events.append((level, event, values))

    def __getattr__(self, level: str) -> Callable[..., None]:
        return self._add(level)

    def of(self, name: str) -> list[dict[str, Any]]:
        return [values for _, event, values in self.events if event == name]


class Bench:
    """An outbox with everything around it."""

    def __init__(self, options: OutboxOptions = FAST, remote: Remote | None = None, log: FakeLog | None = None) -> None:
        self.remote, self.source, self.diary = remote or Remote(), log or FakeLog(), Diary()
        self.clock, self.metrics, self.letters = FakeClock(), Metrics(), list[DeadLetter]()
        encoder = make_encoder(
            "json-batch", tenant="t", gateway="g", connector="c", template="", batch=4, catalogue=AnyTag()
        )
        self.outbox = Outbox(
            "c",
            self.remote,
            encoder,
            self.source,
            self.source,
            context=lambda lost: ConnectorContext("c", "g", "", cast(Lines, None), self.clock, self.diary, lost),
            clock=self.clock,
            dice=random.Random(1),
            log=self.diary,
            metrics=self.metrics,
            options=options,
            dead_letters=self,
        )

    def keep(self, letter: DeadLetter) -> None:
        assert self.outbox.health.position < letter.position, "kept before the cursor passes it"
        self.letters.append(letter)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Bench]:
        task = asyncio.create_task(self.outbox.run())
        try:
            yield self
            await asyncio.wait_for(self.outbox.stop(), DEADLINE_S)
        finally:
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            assert result is None or isinstance(result, asyncio.CancelledError)
            assert not self.source.wakes

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - any condition of the objects under test, not one event
                await asyncio.sleep(0)

    async def drained(self) -> None:
        await self.until(lambda: self.outbox.health.position == self.source.durable)

    def count(self, name: str) -> int:
        return self.metrics.counter(name, connector="c").value


def in_order(values: Sequence[int]) -> list[int]:
    """Repeats dropped, the first kept; fails when a first delivery goes back."""
    seen: dict[int, None] = dict.fromkeys(values)
    assert list(seen) == sorted(seen)
    return list(seen)


async def test_rows_leave_in_order_and_the_cursor_follows() -> None:
    async with Bench().running() as bench:
        bench.source.add(40)
        await bench.drained()
        assert bench.remote.received == list(range(1, 121))
        bench.source.add()
        await bench.drained()
        assert bench.source.commits == sorted(set(bench.source.commits))
        assert bench.source.commits[-1] == 123
        assert bench.count("edge_outbox_acked_rows_total") == bench.count("edge_outbox_sent_rows_total") == 123
        latency = bench.metrics.histogram("edge_frame_latency_ms", connector="c")
        assert sum(latency.counts) == 123
        assert bench.metrics.gauge("edge_bus_lag", connector="c").sample() == 0
    assert (bench.remote.opens, bench.remote.closes) == (1, 1)
    assert bench.outbox.health.state is OutboxState.STOPPED


async def test_a_burst_of_wakes_becomes_one_window() -> None:
    bench = Bench(OutboxOptions())
    async with bench.running():
        await bench.until(lambda: bench.outbox.health.state is OutboxState.CONNECTED)
        for _ in range(10):
            bench.source.add()
        await bench.drained()
        assert len(bench.remote.windows) == 1


async def test_linger_waits_for_fuller_messages_only_when_rows_are_there() -> None:
    bench = Bench(OutboxOptions(linger_s=0.5))
    async with bench.running():
        await bench.until(lambda: bench.outbox.health.state is OutboxState.CONNECTED)
        assert bench.clock.slept == []
        bench.source.add()
        await bench.drained()
        assert bench.clock.slept == [0.5]


async def test_answers_out_of_order_commit_only_the_answered_prefix() -> None:
    bench = Bench()
    gates = [asyncio.Event() for _ in range(4)]

    async def answer(window: Window) -> None:
        await gates[len(bench.remote.windows) - 1].wait()

    bench.remote.answer = answer  # type: ignore[method-assign]
    bench.source.add(12)
    async with bench.running():
        await bench.until(lambda: len(bench.remote.windows) == 4)
        bounds = [window.last for window in bench.remote.windows]
        gates[2].set()
        await bench.until(lambda: bench.remote.under_way == 3)
        assert bench.source.commits == [0]
        gates[0].set()
        await bench.until(lambda: len(bench.source.commits) == 2)
        assert bench.source.commits == [0, bounds[0]]
        gates[1].set()
        await bench.until(lambda: len(bench.source.commits) == 3)
        assert bench.source.commits == [0, bounds[0], bounds[2]]
        gates[3].set()
        await bench.drained()


async def test_a_slow_remote_gets_no_more_than_its_window() -> None:
    bench = Bench(OutboxOptions(window_rows=3, windows_in_flight=2))

    async def answer(window: Window) -> None:
        await asyncio.sleep(0)

    bench.remote.answer = answer  # type: ignore[method-assign]
    bench.source.add(20)
    async with bench.running():
        await bench.drained()
    assert bench.remote.under_way_max == 2


async def test_after_a_loss_the_same_windows_are_offered_again_in_order() -> None:
    bench = Bench()
    lost = asyncio.Event()

    async def answer(window: Window) -> None:
        if bench.remote.opens == 1:
            await lost.wait()
            raise NotConnected("cut")

    bench.remote.answer = answer  # type: ignore[method-assign]
    bench.source.add(30)
    async with bench.running():
        await bench.until(lambda: len(bench.remote.windows) == 4)
        lost.set()
        await bench.drained()
        first, again = bench.remote.windows[:4], bench.remote.windows[4:8]
        assert all(one is other for one, other in zip(first, again, strict=True))
        assert in_order(bench.remote.received) == list(range(1, 91))
        assert bench.remote.opens == 2
        assert bench.remote.closes == 0
        assert bench.count("edge_outbox_reconnects_total") == 1
    assert [values["reason"] for values in bench.diary.of("outbox_backoff")] == ["E2000 cut"]


async def test_a_loss_while_nothing_is_sent_reconnects() -> None:
    async with Bench().running() as bench:
        await bench.until(lambda: bench.outbox.health.state is OutboxState.CONNECTED)
        assert bench.remote.context is not None
        bench.remote.context.lost(NotConnected("keep-alive"))
        await bench.until(lambda: bench.remote.opens == 2)
        bench.source.add()
        await bench.drained()


async def test_opening_is_tried_for_ever_with_growing_waits_and_one_log_line() -> None:
    bench = Bench()
    bench.remote.open_errors = [NotConnected("refused") for _ in range(12)]
    bench.source.add()
    async with bench.running():
        await bench.until(lambda: bench.outbox.health.failing_in_a_row == 12)
        assert bench.outbox.health.last_error == "refused"
        await bench.drained()
        assert bench.outbox.health.last_error == ""
    assert len(bench.clock.slept) == 12
    assert bench.clock.slept[0] <= 0.5
    assert 15.0 <= max(bench.clock.slept) <= 30.0
    assert len(bench.diary.of("outbox_backoff")) == 1


async def test_misconfigured_connector_waits_for_tables_and_stops() -> None:
    bench = Bench()
    bench.remote.open_errors = [Misconfigured("client id is empty")]
    async with bench.running():
        await bench.until(lambda: bench.outbox.health.state is OutboxState.MISCONFIGURED)
    assert bench.remote.opens == 1
    assert bench.diary.of("outbox_misconfigured")[0]["reason"] == "E1000 client id is empty"


async def test_poison_message_is_set_aside_after_five_tries_and_the_rest_arrives() -> None:
    bench = Bench(OutboxOptions(window_rows=8, windows_in_flight=1))
    poison = 6

    async def answer(window: Window) -> None:
        if any(first <= poison < first + rows for first, rows in zip(window.position, window.rows, strict=True)):
            raise PayloadRefused("schema")

    bench.remote.answer = answer  # type: ignore[method-assign]
    bench.source.add(8)
    async with bench.running():
        await bench.drained()
        assert [(letter.position, letter.rows, letter.reason) for letter in bench.letters] == [(5, 4, "E2400 schema")]
        assert json.loads(bench.letters[0].payload)["pos"] == 5
        assert bench.letters[0].tries == 6
        assert bench.count("edge_outbox_acked_rows_total") == 20, "rows set aside are not acknowledged ones"
        assert in_order(bench.remote.received) == [value for value in range(1, 25) if value not in {5, 6, 7, 8}]
        assert bench.count("edge_outbox_dead_letters_total") == 1
        assert len([window for window in bench.remote.windows if window is bench.remote.windows[0]]) == 5
    assert bench.diary.of("outbox_dead_letter")[0]["pos"] == 5


async def test_a_loss_while_poison_is_isolated_goes_on_where_it_was() -> None:
    bench = Bench(OutboxOptions(window_rows=12, windows_in_flight=1, refusals_max=1))
    cuts = [9]

    async def answer(window: Window) -> None:
        if len(window.payload) > 1 and window.first == 1:
            raise PayloadRefused("schema")
        if window.position[0] in cuts:
            cuts.clear()
            raise NotConnected("cut")

    bench.remote.answer = answer  # type: ignore[method-assign]
    bench.source.add(6)
    async with bench.running():
        await bench.drained()
    assert bench.remote.received == list(range(1, 19))
    assert bench.letters == []


async def test_busy_remote_gets_the_same_window_after_its_wait() -> None:
    bench = Bench(OutboxOptions(windows_in_flight=1))

    async def answer(window: Window) -> None:
        if len(bench.remote.windows) == 1:
            raise Busy("quota", wait_s=7.0)

    bench.remote.answer = answer  # type: ignore[method-assign]
    bench.source.add()
    async with bench.running():
        await bench.drained()
    assert bench.clock.slept == [7.0]
    assert bench.remote.windows[0] is bench.remote.windows[1]
    assert bench.remote.opens == 1


async def test_silence_beyond_the_deadline_closes_and_opens_again() -> None:
    bench = Bench(OutboxOptions(send_timeout_s=0.01))

    async def answer(window: Window) -> None:
        if bench.remote.opens == 1:
            await asyncio.Event().wait()

    bench.remote.answer = answer  # type: ignore[method-assign]
    bench.source.add()
    async with bench.running():
        await bench.drained()
        assert (bench.remote.opens, bench.remote.closes) == (2, 1)
    assert "E2403" in bench.diary.of("outbox_backoff")[0]["reason"]


async def test_a_bug_in_the_connector_is_logged_and_delivery_goes_on() -> None:
    bench = Bench()

    async def answer(window: Window) -> None:
        if bench.remote.opens == 1:
            raise ZeroDivisionError("oops")

    bench.remote.answer = answer  # type: ignore[method-assign]
    bench.source.add(20)
    async with bench.running():
        await bench.drained()
        assert in_order(bench.remote.received) == list(range(1, 61))
    assert "E2404" in bench.diary.of("outbox_broken")[0]["reason"]
    assert "oops" in bench.diary.of("outbox_broken")[0]["reason"]


async def test_an_unreadable_log_is_tried_again() -> None:
    bench = Bench()
    bench.source.fails = 2
    bench.source.add(3)
    async with bench.running():
        await bench.drained()
    assert bench.remote.received == list(range(1, 10))


async def test_gaps_are_told_and_passed_over() -> None:
    bench = Bench()
    bench.source.add(2)
    bench.source.lose(5)
    bench.source.add(1)
    async with bench.running():
        await bench.drained()
        assert bench.remote.received == [1, 2, 3, 4, 5, 6, 12, 13, 14]
        notices = [json.loads(window.payload[0]) for window in bench.remote.windows if window.rows == [0]]
        assert [(notice["gap"]["first"], notice["gap"]["last"]) for notice in notices] == [(7, 11)]
        assert bench.count("edge_outbox_missing_rows_total") == 5
    assert bench.diary.of("outbox_missing")[0]["reason"] == "disk_full"


async def test_gap_before_a_new_connector_began_is_no_loss_of_its_own() -> None:
    bench = Bench()
    bench.source.lose(5)
    bench.source.add(1)
    async with bench.running():
        await bench.drained()
        assert bench.remote.received == [6, 7, 8]
    assert bench.diary.of("outbox_missing") == []


async def test_gap_before_the_first_delivery_is_told() -> None:
    """The connector was there before the rows were; that it has delivered nothing yet does not make it new."""
    bench = Bench()
    bench.remote.open_errors = [NotConnected("away")]
    async with bench.running():
        await bench.until(lambda: bench.remote.opens)
        bench.source.lose(5)
        bench.source.add(1)
        await bench.drained()
        assert bench.remote.received == [6, 7, 8]
        assert bench.count("edge_outbox_missing_rows_total") == 5
    again = Bench(log=bench.source)
    again.source.commits = [0]
    async with again.running():
        await again.drained()
    assert [values["last_pos"] for values in again.diary.of("outbox_missing")] == [5]


async def test_positions_missing_without_a_gap_are_an_error() -> None:
    bench = Bench()
    bench.source.add(4)
    del bench.source.items[1]
    async with bench.running():
        await bench.drained()
        assert bench.remote.received == [1, 2, 3, 7, 8, 9, 10, 11, 12]
    missing = bench.diary.of("outbox_missing")
    assert [(values["first_pos"], values["last_pos"]) for values in missing] == [(4, 6)]


@pytest.mark.parametrize(("start", "expected"), [(Start.OLDEST, [7, 8, 9, 10]), (Start.NEWEST, [])])
async def test_a_new_connector_starts_where_asked(start: Start, expected: list[int]) -> None:
    bench = Bench(OutboxOptions(start=start))
    bench.source.add(4)
    del bench.source.items[:2]
    async with bench.running():
        await bench.drained()
        assert bench.remote.received[:4] == expected
        assert bench.source.commits[-1] == 12
        bench.source.add()
        await bench.drained()
        assert bench.remote.received[-3:] == [13, 14, 15]
    assert bench.diary.of("outbox_missing") == []


async def test_a_known_connector_goes_on_behind_its_cursor() -> None:
    bench = Bench()
    bench.source.add(3)
    bench.source.commits.append(4)
    async with bench.running():
        await bench.drained()
    assert bench.remote.received == [5, 6, 7, 8, 9]


async def test_a_cursor_beyond_the_log_is_an_error_and_goes_on_at_the_end() -> None:
    bench = Bench()
    bench.source.add(1)
    bench.source.commits.append(50)
    async with bench.running():
        await bench.until(lambda: bench.outbox.health.state is OutboxState.CONNECTED)
        bench.source.add(1)
        await bench.drained()
    assert bench.remote.received == [4, 5, 6]
    assert len(bench.diary.of("outbox_cursor_ahead")) == 1


async def test_stop_waits_for_answers_under_way_and_keeps_the_cursor() -> None:
    bench = Bench(OutboxOptions(windows_in_flight=1))
    gate = asyncio.Event()

    async def answer(window: Window) -> None:
        await gate.wait()

    bench.remote.answer = answer  # type: ignore[method-assign]
    bench.source.add(1)
    async with bench.running():
        await bench.until(lambda: bench.remote.under_way)
        bench.source.add(1)
        stopping = asyncio.create_task(bench.outbox.stop())
        await asyncio.sleep(0)
        gate.set()
        await asyncio.wait_for(stopping, DEADLINE_S)
        assert bench.source.commits == [0, 3]
        assert bench.remote.closes == 1


async def test_stop_does_not_wait_for_a_silent_remote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framegate.northbound.outbox.STOP_S", 0.01)
    bench = Bench()

    async def answer(window: Window) -> None:
        await asyncio.Event().wait()

    bench.remote.answer = answer  # type: ignore[method-assign]
    bench.source.add(1)
    async with bench.running():
        await bench.until(lambda: bench.remote.under_way)
    assert bench.source.commits == [0]
    assert bench.remote.closes == 1


async def test_stop_cuts_an_endless_opening_short() -> None:
    bench = Bench()
    blocked: Callable[[ConnectorContext], Awaitable[None]] = lambda _: asyncio.Event().wait()  # type: ignore[assignment, return-value]  # noqa: E731
    bench.remote.open = blocked  # type: ignore[method-assign, assignment]
    async with bench.running():
        await bench.until(lambda: bench.outbox.health.state is OutboxState.OPENING)
        await asyncio.sleep(0)
    assert bench.remote.closes == 1


async def test_cancelling_run_closes_the_connector() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.outbox.run())
    await bench.until(lambda: bench.outbox.health.state is OutboxState.CONNECTED)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.remote.closes == 1


class Flapper(Remote):
    """A line that delivers in order and breaks by chance: what it took is received, answers under way are lost."""

    def __init__(self, seed: int, flaps_max: int) -> None:
        super().__init__()
        self.dice, self.flaps, self.flaps_max = random.Random(seed), 0, flaps_max
        self.broken: set[int] = set()

    async def send(self, window: Window) -> None:
        self.windows.append(window)
        connection = self.opens
        if connection in self.broken:
            raise NotConnected("gone")
        if self.flaps < self.flaps_max and self.dice.random() < 0.3:
            self.flaps += 1
            self.broken.add(connection)
            if self.dice.random() < 0.5:
                self.take(window)
            raise NotConnected("flap")
        self.take(window)
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)
        if connection in self.broken:
            raise NotConnected("gone")


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_thousand_flaps_lose_nothing_and_keep_order(seed: int) -> None:
    print("seed", seed)  # noqa: T201 - shown when the test fails
    remote = Flapper(seed, 1000)
    bench = Bench(OutboxOptions(window_rows=6, windows_in_flight=4), remote)
    async with bench.running():
        while remote.flaps < remote.flaps_max:
            await bench.until(lambda: bench.source.durable - bench.outbox.health.position < 30)
            del bench.source.items[:-20]
            bench.source.add(remote.dice.randrange(1, 6))
        await bench.drained()
        assert in_order(remote.received) == list(range(1, bench.source.durable + 1))
        assert bench.source.commits == sorted(set(bench.source.commits))
        assert in_order([window.first for window in remote.windows])
        assert len(remote.received) - bench.source.durable <= remote.flaps * 4 * 8
        assert bench.count("edge_outbox_failures_total") == 1000
    assert bench.diary.of("outbox_missing") == []
    assert bench.diary.of("outbox_broken") == []
