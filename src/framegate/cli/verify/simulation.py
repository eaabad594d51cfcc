"""The experiment `simulation`: delivery between a simulated disk, network, thread and remote; one round is one seed.

What is drawn, what is checked and what the simulation cannot see is in testing/simulation. A round that breaks a
promise is named with its seed, and that seed alone replays it. Every REPLAYED_EVERY-th round is run twice, to show that
it does.
"""

from __future__ import annotations

import asyncio

from framegate.cli.verify.experiment import Experiment, Result, Scratch
from framegate.testing.simulation.simulation import Report, simulate

REPLAYED_EVERY = 50
BROKEN_MAX = 20  # rounds that are told one by one


async def run(scratch: Scratch) -> Result:
    """One simulation per round, each in a thread: it has a loop of its own."""
    result = Result()
    totals: dict[str, int] = dict.fromkeys(("crashes", "power_cuts", "gap_rows", "replayed"), 0)
    virtual_s = 0.0
    for seed in range(scratch.seed, scratch.seed + scratch.rounds):
        report = await asyncio.to_thread(simulate, seed)
        _add(result, report)
        virtual_s += report.seconds
        for name in ("crashes", "power_cuts", "gap_rows"):
            totals[name] += getattr(report, name)
        if (seed - scratch.seed) % REPLAYED_EVERY == 0:
            totals["replayed"] += 1
            if (await asyncio.to_thread(simulate, seed)).trace != report.trace:
                result.broken.append(f"seed {seed} does not replay: two runs of it differ")
            scratch.say(f"{result.rounds} of {scratch.rounds} seeds, {totals['crashes']} crashes")
    result.figures = {**totals, "virtual_hours": round(virtual_s / 3600, 2)}
    return result


def _add(result: Result, report: Report) -> None:
    result.rounds += 1
    result.acknowledged += report.arrived
    result.lost += report.lost
    result.duplicated += report.repeats
    result.out_of_order += report.out_of_order
    result.largest_gap = max(result.largest_gap, report.largest_gap)
    result.slowest_recovery_s = max(result.slowest_recovery_s, round(report.drained_s, 3))
    if report.breaks and len(result.broken) < BROKEN_MAX:
        result.broken.append(f"seed {report.seed}: {report.breaks[0]}")


EXPERIMENT = Experiment(
    name="simulation",
    promise="Whatever fails, and whenever: every durable row arrives, in order, or is named as lost.",
    run=run,
    rounds=50,
    rounds_full=2_000,
)
