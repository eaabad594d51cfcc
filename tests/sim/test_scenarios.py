"""Scenarios of their own, in virtual time: an hour without the broker, and a wall clock that jumps."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from framegate.bus.options import FullPolicy, StoreOptions
from framegate.bus.wal import WalState
from framegate.northbound.options import OutboxOptions
from framegate.testing.fakes import START_NS
from framegate.testing.simulation import invariants_log as law
from framegate.testing.simulation.simulation import LIVENESS_S, Script, simulate
from framegate.testing.simulation.swarm import ConnectorDraw, DeviceDraw, Swarm
from framegate.testing.simulation.world import World

PERIOD_S = 2.0
DEVICE = DeviceDraw(period_s=PERIOD_S, tags=5, burst=1, text_bytes=0)
KINDS = 5  # one batch of one row for each of them in a scan
CONNECTOR = ConnectorDraw(OutboxOptions(), "json-batch", 32, keeps_session=False, poison=frozenset())
QUIET_STORE = StoreOptions(retention_age_s=2 * 3_600.0, reserve_bytes=0, ballast_bytes=0, ring_rows=1_000)
FULL_STORE = StoreOptions(reserve_bytes=128 << 10, ballast_bytes=64 << 10, ring_rows=1_000)
DAY_S = 86_400.0
YEAR_2038_S = 2**31 - START_NS / 1e9


def quiet_world(safety_s: float, store: StoreOptions = QUIET_STORE) -> Swarm:
    return Swarm(
        safety_s=safety_s,
        store=store,
        devices=(DEVICE,),
        connectors=(CONNECTOR, CONNECTOR),
        faults={},
        fault_wait_s=1.0,
        late_chance=0.0,
    )


def test_broker_away_for_an_hour_gets_everything_in_order_when_it_is_back() -> None:
    hour_s = 3_600.0
    tries: list[int] = []

    async def script(world: World) -> None:
        await asyncio.sleep(10)
        broker = world.brokers["c0"]
        broker.is_up = False
        broker.cut("the broker stopped")
        await asyncio.sleep(hour_s)
        assert world.gateway is not None
        tries.append(broker.attempts)
        assert world.witness.remotes["c1"].cursor == world.witness.durable  # its neighbour never noticed
        broker.is_up = True
        await asyncio.sleep(40)

    report = simulate(1, swarm=quiet_world(2 * hour_s), script=script)
    assert not report.breaks, report
    rows = round(hour_s / PERIOD_S) * DEVICE.tags
    assert report.rows >= rows
    assert report.arrived == 2 * report.rows
    assert report.drained_s <= LIVENESS_S
    assert report.repeats <= CONNECTOR.options.window_rows * CONNECTOR.options.windows_in_flight
    assert hour_s / 30 <= tries[0] <= hour_s / 15 + 10  # back-off grows to 15 to 30 s and stays there


def full_disk(left: int, dropped: list[int]) -> Script:
    """A disk with so much room left, while a connector has something to deliver."""
    full_s, lag_s = 20.0, 8.0

    async def script(world: World) -> None:
        broker, remote, weather = world.brokers["c0"], world.witness.remotes["c0"], world.disk_weather
        broker.is_up = False
        broker.cut("the broker stopped")
        await asyncio.sleep(20)
        weather.intruder = weather.capacity - world.medium.size - left
        await asyncio.sleep(2)
        assert world.gateway is not None
        assert world.gateway.store.wal.state is WalState.FULL
        broker.is_up = True  # what it missed is delivered now, and its cursor wants to be kept
        await asyncio.sleep(full_s)
        assert world.gateway.store.wal.state is WalState.FULL
        owed = remote.cursor_at(world.loop.time() - lag_s)
        assert owed is not None
        assert owed > 0
        world.witness.check(law.i8_full_disk_keeps_cursors, remote.durable_cursor, owed)
        dropped.append(world.witness.dropped)
        weather.intruder = 0
        await asyncio.sleep(10)

    return script


@pytest.mark.parametrize("left", [0, 64 << 10], ids=["nothing left", "half the reserve left"])
@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_new"])
def test_full_disk_keeps_cursors_and_names_what_it_drops(policy: FullPolicy, left: int) -> None:
    dropped: list[int] = []
    world = quiet_world(100, replace(FULL_STORE, disk_full=policy))
    report = simulate(3, swarm=world, script=full_disk(left, dropped))
    assert not report.breaks, report
    assert (dropped[0] > 0) == (policy == "drop_new")
    assert report.dropped == report.gap_rows
    assert report.arrived == 2 * (report.rows - report.dropped)


def test_full_disk_without_its_ballast_is_found_by_the_cursor_that_is_not_kept() -> None:
    report = simulate(3, swarm=quiet_world(100, replace(FULL_STORE, ballast_bytes=0)), script=full_disk(0, []))
    assert report.breaks[0].id == "I8"


@pytest.mark.parametrize(
    "step_s", [DAY_S, -3_600.0, -10 * 365 * DAY_S, YEAR_2038_S], ids=["+1 d", "-1 h", "-10 y", "2038"]
)
def test_wall_clock_that_jumps_moves_no_timer_and_no_row(step_s: float) -> None:
    before_s = after_s = 60.0

    async def script(world: World) -> None:
        await asyncio.sleep(before_s)
        turns, scans = world.loop.turns, world.counters[0].value
        world.clock.step_wall(step_s)
        await asyncio.sleep(after_s)
        assert world.gateway is not None
        turned, scanned = world.loop.turns - turns, world.counters[0].value - scans
        world.witness.check(law.t1_wall_clock_moves_no_timer, turned, after_s, 2 * turns / before_s)
        assert abs(scanned - KINDS * after_s / PERIOD_S) <= KINDS, "scans were skipped or ran twice"
        steps = world.gateway.log.events("wal_clock_stepped")
        assert [event["step_s"] for event in steps] == [pytest.approx(step_s, abs=0.1)]

    report = simulate(2, swarm=quiet_world(before_s + after_s + 1), script=script)
    assert not report.breaks, report
    assert (report.gap_rows, report.arrived, report.repeats) == (0, 2 * report.rows, 0)
