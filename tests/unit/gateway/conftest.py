"""Packages of a made-up plugin, a store that trusts who signs them, and a gateway whose devices use it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from framegate.config import load_tables
from framegate.config.history import read_texts
from framegate.contract.plugin import Manifest
from framegate.endpoint.clock import SystemClock
from framegate.gateway.apply import Applier
from framegate.gateway.home import Home
from framegate.gateway.plugins.desk import PluginDesk
from framegate.gateway.plugins.modules import forget_installed, load_installed
from framegate.gateway.wiring import Gateway
from framegate.package import publish
from framegate.package.discover import discover
from framegate.package.signature import key_id_of
from framegate.package.store import PluginStore
from framegate.package.trust import TrustedKey
from framegate.testing import plant
from framegate.testing.fakes import CollectingLog

DRIVER = '''
"""Tags that read as the version of the driver, and devices that a test can break: HOME says how, by name."""
import asyncio
import numpy as np
from framegate.contract.command import Outcome, WriteResult
from framegate.contract.errors import Misconfigured, NotConnected, NoReply
from framegate.contract.frame import Batch, uniform_quality, uniform_time
from acme.codec import VERSION

class Plan:
    def __init__(self, tags):
        self.tag = np.array([tag.id for tag in tags], np.int32)
        self.value = np.full(len(tags), VERSION, np.float64)

class Driver:
    OPEN = []     # every instance that is open, of this version

    def __init__(self, options):
        if options.get("limit", 0) > LIMIT:
            raise Misconfigured("options.limit is beyond what this version can")
    def plan(self, tags):
        return Plan(tags)
    async def open(self, context):
        self.context = context
        {open}
        self.OPEN.append(context.name)
    async def read(self, plan):
        now = self.context.clock.now_ns()
        {read}
        return [Batch(plan.tag, plan.value, uniform_quality(0), uniform_time(now), now)]
    async def write(self, commands):
        return [WriteResult(command.tag, Outcome.CONFIRMED) for command in commands]
    async def close(self):
        if self.context.name in self.OPEN:
            self.OPEN.remove(self.context.name)
LIMIT = {limit}
'''
CONNECTOR = """
from framegate.contract.errors import Misconfigured, NotConnected
from acme.codec import VERSION

class Connector:
    SENT = []     # by all instances of this version: first and last position of each window

    def __init__(self, options):
        pass
    async def open(self, context):
        {connect}
    async def send(self, window):
        self.SENT.append((window.first, window.last))
    async def close(self):
        pass
"""
BRIDGE = """
from framegate.contract.bridge import BridgeHealth
from framegate.contract.errors import Misconfigured
from acme.codec import VERSION

class Bridge:
    def __init__(self, options):
        pass
    def check(self, tags):
        pass
    async def open(self, context):
        {serve}
        context.home.mkdir(parents=True, exist_ok=True)
        (context.home / "version").write_text(str(VERSION))
    def update(self, batches):
        pass
    def health(self):
        return BridgeHealth(clients=VERSION)
    async def close(self):
        pass
"""
SCHEMA: Mapping[str, Any] = {"type": "object", "properties": {"limit": {"type": "integer"}}}


MANIFEST = """name = "acme"
api = 1
version = "{version}.0"
serial = {version}
summary = "made up"

[driver]
entry = "acme.driver:Driver"
schema = "driver.schema.json"

[connector]
entry = "acme.connector:Connector"

[bridge]
entry = "acme.bridge:Bridge"

[permissions]
network = "{network}"
"""


class Maker:
    """Makes signed packages of the plugin `acme`; what devices of a version read is its number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = Ed25519PrivateKey.generate()

    def trust(self, store: PluginStore) -> None:
        key = self._key.public_key()
        store.trust.add(TrustedKey(key_id_of(key), key, "Acme", ("acme",), ("driver", "connector", "bridge")))

    def package(
        self, version: int, *, open: str = "pass", read: str = "pass", limit: int = 100,  # noqa: A002 - the verb
        connect: str = "pass", serve: str = "pass", network: str = "handed", module: str = "",
    ) -> Path:  # fmt: skip
        """A package file. open, read, connect, serve: what is done in those verbs; module: when it is imported."""
        folder = self._folder / f"acme-{len(list(self._folder.iterdir()))}"
        driver = DRIVER.replace("{open}", open).replace("{read}", read).replace("{limit}", str(limit))
        files = {
            "driver.toml": MANIFEST.format(version=version, network=network),
            "driver.schema.json": json.dumps(SCHEMA),
            "acme/__init__.py": "",
            "acme/codec.py": f"VERSION = {version}\n{module}\n",
            "acme/connector.py": CONNECTOR.replace("{connect}", connect),
            "acme/bridge.py": BRIDGE.replace("{serve}", serve),
            "acme/driver.py": driver,
        }
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        publish.list_files(folder)
        publish.sign_folder(folder, self._key)
        return publish.pack(folder, folder)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    folder = tmp_path / "vendor"
    folder.mkdir()
    return Maker(folder)


@pytest.fixture
def store(tmp_path: Path, maker: Maker) -> PluginStore:
    """The plugins of the home in tmp_path, with version 1 of acme active."""
    store = PluginStore(tmp_path / "plugins")
    maker.trust(store)
    store.activate(store.stage(maker.package(1)))
    return store


DEVICES = 3


class House:
    """A gateway with devices of the plugin acme, version 1.

    manifests  of the versions that were staged, by version
    """

    def __init__(self, gateway: Gateway, applier: Applier, store: PluginStore, maker: Any, log: CollectingLog) -> None:
        self.gateway, self.applier, self.store, self.package, self.log = gateway, applier, store, maker.package, log
        self.desk = PluginDesk(gateway, applier, lambda: store)
        self.manifests = {1: gateway.plugins["acme"]}

    async def install(self, version: int, **how: Any) -> Any:
        staged = await self.stage(version, **how)
        return await self.desk.activate("acme", staged.accept, "anna")

    async def stage(self, version: int, by: str = "anna", **how: Any) -> Any:
        staged = await self.desk.stage(self.package(version, **how), by)
        self.manifests[version] = self.desk.waiting.get("acme").package.manifest  # type: ignore[union-attr]  # it was staged just now
        return staged

    def trashed(self) -> dict[str, str]:
        """Versions in the trash, and why."""
        return {thrown.folder.name.partition("-")[0]: thrown.reason for thrown in self.store.bin.thrown("acme")}

    def values(self) -> list[float]:
        """What the devices read last."""
        found = []
        for number in range(DEVICES):
            tag = self.gateway.store.catalogue.find(f"d{number}.t")
            reading = None if tag is None else self.gateway.bus.latest.value(tag.id)
            found.append(-1.0 if reading is None or reading[1] else float(reading[0]))  # type: ignore[arg-type]
        return found

    async def reads(self, version: int) -> None:
        await plant.until(lambda: self.values() == [version] * DEVICES, f"version {version} to be read")

    def open(self, manifest: Manifest) -> list[str]:
        """Devices that are open in a version."""
        return sorted(load_installed(manifest, "driver").OPEN)  # type: ignore[attr-defined]

    async def restart_desk(self) -> None:
        """As a start of the gateway finds its plugins."""
        await self.desk.close(1.0)
        self.desk = PluginDesk(self.gateway, self.applier, lambda: self.store)
        self.desk.begin()

    @property
    def health(self) -> Any:
        return self.gateway.runtime.health()


@pytest.fixture
def connectors() -> dict[str, str]:
    """Rows of a test's own."""
    return {}


@pytest.fixture
def bridges() -> str:
    return ""


@pytest.fixture
async def house(
    tmp_path: Path, store: PluginStore, maker: Any, connectors: dict[str, str], bridges: str
) -> AsyncIterator[House]:
    plant.write_config(
        tmp_path,
        endpoints={"spare": "url: 'memory://spare'"},
        drivers={f"d{i}": "plugin: acme, scan: {default: 50ms}, options: {limit: 50}" for i in range(DEVICES)},
        connectors=connectors,
        variables=[f"tag: d{i}.t, source: d{i}, address: 'x', type: float64" for i in range(DEVICES)],
    )
    with (tmp_path / "config" / "drivers.yml").open("a") as file:
        file.write(bridges)
    home, log = Home(tmp_path), CollectingLog()
    home.prepare()
    plugins = discover([], store)
    gateway = Gateway(home, load_tables(home.config, plugins), plugins, log, SystemClock())
    await gateway.start()
    applier = Applier(gateway)
    await applier.begin(read_texts(home.config))
    made = House(gateway, applier, store, maker, log)
    await made.reads(1)
    yield made
    await made.desk.close(1.0)
    await applier.close(1.0)
    await gateway.stop()
    for manifest in (*made.manifests.values(), *gateway.plugins.values()):
        forget_installed(manifest)
