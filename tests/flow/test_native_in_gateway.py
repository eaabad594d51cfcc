"""Signed drivers, native and in Python, and a built-in one apart, in a gateway that runs: killed, and back again."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import psutil
import pytest

from framegate.cli import exits
from framegate.cli.main import main
from framegate.observe.face import DeviceHealth, GatewayHealth
from framegate.testing import plant
from framegate_plugins.modbus.simulator import Simulator as Plc

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "src" / "framegate_plugins" / "_template"
APART = ("native", "apart", "ramp")
SAMPLE = ROOT / "examples" / "plugins" / "modbus-c"


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("make") is None or shutil.which("cc") is None:
        pytest.skip("make or cc is not installed")
    folder = tmp_path_factory.mktemp("project") / "modbus-c"
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns("*.so"))
    subprocess.run(["make", "-s", "-C", str(folder), f"LAW={ROOT / 'contract'}"], check=True)
    return folder


def install(projects: Sequence[Path], folder: Path, home: Path) -> None:
    key = folder / "maker.key"
    place = ("--home", str(home))
    assert main(["plugin", "keygen", str(key)]) == exits.OK
    trust = ["plugin", "trust", "add", str(key.with_suffix(".pub")), "--owner", "Maker", "--names", "modbus-*"]
    assert main([*trust, *place]) == exits.OK
    for project in projects:
        assert main(["publish", str(project), "--sign", str(key), "--to", str(folder)]) == exits.OK
    for package in folder.glob("*.edge"):
        assert main(["plugin", "install", str(package), "--yes", *place]) == exits.OK


def ramp_in(folder: Path) -> Path:
    """The project of a plugin in Python, which is the template under another name."""
    (folder / "ramp" / "acme_ramp").mkdir(parents=True)
    shutil.copy(TEMPLATE / "driver.schema.json", folder / "ramp")
    shutil.copy(TEMPLATE / "driver.py", folder / "ramp" / "acme_ramp")
    (folder / "ramp" / "driver.toml").write_text(
        'name = "modbus-ramp"\napi = 1\nversion = "1.0.0"\nsummary = "A ramp"\n\n'
        '[driver]\nentry = "acme_ramp.driver:RampDriver"\nschema = "driver.schema.json"\n'
    )
    return folder / "ramp"


async def test_killed_drivers_come_back_and_their_neighbour_does_not_notice(
    *, project: Path, tmp_path: Path, modbus: Callable[..., Awaitable[Plc]],
    run: Callable[[Path], subprocess.Popen[bytes]], health: Callable[[Path], Awaitable[GatewayHealth]],
) -> None:  # fmt: skip
    home = tmp_path / "home"
    home.mkdir()
    await asyncio.to_thread(install, [project, ramp_in(tmp_path)], tmp_path, home)
    plc = await modbus(units=[1, 2, 3])
    options = "endpoint: plc, scan: {default: 200ms}"
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc.url}'"},
        drivers={
            "native": f"plugin: modbus-c, options: {{unit: 1}}, {options}",
            "apart": f"plugin: modbus, isolation: process, options: {{unit: 2}}, {options}",
            "inside": f"plugin: modbus, options: {{unit: 3}}, {options}",
            "ramp": "plugin: modbus-ramp, isolation: process, scan: {default: 200ms}",
        },
        connectors={},
        variables=["tag: ramp, source: ramp, address: ramp, type: float64"]
        + [
            f"tag: {name}{number}, source: {name}, address: 'hr:{number}', type: int16"
            for name in ("native", "apart", "inside")
            for number in range(20)
        ],
    )
    gateway = run(home)

    async def devices() -> dict[str, DeviceHealth]:
        return {device.name: device for device in (await health(home)).devices}

    def are_active(now: dict[str, DeviceHealth]) -> bool:
        return [device.state for device in now.values()] == ["active"] * 4

    before = await plant.eventually(devices, are_active, "all to be active")
    assert [(before[name].shape, before[name].isolation) for name in (*APART, "inside")] == [
        ("native", "process"), ("python", "process"), ("python", "process"), ("python", "none"),
    ]  # fmt: skip
    children = psutil.Process(gateway.pid).children()
    assert len(children) == 3
    for child in children:
        child.send_signal(signal.SIGKILL)
    after = await plant.eventually(
        devices,
        lambda now: are_active(now) and [now[name].reconnects for name in APART] == [1, 1, 1],
        "all to be back",
    )
    assert after["inside"].scans_failed == 0
    assert after["inside"].scans_skipped == before["inside"].scans_skipped
    code, seconds = await asyncio.to_thread(plant.stop_gateway, gateway)
    assert code == 0
    assert seconds < 5.0
    assert not any(child.is_running() for child in children)
    assert "SIGKILL" in (home / "log").read_text()
