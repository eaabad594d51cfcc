"""The campaign: which experiments there are, and one run of some of them, one after the other.

Each gets an empty folder that is gone afterwards. What an experiment cannot go on from is its
result too: a campaign always ends with a table.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from framegate.cli.verify import (
    backlog,
    clock,
    cold_start,
    damage,
    disk_full,
    flapping,
    forgetful_broker,
    hostile_devices,
    kill,
    live_first,
    memory_cap,
    neighbours,
    power_cut,
    simulation,
    sync_fault,
)
from framegate.cli.verify.experiment import Experiment, PromiseBroken, Result, Scratch
from framegate.contract.errors import GatewayError, Misconfigured

EXPERIMENTS: tuple[Experiment, ...] = (
    simulation.EXPERIMENT,
    kill.EXPERIMENT,
    power_cut.EXPERIMENT,
    sync_fault.EXPERIMENT,
    disk_full.EXPERIMENT,
    damage.EXPERIMENT,
    backlog.EXPERIMENT,
    live_first.EXPERIMENT,
    flapping.EXPERIMENT,
    forgetful_broker.EXPERIMENT,
    neighbours.EXPERIMENT,
    clock.EXPERIMENT,
    hostile_devices.EXPERIMENT,
    memory_cap.EXPERIMENT,
    cold_start.EXPERIMENT,
)
"""In the order in which they run. To add one: a module with `EXPERIMENT`, an import, and its name here."""
SEED_MAX = 1 << 32


@dataclass(frozen=True, slots=True)
class Entry:
    """One experiment of a campaign, and what it found."""

    experiment: Experiment
    result: Result
    seed: int
    took_s: float


def choose(names: Sequence[str], known: Sequence[Experiment]) -> list[Experiment]:
    """The experiments of these names, in their own order; all of them without names. Raises Misconfigured E4026."""
    by_name = {experiment.name: experiment for experiment in known}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        text = f"verify-delivery: there is no experiment {unknown[0]}; choose among {', '.join(by_name)}"
        raise Misconfigured(text, code="E4026")
    return [experiment for experiment in known if not names or experiment.name in names]


def any_seed() -> int:
    return secrets.randbelow(SEED_MAX)


async def run_all(
    chosen: Sequence[Experiment],
    folder: Path,
    *,
    is_full: bool,
    rounds: int | None,
    seed: int,
    say: Callable[[str], None],
) -> list[Entry]:
    """Run them, each in a folder below `folder`; `rounds` overrides what each would do by itself."""
    entries = []
    for experiment in chosen:
        count = rounds or (experiment.rounds_full if is_full else experiment.rounds)
        scratch = Scratch(folder / experiment.name, count, seed, _named(experiment.name, say))
        scratch.folder.mkdir()
        began = time.monotonic()
        result = await _run(experiment, scratch)
        entries.append(Entry(experiment, result, seed, time.monotonic() - began))
        await asyncio.to_thread(shutil.rmtree, scratch.folder, ignore_errors=True)
    return entries


async def _run(experiment: Experiment, scratch: Scratch) -> Result:
    scratch.say(f"begins, {scratch.rounds:,} rounds, seed {scratch.seed}")
    try:
        result = await experiment.run(scratch)
    except PromiseBroken as broken:
        return Result(broken=[str(broken)])
    except (GatewayError, OSError, TimeoutError, AssertionError, subprocess.SubprocessError) as error:
        return Result(broken=[f"it could not be carried out: {type(error).__name__}: {error}"])
    return result


def _named(name: str, say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: say(f"{name}: {text}")
