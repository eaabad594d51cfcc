"""A process that fills stores and examines damaged ones, so that a hang in the store's own code cannot hang a campaign.

`python -m framegate.cli.verify.examiner` reads one request per line and answers each with a line of JSON: what a
connector would have read, position by position. The value of every row is its own position, so that wrong bytes
betray themselves. The product's own open_store and Bus do the work; only the judgement is made here.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from framegate.bus.bus import Bus
from framegate.bus.store import Store, StoreOptions, open_store
from framegate.contract.errors import GatewayError
from framegate.contract.frame import Batch, Gap, Position, ValueType, uniform_quality, uniform_time
from framegate.endpoint.clock import SystemClock
from framegate.observe.log import make_log
from framegate.observe.metrics import Metrics

ROWS, BATCHES, BATCHES_PER_GROUP = 60, 600, 20
SMALL_GROUPS, SMALL_ROWS = 3, 2
TOTAL = ROWS * BATCHES + SMALL_GROUPS * SMALL_ROWS
CURSOR = 1_000
CONNECTOR = "c"
READ_ROWS = 5_000
_OPTIONS = StoreOptions(commit_interval_s=0.001, ballast_bytes=0, reserve_bytes=0, write_buffer_bytes=64 << 10,
                        keep_acked_bytes=1 << 20)  # fmt: skip


@dataclass(slots=True)
class Finding:
    """What became of one damaged store; `wrong` holds a sentence for every promise that did not hold."""

    open_s: float = 0.0
    rows: int = 0
    lost: int = 0
    largest_gap: int = 0
    wrong: list[str] = field(default_factory=list)


async def fill(folder: Path) -> None:
    """A store as a gateway leaves it that dies: rows in tables and in the store's log, the last groups small."""
    store = await _open(folder)
    bus = _bus(store)
    for number in range(BATCHES):
        _publish(bus, store, ROWS)
        if number % BATCHES_PER_GROUP == 0:
            await bus.flush()
    store.cursors.commit(CONNECTOR, Position(CURSOR))
    for _ in range(SMALL_GROUPS):
        await bus.flush()
        _publish(bus, store, SMALL_ROWS)
    await bus.flush()


async def examine(folder: Path, *, is_reopened: bool) -> Finding:
    """Open, read on from the cursor, write one row, and with `is_reopened` see that all of it is still so."""
    finding = Finding()
    began = time.monotonic()
    store = await _open(folder)
    finding.open_s = time.monotonic() - began
    wrong = finding.wrong
    if store.wal.head < TOTAL:
        wrong.append(f"positions from {store.wal.head + 1:,} on would be used twice; {TOTAL:,} were given out")
    if store.wal.head > TOTAL:
        wrong.append(f"{store.wal.head - TOTAL:,} positions are called lost that never were")
    cursor = store.cursors.load(CONNECTOR)
    if cursor != CURSOR:
        wrong.append(f"the cursor {CURSOR:,} has become {cursor}")
    _read(_bus(store), finding)
    if finding.rows + finding.lost != TOTAL - CURSOR:
        wrong.append(f"{finding.rows:,} rows and {finding.lost:,} announced as lost are not all")
    bus = _bus(store)
    _publish(bus, store, 1)
    await bus.flush()
    if bus.durable != TOTAL + 1:
        wrong.append("the store takes no further row")
    await store.close()
    if is_reopened and not wrong:
        await _examine_again(folder, finding)
    return finding


async def _examine_again(folder: Path, before: Finding) -> None:
    store = await _open(folder)
    after = Finding()
    _read(_bus(store), after)
    await store.close()
    before.wrong += after.wrong
    if (after.rows, after.lost) != (before.rows + 1, before.lost):
        before.wrong.append(f"opened again it holds {after.rows:,} rows instead of {before.rows + 1:,}")


def _read(bus: Bus, finding: Finding) -> None:
    """Everything a connector behind CURSOR would get; each position once, in order, with its own value or in a gap."""
    position = Position(CURSOR)
    while position < bus.durable:
        items = bus.read(position, READ_ROWS)
        if not items:
            finding.wrong.append(f"nothing follows {position:,} although {bus.durable:,} is durable")
            return
        for item in items:
            if not item.first <= position + 1 <= item.last:
                finding.wrong.append(f"{item.first:,} follows {position:,}, and no gap says why")
                return
            rows = item.last - position
            if isinstance(item, Gap):
                finding.lost += rows
                finding.largest_gap = max(finding.largest_gap, rows)
                if item.reason != "damage":
                    finding.wrong.append(f"the gap from {item.first:,} names {item.reason} as its reason")
            else:
                finding.rows += rows
                if not np.array_equal(item.batch.value, np.arange(item.first, item.last + 1)):
                    finding.wrong.append(f"wrong bytes in the rows from {item.first:,} on")
            position = item.last


async def _open(folder: Path) -> Store:
    return await open_store(folder, _OPTIONS, SystemClock(), make_log(level="error"), Metrics())


def _bus(store: Store) -> Bus:
    return Bus(store.wal, lambda batch: (batch,), SystemClock(), make_log(level="error"), Metrics())


def _publish(bus: Bus, store: Store, rows: int) -> None:
    value = np.arange(rows, dtype=np.int64) + store.wal.head + 1
    intern = store.catalogue.intern
    tag = np.array([intern(f"t{number}", "d", ValueType.INT64, "", "R") for number in range(rows)], np.int32)
    bus.publish([Batch(tag, value, uniform_quality(0), uniform_time(0), 1)])


def main() -> int:
    """Answer requests until stdin ends; `fill FOLDER` as words instead fills one store and dies."""
    if sys.argv[1:2] == ["fill"]:
        asyncio.run(fill(Path(sys.argv[2])))
        return 0
    for line in sys.stdin:
        request = json.loads(line)
        try:
            finding = asyncio.run(examine(Path(request["folder"]), is_reopened=request["again"]))
        except GatewayError as error:
            finding = Finding(wrong=[f"the store did not open: {error}"])
        print(json.dumps(asdict(finding)), flush=True)  # noqa: T201 - the answer of this process
    return 0


if __name__ == "__main__":
    sys.exit(main())
