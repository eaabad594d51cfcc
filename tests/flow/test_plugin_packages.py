"""Packages in a gateway that runs: installed, upgraded and rolled back by `edge plugin`, as an operator does."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from framegate.cli import exits
from framegate.cli.main import main
from framegate.observe.face import GatewayHealth
from framegate.testing.plant import WAIT_S_MAX
from framegate.testing.ports import free_port

TEMPLATE = Path(__file__).resolve().parents[2] / "src" / "framegate_plugins" / "_template"
MANIFEST = """name = "acme-ramp"
api = 1
version = "{version}"
summary = "A ramp"

[driver]
entry = "acme_ramp.driver:RampDriver"
schema = "driver.schema.json"
"""

Health = Callable[[Path], Awaitable[GatewayHealth]]


def publish(folder: Path, key: Path, version: str, broken: str = "", asks: str = "") -> Path:
    source = folder / f"source-{version}"
    (source / "acme_ramp").mkdir(parents=True)
    (source / "driver.toml").write_text(f"{MANIFEST.format(version=version)}[permissions]\n{asks}\n")
    shutil.copy(TEMPLATE / "driver.schema.json", source)
    (source / "acme_ramp" / "driver.py").write_text((TEMPLATE / "driver.py").read_text() + broken)
    assert main(["publish", str(source), "--sign", str(key), "--to", str(folder)]) == exits.OK
    return folder / f"acme-ramp-{version}.edge"


async def edge(home: Path, *words: str | Path) -> int:
    return await asyncio.to_thread(main, [*map(str, words), "--home", str(home)])


async def waiting_is_accepted(home: Path, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A package that asks for more is dropped into the watched folder, waits, and is accepted."""
    (home / "plugins" / "drivers").mkdir(exist_ok=True)
    shutil.copy(package, home / "plugins" / "drivers")
    async with asyncio.timeout(WAIT_S_MAX):
        while await edge(home, "plugin", "accept", "acme-ramp", "--yes") != exits.OK:
            capsys.readouterr()
            await asyncio.sleep(0.2)
    assert "files: keeps some in a folder of its own" in capsys.readouterr().err


@pytest.mark.parametrize("isolation", ["none", "process"])
async def test_package_is_installed_upgraded_and_rolled_back_while_the_gateway_runs(
    home: Path, tmp_path: Path, run: Callable[[Path], subprocess.Popen[bytes]], health: Health,
    capsys: pytest.CaptureFixture[str], isolation: str,
) -> None:  # fmt: skip
    key = tmp_path / "acme.key"
    assert main(["plugin", "keygen", str(key)]) == exits.OK
    first, second = (publish(tmp_path, key, version) for version in ("1.0.0", "1.1.0"))
    third = publish(tmp_path, key, "1.2.0", broken="\nraise RuntimeError('it does not even load')\n")
    trust = ("plugin", "trust", "add", key.with_suffix(".pub"), "--owner", "Acme", "--names", "acme-*")
    assert await edge(home, *trust) == exits.OK
    assert await edge(home, "plugin", "install", first, "--yes") == exits.OK
    (home / "config").mkdir()
    (home / "config" / "endpoints.yml").write_text("endpoints: {}\n")
    (home / "config" / "drivers.yml").write_text(
        f"gateway: {{name: gw, tenant: t, metrics: '127.0.0.1:{free_port()}'}}\n"
        f"drivers:\n  ramp: {{plugin: acme-ramp, isolation: {isolation}, scan: {{default: 100ms}}}}\n"
    )
    (home / "config" / "variables.yml").write_text(
        "variables:\n  - {tag: ramp.a, source: ramp, address: ramp, type: float64}\n"
    )
    run(home)

    async def scans() -> int:
        async with asyncio.timeout(WAIT_S_MAX):
            while True:
                (device,) = (await health(home)).devices
                if device.scans_ok:
                    return device.scans_ok
                await asyncio.sleep(0.05)

    assert await scans() > 0
    assert await edge(home, "plugin", "install", second, "--yes") == exits.OK
    assert "acme-ramp 1.1.0 is active and used by ramp" in capsys.readouterr().err
    assert await scans() > 0
    assert await edge(home, "plugin", "install", third, "--yes") != exits.OK
    assert "it does not even load" in capsys.readouterr().err
    await waiting_is_accepted(home, publish(tmp_path, key, "1.1.1", asks="home = true"), capsys)
    assert await edge(home, "plugin", "install", first, "--yes") == exits.FAILED
    assert "E4616" in capsys.readouterr().err
    assert await edge(home, "plugin", "rollback", "acme-ramp") == exits.OK
    assert "acme-ramp 1.1.0 is active" in capsys.readouterr().err
    assert await edge(home, "plugin", "remove", "acme-ramp", "--yes") != exits.OK, "a device uses it"
    assert await edge(home, "plugin", "ls") == exits.OK
    assert '"version": "1.1.0"' in capsys.readouterr().out
    assert await scans() > 0
