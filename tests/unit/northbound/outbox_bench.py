"""An outbox over a fake log and a scripted remote, for tests."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np

from framegate.contract.connector import ConnectorContext, Window
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, Gap, Placed, Position, uniform_quality, uniform_time
from framegate.contract.letter import DeadLetter
from framegate.contract.owed import Owed
from framegate.contract.ports import Lines
from framegate.northbound.encoder import make_encoder
from framegate.northbound.options import OutboxOptions
from framegate.northbound.outbox import Outbox
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import AnyTag

DEADLINE_S = 20.0
FAST = OutboxOptions(window_rows=8)


class FakeClock:
    """Wall time counts calls; sleeping takes one turn of the loop and is remembered."""

    def __init__(self) -> None:
        self.ns = 0
        self.slept: list[float] = []

    def now_ns(self) -> int:
        self.ns += 1_000_000
        return self.ns

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


class FakeLog:
    """Durable rows, added at will; also the cursors."""

    def __init__(self) -> None:
        self.items: list[Placed | Gap] = []
        self.durable = Position(0)
        self.commits: list[int] = []
        self.wakes: list[Callable[[], None]] = []
        self.fails = 0
        self.owed: Owed | None = None
        self.tag = np.array([1, 2, 3], dtype=np.int32)

    def add(self, batches: int = 1) -> None:
        """Three rows per batch; the value of a row is its position."""
        for _ in range(batches):
            first = self.durable + 1
            values = np.arange(first, first + 3)
            batch = Batch(self.tag, values, uniform_quality(0), uniform_time(first), first)
            self.items.append(Placed(Position(first), batch))
            self.durable = Position(first + 2)
        self.announce()

    def lose(self, rows: int) -> None:
        gap = Gap(Position(self.durable + 1), Position(self.durable + rows), "disk_full", "full", "", 1)
        self.items.append(gap)
        self.durable = gap.last
        self.announce()

    def announce(self) -> None:
        for wake in self.wakes:
            wake()

    def read(self, after: Position, rows_max: int) -> Sequence[Placed | Gap]:
        if self.fails:
            self.fails -= 1
            raise StoreFailed("the log cannot be read")
        found: list[Placed | Gap] = []
        for item in self.items:
            if item.last > after:
                found.append(item)
                if sum(entry.last - entry.first + 1 for entry in found) >= rows_max:
                    break
        return found

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        self.wakes.append(wake)
        return lambda: self.wakes.remove(wake)

    def load(self, connector: str) -> Position | None:
        return Position(self.commits[-1]) if self.commits else None

    def commit(self, connector: str, position: Position) -> None:
        self.commits.append(position)
        self.owed = None

    def load_owed(self, connector: str) -> Owed | None:
        return self.owed

    def commit_owed(self, connector: str, owed: Owed) -> None:
        self.commits.append(owed.cursor)
        self.owed = owed if owed.ranges else None


class Remote:
    """A connector whose answers a test decides: `answer(window)` raises, waits, or returns to acknowledge."""

    def __init__(self) -> None:
        self.opens = self.closes = 0
        self.windows: list[Window] = []
        self.received: list[int] = []
        self.open_errors: list[Exception] = []
        self.under_way = self.under_way_max = 0
        self.context: ConnectorContext | None = None

    async def answer(self, window: Window) -> None:
        return

    async def open(self, context: ConnectorContext) -> None:
        self.opens += 1
        self.context = context
        if self.open_errors:
            raise self.open_errors.pop(0)

    async def send(self, window: Window) -> None:
        self.windows.append(window)
        self.under_way += 1
        self.under_way_max = max(self.under_way, self.under_way_max)
        try:
            await self.answer(window)
        finally:
            self.under_way -= 1
        self.take(window)

    def take(self, window: Window) -> None:
        for payload in window.payload:
            self.received += [frame["value"] for frame in json.loads(payload).get("frames", [])]

    async def close(self) -> None:
        self.closes += 1


class Diary:
    """Log events, by name."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def _add(self, level: str) -> Callable[..., None]:
        return lambda event, **values: self.events.append((level, event, values))

    def __getattr__(self, level: str) -> Callable[..., None]:
        return self._add(level)

    def of(self, name: str) -> list[dict[str, Any]]:
        return [values for _, event, values in self.events if event == name]


class Bench:
    """An outbox with everything around it."""

    def __init__(self, options: OutboxOptions = FAST, remote: Remote | None = None, log: FakeLog | None = None) -> None:
        self.remote, self.source, self.diary = remote or Remote(), log or FakeLog(), Diary()
        self.clock, self.metrics, self.letters = FakeClock(), Metrics(), list[DeadLetter]()
        encoder = make_encoder(
            "json-batch", tenant="t", gateway="g", connector="c", template="", batch=4, catalogue=AnyTag()
        )
        self.outbox = Outbox(
            "c",
            self.remote,
            encoder,
            self.source,
            self.source,
            context=lambda lost: ConnectorContext("c", "g", "", cast(Lines, None), self.clock, self.diary, lost),
            clock=self.clock,
            dice=random.Random(1),
            log=self.diary,
            metrics=self.metrics,
            options=options,
            dead_letters=self,
        )

    def keep(self, letter: DeadLetter) -> None:
        assert self.outbox.health.position < letter.position, "kept before the cursor passes it"
        self.letters.append(letter)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Bench]:
        task = asyncio.create_task(self.outbox.run())
        try:
            yield self
            await asyncio.wait_for(self.outbox.stop(), DEADLINE_S)
        finally:
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            assert result is None or isinstance(result, asyncio.CancelledError)
            assert not self.source.wakes

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - any condition of the objects under test, not one event
                await asyncio.sleep(0)

    async def drained(self) -> None:
        await self.until(lambda: self.outbox.health.position == self.source.durable)

    def count(self, name: str) -> int:
        return self.metrics.counter(name, connector="c").value


def in_order(values: Sequence[int]) -> list[int]:
    """Repeats dropped, the first kept; fails when a first delivery goes back."""
    seen: dict[int, None] = dict.fromkeys(values)
    assert list(seen) == sorted(seen)
    return list(seen)
