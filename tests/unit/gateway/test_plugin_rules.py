"""Rules whose modules come in packages: another version takes over between two batches, or changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from framegate.config import load_tables
from framegate.config.history import read_texts
from framegate.contract.errors import Misconfigured, StoreFailed
from framegate.endpoint.clock import SystemClock
from framegate.gateway.apply import Applier
from framegate.gateway.home import Home
from framegate.gateway.plugins.desk import PluginDesk
from framegate.gateway.wiring import Gateway
from framegate.package import publish
from framegate.package.discover import discover
from framegate.package.signature import key_id_of
from framegate.package.store import PluginStore
from framegate.package.trust import TrustedKey
from framegate.testing import plant
from framegate.testing.fakes import CollectingLog
from framegate_plugins.modbus.simulator import Simulator
from framegate_plugins.modbus.simulator import start as start_plc

wasmtime = pytest.importorskip("wasmtime", reason="sandboxed rules need the package wasmtime")
SUM = r"""(module
  (memory (export "memory") 1)
  (data (i32.const 64) "\08\00\00\00\00\04\00\00\00\08\00\00\00\0c\00\00\00\10\00\00\00\14\00\00")
  (data (i32.const 256) "\00\02\00\00\08\00\00\00")
  (func (export "edge_rule_api") (result i32) (i32.const 1))
  (func (export "edge_rule_buffer") (result i32) (i32.const 64))
  (func (export "edge_rule_state") (result i32) (i32.const 256))
  (func (export "edge_rule_batch") (param $rows i32) (result i32)
    (local $i i32) (local $sum f64)
    (loop $next
      (local.set $sum
        (f64.add (f64.load (i32.const 512)) (f64.load offset=4096 (i32.shl (local.get $i) (i32.const 3)))))
      (f64.store (i32.const 512) (local.get $sum))
      (f64.store offset=4096 (i32.shl (local.get $i) (i32.const 3)) (local.get $sum))
      (i32.store8 offset=5120 (local.get $i) (i32.const 1))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $rows))))
    (local.get $rows)))"""
"""Tells the sum of everything that ever came, with each row. 64: room for 8 rows, and the places of the columns; 256:
the state is 8 bytes at 512."""
VERSIONS = {
    "negative": SUM.replace("(i32.const 3)) (local.get $sum))", "(i32.const 3)) (f64.neg (local.get $sum)))"),
    "traps": SUM.replace("(loop $next", "(unreachable) (loop $next"),
    "other state": SUM.replace(r"\00\02\00\00\08", r"\00\02\00\00\10"),
    "other interface": SUM.replace("(result i32) (i32.const 1))", "(result i32) (i32.const 2))"),
}
MANIFEST = """name = "acme-total"
api = 1
version = "{version}.0.0"
summary = "adds up"

[rule]
shape = "wasm"
artifact = "plugin.wasm"
"""
ROWS = "rules:\n  total: {kind: wasm, plugin: acme-total, inputs: [d0.t0], outputs: {sum: float64}}\n"


class Vendor:
    """Makes packages of the rule."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, Ed25519PrivateKey.generate()

    def trust(self, store: PluginStore) -> None:
        key = self._key.public_key()
        store.trust.add(TrustedKey(key_id_of(key), key, "Acme", ("acme-*",), ("rule",)))

    def package(self, version: int, wat: str) -> Path:
        folder = self._folder / str(version)
        folder.mkdir(parents=True)
        (folder / "driver.toml").write_text(MANIFEST.format(version=version))
        (folder / "plugin.wasm").write_bytes(wasmtime.wat2wasm(wat))
        publish.list_files(folder)
        publish.sign_folder(folder, self._key)
        return publish.pack(folder, folder)


class Site:
    """A gateway whose rule is of acme-total 1.0.0.

    came  sum of all values that came to the bus;  told: sums that the rule told
    """

    def __init__(self, home: Home, vendor: Vendor, plc: Simulator) -> None:
        self.store, self.log = PluginStore(home.plugins), CollectingLog()
        vendor.trust(self.store)
        self.store.activate(self.store.stage(vendor.package(1, SUM)))
        plugins = discover([], self.store)
        self.gateway = Gateway(home, load_tables(home.config, plugins), plugins, self.log, SystemClock())
        self.applier = Applier(self.gateway)
        self.desk = PluginDesk(self.gateway, self.applier, lambda: self.store)
        self._vendor, self._plc = vendor, plc
        self.came, self.told = 0.0, list[float]()

    async def start(self) -> None:
        await self.gateway.start()
        self.gateway.bus.view(self._look)
        await self.applier.begin(read_texts(self.gateway.home.config))
        await self.tells(+1)

    async def stop(self) -> None:
        await self.desk.close(1.0)
        await self.applier.close(1.0)
        await self.gateway.stop()

    def _look(self, batches: Any) -> None:
        for batch in batches:
            for tag, value in zip(batch.tag.tolist(), batch.value.tolist(), strict=True):
                name = self.gateway.store.catalogue.tag(tag).name
                if name == "d0.t0":
                    self.came += value
                elif name == "sum":
                    self.told.append(value)

    async def install(self, version: int, what: str) -> Any:
        staged = await self.desk.stage(self._vendor.package(version, VERSIONS[what]), "anna")
        return await self.desk.activate("acme-total", staged.accept, "anna")

    async def tells(self, sign: int) -> None:
        """Return when the rule has told a sum of that sign."""
        known = len(self.told)
        await plant.until(lambda: any(sign * value > 0 for value in self.told[known:]), "the rule to tell")

    async def adds_up(self) -> None:
        """Every row was counted once, in whichever version."""
        self._plc.units[1].hold[0] = 0
        await plant.until(lambda: abs(self.told[-1]) == self.came, "the sum to be what came")

    @property
    def rule(self) -> Any:
        (health,) = self.gateway.rules.rules()
        return health


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    plc = await start_plc({"units": [1]})
    plc.units[1].hold[0] = 1
    plant.write_config(
        tmp_path,
        endpoints={"plc": f"url: '{plc.url}'"},
        drivers={"d0": "plugin: modbus, endpoint: plc, scan: {default: 20ms}"},
        connectors={},
        variables=["tag: d0.t0, source: d0, address: 'hr:0', type: int16"],
    )
    with (tmp_path / "config" / "drivers.yml").open("a") as file:
        file.write(ROWS)
    home = Home(tmp_path)
    home.prepare()
    site = Site(home, Vendor(tmp_path / "vendor"), plc)
    await site.start()
    yield site
    await site.stop()
    await plc.close()


async def test_another_version_goes_on_from_the_state_of_the_old_and_counts_each_row_once(site: Site) -> None:
    change = await site.install(2, "negative")
    assert (change.rules, change.devices) == (("total",), ())
    await site.tells(-1)
    change = await site.desk.roll_back("acme-total", "anna")
    assert change.version == "1.0.0"
    await site.tells(+1)
    await site.adds_up()
    sums = [abs(value) for value in site.told]
    assert sums == sorted(sums), "it never begins anew"
    assert (site.rule.faults, site.log.events("rule_anew"), site.log.events("rules_started")[1:]) == (0, [], [])


async def test_version_that_traps_fails_in_its_rehearsal_and_the_old_one_never_notices(site: Site) -> None:
    with pytest.raises(Misconfigured, match=r"rule total, in its rehearsal: .*E4562.*was stopped") as caught:
        await site.install(2, "traps")
    assert caught.value.stable_code == "E4653"
    await site.tells(+1)
    await site.adds_up()
    assert (site.rule.faults, site.rule.state, site.gateway.plugins["acme-total"].version) == (0, "running", "1.0.0")
    assert [thrown.folder.name.partition("-")[0] for thrown in site.store.bin.thrown("acme-total")] == ["2.0.0"]


async def test_version_that_cannot_be_made_is_refused_before_anything_is_touched(site: Site) -> None:
    with pytest.raises(Misconfigured, match=r"rule total: .*speaks version 2 of the interface of rules") as caught:
        await site.install(2, "other interface")
    assert caught.value.stable_code == "E4664"
    await site.adds_up()


async def test_version_with_another_state_begins_anew_and_says_so(site: Site) -> None:
    await site.install(2, "other state")
    (line,) = site.log.events("rule_anew")
    assert "has 8 bytes, and the module has room for 16" in line["reason"]
    await plant.until(lambda: sorted(site.told) != site.told, "a sum from the beginning")
    assert site.rule.faults == 0


async def test_disk_that_does_not_keep_the_version_the_old_one_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(staged: Any) -> Any:
        raise StoreFailed("no room", code="E4624")

    with monkeypatch.context() as patch:
        patch.setattr(site.store, "activate", full)
        with pytest.raises(StoreFailed):
            await site.install(2, "negative")
    await site.tells(+1)
    await site.adds_up()
    assert (site.rule.state, site.log.events("rule_anew")) == ("running", [])


async def test_rule_that_was_switched_off_is_on_again_with_another_version(site: Site) -> None:
    entry = site.gateway.rules.entry("total")
    assert entry is not None
    site.gateway.rules.host.engine._switch_off(entry)
    assert site.rule.state == "off"
    await site.install(2, "negative")
    await site.tells(-1)
    assert site.rule.state == "running"


async def test_remove_plugin_that_a_rule_runs_is_refused(site: Site) -> None:
    with pytest.raises(Misconfigured, match=r"E4659 .*use it: total;"):
        await site.desk.remove("acme-total", "anna")
    assert next(row.rules for row in site.desk.plugins() if row.name == "acme-total") == ("total",)
