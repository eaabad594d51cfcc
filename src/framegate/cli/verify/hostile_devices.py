"""Hostile devices: a quarter of two hundred turn on the gateway, each in its own way; the others must not notice.

Silence, two bytes a second, foreign transaction ids, replies twice, 65,535 announced bytes, endless floods, resets amid
a frame, frames that never end. The good devices count when they were asked, the bad ones how often; the broker shows
what became of their tags. One round is one second of hostility.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from framegate.cli.verify.experiment import Experiment, Result, Scratch
from framegate.cli.verify.site import TENANT, Site, judge, variables
from framegate.contract.quality import Quality, is_bad
from framegate.testing.plant import write_config
from framegate.testing.tally import Tally

DEVICES, HOSTILE, TAGS = 200, 50, 10
SCAN_S, SCAN_HOSTILE_S = 0.5, 0.2
TIMEOUT_S = 1.0
ON_TIME = 1.5  # of a period after the scan before
ON_TIME_SHARE_MIN = 0.99
TRIES_PER_S_MAX = 1.0
LAG_MS_MAX = 100.0
LAG_SHARE = 0.99
MEMORY_GROWTH_BYTES_MAX = 128 << 20
SETTLE_S = 10.0  # until every hostile device has been found out, and for the figures of peace
WAIT_S_MAX = 60.0
FAULTS: Mapping[str, Mapping[str, Any]] = {
    "silent": {"silent": True},
    "drip": {"drip_bytes_per_s": 2.0},
    "wrong_transaction": {"wrong_transaction": True},
    "duplicate": {"duplicate": True},
    "oversize": {"oversize": True},
    "flood": {"flood": "garbage"},
    "flood_of_frames": {"flood": "frames"},
    "reset": {"reset": True},
    "never_ending": {"unfinished": True},
}
ANSWERING = {"duplicate", "flood_of_frames"}
"""Their first reply is right: such rows are Good, and they may be asked as often as their scan class says."""
_LAG_BUCKET = re.compile(r'edge_tick_lag_ms_bucket\{le="([^"]+)"\}')


@dataclass(slots=True)
class Device:
    """One simulated device. asked: moments at which it was asked; fault: "" for a good one."""

    name: str
    simulator: Any
    fault: str = ""
    asked: list[float] = field(default_factory=list)

    def watch(self) -> None:
        unit = self.simulator.units[1]
        answer = unit.answer

        def timed(pdu: bytes) -> bytes:
            self.asked.append(time.monotonic())
            reply: bytes = answer(pdu)
            return reply

        unit.answer = timed

    def since(self, moment: float) -> list[float]:
        return [at for at in self.asked if at >= moment]


class Witness:
    """What the broker was told of each tag: its newest quality, and how often it was Bad."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.quality: dict[str, int] = {}
        self.bad: dict[str, int] = {}

    def take(self, message: Any) -> None:
        payload = bytes(message.payload)
        self.tally.take(payload)
        for frame in json.loads(payload).get("frames", ()):
            tag, quality = frame["tag"], frame["qos"]
            self.quality[tag] = quality
            if is_bad(quality):
                self.bad[tag] = self.bad.get(tag, 0) + 1


async def run(scratch: Scratch) -> Result:
    """Peace, then hostility, then the count."""
    result = Result(rounds=scratch.rounds)
    async with Site(scratch.folder) as site:
        witness = Witness()
        broker = await site.broker()
        broker.broker.taken = witness.take
        devices = await _set_up(site, broker.url)
        site.gateway.start()
        await site.until(lambda: len(witness.quality) == DEVICES * TAGS, "every tag", WAIT_S_MAX)
        await asyncio.sleep(SETTLE_S)
        site.gateway.forget_peak()
        resident = site.gateway.resident_bytes()
        witness.bad.clear()

        names = list(FAULTS)
        for number, device in enumerate(devices[:HOSTILE]):
            device.fault = names[number % len(names)]
            device.simulator.units[1].misbehave(**FAULTS[device.fault])
        turned_at = time.monotonic()
        await asyncio.sleep(SETTLE_S)
        found_out_at, lag = time.monotonic(), await _lag(site)
        for second in range(scratch.rounds):
            await asyncio.sleep(1.0)
            scratch.say(f"{second + 1} of {scratch.rounds} seconds")
        ended_at, lag_after = time.monotonic(), await _lag(site)
        growth = site.gateway.peak_bytes() - resident

        durable = (await site.gateway.health()).wal.durable
        await site.until(lambda: witness.tally.newest >= durable, "the last rows", WAIT_S_MAX)
        judge(result, "cloud", witness.tally, durable, 0)
        _judge_good([device for device in devices if not device.fault], witness, turned_at, ended_at, result)
        _judge_hostile([device for device in devices if device.fault], witness, found_out_at, ended_at, result)
        _judge_process(lag, lag_after, growth, result)
    return result


async def _set_up(site: Site, broker_url: str) -> list[Device]:
    devices = [Device(f"d{number}", await site.device(size=TAGS)) for number in range(DEVICES)]
    for device in devices:
        device.watch()
    write_config(
        site.home,
        endpoints={device.name: f"url: '{device.simulator.url}'" for device in devices}
        | {"broker": f"url: '{broker_url}'"},
        drivers={
            device.name: f"plugin: modbus, endpoint: {device.name}, options: {{unit: 1, timeout: {TIMEOUT_S:g}s}}, "
            f"scan: {{default: {SCAN_HOSTILE_S if number < HOSTILE else SCAN_S:g}s}}"
            for number, device in enumerate(devices)
        },
        connectors={"cloud": f"plugin: mqtt, endpoint: broker, encoding: json-batch, topic: {TENANT}"},
        variables=variables([device.name for device in devices], TAGS),
        metrics=site.gateway.metrics_port,
    )
    return devices


async def _lag(site: Site) -> dict[float, float]:
    """How often the scan timer fired at most so many milliseconds late."""
    samples = await site.gateway.samples()
    return {float(found[1]): value for name, value in samples.items() if (found := _LAG_BUCKET.fullmatch(name))}


def _judge_good(good: list[Device], witness: Witness, start: float, stop: float, result: Result) -> None:
    """Asked as often as ever, and never Bad."""
    wanted = len(good) * (stop - start) / SCAN_S
    on_time = sum(
        later - earlier <= ON_TIME * SCAN_S
        for device in good
        for earlier, later in pairwise(at for at in device.since(start) if at <= stop)
    )
    share = min(1.0, (on_time + len(good)) / wanted)  # the first scan of each has none before it
    tags = [f"{device.name}.t{i}" for device in good for i in range(TAGS)]
    bad_rows = sum(witness.bad.get(tag, 0) for tag in tags)
    result.figures |= {"good_scans_on_time": f"{100 * share:.2f} %", "good_rows_bad": bad_rows}
    if share < ON_TIME_SHARE_MIN:
        result.broken.append(f"only {100 * share:.2f} % of the good devices' scans were on time")
    if bad_rows:
        result.broken.append(f"{bad_rows:,} rows of good devices were Bad")


def _judge_hostile(hostile: list[Device], witness: Witness, start: float, stop: float, result: Result) -> None:
    """Seldom asked, and Bad with a reason."""
    for fault in FAULTS:
        devices = [device for device in hostile if device.fault == fault]
        qualities = {witness.quality[f"{device.name}.t0"] for device in devices}
        tries = max((len(device.since(start)) for device in devices), default=0) / (stop - start)
        names = sorted(Quality(quality).name for quality in qualities)
        result.figures[fault] = f"{', '.join(names).lower()}, {tries:.2f} tries/s"
        if fault not in ANSWERING and not all(map(is_bad, qualities)):
            result.broken.append(f"{fault}: rows of such a device are not Bad")
        if tries > (1.1 / SCAN_HOSTILE_S if fault in ANSWERING else TRIES_PER_S_MAX):
            result.broken.append(f"{fault}: asked {tries:.1f} times a second; a device in trouble is to be let alone")


def _judge_process(before: dict[float, float], after: dict[float, float], growth: int, result: Result) -> None:
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    ticks = max(counts.values(), default=0.0)
    at = {
        share: next((bound for bound, count in counts.items() if count >= share * ticks), 0.0)
        for share in (LAG_SHARE, 1.0)
    }
    result.figures |= {
        "lag_p99_ms_at_most": at[LAG_SHARE],
        "lag_longest_ms_at_most": at[1.0],
        "memory_growth_mib": round(growth / 2**20, 1),
    }
    if at[LAG_SHARE] > LAG_MS_MAX:
        result.broken.append(f"the scan timer was up to {at[LAG_SHARE]:g} ms late at p99")
    if growth > MEMORY_GROWTH_BYTES_MAX:
        result.broken.append(f"memory grew by {growth / 2**20:.0f} MiB")


EXPERIMENT = Experiment(
    name="hostile_devices",
    promise="Fifty hostile devices among two hundred cost the others nothing: their scans stay on time; each "
    "hostile one is let alone and shown as Bad.",
    run=run,
    rounds=10,
    rounds_full=120,
)
