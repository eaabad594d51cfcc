"""Connectors and bridges out of signed packages, from `edge publish` to a remote that takes their rows.

Their sources are in packages/. Receiver and client are plain sockets of the test's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from framegate.cli import exits
from framegate.cli.main import main
from framegate.cli.moment import moment
from framegate.gateway.home import Home
from framegate.observe.face import GatewayHealth
from framegate.observe.plugin_face import StagedRecord
from framegate.ops.client import ControlClient
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.ports import free_port
from framegate_plugins.modbus.simulator import Simulator as Plc

Run = Callable[[Path], subprocess.Popen[bytes]]
Ask = Callable[[Path], Awaitable[GatewayHealth]]
Start = Callable[..., Awaitable[Plc]]
SOURCES = Path(__file__).with_name("packages")
ROWS = 20
"""Rows that are waited for, of each version."""


class Vendor:
    """Publishes versions of the plugins in packages/, and installs them in one home as an operator does."""

    def __init__(self, home: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._folder, self._capsys = home, folder, capsys
        self._key = folder / "acme.key"

    async def edge(self, *words: str | Path) -> tuple[int, str]:
        """Exit code, and what was told."""
        self._capsys.readouterr()
        code = await asyncio.to_thread(main, [*map(str, words), "--home", str(self.home)])
        return code, "".join(self._capsys.readouterr())

    async def trusted_for(self, kind: str) -> None:
        assert main(["plugin", "keygen", str(self._key)]) == exits.OK
        words = ("--owner", "Acme", "--names", "acme-*", "--kinds", kind)
        code, _ = await self.edge("plugin", "trust", "add", self._key.with_suffix(".pub"), *words)
        assert code == exits.OK

    def publish(self, source: str, version: str, permissions: str = "") -> Path:
        folder = self._folder / f"{source}-{version}"
        shutil.copytree(SOURCES / source, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file in (folder / "driver.toml", folder / source / "__init__.py"):
            file.write_text(file.read_text().replace("1.0.0", version))
        with (folder / "driver.toml").open("a") as manifest:
            manifest.write(f"[permissions]\n{permissions}\n")
        assert main(["publish", str(folder), "--sign", str(self._key), "--to", str(self._folder)]) == exits.OK
        return self._folder / f"{source.replace('_', '-')}-{version}.edge"

    async def install(self, source: str, version: str) -> str:
        """Publish a version and install it; returns what was told."""
        code, told = await self.edge("plugin", "install", self.publish(source, version), "--yes")
        assert code == exits.OK, told
        return told

    async def is_refused_to_go(self, plugin: str, user: str) -> None:
        code, told = await self.edge("plugin", "remove", plugin, "--yes")
        assert (code, f"drivers.yml use it: {user};" in told, "E4659" in told) == (exits.FAILED, True, True), told

    def alter(self, source: str, file: str) -> None:
        """Change the active version's file behind the gateway's back; its size stays."""
        path = self.home / "plugins" / ".active" / source.replace("_", "-") / source / file
        path.write_bytes(path.read_bytes().replace(b"import", b"imqort", 1))


@pytest.fixture
def vendor(home: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]) -> Vendor:
    return Vendor(home, tmp_path_factory.mktemp("vendor"), capsys)


class Receiver:
    """The connector's remote: books every message and answers with its position.

    versions  messages by the version of the connector that sent them
    """

    def __init__(self) -> None:
        self.port, self.account, self.versions = free_port(), Account(), Counter[str]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                message = json.loads(line)
                self.account.take("", message["payload"].encode())
                self.versions[message["version"]] += 1
                writer.write(b"%d\n" % message["position"])

    async def rows_of(self, version: str) -> None:
        enough = self.versions[version] + ROWS
        await plant.until(lambda: self.versions[version] >= enough, f"rows by version {version}")

    def is_whole(self) -> bool:
        """Nothing is missing, nothing out of order, nothing twice with another content."""
        account = self.account
        return (account.lost(account.newest), account.out_of_order, account.conflicts) == (0, 0, 0)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", receiver.port, limit=1 << 20)
    yield receiver
    server.close()


def connector_tables(home: Path, plc: Plc, receiver: Receiver) -> None:
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc.url}'", "hub": f"url: 'tcp://127.0.0.1:{receiver.port}'"},
        drivers={"plc": "plugin: modbus, endpoint: plc, scan: {default: 50ms}"},
        connectors={"hub": "plugin: acme-link, endpoint: hub, encoding: json-batch"},
        variables=[f"tag: t{i}, source: plc, address: 'hr:{i}', type: int16" for i in range(5)],
    )


async def test_packaged_connector_delivers_and_its_versions_lose_nothing(
    *, home: Path, modbus: Start, run: Run, health: Ask, vendor: Vendor, receiver: Receiver
) -> None:
    connector_tables(home, await modbus(units=[1]), receiver)
    await vendor.trusted_for("connector")
    await vendor.install("acme_link", "1.0.0")
    gateway = run(home)
    await receiver.rows_of("1.0.0")
    assert "acme-link 1.1.0 is active and used by hub" in await vendor.install("acme_link", "1.1.0")
    await receiver.rows_of("1.1.0")
    assert (await vendor.edge("plugin", "rollback", "acme-link"))[0] == exits.OK
    await receiver.rows_of("1.0.0")
    assert receiver.is_whole()
    assert (await health(home)).devices[0].reconnects == 0
    await vendor.is_refused_to_go("acme-link", "hub")
    plant.stop_gateway(gateway)
    await vendor.is_refused_to_go("acme-link", "hub")
    vendor.alter("acme_link", "connector.py")
    code, told = await vendor.edge("check")
    assert (code, "E4613" in told) == (exits.MISCONFIGURED, True), told


async def test_package_that_waits_is_told_to_the_remote_and_outlives_a_kill(
    *, home: Path, modbus: Start, run: Run, health: Ask, vendor: Vendor, receiver: Receiver
) -> None:
    connector_tables(home, await modbus(units=[1]), receiver)
    await vendor.trusted_for("connector")
    await vendor.install("acme_link", "1.0.0")
    gateway = run(home)
    await receiver.rows_of("1.0.0")
    package = vendor.publish("acme_link", "1.1.0", "home = true")

    def stage() -> StagedRecord:
        with ControlClient(Home(home).socket) as client:
            return client.plugin_stage(package)

    shown = await asyncio.to_thread(stage)
    await plant.until(lambda: "alarm.plugins" in receiver.account.last, "the alarm to arrive")
    alarm = json.loads(receiver.account.last["alarm.plugins"].value)
    assert (alarm["plugin"], alarm["version"], alarm["state"]) == ("acme-link", "1.1.0", "active")
    gateway.kill()
    gateway.wait()
    package.unlink()
    run(home)
    await plant.eventually(lambda: health(home), lambda now: now.packages_waiting == 1, "the package to wait again")
    code, told = await vendor.edge("plugin", "ls")
    assert (code, f"waits since {moment(shown.since_ns)}, brought by local:uid" in told) == (exits.OK, True), told
    assert (await vendor.edge("plugin", "accept", "acme-link", "--yes"))[0] == exits.OK
    await receiver.rows_of("1.1.0")
    assert receiver.is_whole()


async def ask(port: int, line: str) -> Any:
    """The bridge's answer to one line; None while nobody is there."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            writer.write(line.encode() + b"\n")
            return json.loads(await asyncio.wait_for(reader.readline(), 10) or "null")
    return None


async def test_packaged_bridge_serves_what_was_signed_and_nothing_else(
    *, home: Path, modbus: Start, run: Run, health: Ask, vendor: Vendor
) -> None:
    plc, port = await modbus(units=[1]), free_port()
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc.url}'", "panel": f"url: 'tcp://127.0.0.1:{port}'"},
        drivers={"plc": "plugin: modbus, endpoint: plc, scan: {default: 50ms}"},
        connectors={},
        variables=["tag: speed, source: plc, address: 'hr:0', type: int16"],
    )
    with (home / "config" / "drivers.yml").open("a") as file:
        file.write("bridges: {panel: {plugin: acme-panel, endpoint: panel}}\n")
    await vendor.trusted_for("bridge")
    await vendor.install("acme_panel", "1.0.0")
    run(home)

    async def serves(version: str, value: int) -> int:
        """The process that serves in this version what the device says now."""
        plc.units[1].hold[0] = value
        told = await plant.eventually(
            lambda: ask(port, "who"), lambda told: told is not None and told[0] == version, f"version {version}"
        )
        assert told[2].startswith("/proc/self/fd/"), "its modules are read from the sealed copy"
        await plant.eventually(lambda: ask(port, "speed"), lambda speed: speed == value, "the device's value")
        return int(told[1])

    first = await serves("1.0.0", 11)
    assert "acme-panel 1.1.0 is active and used by panel" in await vendor.install("acme_panel", "1.1.0")
    second = await serves("1.1.0", 22)
    assert (await vendor.edge("plugin", "rollback", "acme-panel"))[0] == exits.OK
    third = await serves("1.0.0", 33)
    assert len({first, second, third}) == 3
    await vendor.is_refused_to_go("acme-panel", "panel")
    vendor.alter("acme_panel", "bridge.py")
    os.kill(third, signal.SIGKILL)
    now = await plant.eventually(
        lambda: health(home), lambda now: "E4613" in now.bridges[0].error, "altered code to be refused"
    )
    assert now.bridges[0].state == "backoff"
    assert await ask(port, "who") is None
