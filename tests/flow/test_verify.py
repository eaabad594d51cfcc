"""The storage experiments of `edge verify-delivery`, at small counts; the verb itself is in tests/unit/cli.

The fast ones run with every change, the others with the campaigns. What they promise is checked by themselves; here a
promise that does not hold fails.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from framegate.cli.verify import damage, kill, power_cut, sync_fault
from framegate.cli.verify.experiment import Experiment, Scratch


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("experiment", "rounds"),
    [
        pytest.param(kill.EXPERIMENT, 11, id="kill"),
        pytest.param(power_cut.EXPERIMENT, 3, id="power_cut"),
        pytest.param(kill.EXPERIMENT, 30, id="kill-campaign", marks=pytest.mark.campaign),
        pytest.param(power_cut.EXPERIMENT, 20, id="power_cut-campaign", marks=pytest.mark.campaign),
        pytest.param(sync_fault.EXPERIMENT, 1, id="sync_fault-campaign", marks=pytest.mark.campaign),
        pytest.param(damage.EXPERIMENT, 20, id="damage-campaign", marks=pytest.mark.campaign),
    ],
)
async def test_experiment_finds_every_promise_kept(tmp_path: Path, experiment: Experiment, rounds: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it
    result = await experiment.run(Scratch(tmp_path, rounds, seed, lambda _: None))
    if result.skipped:
        pytest.skip(result.skipped)
    assert result.broken == [], result.figures
    assert result.rounds >= rounds
    assert result.lost == result.out_of_order == 0
    assert result.acknowledged > 0
