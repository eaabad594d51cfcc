"""Clock: the wall clock is set a day ahead, an hour and ten years back, across 2038, and runs a hundred times too fast.

Nothing may be lost or reordered, and no timer may run wild: the device itself counts when it was asked. Twice, where
libfaketime is installed: once with a clock port that steps, once with a process to which the system lies. The second
judges no timer and knows no wild rate: libfaketime meddles with every timed wait, those of the interpreter for its own
lock among them. One round is every setting once.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from framegate.cli.verify.experiment import Experiment, PromiseBroken, Result, Scratch
from framegate.cli.verify.site import TENANT, Site, book, judge, variables
from framegate.testing.plant import write_config
from framegate.testing.tally import Tally

TAGS = 50
SCAN_S = 0.2
PHASE_S = 3.0
WAIT_S_MAX = 60.0
GAP_PERIODS_MAX = 3.0  # two periods skipped
OFTEN_MAX = 2.0  # times as often as the scan class says
STEP_SEEN_S_MAX = 3.0
EVENT = "clock_stepped"
"""Read from the log and not from the metrics: under libfaketime the interpreter's own timed waits go wrong, and the
thread that renders metrics keeps the lock from the loop for a second and more."""
DAY_S, HOUR_S, YEAR_S = 86_400.0, 3_600.0, 31_557_600.0
END_OF_INT32_S = float(1 << 31)


@dataclass(frozen=True, slots=True)
class Setting:
    """Seconds ahead of the machine's clock, and the rate from then on."""

    name: str
    ahead_s: Callable[[], float]
    rate: float = 1.0


SETTINGS = (
    Setting("a day ahead", lambda: DAY_S),
    Setting("right", lambda: 0.0),
    Setting("an hour back", lambda: -HOUR_S),
    Setting("ten years back", lambda: -10 * YEAR_S),
    Setting("the end of 32 bits", lambda: END_OF_INT32_S - time.time() - PHASE_S / 2),
    Setting("right again", lambda: 0.0),
)
WILD = (Setting("a hundred times too fast", lambda: 0.0, 100.0), Setting("right in the end", lambda: 0.0))


@dataclass(frozen=True, slots=True)
class Means:
    """One way to set the clock of a gateway.

    start         begins a gateway whose clock is told by a file;  write: puts a setting into it
    leaves_waits  waits take as long as without it: only then are rates set and timers judged
    """

    name: str
    start: Callable[[Site, Path], None]
    write: Callable[[Path, Setting], None]
    leaves_waits: bool


@dataclass(slots=True)
class Asked:
    """Moments at which the device was asked, in order."""

    at: list[float] = field(default_factory=list)

    def watch(self, unit: Any) -> None:
        answer = unit.answer

        def timed(pdu: bytes) -> bytes:
            self.at.append(time.monotonic())
            reply: bytes = answer(pdu)
            return reply

        unit.answer = timed


async def run(scratch: Scratch) -> Result:
    """Every setting, by every means that this machine has."""
    result = Result(rounds=scratch.rounds)
    means = [_by_port(), *_by_libfaketime()]
    result.figures["means"] = ", ".join(way.name for way in means)
    for way in means:
        folder = scratch.folder / way.name
        folder.mkdir()
        await _play(folder, way, scratch, result)
    return result


async def _play(folder: Path, way: Means, scratch: Scratch, result: Result) -> None:
    clock_file = folder / "clock"
    way.write(clock_file, SETTINGS[1])
    async with Site(folder) as site:
        broker = await site.broker()
        tally, asked = Tally(), Asked()
        book(broker, {TENANT: tally})
        device = await site.device(size=TAGS)
        asked.watch(device.units[1])
        _write_tables(site, device.url, broker.url)
        way.start(site, clock_file)
        await site.until(lambda: tally.newest > 0, "a first row", WAIT_S_MAX)
        await asyncio.sleep(PHASE_S)
        settings = (*SETTINGS, *WILD) if way.leaves_waits else SETTINGS
        for _ in range(scratch.rounds):
            for setting in settings:
                scratch.say(f"by {way.name}: {setting.name}")
                await _set(site, way, clock_file, setting, asked, result)
        durable = (await site.gateway.health()).wal.durable
        await site.until(lambda: tally.newest >= durable, "the last rows", WAIT_S_MAX)
        told = site.gateway.events(EVENT)
        await site.gateway.stop()
    judge(result, way.name, tally, durable, 0)
    result.figures |= {
        f"{way.name}_longest_gap_ms": round(1e3 * max(later - earlier for earlier, later in pairwise(asked.at))),
        f"{way.name}_events": len(told),
    }


async def _set(site: Site, way: Means, file: Path, setting: Setting, asked: Asked, result: Result) -> None:
    """One setting, for a while: the step is noticed, and the device is asked as before."""
    told, scans = len(site.gateway.events(EVENT)), len(asked.at)
    began = time.monotonic()
    way.write(file, setting)
    while len(site.gateway.events(EVENT)) <= told:
        if time.monotonic() - began > STEP_SEEN_S_MAX:
            result.broken.append(f"by {way.name}: nobody noticed that the clock was {setting.name}")
            break
        await asyncio.sleep(SCAN_S)
    await asyncio.sleep(max(0.0, PHASE_S - (time.monotonic() - began)))
    if site.gateway.has_died():
        raise PromiseBroken(f"the gateway ended when its clock was {setting.name}: {site.gateway.last_words()}")
    if not way.leaves_waits:
        return
    moments = [*asked.at[max(0, scans - 1) :], time.monotonic()]
    gap_s = max(later - earlier for earlier, later in pairwise(moments))
    often = (len(moments) - 2) * SCAN_S / (moments[-1] - began)
    if gap_s > GAP_PERIODS_MAX * SCAN_S:
        result.broken.append(f"by {way.name}: {setting.name}: the device was not asked for {gap_s:.2f} s")
    if often > OFTEN_MAX:
        result.broken.append(f"by {way.name}: {setting.name}: the device was asked {often:.1f} times too often")


def _by_port() -> Means:
    def start(site: Site, file: Path) -> None:
        site.gateway.start(module="framegate.cli.verify.stepping_gateway", words=(str(file),))

    def write(file: Path, setting: Setting) -> None:
        _replace(file, f"{setting.ahead_s()} {setting.rate}")

    return Means("port", start, write, leaves_waits=True)


def _by_libfaketime() -> list[Means]:
    """libfaketime, where its program tells how it is loaded."""
    program = shutil.which("faketime")
    if program is None:
        return []
    asked = subprocess.run([program, "-m", "-f", "+0", "env"], capture_output=True, text=True, check=False, timeout=10)
    loaded = [line.partition("=")[2] for line in asked.stdout.splitlines() if line.startswith("LD_PRELOAD=")]
    if not loaded:
        return []
    environment: Mapping[str, str] = {"LD_PRELOAD": loaded[0], "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    environment = {**environment, "DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}

    def start(site: Site, file: Path) -> None:
        site.gateway.start(environment={**environment, "FAKETIME_TIMESTAMP_FILE": str(file)})

    def write(file: Path, setting: Setting) -> None:
        _replace(file, f"{setting.ahead_s():+.0f}\n")

    return [Means("libfaketime", start, write, leaves_waits=False)]


def _replace(file: Path, text: str) -> None:
    """Whole or not at all: it is read many times a second."""
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(text, encoding="ascii")
    fresh.replace(file)


def _write_tables(site: Site, plc_url: str, broker_url: str) -> None:
    write_config(
        site.home,
        endpoints={"plc": f"url: '{plc_url}'", "broker": f"url: '{broker_url}'"},
        drivers={"plc": f"plugin: modbus, endpoint: plc, options: {{unit: 1}}, scan: {{default: {SCAN_S:g}s}}"},
        connectors={"cloud": f"plugin: mqtt, endpoint: broker, encoding: json-batch, topic: {TENANT}"},
        variables=variables(["plc"], TAGS),
        metrics=site.gateway.metrics_port,
    )


EXPERIMENT = Experiment(
    name="clock",
    promise="A wall clock that jumps or runs wild loses and reorders nothing; scans are neither skipped nor run "
    "too often.",
    run=run,
    rounds=1,
    rounds_full=5,
)
