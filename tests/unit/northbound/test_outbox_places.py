"""Where an outbox begins, what it says of positions that are gone, and where its cursor is when it stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from framegate.contract.connector import ConnectorContext, Window
from framegate.contract.errors import NotConnected
from framegate.northbound.health import OutboxState
from framegate.northbound.options import OutboxOptions, Start

from .outbox_bench import DEADLINE_S, Bench


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
