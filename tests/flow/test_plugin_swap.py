"""A signed package is dropped into the home of a running gateway: its version takes over and no row is missed.

The driver is the built-in Modbus driver, packaged under another name, against a simulated PLC on a real socket.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import framegate_plugins.modbus.driver as modbus_driver
from framegate.observe.face import GatewayHealth
from framegate.package import publish
from framegate.package.signature import key_id_of
from framegate.package.store import PluginStore
from framegate.package.trust import TrustedKey
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import Mosquitto
from framegate_plugins.modbus.simulator import Simulator as Plc

Run = Callable[[Path], subprocess.Popen[bytes]]
Start = Callable[..., Awaitable[Plc]]
Subscribe = Callable[..., Awaitable[Account]]
Ask = Callable[[Path], Awaitable[GatewayHealth]]
MODBUS = Path(modbus_driver.__file__).parent
MANIFEST = """name = "acme-modbus"
api = 1
version = "{version}"
summary = "Modbus"

[driver]
entry = "framegate_plugins.modbus.driver:ModbusDriver"
schema = "driver.schema.json"
endpoint = ["tcp"]
"""
BROKEN = """

async def _broken(self, plan):
    raise NoReply("this version does not know the device")

ModbusDriver.read = _broken
"""


class Vendor:
    """Publishes versions of one driver."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, Ed25519PrivateKey.generate()
        shutil.copytree(
            MODBUS, folder / "framegate_plugins" / "modbus", ignore=shutil.ignore_patterns("tests", "__pycache__")
        )
        shutil.copy(MODBUS / "driver.schema.json", folder)

    def trust(self, store: PluginStore) -> None:
        key = self.key.public_key()
        store.trust.add(TrustedKey(key_id_of(key), key, "Acme", ("acme-*",), ("driver",)))

    def package(self, version: str, more: str = "") -> Path:
        (self.folder / "driver.toml").write_text(MANIFEST.format(version=version))
        driver = (MODBUS / "driver.py").read_text()
        (self.folder / "framegate_plugins" / "modbus" / "driver.py").write_text(driver + more)
        publish.list_files(self.folder)
        publish.sign_folder(self.folder, self.key)
        return publish.pack(self.folder, self.folder)


@pytest.fixture
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    return Vendor(tmp_path_factory.mktemp("vendor") / "source")


async def test_dropped_version_takes_over_and_a_broken_one_is_taken_back(
    *, home: Path, modbus: Start, mosquitto: Mosquitto, subscribe: Subscribe, run: Run, health: Ask, vendor: Vendor
) -> None:
    plc = await modbus()
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc.url}'", "broker": f"url: 'tcp://127.0.0.1:{mosquitto.port}'"},
        drivers={f"d{i}": "plugin: acme-modbus, endpoint: plc, scan: {default: 50ms}" for i in range(3)},
        connectors={"cloud": "plugin: mqtt, endpoint: broker"},
        variables=[f"tag: d{i}.t, source: d{i}, address: 'hr:{i}', type: int16" for i in range(3)],
    )
    store, drops = PluginStore(home / "plugins"), home / "plugins" / "drivers"
    vendor.trust(store)
    store.activate(store.stage(vendor.package("1.0.0")))
    drops.mkdir()
    account = await subscribe(mosquitto.port)
    run(home)

    def versions(now: GatewayHealth) -> set[tuple[str, str]]:
        return {(device.version, device.state) for device in now.devices}

    await plant.eventually(lambda: health(home), lambda now: versions(now) == {("1.0.0", "active")}, "version 1")
    shutil.copy(vendor.package("1.1.0"), drops)
    now = await plant.eventually(
        lambda: health(home), lambda now: versions(now) == {("1.1.0", "active")}, "version 1.1"
    )
    assert {(device.scans_failed, device.reconnects) for device in now.devices} == {(0, 0)}
    await plant.until(lambda: not list(drops.iterdir()), "the dropped file to go")

    shutil.copy(vendor.package("1.2.0", BROKEN), drops)
    reason = drops / "acme-modbus-1.2.0.edge.refused.txt"
    await plant.until(reason.exists, "the broken version to be refused")
    told = reason.read_text()
    assert "d0, d1, d2" in told  # they share a line
    assert "this version does not know the device" in told
    after = await plant.eventually(
        lambda: health(home), lambda now: versions(now) == {("1.1.0", "active")}, "version 1.1 to serve"
    )
    assert {device.scans_failed for device in after.devices} == {0}
    assert {thrown.folder.name.partition("-")[0] for thrown in store.bin.thrown("acme-modbus")} == {"1.0.0", "1.2.0"}
    newest = account.newest
    await plant.until(lambda: account.newest > newest + 50, "more rows")
    assert account.lost(account.newest) == 0
    assert (account.out_of_order, account.conflicts) == (0, 0)
    assert not [frame for frame in account.of("d0.t") if frame.quality]
