"""A change is carried out whole or not at all: whatever fails half-way, what was there before goes on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from framegate.config import load_tables
from framegate.config.history import History, read_texts
from framegate.config.schema import Table
from framegate.contract.errors import Busy, Misconfigured, StoreFailed
from framegate.contract.frame import ValueType
from framegate.endpoint.clock import SystemClock
from framegate.gateway.apply import SWITCH_S, Applier, giving_way
from framegate.gateway.draft import DraftCatalogue
from framegate.gateway.home import Home
from framegate.gateway.wiring import Gateway
from framegate.package.discover import discover
from framegate.testing import plant
from framegate.testing.doors import MemoryAudit
from framegate.testing.fakes import CollectingLog
from framegate_plugins.modbus.simulator import start as start_plc
from framegate_plugins.mqtt.simulator import start as start_broker

TAGS = 5


class Site:
    """A gateway in this process, between simulators."""

    def __init__(self, gateway: Gateway, applier: Applier, log: CollectingLog) -> None:
        self.gateway, self.applier, self.log = gateway, applier, log
        self.texts = read_texts(gateway.home.config)

    def changed(self) -> dict[Table, bytes]:
        """d0 is scaled, d1 restarts, d2 is planned anew, d3 comes; the connector restarts."""
        drivers = self.texts["drivers"].replace(b"d1: {plugin: modbus", b"d1: {options: {unit: 2}, plugin: modbus")
        drivers = drivers.replace(b"connectors:", b"  d3: {plugin: modbus, endpoint: plc}\nconnectors:")
        drivers = drivers.replace(b"cloud: {", b"cloud: {batch: 7, ")
        variables = self.texts["variables"].replace(b"source: d0,", b"source: d0, scale: 2,")
        variables = variables.replace(
            b"tag: d2.t0, source: d2, address: 'hr:0'", b"tag: d2.t0, source: d2, address: 'hr:9'"
        )
        variables += b"  - {tag: d3.t0, source: d3, address: 'hr:0', type: int16}\n"
        return {**self.texts, "drivers": drivers, "variables": variables}

    async def all_active(self) -> None:
        slots = self.gateway.runtime.health
        await plant.until(lambda: all(slot.state.value == "active" for slot in slots()), "active devices")

    @property
    def value(self) -> Any:
        tag = self.gateway.store.catalogue.find("d0.t0")
        assert tag is not None
        reading = self.gateway.bus.latest.value(tag.id)
        return None if reading is None else reading[0]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    plc, broker = await start_plc({"units": [1, 2]}), await start_broker({})
    plc.units[1].hold[0] = 21
    plant.write_config(
        tmp_path,
        endpoints={"plc": f"url: '{plc.url}'", "broker": f"url: '{broker.url}'"},
        drivers={f"d{i}": "plugin: modbus, endpoint: plc, scan: {default: 50ms}" for i in range(3)},
        connectors={"cloud": "plugin: mqtt, endpoint: broker"},
        variables=[
            f"tag: d{d}.t{i}, source: d{d}, address: 'hr:{i}', type: int16" for d in range(3) for i in range(TAGS)
        ],
    )
    home, plugins, log = Home(tmp_path), discover([]), CollectingLog()
    home.prepare()
    gateway = Gateway(home, load_tables(home.config, plugins), plugins, log, SystemClock())
    await gateway.start()
    applier = Applier(gateway)
    made = Site(gateway, applier, log)
    await applier.begin(made.texts)
    yield made
    await applier.close(1.0)
    await gateway.stop()
    await broker.close()
    await plc.close()


async def test_submit_does_everything_the_plan_says_and_nothing_else(site: Site) -> None:
    await site.all_active()
    before = {slot.name: (slot.since_ns, slot.reconnects) for slot in site.gateway.runtime.health()}
    outbox = site.gateway.outboxes["cloud"]
    generation = await site.applier.submit(site.changed(), "anna", "because", "api")
    assert generation.number == 2
    await site.all_active()
    after = {slot.name: (slot.since_ns, slot.reconnects) for slot in site.gateway.runtime.health()}
    assert {name for name in before if after[name] == before[name]} == {"d0", "d2"}
    assert "d3" in after
    assert site.gateway.outboxes["cloud"] is not outbox
    await plant.until(lambda: site.value == 42, "the new scale")
    assert read_texts(site.gateway.home.config) == site.changed()
    assert (await site.applier.submit(site.changed(), "anna", "again", "file")).number == 2


class Trouble(Exception):
    pass


def fail_at_call(monkeypatch: Any, target: Any, name: str, call: int, error: Exception) -> None:
    """The n-th call of a method raises; calls after it work, because the undoing needs them."""
    real, calls = getattr(target, name), [0]

    def method(*words: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise error
        return real(*words, **more)

    monkeypatch.setattr(target, name, method)


@pytest.mark.parametrize(
    ("part", "name", "call", "error"),
    [
        (lambda site: site.gateway, "make_slot", 1, Trouble()),
        (lambda site: site.gateway, "make_slot", 2, Trouble()),
        (lambda site: site.gateway, "make_outbox", 1, Trouble()),
        (lambda site: site.gateway, "deliver", 1, Trouble()),
        (lambda site: site.gateway, "forget_tags", 1, Trouble()),
        (lambda site: site.gateway.bus, "swap_mapping", 1, Trouble()),
        (lambda site: site.gateway.runtime, "add", 2, Trouble()),
        (lambda _: History, "make_current", 1, StoreFailed("no room", code="E4034")),
        (lambda _: History, "write", 1, StoreFailed("no room", code="E4034")),
    ],
)
async def test_submit_that_fails_half_way_puts_everything_back(
    *, site: Site, monkeypatch: Any, part: Callable[[Site], Any], name: str, call: int, error: Exception
) -> None:
    await site.all_active()
    gateway = site.gateway
    tables, outline, mapping = gateway.tables, gateway.outline, gateway.bus.mapping
    scans = {slot: gateway.runtime.slot(slot).scans for slot in ("d0", "d1", "d2")}  # type: ignore[union-attr]
    with monkeypatch.context() as patch:
        fail_at_call(patch, part(site), name, call, error)
        with pytest.raises(type(error)):
            await site.applier.submit(site.changed(), "anna", "because", "api")
    assert (gateway.tables, gateway.outline, gateway.bus.mapping) == (tables, outline, mapping)
    assert {slot.name for slot in gateway.runtime.health()} == {"d0", "d1", "d2"}
    assert {slot: gateway.runtime.slot(slot).scans for slot in scans} == scans  # type: ignore[union-attr]
    assert list(gateway.outboxes) == ["cloud"]
    assert read_texts(gateway.home.config) == site.texts
    assert History(gateway.home.history).numbers() == [1]
    await site.all_active()
    await plant.until(lambda: gateway.outboxes["cloud"].health.state.value == "connected", "the connector")
    assert (await site.applier.submit(site.changed(), "anna", "now", "api")).number == 2
    await plant.until(lambda: site.value == 42, "the new scale")


async def test_submit_of_settings_of_the_process_is_refused_by_name(site: Site) -> None:
    drivers = site.texts["drivers"].replace(b"tenant: flow", b"tenant: other")
    with pytest.raises(Misconfigured, match=r"E4031 gateway\.tenant"):
        await site.applier.submit({**site.texts, "drivers": drivers}, "anna", "", "api")
    assert site.applier.health.problem == ""  # nothing is wrong with the files


async def test_submit_two_at_once_come_one_after_the_other(site: Site) -> None:
    other = {**site.texts, "variables": site.texts["variables"].replace(b"source: d0,", b"source: d0, scale: 3,")}
    made = await asyncio.gather(
        site.applier.submit(site.changed(), "anna", "", "api"), site.applier.submit(other, "bert", "", "api")
    )
    assert [(each.number, each.author) for each in made] == [(2, "anna"), (3, "bert")]
    await plant.until(lambda: site.value == 63, "the last scale")
    assert read_texts(site.gateway.home.config) == other


async def test_draft_ids_are_those_that_the_catalogue_gives(site: Site) -> None:
    catalogue = site.gateway.store.catalogue
    draft = DraftCatalogue(catalogue, len(catalogue) + 1)
    known = draft.intern("d0.t0", "d0", ValueType.INT16, "", "R")
    assert draft.is_empty
    new = [draft.intern(name, "d0", ValueType.INT16, "", "R") for name in ("x", "y", "x")]
    assert new == [len(catalogue) + 1, len(catalogue) + 2, len(catalogue) + 1]
    assert catalogue.find("x") is None
    await draft.enter()
    assert [catalogue.find(name).id for name in ("d0.t0", "x", "y")] == [known, *new[:2]]  # type: ignore[union-attr]
    late = DraftCatalogue(catalogue, len(catalogue) + 1)
    late.intern("z", "d0", ValueType.INT16, "", "R")
    catalogue.intern("somebody else", "d0", ValueType.INT16, "", "R")
    with pytest.raises(Busy, match="E4036"):
        await late.enter()


def test_giving_way_is_over_afterwards() -> None:
    before = sys.getswitchinterval()
    with giving_way():
        assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
    assert sys.getswitchinterval() == before


async def test_change_is_in_the_audit_log_before_it_is_carried_out_or_is_not_carried_out(site: Site) -> None:
    audit = MemoryAudit()
    site.gateway.audit = audit
    await site.applier.submit(site.changed(), "uid 1000", "pump 7", "file")
    assert audit.story == [("uid 1000", "config.apply", "generation 2", "begun")]
    site.gateway.audit = MemoryAudit(room=0)
    with pytest.raises(StoreFailed, match=r"^E4306 "):
        await site.applier.submit(site.texts, "uid 1000", "back", "file")
    assert site.applier.health.generation == 2
