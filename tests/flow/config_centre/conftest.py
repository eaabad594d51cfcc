"""Fixtures: the plugins, and a stage on an etcd of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from framegate.package.discover import Plugins, discover
from framegate.testing.etcd import Etcd

from .stage import Stage


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return discover()


@pytest.fixture
def stage(tmp_path: Path, etcd: Etcd, plugins: Plugins) -> Stage:
    return Stage(tmp_path, etcd, plugins)
