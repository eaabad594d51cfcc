"""Memory cap: twice the nominal load on a small box, with a broker that is too slow and a log that may not grow.

256 MiB for the gateway and its children, 64 open files. What does not fit is shed by the log's retention and announced
as gaps, nothing is lost silently, and the gateway is back at its ordinary pace soon after the broker is. One round is
one second of load.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

import numpy as np

from framegate.cli.verify.cage import Cage, open_cage
from framegate.cli.verify.experiment import Experiment, Result, Scratch
from framegate.cli.verify.site import TENANT, Site, book, variables
from framegate.testing.plant import write_config
from framegate.testing.tally import Tally

MEMORY_BYTES = 256 << 20
FILES_MAX = 64
DEVICES, TAGS = 10, 400
SCAN_MS = 200
ROWS_PER_S = DEVICES * TAGS * 1000 // SCAN_MS  # 20,000: twice what a box of this size is meant for
RETENTION_BYTES = 2 << 20
THIN_BYTES_PER_S = 200_000
RECOVER_S_MAX = 10.0
WAIT_S_MAX = 60.0
CHANGE_S = 0.1


async def run(scratch: Scratch) -> Result:
    """Load, with a thin line to the broker; then the line is wide again."""
    result = Result(rounds=scratch.rounds)
    cage = open_cage(MEMORY_BYTES)
    if cage is None:
        result.skipped = "no memory cgroup can be made here; run as root on a machine that has them"
        return result
    try:
        async with Site(scratch.folder) as site:
            await _play(site, cage, scratch, result)
    finally:
        cage.close()
    return result


async def _play(site: Site, cage: Cage, scratch: Scratch, result: Result) -> None:
    broker = await site.broker()
    proxy = await site.proxy(broker.port)
    tally = Tally()
    book(broker, {TENANT: tally, f"{TENANT}/gap": tally})
    devices = {f"d{number}": await site.device(size=TAGS) for number in range(DEVICES)}
    _write_tables(site, devices, proxy.port)
    changing = asyncio.create_task(_change(list(devices.values()), scratch.seed))
    try:
        site.gateway.start()
        cage.take(site.gateway.pid)
        resource.prlimit(site.gateway.pid, resource.RLIMIT_NOFILE, (FILES_MAX, FILES_MAX))
        await site.until(lambda: tally.newest > 0, "a first row", WAIT_S_MAX)
        proxy.bytes_per_s = THIN_BYTES_PER_S
        for second in range(scratch.rounds):
            await asyncio.sleep(1.0)
            await site.until(lambda: True, "", 1.0)  # tells when it has died
            scratch.say(f"{second + 1} of {scratch.rounds} s, at most {cage.peak_bytes() >> 20} MiB")
        proxy.bytes_per_s = 0
        wide_at = time.monotonic()
        await site.caught_up("cloud", ROWS_PER_S // 2, WAIT_S_MAX)
        result.slowest_recovery_s = time.monotonic() - wide_at
    finally:
        changing.cancel()
    durable = (await site.gateway.health()).wal.durable
    await site.until(lambda: tally.newest >= durable, "the last rows", WAIT_S_MAX)
    _judge(site, cage, tally, durable, result)
    await site.gateway.stop()


async def _change(devices: list[Any], seed: int) -> None:
    """Values that do not compress."""
    dice = np.random.default_rng(seed)
    while True:
        for device in devices:
            device.units[1].hold[:] = dice.integers(0, 1 << 15, TAGS)
        await asyncio.sleep(CHANGE_S)


def _write_tables(site: Site, devices: dict[str, Any], broker_port: int) -> None:
    write_config(
        site.home,
        endpoints={name: f"url: '{device.url}'" for name, device in devices.items()}
        | {"broker": f"url: 'tcp://127.0.0.1:{broker_port}'"},
        drivers={
            name: f"plugin: modbus, endpoint: {name}, options: {{unit: 1}}, scan: {{default: {SCAN_MS}ms}}"
            for name in devices
        },
        connectors={"cloud": f"plugin: mqtt, endpoint: broker, encoding: json-batch, topic: {TENANT}"},
        variables=variables(list(devices), TAGS),
        gateway=f", store: {{retention_bytes: {RETENTION_BYTES}B, keep_acked_bytes: {RETENTION_BYTES}B}}",
        metrics=site.gateway.metrics_port,
    )


def _judge(site: Site, cage: Cage, tally: Tally, durable: int, result: Result) -> None:
    verdict = tally.verdict(durable)
    result.acknowledged = durable - verdict.lost - verdict.announced
    result.lost, result.largest_gap = verdict.lost, verdict.largest_gap
    result.duplicated, result.out_of_order = verdict.duplicated, verdict.out_of_order
    result.figures |= {
        "memory_peak_mib": cage.peak_bytes() >> 20,
        "resident_peak_mib": site.gateway.peak_bytes() >> 20,
        "out_of_memory_kills": cage.kills(),
        "rows_shed_and_announced": verdict.announced,
        "rows_per_s": ROWS_PER_S,
    }
    if cage.kills():
        result.broken.append(f"the kernel killed {cage.kills()} processes for want of memory")
    if verdict.lost:
        result.broken.append(f"{verdict.lost:,} rows were lost and not announced")
    if verdict.out_of_order:
        result.broken.append(f"{verdict.out_of_order:,} rows came out of order")
    if result.slowest_recovery_s > RECOVER_S_MAX:
        result.broken.append(f"it took {result.slowest_recovery_s:.0f} s to be back at the ordinary pace")


EXPERIMENT = Experiment(
    name="memory_cap",
    promise="Within 256 MiB, with 64 files and twice the load, nothing is killed, and what is shed is announced.",
    run=run,
    rounds=10,
    rounds_full=600,
)
