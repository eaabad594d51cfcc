"""What the bus's tests share: a clock, a log that remembers, batches, and stores in temporary folders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.bus.bus import Bus
from framegate.bus.options import StoreOptions
from framegate.bus.store import Store, open_store
from framegate.contract.frame import Batch, uniform_quality, uniform_time
from framegate.observe.metrics import Metrics

START_NS = 1_700_000_000_000_000_000


class HandClock:
    """Wall time set by hand; monotonic time and sleep of the running loop."""

    def __init__(self) -> None:
        self.wall_ns = START_NS

    def now_ns(self) -> int:
        return self.wall_ns

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class MemoryLog:
    """Remembers event names and their values."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **values: Any) -> None:
        self.lines.append(("debug", event, values))

    def info(self, event: str, **values: Any) -> None:
        self.lines.append(("info", event, values))

    def warning(self, event: str, **values: Any) -> None:
        self.lines.append(("warning", event, values))

    def error(self, event: str, **values: Any) -> None:
        self.lines.append(("error", event, values))

    def events(self) -> list[str]:
        return [event for _, event, _ in self.lines]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def batch() -> Callable[..., Batch]:
    """A batch of floats that count up from `start`, for the tags `first_tag` on."""
    columns: dict[tuple[int, int], Any] = {}

    def make(rows: int = 10, start: float = 0.0, first_tag: int = 1, time_ns: int = START_NS) -> Batch:
        tag = columns.setdefault((rows, first_tag), np.arange(first_tag, first_tag + rows, dtype=np.int32))
        value = np.arange(rows, dtype=np.float64) + start
        return Batch(tag, value, uniform_quality(0), uniform_time(time_ns), time_ns)

    return make


@pytest.fixture
async def open_at(clock: HandClock, log: MemoryLog, metrics: Metrics) -> AsyncIterator[Callable[..., Awaitable[Store]]]:
    """Opens stores; those still open at the end are closed."""
    stores: list[Store] = []

    async def make(folder: Path, **options: Any) -> Store:
        settings: dict[str, Any] = {"commit_interval_s": 0.001, "ballast_bytes": 0, "reserve_bytes": 0, **options}
        store = await open_store(folder, StoreOptions(**settings), clock, log, metrics)
        stores.append(store)
        return store

    yield make
    for store in stores:
        if store.wal.state.value != "closed":
            await store.close()


@pytest.fixture
def bus_on(clock: HandClock, log: MemoryLog, metrics: Metrics) -> Callable[..., Bus]:
    """A bus over a store, without a mapping."""

    def make(store: Store, ring_rows: int = 262_144) -> Bus:
        return Bus(store.wal, _unmapped, clock, log, metrics, ring_rows)

    return make


def _unmapped(batch: Batch) -> Sequence[Batch]:
    return (batch,)
