"""Fills a gateway's durable log with so many bytes, fast, and dies without a word: a dirty shutdown with a long past.

    python -m framegate.cli.verify.log_maker HOME BYTES DEVICES TAGS

All but the last rows count as delivered by connector "cloud". Prints {"delivered": ..., "head": ...} before it kills
itself. Rows are random, so that compression does not make the log smaller than it looks.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from framegate.bus.record import RECORD_ROWS_MAX
from framegate.bus.store import StoreOptions, open_store
from framegate.contract.frame import Batch, Position, ValueType, uniform_quality, uniform_time
from framegate.endpoint.clock import SystemClock
from framegate.gateway.home import Home
from framegate.observe.log import make_log
from framegate.observe.metrics import Metrics

LOG_BYTES_KEPT = 8 << 30
FLUSH_BYTES = 4 << 20
FLUSH_S_MAX = 30.0
UNDELIVERED_BATCHES = 4
_BYTES_PER_ROW = 8


async def fill(home: Path, size: int, devices: int, tags: int) -> dict[str, int]:
    """Append random rows of every tag, in batches; where delivery stands and where the log ends."""
    options = StoreOptions(durability="os", retention_bytes=LOG_BYTES_KEPT, keep_acked_bytes=LOG_BYTES_KEPT)
    store = await open_store(Home(home).data, options, SystemClock(), make_log(), Metrics())
    ids = [
        store.catalogue.intern(f"d{device}.t{tag}", f"d{device}", ValueType.INT16, "", "R")
        for device in range(devices)
        for tag in range(tags)
    ]
    columns = np.resize(np.array(ids, np.int32), RECORD_ROWS_MAX)
    columns.flags.writeable = False
    dice = np.random.default_rng(7)
    store.cursors.load("cloud")
    delivered, written = Position(0), 0
    while written < size:
        values = dice.integers(-(1 << 62), 1 << 62, RECORD_ROWS_MAX)
        now_ns = time.time_ns()
        store.wal.append(Batch(columns, values, uniform_quality(0), uniform_time(now_ns), now_ns))
        written += RECORD_ROWS_MAX * _BYTES_PER_ROW
        if written % FLUSH_BYTES == 0:
            await store.wal.flush(FLUSH_S_MAX)
    delivered = Position(max(0, store.wal.head - UNDELIVERED_BATCHES * RECORD_ROWS_MAX))
    store.cursors.commit("cloud", delivered)
    await store.wal.flush(FLUSH_S_MAX)
    return {"delivered": delivered, "head": store.wal.head}


if __name__ == "__main__":
    home, *numbers = sys.argv[1:]
    print(json.dumps(asyncio.run(fill(Path(home), *map(int, numbers)))), flush=True)  # noqa: T201 - its answer
    os.kill(os.getpid(), signal.SIGKILL)
