"""Backlog: the broker is away until so many megabytes wait, comes back, and everything drains.

Stored and live rows are one stream in order of positions (docs/decisions/0004), so a row read during the drain waits
behind the backlog: how long is measured, and is no promise; live_first.py does the same where a connector asks for live
rows first. One round is one megabyte of payload, as the broker counts it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from framegate.cli.verify.experiment import Experiment, Result, Scratch
from framegate.cli.verify.site import TENANT, Site, judge, percentile, variables
from framegate.testing.fault_proxy import FaultProxy
from framegate.testing.plant import write_config
from framegate.testing.tally import Tally

DEVICES, TAGS = 40, 1_250
ROWS_PER_SCAN = DEVICES * TAGS
SCAN_S = 1
WINDOW_ROWS, WINDOWS = 2_048, 4
STEADY_S = 4.0
GATHER_S_MAX = 300.0
DRAIN_S_MAX = 60.0
CONNECT_S_MAX = 60.0  # an outbox waits up to half a minute between its tries
MEMORY_GROWTH_BYTES_MAX = 64 << 20
AGE_S_MAX = 2.0
MEGABYTE = 1_000_000
AFTER_S = 2.0  # of ordinary flow after the drain
POLL_S = 0.1


class Freshness:
    """How old rows are when they arrive: seconds per message, by the moment at which they were read."""

    def __init__(self) -> None:
        self._seen: list[tuple[int, float]] = []

    def note(self, read_ms: int) -> None:
        self._seen.append((read_ms, time.time() - read_ms / 1e3))

    def between(self, first_ms: int, last_ms: int) -> list[float]:
        """Ages of what was read between two moments, ms UTC."""
        return [age for read_ms, age in self._seen if first_ms <= read_ms <= last_ms]


@dataclass(slots=True)
class Course:
    """Moments of one run, ms UTC as rows carry them, and what was counted between them."""

    began_ms: int = 0
    cut_ms: int = 0
    back_ms: int = 0
    caught_up_ms: int = 0
    connected_s: float = 0.0
    waiting: int = 0
    drained_bytes: int = 0
    growth_bytes: int = 0


async def run(scratch: Scratch) -> Result:
    return await measured(scratch)


async def measured(scratch: Scratch, *, is_live_first: bool = False) -> Result:
    """Steady flow, outage, return, drain."""
    result = Result(rounds=scratch.rounds)
    async with Site(scratch.folder) as site:
        broker = await site.broker()
        tally, freshness = Tally(), Freshness()

        def take(message: Any) -> None:
            newest = tally.newest
            tally.take(bytes(message.payload))
            if tally.newest > newest:
                freshness.note(tally.newest_ms)

        broker.broker.taken = take
        proxy = await site.proxy(broker.port)
        await _write_tables(site, proxy.port, "live_first" if is_live_first else "in_order")
        site.gateway.start()
        await site.until(lambda: tally.newest > 0, "a first row", GATHER_S_MAX)
        await site.caught_up("cloud", ROWS_PER_SCAN, GATHER_S_MAX)
        course = await _play(site, proxy, tally, scratch, result, is_live_first=is_live_first)
        durable = (await site.gateway.health()).wal.durable
        await site.until(lambda: not tally.missing(durable), "the last rows", DRAIN_S_MAX)
        judge(result, "cloud", tally, durable, 2 * WINDOW_ROWS * WINDOWS)
        result.figures |= _figures(course, freshness, result.slowest_recovery_s)
        if course.growth_bytes > MEMORY_GROWTH_BYTES_MAX:
            result.broken.append(f"memory grew by {course.growth_bytes / 2**20:.0f} MiB over outage and drain")
        if result.slowest_recovery_s > DRAIN_S_MAX:
            result.broken.append(f"the drain took {result.slowest_recovery_s:.0f} s")
    return result


async def _play(
    site: Site, proxy: FaultProxy, tally: Tally, scratch: Scratch, result: Result, *, is_live_first: bool
) -> Course:
    """The outage itself; the drain is timed from the moment at which the gateway has connected again."""
    course = Course(began_ms=_now_ms())
    await asyncio.sleep(STEADY_S)
    course.cut_ms = _now_ms()
    site.gateway.forget_peak()
    steady_bytes = site.gateway.resident_bytes()
    await proxy.close()
    course.waiting = await _gather(site, scratch, tally)
    bytes_before, connects = tally.bytes, proxy.connects
    behind = (await site.gateway.health()).wal.durable
    scratch.say(f"{course.waiting:,} rows wait; the broker returns")
    course.back_ms = _now_ms()
    await proxy.listen()
    course.connected_s = await site.until(lambda: proxy.connects > connects, "a new connection", CONNECT_S_MAX)
    result.slowest_recovery_s = await site.until(
        lambda: (tally.backfilled if is_live_first else tally.newest) >= behind, "the backlog", 2 * DRAIN_S_MAX
    )
    course.drained_bytes = tally.bytes - bytes_before
    await site.caught_up("cloud", ROWS_PER_SCAN, DRAIN_S_MAX)
    course.caught_up_ms = _now_ms()
    await asyncio.sleep(AFTER_S)
    course.growth_bytes = site.gateway.peak_bytes() - steady_bytes
    return course


def _figures(course: Course, freshness: Freshness, drain_s: float) -> dict[str, float | int | str]:
    steady = freshness.between(course.began_ms, course.cut_ms - 1_000)
    # What was read before the connection stood waited for that, and not for the drain.
    connected_ms = course.back_ms + round(1e3 * course.connected_s)
    fresh = freshness.between(connected_ms, course.caught_up_ms)
    return {
        "backlog_mb": round(course.drained_bytes / MEGABYTE, 1),
        "backlog_rows": course.waiting,
        "outage_s": round((course.back_ms - course.cut_ms) / 1e3, 1),
        "connected_s": round(course.connected_s, 2),
        "drain_s": round(drain_s, 2),
        "drain_mb_per_s": round(course.drained_bytes / MEGABYTE / drain_s, 1),
        "caught_up_s": round((course.caught_up_ms - connected_ms) / 1e3, 2),
        "memory_growth_mib": round(course.growth_bytes / 2**20, 1),
        "age_p99_steady_s": round(percentile(steady, 0.99), 3),
        "age_p50_while_draining_s": round(percentile(fresh, 0.5), 2),
        "age_p99_while_draining_s": round(percentile(fresh, 0.99), 2),
        "new_rows_within_2_s": "yes" if percentile(fresh, 0.99) <= AGE_S_MAX else "no",
    }


async def _write_tables(site: Site, broker_port: int, backlog: str) -> None:
    devices = {f"d{i}": await site.device(size=TAGS) for i in range(DEVICES)}
    write_config(
        site.home,
        endpoints={name: f"url: '{device.url}'" for name, device in devices.items()}
        | {"broker": f"url: 'tcp://127.0.0.1:{broker_port}'"},
        drivers={
            name: f"plugin: modbus, endpoint: {name}, options: {{unit: 1}}, scan: {{default: {SCAN_S}s}}"
            for name in devices
        },
        connectors={
            "cloud": f"plugin: mqtt, endpoint: broker, encoding: json-batch, topic: '{TENANT}/cloud', "
            f"window_rows: {WINDOW_ROWS}, windows_in_flight: {WINDOWS}, backlog: {backlog}"
        },
        variables=variables(list(devices), TAGS),
        metrics=site.gateway.metrics_port,
    )


async def _gather(site: Site, scratch: Scratch, tally: Tally) -> int:
    """Until the backlog is large enough, by the bytes a row has had so far; the rows that wait."""
    bytes_per_row = tally.bytes / tally.rows
    wanted = round(scratch.rounds * MEGABYTE / bytes_per_row) + WINDOW_ROWS * WINDOWS
    deadline = time.monotonic() + GATHER_S_MAX
    waiting = 0
    while waiting < wanted and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)
        waiting = (await site.gateway.health()).wal.durable - tally.newest
        scratch.say(f"{waiting:,} of {wanted:,} rows wait")
    return waiting


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


EXPERIMENT = Experiment(
    name="backlog",
    promise="A broker that was away gets everything, in order, within a minute of its return; memory does not "
    "grow with what waits.",
    run=run,
    rounds=10,
    rounds_full=100,
)
