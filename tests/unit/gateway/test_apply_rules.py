"""Rules change while the gateway runs: what they have counted goes on, and a change that fails puts them back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from framegate.config import load_tables
from framegate.config.history import read_texts
from framegate.config.schema import Table
from framegate.contract.errors import Misconfigured, StoreFailed
from framegate.endpoint.clock import SystemClock
from framegate.gateway.apply import Applier
from framegate.gateway.home import Home
from framegate.gateway.wiring import Gateway
from framegate.package.discover import discover
from framegate.testing import plant
from framegate.testing.fakes import CollectingLog
from framegate_plugins.modbus.simulator import start as start_plc

HIGH = b"  high: {kind: alarm, input: d0.t0, high: 20}\n"
TOTAL = b"  sum: {kind: window, input: 'd0.*', window: 1s, functions: [total], total: {of: counter}}\n"


class Site:
    """A gateway in this process, with an alarm that stands."""

    def __init__(self, gateway: Gateway, applier: Applier) -> None:
        self.gateway, self.applier = gateway, applier
        self.texts = read_texts(gateway.home.config)

    def texts_with(self, rules: bytes, more: bytes = b"") -> dict[Table, bytes]:
        drivers = self.texts["drivers"].split(b"rules:\n")[0] + b"rules:\n" + rules
        return {**self.texts, "drivers": drivers, "variables": self.texts["variables"] + more}

    def alarm(self) -> tuple[str, ...]:
        return tuple(alarm.state for alarm in self.gateway.rules.alarms("", 10))

    def value(self, name: str) -> Any:
        tag = self.gateway.store.catalogue.find(name)
        reading = None if tag is None else self.gateway.bus.latest.value(tag.id)
        return None if reading is None else reading[0]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    plc = await start_plc({"units": [1]})
    plc.units[1].hold[0] = 21
    plant.write_config(
        tmp_path,
        endpoints={"plc": f"url: '{plc.url}'"},
        drivers={"d0": "plugin: modbus, endpoint: plc, scan: {default: 50ms}"},
        connectors={},
        variables=["tag: d0.t0, source: d0, address: 'hr:0', type: int16"],
    )
    file = tmp_path / "config" / "drivers.yml"
    file.write_bytes(file.read_bytes().replace(b"connectors:\n", b"") + b"rules:\n" + HIGH)
    home, plugins = Home(tmp_path), discover([])
    home.prepare()
    gateway = Gateway(home, load_tables(home.config, plugins), plugins, CollectingLog(), SystemClock())
    await gateway.start()
    applier = Applier(gateway)
    await applier.begin(read_texts(home.config))
    made = Site(gateway, applier)
    await plant.until(lambda: made.alarm() == ("unack",), "the alarm")
    await made.gateway.rules.operate("high.high", "ack", "anna", "", 0.0)
    yield made
    await applier.close(1.0)
    await gateway.stop()
    await plc.close()


async def test_a_rule_that_comes_leaves_the_state_of_the_others(site: Site) -> None:
    await site.applier.submit(site.texts_with(HIGH + TOTAL), "anna", "a total", "api")
    assert site.alarm() == ("ack",)
    await plant.until(lambda: site.value("d0.t0.total") is not None, "the first window")
    more = b"  - {tag: d0.t1, source: d0, address: 'hr:1', type: int16}\n"
    await site.applier.submit(site.texts_with(HIGH + TOTAL, more), "anna", "a tag that the pattern matches", "api")
    await plant.until(lambda: site.value("d0.t1.total") is not None, "the pattern matches a new tag")
    assert site.alarm() == ("ack",)


async def test_a_rule_that_goes_is_forgotten_and_begins_anew(site: Site) -> None:
    await site.applier.submit(site.texts_with(TOTAL), "anna", "no alarm", "api")
    assert site.alarm() == ()
    await site.applier.submit(site.texts_with(HIGH), "anna", "an alarm again", "api")
    await plant.until(lambda: site.alarm() == ("unack",), "a new alarm")


async def test_a_rule_that_cannot_work_changes_nothing(site: Site) -> None:
    before = site.gateway.rules
    with pytest.raises(Misconfigured):
        await site.applier.submit(
            site.texts_with(HIGH + b"  bad: {kind: lua, file: gone.lua, inputs: [d0.t0]}\n"), "", "", "api"
        )
    assert site.gateway.rules is before
    assert site.alarm() == ("ack",)


async def test_a_change_that_fails_puts_the_rules_back(site: Site, monkeypatch: Any) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StoreFailed("the disk is full", code="E4034")

    monkeypatch.setattr(site.applier._history, "make_current", full)
    with pytest.raises(StoreFailed):
        await site.applier.submit(site.texts_with(TOTAL), "anna", "", "api")
    monkeypatch.undo()
    await plant.until(lambda: site.alarm() == ("ack",), "the alarm as it was")
    await site.applier.submit(site.texts_with(HIGH + TOTAL), "anna", "", "api")
    assert site.alarm() == ("ack",)


async def test_a_changed_script_takes_over_with_the_state_of_the_old_one(site: Site) -> None:
    rules = site.gateway.home.rules
    rules.mkdir()
    script = (
        "-- version: 1\noutputs = {{count = 'float64'}}\nstate = {{n = 0}}\n"
        "function on_frame(f) state.n = state.n + 1 return {{tag = 'count', value = {0} * state.n}} end\n"
    )
    (rules / "count.lua").write_text(script.format(1))
    texts = site.texts_with(HIGH + b"  n: {kind: lua, file: count.lua, inputs: [d0.t0]}\n")
    await site.applier.submit(texts, "anna", "a script", "api")
    await plant.until(lambda: (site.value("count") or 0) > 5, "the script counts")
    (rules / "count.lua").write_text("-- version: 1\nnonsense")
    await site.applier.take_files()
    assert "count.lua" in site.applier.health.problem
    (rules / "count.lua").write_text(script.format(-1))
    await site.applier.take_files()
    assert site.applier.health.problem == ""
    await plant.until(lambda: site.value("count") < -5, "the new script goes on where the old one stood")
    assert site.alarm() == ("ack",)
