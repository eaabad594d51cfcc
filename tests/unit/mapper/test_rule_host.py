"""The host on the real store: what is derived is derived once, wherever the process dies."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.bus.bus import Bus
from framegate.bus.rules import RULES_CURSOR
from framegate.bus.store import Store, StoreOptions, open_store
from framegate.contract.errors import DeviceRefused, Misconfigured, StoreFailed
from framegate.contract.frame import Batch, Gap, Position, ValueType, uniform_quality, uniform_time
from framegate.contract.ports import RuleState
from framegate.mapper.rules import host as module
from framegate.mapper.rules.alarm import AlarmRule
from framegate.mapper.rules.engine import Engine, Entry
from framegate.mapper.rules.host import RuleHost
from framegate.mapper.rules.kinds import maker_of
from framegate.mapper.rules.rule import RuleContext
from framegate.observe.metrics import Metrics

from .conftest import SECOND, START_NS, QuietLog

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("window", {"input": "a", "window": "2s", "functions": ["avg", "count", "total"], "lateness": "0s"}),
    "tank": ("alarm", {"input": "a", "high": 50.0, "on_delay": "1s"}),
    "behind": ("window", {"input": "a.avg", "window": "6s", "functions": ["max"], "lateness": "0s"}),
}
Derived = tuple[str, int, Any]


class WallClock:
    """Wall time set by hand; monotonic time of the loop."""

    def __init__(self) -> None:
        self.wall_ns = START_NS

    def now_ns(self) -> int:
        return self.wall_ns

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Site:
    """A store with a bus and a host of rules, as a gateway has them."""

    def __init__(self, store: Store, clock: WallClock, rows: dict[str, tuple[str, dict[str, Any]]]) -> None:
        self.store, self.clock, self.log = store, clock, QuietLog()
        self.metrics = Metrics()
        self.bus = Bus(store.wal, lambda batch: (batch,), clock, self.log, self.metrics)
        self.tag = np.array([store.catalogue.intern("a", "plc", ValueType.FLOAT64, "", "R")], np.int32)
        entries = []
        for name, (kind, options) in rows.items():
            context = RuleContext(store.catalogue, Path(), self.log, ["a"])
            rule = maker_of(kind)(name, options, context)
            entries.append(Entry(rule, kind, context.outputs, self.metrics))
        self.engine = Engine(entries, store.catalogue, clock, self.log)
        states = store.books.rules.read()
        self.host = RuleHost(self.engine, self.bus, store.cursors, states, clock, self.log, self.metrics)
        self.task = asyncio.create_task(self.host.run(["disabled"]))

    def give(self, value: float, second: float) -> None:
        now = START_NS + round(second * SECOND)
        self.clock.wall_ns = max(self.clock.wall_ns, now)
        self.bus.publish([Batch(self.tag, np.array([value]), uniform_quality(0), uniform_time(now), now)])

    async def settled(self) -> None:
        """Everything that is published is durable, and the rules have seen it."""
        async with asyncio.timeout(20):
            while self.bus.durable < self.bus.head or self.host.position < self.bus.head:
                await self.clock.sleep(0.002)
            await self.host._settled()

    async def close(self) -> None:
        await self.host.stop()
        await self.task
        await self.store.close()


async def open_site(folder: Path, rows: dict[str, tuple[str, dict[str, Any]]] = ROWS, **options: Any) -> Site:
    clock = WallClock()
    settings = {"commit_interval_s": 0.001, "ballast_bytes": 0, "reserve_bytes": 0, **options}
    store = await open_store(folder, StoreOptions(**settings), clock, QuietLog(), Metrics())
    return Site(store, clock, rows)


def derived_in(bus: Bus, store: Store) -> list[Derived]:
    """Every derived row of the log, in order."""
    found: list[Derived] = []
    position = Position(0)
    while items := bus.read(position, 4_096):
        for item in items:
            position = item.last
            assert not isinstance(item, Gap)
            for tag, value in zip(item.batch.tag.tolist(), item.batch.value.tolist(), strict=True):
                name = store.catalogue.tag(tag)
                if name.device.startswith("rule/"):
                    found.append((name.name, int(item.batch.source_time[0]), value))
    return found


def given_to() -> Sequence[tuple[float, float]]:
    dice = np.random.default_rng(3)
    return [(float(dice.integers(0, 100)), index * 0.25) for index in range(120)]


async def test_rules_derive_the_same_wherever_the_process_dies(tmp_path: Path) -> None:
    whole = await open_site(tmp_path / "whole")
    images: list[tuple[int, Path]] = []
    for index, (value, second) in enumerate(given_to()):
        whole.give(value, second)
        await asyncio.sleep(0.003)
        if index % 8 == 5:  # what a killed process leaves: all that was written, whether the rules were through or not
            images.append((index + 1, tmp_path / f"image{index}"))
            shutil.copytree(tmp_path / "whole", images[-1][1])
    await whole.settled()
    wanted = derived_in(whole.bus, whole.store)
    await whole.close()
    assert {name for name, _, _ in wanted} == {"a.avg", "a.count", "a.total", "alarm.tank.high", "a.avg.max"}
    for done, image in images:
        again = await open_site(image)
        await again.settled()
        rows = list(given_to())
        kept = sum(1 for _ in range(done))
        lost = kept - _given_rows(again)
        for value, second in rows[kept - lost :]:
            again.give(value, second)
            await asyncio.sleep(0)
        await again.settled()
        found = derived_in(again.bus, again.store)
        await again.close()
        assert Counter(found) == Counter(wanted), image.name


def _given_rows(site: Site) -> int:
    count, position = 0, Position(0)
    while items := site.bus.read(position, 4_096):
        for item in items:
            position = item.last
            assert not isinstance(item, Gap)
            count += int((item.batch.tag == site.tag[0]).sum())
    return count


async def test_a_new_rule_begins_now_and_the_state_of_a_removed_one_goes(tmp_path: Path) -> None:
    first = await open_site(tmp_path, {"tank": ROWS["tank"]})
    for second in range(5):
        first.give(90.0, second)
    await first.settled()
    await first.close()
    second_run = await open_site(tmp_path, {"mean": ROWS["mean"]})
    await second_run.settled()
    assert second_run.engine.entries[0].rows.value == 0
    await second_run.close()
    third = await open_site(tmp_path, {"tank": ROWS["tank"]})
    await third.settled()
    assert third.host.alarms()[0].state == "normal"
    assert "rules_started" in third.log.events
    await third.close()


async def test_alarms_and_what_operators_did_outlive_a_restart(tmp_path: Path) -> None:
    site = await open_site(tmp_path)
    for second in range(4):
        site.give(90.0, second)
    await site.settled()
    row = await site.host.operate("tank.high", "ack", "uid 7", "seen", 0)
    assert (row.state, row.by, row.note) == ("ack", "uid 7", "seen")
    shutil.copytree(tmp_path, tmp_path.parent / "killed")
    with pytest.raises(DeviceRefused, match="E5034"):
        await site.host.operate("tank.low", "ack", "uid 7", "", 0)
    with pytest.raises(DeviceRefused, match="E5034"):
        await site.host.operate("mean.avg", "ack", "uid 7", "", 0)
    await site.close()
    again = await open_site(tmp_path.parent / "killed")
    await again.settled()
    assert [(alarm.state, alarm.by) for alarm in again.host.alarms()] == [("ack", "uid 7")]
    states = [value for name, _, value in derived_in(again.bus, again.store) if name == "alarm.tank.high"]
    assert [text.count('"state":"ack"') for text in states] == [0, 0, 1]
    await again.close()


async def test_while_the_log_takes_nothing_rules_wait_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    site = await open_site(tmp_path)
    derive = site.bus.derive

    def refuse(*_: Any) -> None:
        raise StoreFailed("bus: derived rows wait", code="E3011")

    await site.settled()
    monkeypatch.setattr(site.bus, "derive", refuse)
    for value, second in given_to()[:60]:
        site.give(value, second)
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.1)
    assert site.host.lag_rows > 0
    monkeypatch.setattr(site.bus, "derive", derive)
    await site.settled()
    counts = [value for name, _, value in derived_in(site.bus, site.store) if name == "a.count"]
    assert counts == [8.0] * 7
    assert site.log.events.count("rules_waiting") == 1
    await site.close()


async def test_states_are_never_durable_before_the_rows_they_led_to(tmp_path: Path) -> None:
    """While the disk is full the books go first: states must not be among them."""
    site = await open_site(tmp_path, {})
    await site.settled()
    await site.host.stop()
    await site.task
    await site.store.wal.flush()
    kept: list[int] = []
    site.bus.derive((), [RuleState("x", Position(1), b"state")], lambda: kept.append(1))
    site.bus.place([Batch(site.tag, np.array([1.0]), uniform_quality(0), uniform_time(1), 1)])
    group = site.store.wal._open
    now, later = group.without_frames(Position(0))
    held = [change[0] for change in later.frames]  # the state, the row, and the mark at the first record
    assert (now.frames, now.kept, sorted(held), len(later.kept)) == ([], [], ["frames", "meta", "meta"], 1)
    async with asyncio.timeout(5):
        while not kept:
            await site.clock.sleep(0.002)
    await site.store.close()


async def test_rows_are_kept_for_rules_and_no_operator_rewinds_them(tmp_path: Path) -> None:
    site = await open_site(tmp_path)
    for value, second in given_to()[:20]:
        site.give(value, second)
    await site.settled()
    assert RULES_CURSOR in site.store.cursors.positions()
    assert site.store.cursors.floor(site.bus.durable) <= site.host.position
    with pytest.raises(Misconfigured, match="E4030"):
        site.store.plan_rewind(RULES_CURSOR, Position(1), 0, "uid 7")
    await site.close()


async def test_a_damaged_state_lets_its_rule_begin_anew_and_no_other(tmp_path: Path) -> None:
    site = await open_site(tmp_path)
    for second in range(4):
        site.give(90.0, second)
    await site.settled()
    await site.host.stop()
    await site.store.wal.flush()
    site.store.disk.write([("meta", b"Rmean", b"rubbish")])
    await site.task
    await site.store.close()
    again = await open_site(tmp_path)
    assert again.store.books.rules.broken == ["mean"]
    await again.settled()
    assert isinstance(again.engine.entries[1].rule, AlarmRule)
    assert again.host.alarms()[0].state == "unack"
    await again.close()
