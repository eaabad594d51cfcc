"""The disk fills up and is emptied again: the gateway says so, keeps to its policy, and goes on by itself.

The trial is that of `edge verify-delivery --only disk_full`. It needs a small file system of its own, and so the right
to mount one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from framegate.cli.verify.disk_full import FILLS, POLICIES, Fill, Policy, trial
from framegate.cli.verify.volume import Volume

TO_THE_RESERVE, TO_THE_LAST_BYTE = FILLS


@pytest.fixture
def mountable(tmp_path: Path) -> None:
    why_not = Volume.why_not(tmp_path)
    if why_not:
        pytest.skip(why_not)


@pytest.mark.usefixtures("mountable")
@pytest.mark.parametrize("fill", [TO_THE_RESERVE, pytest.param(TO_THE_LAST_BYTE, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("policy", POLICIES)
async def test_full_disk_is_told_and_left_by_itself(tmp_path: Path, policy: Policy, fill: Fill) -> None:
    result = await trial(tmp_path / "trial", policy, fill)
    assert result.broken == []
    assert result.acknowledged > 0
    assert (int(result.figures["rows dropped"]) > 0) == (policy != "block")
