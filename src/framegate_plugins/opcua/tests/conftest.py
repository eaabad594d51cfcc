"""Fixtures: a stage, and a simulator on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from framegate_plugins.opcua.simulator import Simulator
from framegate_plugins.opcua.tests.stage import Stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with Stage(tmp_path / "home") as stage:
        yield stage


@pytest.fixture
async def server(stage: Stage) -> Simulator:
    return await stage.simulate(tags=20)
