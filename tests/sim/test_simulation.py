"""Delivery under simulated faults: whatever a seed draws, every promise holds. A failure names the seed to replay."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from framegate.testing.simulation.simulation import simulate
from framegate.testing.simulation.swarm import FAULTS, draw

SEEDS = 60
SEEDS_CAMPAIGN = 200  # `edge verify-delivery --full --only simulation` takes 2,000
SEEDS_PER_CASE = 20
REPLAYED_EVERY = 50
FOUND = {
    100_424: "a mark written before its record outlived it, and retention cut a later record in two there",
    101_348: "the notice of a gap whose entry was damaged counted as rows on their way",
    101_422: "rows deleted in the second before a power cut were called damaged when the store was carried over",
    101_970: "a gap was told before it was durable; a crash lost it, and its rows followed newer ones",
    300_195: "the same, of rows that retention had given up",
    501_368: "no kind of fault was left to a world, and the script of faults failed at it",
    300_557: "a gap whose entry was damaged after its rows were deleted counted as never told",
}
"""Seeds that once broke a promise, and how."""
REPLAY = (
    "import sys; from framegate.testing.simulation.simulation import simulate; print(simulate(int(sys.argv[1])).trace)"
)


def hold_all(seeds: range) -> None:
    for seed in seeds:
        report = simulate(seed)
        assert not report.breaks, report
        if seed % REPLAYED_EVERY == 0:
            assert simulate(seed).trace == report.trace, f"seed {seed} does not replay"


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_CASE))
def test_delivery_under_any_faults_keeps_every_promise(first: int) -> None:
    hold_all(range(first, first + SEEDS_PER_CASE))


@pytest.mark.campaign
@pytest.mark.parametrize("first", range(SEEDS, SEEDS_CAMPAIGN, SEEDS_PER_CASE))
def test_delivery_under_any_faults_keeps_every_promise_campaign(first: int) -> None:
    hold_all(range(first, first + SEEDS_PER_CASE))


@pytest.mark.parametrize("seed", FOUND)
def test_delivery_under_faults_that_once_broke_a_promise_keeps_every_one(seed: int) -> None:
    hold_all(range(seed, seed + 1))


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_simulation_in_another_process_has_the_same_trace(hash_seed: str) -> None:
    seed = 4
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", REPLAY, str(seed)]
    other = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert other.stdout.strip() == simulate(seed).trace


def test_simulation_of_another_seed_has_another_trace() -> None:
    assert simulate(6).trace != simulate(10).trace


def test_swarm_draws_every_kind_of_fault_and_leaves_most_out_of_each_seed() -> None:
    worlds = [draw(seed) for seed in range(SEEDS)]
    assert {kind for world in worlds for kind in world.faults} == set(FAULTS)
    assert all(len(world.faults) <= len(FAULTS) // 2 for world in worlds)
