"""Hostile scripts and expressions on the loop of a gateway: stopped in time, switched off, and nobody else waits.

Store, bus, mapping and host of rules as a gateway has them, and a ticker of one millisecond beside them on their loop.
Lag is taken in CPU time of the loop's thread: a machine that is busy with other things makes no case red. Every
script of the casebook of tests/unit/mapper/rules/script/cases is played, and every expression of cases/expressions:
its first line says what becomes of it (refused, bad or fine), and whether it is over text.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.bus.bus import Bus
from framegate.bus.store import StoreOptions, open_store
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, Gap, Position, TagId, ValueType, uniform_quality, uniform_time
from framegate.contract.quality import is_bad
from framegate.endpoint.clock import SystemClock
from framegate.mapper.expression import check_expression
from framegate.mapper.inputs import TEXT_BYTES_MAX
from framegate.mapper.mapping import Mapping, MappingRow, compile_mapping
from framegate.mapper.processing import Processing
from framegate.mapper.rules.engine import Engine, Entry
from framegate.mapper.rules.host import RuleHost
from framegate.mapper.rules.lua_sandbox import DEADLINE_S
from framegate.mapper.rules.rule import FAULTS_MAX, RuleContext
from framegate.mapper.rules.script import make
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import CollectingLog
from framegate.testing.plant import until

HERE, CASES = Path(__file__).parent, "unit/mapper/rules/script/cases"
SCRIPTS = {path.stem: path.read_text("utf-8") for path in (HERE.parent / CASES).glob("*.lua")}
EXPRESSIONS = {path.stem: path.read_text("utf-8") for path in (HERE / "cases/expressions").glob("*.lua")}
LAG_S_MAX = DEADLINE_S + 2 * 0.02
"""Promised: 50 ms. What follows the deadline takes up to twice its CPU time on a core that another thread shares."""
TICK_S = 0.001
ROWS = 125
"""Of a batch, each with the hostile expression."""


@pytest.fixture(scope="module", autouse=True)
def settled() -> Iterator[None]:
    """As in a gateway that has started: the collector leaves alone what stays for good, here the whole test runner."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Ticker:
    """Wakes each millisecond on the loop; lag_s: the most CPU time that its thread took between two wakings."""

    def __init__(self) -> None:
        self.lag_s = 0.0

    async def run(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(TICK_S)
            self.lag_s = max(self.lag_s, time.thread_time() - before)


class Site:
    """A bus with a mapping and a host of one rule."""

    def __init__(self, bus: Bus, host: RuleHost, entry: Entry, ticker: Ticker, log: CollectingLog) -> None:
        self.bus, self.host, self.entry, self.ticker, self.log = bus, host, entry, ticker, log

    def rows(self, tag: int) -> list[tuple[Any, int]]:
        """Value and quality of every row of one tag in the log."""
        found: list[tuple[Any, int]] = []
        position = Position(0)
        while items := self.bus.read(position, 4_096):
            for item in items:
                position = item.last
                assert not isinstance(item, Gap)
                qualities = np.broadcast_to(item.batch.quality, item.batch.rows).tolist()
                rows = zip(item.batch.tag.tolist(), item.batch.value.tolist(), qualities, strict=True)
                found += [(value, quality) for each, value, quality in rows if each == tag]
        return found


@asynccontextmanager
async def site(folder: Path, script: str) -> AsyncIterator[Site]:
    clock, log, metrics = SystemClock(), CollectingLog(), Metrics()
    options = StoreOptions(commit_interval_s=0.001, ballast_bytes=0, reserve_bytes=0)
    store = await open_store(folder / "store", options, clock, log, metrics)
    tag = store.catalogue.intern("a", "plc", ValueType.FLOAT64, "", "R")
    assert tag == 1
    bus = Bus(store.wal, lambda batch: (batch,), clock, log, metrics)
    (folder / "hostile.lua").write_text(script, encoding="utf-8")
    context = RuleContext(store.catalogue, folder, log, ["a"])
    outputs = {} if "outputs =" in script else {"o": "float64"}
    rule = make("hostile", {"file": "hostile.lua", "inputs": ["a"], "outputs": outputs}, context)
    entry = Entry(rule, "lua", context.outputs, metrics)
    engine = Engine([entry], store.catalogue, clock, log)
    host = RuleHost(engine, bus, store.cursors, {}, clock, log, metrics)
    task = asyncio.create_task(host.run([]))
    ticker = Ticker()
    ticking = asyncio.create_task(ticker.run())
    try:
        yield Site(bus, host, entry, ticker, log)
    finally:
        ticking.cancel()
        await host.stop()
        await task
        host.close()
        await store.close()


@pytest.mark.parametrize("name", sorted(SCRIPTS))
async def test_hostile_script_is_off_after_three_faults_and_the_loop_goes_on(name: str, tmp_path: Path) -> None:
    async with site(tmp_path, SCRIPTS[name]) as place:
        tag = np.array([1], np.int32)
        for fault in range(FAULTS_MAX):
            assert not place.entry.is_off
            now = time.time_ns()
            place.bus.publish([Batch(tag, np.array([1.5]), uniform_quality(0), uniform_time(now), now)])
            await until(lambda: place.entry.faults.value > fault, "a fault")  # noqa: B023
        assert place.entry.is_off
        assert place.entry.error
        now = time.time_ns()
        place.bus.publish([Batch(tag, np.array([2.5]), uniform_quality(0), uniform_time(now), now)])
        await until(lambda: place.host.position >= place.bus.head, "the rules")
        await until(lambda: place.bus.durable >= place.bus.head, "the disk")
        assert place.rows(1) == [(1.5, 0)] * FAULTS_MAX + [(2.5, 0)]
        for output in place.entry.outputs:
            assert is_bad(place.rows(output)[-1][1])
        assert place.entry.faults.value == FAULTS_MAX
        print(f"{name}: lag {1e3 * place.ticker.lag_s:.1f} ms")  # noqa: T201 - pytest shows it
        assert place.ticker.lag_s <= LAG_S_MAX


def mapping_of(text: str, *, is_text: bool) -> Mapping:
    """The expression on all tags but the last, which is plain."""
    type_ = ValueType.STRING if is_text else ValueType.FLOAT64
    hostile = [
        MappingRow(TagId(tag), type=type_, processing=Processing(expr=text), name=f"t{tag}") for tag in range(ROWS)
    ]
    plain = MappingRow(TagId(ROWS), type=type_, processing=Processing(expr="value"), name="plain")
    return compile_mapping([*hostile, plain])


@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
async def test_hostile_expression_marks_its_rows_and_the_loop_goes_on(name: str) -> None:
    head, text = EXPRESSIONS[name].rstrip("\n").split("\n")
    fate, is_text = head.split()[1], head.endswith("text")
    began = time.thread_time()
    if fate == "refused":
        with pytest.raises(Misconfigured) as caught:
            check_expression(text)
        assert caught.value.stable_code == "E1191"
        assert time.thread_time() - began <= LAG_S_MAX
        return
    mapping, ticker = mapping_of(text, is_text=is_text), Ticker()
    ticking = asyncio.create_task(ticker.run())
    tags = np.arange(ROWS + 1, dtype=np.int32)
    for number in range(5):
        value: Any = np.arange(ROWS + 1) + number * 0.5
        if is_text:
            value = np.array([f"{number}{row:06}".ljust(TEXT_BYTES_MAX, "x") for row in range(ROWS + 1)], np.object_)
        await asyncio.sleep(2 * TICK_S)
        (out,) = mapping(Batch(tags, value, uniform_quality(0), uniform_time(1), 1))
        await asyncio.sleep(2 * TICK_S)
        qualities = np.broadcast_to(out.quality, ROWS + 1).tolist()
        assert set(map(is_bad, qualities[:-1])) == {fate == "bad"}
        assert (qualities[-1], out.value[-1]) == (0, value[-1])
    ticking.cancel()
    print(f"{name}: lag {1e3 * ticker.lag_s:.1f} ms")  # noqa: T201 - pytest shows it
    assert ticker.lag_s <= LAG_S_MAX
