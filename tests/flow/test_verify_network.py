"""The network, broker and device experiments of `edge verify-delivery`, at counts that fit into an ordinary run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from framegate.cli.verify import (
    backlog,
    clock,
    cold_start,
    flapping,
    forgetful_broker,
    hostile_devices,
    live_first,
    memory_cap,
    neighbours,
)
from framegate.cli.verify.campaign import EXPERIMENTS
from framegate.cli.verify.experiment import Experiment, Result, Scratch
from framegate.testing.mosquitto import PROGRAM

MEASURED_HERE = (
    "late",
    "in trouble",
    "first row",
    "full rate",
    "on time",
    "scan timer",
    "was not asked for",
    "old at p99",
    "ordinary pace",
    "the drain took",
)
"""Words of verdicts about speed. A machine that runs other tests as well is no judge of it; the campaign is."""


HERE = (
    backlog.EXPERIMENT,
    clock.EXPERIMENT,
    cold_start.EXPERIMENT,
    flapping.EXPERIMENT,
    forgetful_broker.EXPERIMENT,
    hostile_devices.EXPERIMENT,
    live_first.EXPERIMENT,
    memory_cap.EXPERIMENT,
    neighbours.EXPERIMENT,
)


async def carried_out(experiment: Experiment, folder: Path, rounds: int) -> Result:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it
    said: list[str] = []
    result = await experiment.run(Scratch(folder, rounds, seed, said.append))
    print(result)  # noqa: T201
    if result.skipped:
        pytest.skip(result.skipped)
    assert said, "a person who waits is told something"
    return result


async def test_flaps_lose_nothing_and_qos_2_repeats_nothing(tmp_path: Path) -> None:
    result = await carried_out(flapping.EXPERIMENT, tmp_path, 3)
    assert result.broken == []
    assert (result.lost, result.out_of_order) == (0, 0)
    assert {value for name, value in result.figures.items() if name.endswith("2_duplicated")} == {0}
    lines = 4 if PROGRAM else 2
    flaps = [str(text) for name, text in result.figures.items() if name.endswith("_flaps")]
    assert [sum(int(part.split()[-1]) for part in text.split(", ")) for text in flaps] == [3] * lines


async def test_broker_that_forgets_is_given_its_rows_again(tmp_path: Path) -> None:
    result = await carried_out(forgetful_broker.EXPERIMENT, tmp_path, 1)
    assert (result.broken, result.lost) == ([], 0)
    assert result.figures["q1_remote_loss"] or result.figures["q2_remote_loss"]


@pytest.mark.parametrize("experiment", [memory_cap.EXPERIMENT, neighbours.EXPERIMENT], ids=lambda each: each.name)
async def test_few_seconds_hold(experiment: Experiment, tmp_path: Path) -> None:
    holds(await carried_out(experiment, tmp_path, 2))


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("experiment", HERE, ids=lambda each: each.name)
async def test_short_run_holds(experiment: Experiment, tmp_path: Path) -> None:
    holds(await carried_out(experiment, tmp_path, experiment.rounds))


def holds(result: Result) -> None:
    assert [text for text in result.broken if not any(word in text for word in MEASURED_HERE)] == []
    assert (result.lost, result.out_of_order) == (0, 0)


def test_every_experiment_here_is_part_of_a_campaign() -> None:
    assert set(HERE) <= set(EXPERIMENTS)
    assert len({experiment.name for experiment in EXPERIMENTS}) == len(EXPERIMENTS)
