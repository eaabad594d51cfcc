"""Neighbours: five connectors of one gateway, three of them in trouble; the other two must not notice.

One remote is dead, one takes a kilobyte a second, one is reset again and again. Throughput and the age of rows at the
two healthy remotes are compared before and during the trouble, in one run. One round is a second of each.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any

from framegate.cli.verify.experiment import Experiment, Result, Scratch
from framegate.cli.verify.site import TENANT, Site, judge, percentile, variables
from framegate.testing.fault_proxy import FaultProxy
from framegate.testing.plant import write_config
from framegate.testing.tally import Tally

DEVICES, TAGS = 4, 250
ROWS_PER_SCAN = DEVICES * TAGS
SCAN_MS = 100
HEALTHY = ("healthy1", "healthy2")
TROUBLED = ("dead", "thin", "lossy")
THIN_BYTES_PER_S = 1_000
RESET_S = (0.2, 1.0)  # shortest and longest life of the lossy connection
WINDOW_ROWS, WINDOWS = 2_048, 4
LESS_MAX = 0.1  # of the throughput
AGE_FACTOR_MAX = 2.0
AGE_NOISE_S = 0.025
"""What a busy machine adds by itself: a difference below one tick of the gateway's timer proves nothing."""
SETTLE_S = 2.0
WAIT_S_MAX = 60.0


@dataclass(slots=True)
class Remote:
    """One connector's remote: its proxy, what reached it, and how old that was, in seconds."""

    name: str
    proxy: FaultProxy
    tally: Tally = field(default_factory=Tally)
    ages_s: list[float] = field(default_factory=list)

    @property
    def topic(self) -> str:
        return f"{TENANT}/{self.name}"

    def take(self, payload: bytes) -> None:
        self.tally.take(payload)
        self.ages_s.append(time.time() - self.tally.newest_ms / 1e3)


@dataclass(frozen=True, slots=True)
class Pace:
    """What one remote got in a while."""

    rows_per_s: float
    age_p99_s: float


async def run(scratch: Scratch) -> Result:
    """So many seconds of peace, as many of trouble, then mend and drain."""
    result = Result(rounds=scratch.rounds)
    async with Site(scratch.folder) as site:
        remotes = await _set_up(site)
        site.gateway.start()
        await site.until(lambda: all(remotes[name].tally.newest for name in remotes), "rows everywhere", WAIT_S_MAX)
        await asyncio.sleep(SETTLE_S)
        peace = await _paces(remotes, scratch.rounds)
        scratch.say("in peace: " + _words(peace))

        resets = asyncio.create_task(_reset_often(remotes["lossy"].proxy, random.Random(scratch.seed)))  # noqa: S311
        await remotes["dead"].proxy.close()
        remotes["thin"].proxy.bytes_per_s = THIN_BYTES_PER_S
        remotes["thin"].proxy.reset()  # what its buffers held at full speed is gone
        await asyncio.sleep(SETTLE_S)
        trouble = await _paces(remotes, scratch.rounds)
        scratch.say("in trouble: " + _words(trouble))

        resets.cancel()
        await asyncio.gather(resets, return_exceptions=True)
        await _mend(site, remotes, result)
        _compare(peace, trouble, remotes, result)
    return result


async def _set_up(site: Site) -> dict[str, Remote]:
    broker = await site.broker()
    remotes = {name: Remote(name, await site.proxy(broker.port)) for name in (*HEALTHY, *TROUBLED)}
    by_topic = {remote.topic: remote for remote in remotes.values()}

    def take(message: Any) -> None:
        by_topic[message.topic].take(bytes(message.payload))

    broker.broker.taken = take
    devices = {f"d{i}": await site.device(size=TAGS) for i in range(DEVICES)}
    write_config(
        site.home,
        endpoints={name: f"url: '{device.url}'" for name, device in devices.items()}
        | {remote.name: f"url: 'tcp://127.0.0.1:{remote.proxy.port}'" for remote in remotes.values()},
        drivers={
            name: f"plugin: modbus, endpoint: {name}, options: {{unit: 1}}, scan: {{default: {SCAN_MS}ms}}"
            for name in devices
        },
        connectors={
            remote.name: f"plugin: mqtt, endpoint: {remote.name}, encoding: json-batch, topic: '{remote.topic}', "
            f"window_rows: {WINDOW_ROWS}, windows_in_flight: {WINDOWS}"
            for remote in remotes.values()
        },
        variables=variables(list(devices), TAGS),
        metrics=site.gateway.metrics_port,
    )
    return remotes


async def _paces(remotes: dict[str, Remote], seconds: int) -> dict[str, Pace]:
    """What the healthy ones get in so many seconds."""
    chosen = [remotes[name] for name in HEALTHY]
    before = {remote.name: (remote.tally.rows, len(remote.ages_s)) for remote in chosen}
    began = time.monotonic()
    await asyncio.sleep(seconds)
    took_s = time.monotonic() - began
    return {
        remote.name: Pace(
            (remote.tally.rows - before[remote.name][0]) / took_s,
            percentile(remote.ages_s[before[remote.name][1] :], 0.99),
        )
        for remote in chosen
    }


async def _reset_often(proxy: FaultProxy, dice: random.Random) -> None:
    while True:
        await asyncio.sleep(dice.uniform(*RESET_S))
        proxy.reset()


async def _mend(site: Site, remotes: dict[str, Remote], result: Result) -> None:
    """Everybody gets everything in the end, the troubled ones as well."""
    await remotes["dead"].proxy.listen()
    thin = remotes["thin"].proxy
    thin.bytes_per_s = 0
    thin.reset()
    began = time.monotonic()
    durable = (await site.gateway.health()).wal.durable
    await site.until(
        lambda: all(remote.tally.newest >= durable for remote in remotes.values()), "what waited", WAIT_S_MAX
    )
    result.slowest_recovery_s = time.monotonic() - began
    for remote in remotes.values():
        resets = remote.proxy.resets + 1
        judge(result, remote.name, remote.tally, durable, resets * 2 * WINDOW_ROWS * WINDOWS)


def _compare(peace: dict[str, Pace], trouble: dict[str, Pace], remotes: dict[str, Remote], result: Result) -> None:
    result.figures["lossy_resets"] = remotes["lossy"].proxy.resets
    for name in HEALTHY:
        before, during = peace[name], trouble[name]
        result.figures |= {
            f"{name}_rows_per_s": round(before.rows_per_s),
            f"{name}_rows_per_s_in_trouble": round(during.rows_per_s),
            f"{name}_age_p99_ms": round(1e3 * before.age_p99_s, 1),
            f"{name}_age_p99_ms_in_trouble": round(1e3 * during.age_p99_s, 1),
        }
        if during.rows_per_s < (1 - LESS_MAX) * before.rows_per_s:
            result.broken.append(
                f"{name}: {during.rows_per_s:,.0f} rows/s in trouble, {before.rows_per_s:,.0f} in peace"
            )
        if during.age_p99_s > AGE_FACTOR_MAX * before.age_p99_s + AGE_NOISE_S:
            ages = f"{1e3 * during.age_p99_s:.0f} ms in trouble, {1e3 * before.age_p99_s:.0f} in peace"
            result.broken.append(f"{name}: rows arrive late, at p99 {ages}")


def _words(paces: dict[str, Pace]) -> str:
    return ", ".join(
        f"{name} {pace.rows_per_s:,.0f} rows/s, {1e3 * pace.age_p99_s:.0f} ms" for name, pace in paces.items()
    )


EXPERIMENT = Experiment(
    name="neighbours",
    promise="Connectors whose remote is dead, thin or lossy take at most 10 % of the throughput of the others and "
    "at most double the age of their rows.",
    run=run,
    rounds=5,
    rounds_full=60,
)
