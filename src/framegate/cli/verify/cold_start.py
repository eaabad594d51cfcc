"""Cold start: ten thousand tags of two hundred devices, and a long log that was not closed in order.

Timed from the start of the process to the first row that it has read itself, at the broker, and to the full rate. One
round is ten megabytes of log.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from framegate.cli.verify.experiment import Experiment, PromiseBroken, Result, Scratch
from framegate.cli.verify.log_maker import LOG_BYTES_KEPT
from framegate.cli.verify.site import TENANT, Site, variables
from framegate.gateway.home import Home
from framegate.testing.plant import write_config
from framegate.testing.tally import Tally

DEVICES, TAGS = 200, 50
ROWS_PER_S = DEVICES * TAGS  # at one scan a second
ROUND_BYTES = 10_000_000
MAKE_S_MAX = 300.0
FIRST_S_MAX = 5.0
FULL_S_MAX = 15.0
FULL_SHARE = 0.95
WAIT_S_MAX = 60.0
POLL_S = 0.05


async def run(scratch: Scratch) -> Result:
    """Make the log, start the gateway, time it."""
    result = Result(rounds=scratch.rounds)
    async with Site(scratch.folder) as site:
        broker = await site.broker()
        tally = Tally()
        broker.broker.taken = lambda message: tally.take(bytes(message.payload))
        await _write_tables(site, broker.url)
        scratch.say(f"filling a log with {scratch.rounds * ROUND_BYTES // 1_000_000:,} MB")
        made = await _make_log(site, scratch.rounds * ROUND_BYTES)
        on_disk = sum(file.stat().st_size for file in Home(site.home).data.rglob("*") if file.is_file())

        began = time.monotonic()
        site.gateway.start()
        await site.until(lambda: tally.newest > made["head"], "a first row of its own", WAIT_S_MAX)
        first_s, cpu_s = time.monotonic() - began, site.gateway.cpu_s()
        full_s = await _full_rate(tally, began)
        result.slowest_recovery_s = full_s
        durable = (await site.gateway.health()).wal.durable
        await site.until(lambda: tally.newest >= durable, "the last rows", WAIT_S_MAX)
        await site.gateway.stop()

        missing = [position for position in tally.missing(durable) if position > made["delivered"]]
        verdict = tally.verdict(durable)
        result.acknowledged = durable - made["delivered"] - len(missing)
        result.lost, result.duplicated = len(missing), verdict.duplicated
        result.out_of_order = verdict.out_of_order
        result.figures |= {
            "log_mb": round(on_disk / 1e6),
            "log_rows": made["head"],
            "opened_ms": site.gateway.events("wal_opened")[-1]["took_ms"],
            "first_row_s": round(first_s, 2),
            "cpu_to_first_row_s": round(cpu_s, 2),
            "full_rate_s": round(full_s, 2),
        }
        _judge(result, first_s, full_s)
    return result


async def _full_rate(tally: Tally, began: float) -> float:
    """Seconds to the end of the first second with nearly all the rows that it should have."""
    seen: deque[tuple[float, int]] = deque()
    while True:
        now = time.monotonic()
        seen.append((now, tally.rows))
        while seen[0][0] < now - 1.0:
            seen.popleft()
        if seen[-1][0] - seen[0][0] > 1.0 - 2 * POLL_S and seen[-1][1] - seen[0][1] >= FULL_SHARE * ROWS_PER_S:
            return now - began
        if now - began > WAIT_S_MAX:
            raise PromiseBroken(f"the full rate was not reached within {WAIT_S_MAX:.0f} s")
        await asyncio.sleep(POLL_S)


async def _make_log(site: Site, size: int) -> Mapping[str, int]:
    """In a process of its own, which ends by a kill: nothing is closed."""
    command = (sys.executable, "-m", "framegate.cli.verify.log_maker", str(site.home), str(size))
    with site.gateway.log_file.open("ab") as log:
        maker = await asyncio.create_subprocess_exec(
            *command, str(DEVICES), str(TAGS), stdout=asyncio.subprocess.PIPE, stderr=log
        )
    try:
        async with asyncio.timeout(MAKE_S_MAX):
            answer, _ = await maker.communicate()
    finally:
        if maker.returncode is None:
            maker.kill()
            await maker.wait()
    if not answer:
        raise PromiseBroken(f"the log could not be made: {site.gateway.last_words()}")
    made: Mapping[str, int] = json.loads(answer)
    return made


async def _write_tables(site: Site, broker_url: str) -> None:
    devices: dict[str, Any] = {f"d{number}": await site.device(size=TAGS) for number in range(DEVICES)}
    write_config(
        site.home,
        endpoints={name: f"url: '{device.url}'" for name, device in devices.items()}
        | {"broker": f"url: '{broker_url}'"},
        drivers={
            name: f"plugin: modbus, endpoint: {name}, options: {{unit: 1}}, scan: {{default: 1s}}" for name in devices
        },
        connectors={"cloud": f"plugin: mqtt, endpoint: broker, encoding: json-batch, topic: {TENANT}"},
        variables=variables(list(devices), TAGS),
        gateway=f", store: {{retention_bytes: {LOG_BYTES_KEPT}B, keep_acked_bytes: {LOG_BYTES_KEPT}B}}",
        metrics=site.gateway.metrics_port,
    )


def _judge(result: Result, first_s: float, full_s: float) -> None:
    if result.lost:
        result.broken.append(f"{result.lost:,} rows were lost over the start")
    if result.out_of_order:
        result.broken.append(f"{result.out_of_order:,} rows came out of order")
    if first_s > FIRST_S_MAX:
        result.broken.append(f"the first row of its own came after {first_s:.1f} s")
    if full_s > FULL_S_MAX:
        result.broken.append(f"the full rate was reached after {full_s:.1f} s")


EXPERIMENT = Experiment(
    name="cold_start",
    promise="Ten thousand tags are fresh within 5 s and at full rate within 15 s, with a long log that was not closed.",
    run=run,
    rounds=5,
    rounds_full=100,
)
