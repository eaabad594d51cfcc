"""Versions of a plugin one after another under load: for how long devices are not scanned, and what rows notice of it.

Method. A driver is published as many times as there are swaps, each time as a newer version, signed by a key that the
gateway's home trusts. `edge run` scans Modbus devices with it and delivers to a broker; each version is staged and
activated over the control socket while the scans go on. The driver does the same in every version, so whatever is
missing is the swap's.

    gap_ms      longest time in which a device could not be scanned, by the gateway's own clock, of each swap
    swap_ms     from the request until the version is in force everywhere and durable; the canary is watched meanwhile
    skipped     scan periods that were not served, as a share of those that passed: with the swaps, and idle: in a time
                without any before them, on the same machine;  failed: scans that failed

The subscriber follows every position from the first to the last.

    python -m benches.plugin_swap                     Python, 100 swaps
    python -m benches.plugin_swap --shape native      the C sample, each device in a child
    python -m benches.plugin_swap --shape process     Python, each device in a child
    python -m benches.plugin_swap --shape wasm        a component in a sandbox
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benches.rig import ACKED, Case, Gateway, judged, plant, say, total
from framegate.gateway.home import Home
from framegate.gateway.plugins.ahead import compile_ahead
from framegate.observe.plugin_face import PluginChangeRecord
from framegate.ops.client import ControlClient
from framegate.package import publish
from framegate.package.signature import key_id_of
from framegate.package.store import PluginStore
from framegate.package.trust import TrustedKey

ROOT = Path(__file__).resolve().parents[1]
NAME = "swapped"
PERIOD_S = 0.1
IDLE_S = 20.0
SETTLE_ROWS = 2_000
PYTHON = """api = 1
summary = "The built-in Modbus driver, as a package"

[driver]
entry = "acme_modbus.driver:ModbusDriver"
schema = "driver.schema.json"
endpoint = ["tcp"]
"""


class Vendor:
    """Publishes one driver again and again."""

    def __init__(self, folder: Path, shape: str) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.folder = _python_source(folder) if shape in {"python", "process"} else _sample_source(folder, shape)
        self._manifest = (self.folder / "driver.toml").read_text()

    def trust(self, store: PluginStore) -> None:
        key = self.key.public_key()
        store.trust.add(TrustedKey(key_id_of(key), key, "bench", (NAME,), ("driver",)))

    def package(self, number: int) -> Path:
        lines = [
            line for line in self._manifest.splitlines() if not line.startswith(("name =", "version =", "serial ="))
        ]
        head = f'name = "{NAME}"\nversion = "1.0.{number}"\nserial = {number}\n'
        (self.folder / "driver.toml").write_text(head + "\n".join(lines) + "\n")
        publish.list_files(self.folder)
        publish.sign_folder(self.folder, self.key)
        return publish.pack(self.folder, self.folder)


def _python_source(folder: Path) -> Path:
    modbus = ROOT / "src" / "framegate_plugins" / "modbus"
    ignored = shutil.ignore_patterns("tests", "__pycache__")
    shutil.copytree(modbus, folder / "acme_modbus", ignore=ignored)
    for module in (folder / "acme_modbus").glob("*.py"):
        module.write_text(module.read_text().replace("framegate_plugins.modbus", "acme_modbus"))
    shutil.copy(modbus / "driver.schema.json", folder)
    (folder / "driver.toml").write_text(PYTHON)
    return folder


def _sample_source(folder: Path, shape: str) -> Path:
    """A sample of that shape, built where its law is found as in the repository."""
    sample = Path("examples") / "plugins" / {"native": "modbus-c", "wasm": "modbus-py"}[shape]
    shutil.copytree(ROOT / "contract", folder / "contract")
    shutil.copytree(ROOT / sample, folder / sample)
    command = ["make"] if (folder / sample / "Makefile").exists() else ["./build.sh"]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # componentize-py is there
    subprocess.run(
        command, cwd=folder / sample, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PATH": path}
    )
    return folder / sample


def name_the_plugin(home: Path, shape: str) -> None:
    drivers = home / "config" / "drivers.yml"
    isolation = ", isolation: process" if shape == "process" else ""
    drivers.write_text(drivers.read_text().replace("plugin: modbus,", f"plugin: {NAME}{isolation},"))
    if shape == "wasm":  # the sample spells addresses out
        variables = home / "config" / "variables.yml"
        variables.write_text(variables.read_text().replace("'hr:", "'holding:"))


def swaps(home: Home, packages: Sequence[Path]) -> list[PluginChangeRecord]:
    """What became of each."""
    changes = []
    with ControlClient(home.socket) as client:
        for package in packages:
            staged = client.plugin_stage(package)
            changes.append(client.plugin_activate(staged.name, staged.accept))
    return changes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("python", "process", "native", "wasm"), default="python")
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--tags", type=int, default=1_000)
    parser.add_argument("--devices", type=int, default=10)
    words = parser.parse_args()
    case = Case(tags=words.tags, devices=words.devices, scan=f"{PERIOD_S * 1000:.0f}ms")
    with plant(case) as surroundings:
        home = Home(surroundings.home)
        source = surroundings.home.parent / "vendor"
        source.mkdir()
        vendor, store = Vendor(source, words.shape), PluginStore(home.plugins)
        vendor.trust(store)
        compile_ahead(store.activate(store.stage(vendor.package(1))), home)  # as `edge plugin install` does
        packages = [vendor.package(number) for number in range(2, words.swaps + 2)]
        name_the_plugin(surroundings.home, words.shape)
        with surroundings.gateway() as gateway:
            gateway.wait_for(ACKED, SETTLE_ROWS)
            figures = measured(gateway, home, packages, case)
            figures["stop_s"] = round(gateway.stop(), 2)
            position = gateway.acknowledged_position()
        assert surroundings.counter is not None
        seen = judged(position, surroundings.counter.verdict())
    say("plugin_swap", replace(case), shape=words.shape, swaps=words.swaps, **figures, delivery=seen)


def measured(gateway: Gateway, home: Home, packages: Sequence[Path], case: Case) -> dict[str, Any]:
    idle = scanned(gateway, case, lambda: time.sleep(IDLE_S))
    changes: list[PluginChangeRecord] = []
    busy = scanned(gateway, case, lambda: changes.extend(swaps(home, packages)))
    return {
        "gap_ms": spread([change.gap_ms for change in changes]),
        "swap_ms": spread([change.duration_ms for change in changes]),
        **busy,
        "idle": idle,
        "rss_mib": round(gateway.rss_mib(), 1),
    }


def scanned(gateway: Gateway, case: Case, meanwhile: Callable[[], None]) -> dict[str, float]:
    """How scans did meanwhile."""
    before, began = gateway.scrape(), time.monotonic()
    meanwhile()
    after, took_s = gateway.scrape(), time.monotonic() - began

    def grown(name: str) -> float:
        return total(after, name) - total(before, name)

    return {
        "skipped": round(grown("edge_scans_skipped_total") / (case.devices * took_s / PERIOD_S), 5),
        "failed": grown("edge_scan_failures_total"),
        "reconnects": grown("edge_slot_reconnects_total"),
    }


def spread(figures: Sequence[float]) -> dict[str, float]:
    ordered = sorted(figures)
    return {
        "median": round(statistics.median(ordered), 3),
        "p99": round(ordered[int(0.99 * (len(ordered) - 1))], 3),
        "max": round(ordered[-1], 3),
    }


if __name__ == "__main__":
    main()
