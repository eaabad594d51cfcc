"""The outbox over a fake log and a scripted remote: promises O1 to O7, and what it says of itself."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from framegate.contract.connector import Window
from framegate.contract.errors import Busy, Misconfigured, NotConnected, PayloadRefused
from framegate.northbound.health import OutboxState
from framegate.northbound.options import OutboxOptions

from .outbox_bench import Bench, Remote, in_order


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
