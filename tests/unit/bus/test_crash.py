"""Processes that die at any moment: what was reported durable is there, without a hole."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from framegate.bus.bus import Bus
from framegate.bus.store import Store
from framegate.contract.frame import Placed, Position

ROUNDS = 20
LIFE_S_MAX = 0.25
WRITER = """
import asyncio, sys
from pathlib import Path
import numpy as np
from framegate.bus.bus import Bus
from framegate.bus.store import StoreOptions, open_store
from framegate.contract.frame import Batch, ValueType, uniform_quality, uniform_time
from framegate.endpoint.clock import SystemClock
from framegate.observe.log import make_log
from framegate.observe.metrics import Metrics

async def main():
    # A small memory table, so that flushes and compactions are under way when the process dies.
    options = StoreOptions(commit_interval_s=0.001, ballast_bytes=0, write_buffer_bytes=256 << 10)
    clock, metrics = SystemClock(), Metrics()
    store = await open_store(Path(sys.argv[1]), options, clock, make_log(level="error"), metrics)
    bus = Bus(store.wal, lambda batch: (batch,), clock, make_log(level="error"), metrics)
    tags = [np.arange(n, n + 60, dtype=np.int32) for n in range(1, 601, 60)]
    bus.subscribe(lambda: sys.stdout.write(f"{bus.durable}\\n") and sys.stdout.flush())
    while True:
        for tag in tags:
            value = np.arange(60, dtype=np.int64) + store.wal.head + 1
            bus.publish([Batch(tag, value, uniform_quality(0), uniform_time(0), 1)])
            store.catalogue.intern(f"tag {store.wal.head}", "d", ValueType.INT64, "", "R")
        store.cursors.commit("c", bus.durable)
        await asyncio.sleep(0.0005)

asyncio.run(main())
"""


def kill_writer(folder: Path, seed: int) -> list[int]:
    """Let a writer live for a while, kill it; returns the positions it reported durable."""
    print(f"seed {seed}")  # noqa: T201 - pytest shows it
    life_s = random.Random(seed).uniform(0, LIFE_S_MAX)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        assert first, "the writer did not start"
        try:
            writer.wait(life_s)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()
    return [int(line) for line in [first, *rest.splitlines(keepends=True)] if line.endswith("\n")]


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_killed_writer_leaves_every_durable_row_and_no_hole(
    tmp_path: Path,
    open_at: Callable[..., Awaitable[Store]],
    bus_on: Callable[..., Bus],
    shared_store: Path,
    seed: int,
) -> None:
    told = kill_writer(shared_store, seed)
    store = await open_at(shared_store)
    assert store.wal.head >= max(told)
    assert len(store.books.gaps) == 0
    cursor = store.cursors.load("c")
    assert cursor is not None
    assert cursor <= store.wal.head
    bus = bus_on(store)
    position = Position(max(0, told[0] - 5_000))  # the rounds before were read in their own time
    while position < bus.durable:
        items = bus.read(position, 10_000)
        for item in items:
            assert isinstance(item, Placed)
            assert item.first <= position + 1
            assert item.batch.value[0] == item.first
            position = item.last
    assert store.wal.replay.read(0, 1, store.wal.durable)[0].first == 1


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store that lives through all the deaths."""
    return tmp_path_factory.mktemp("killed")
