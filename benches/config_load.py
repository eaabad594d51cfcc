"""What loading the tables costs: CPU seconds, peak and retained memory, as one JSON line.

    python benches/config_load.py [rows]

Every size runs in a process of its own, because freed memory need not return to the system.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

from framegate.config import check_plugins, load_tables
from framegate.contract.driver import Driver
from framegate.contract.plugin import Manifest, Role, RoleEntry

SIZES = (10_000, 100_000)
TAGS_PER_DEVICE = 250
TAG_SCHEMA = {"type": "object", "properties": {"word_order": {"enum": ["big", "little"]}}}


def write_tables(folder: Path, rows: int, *, with_option: bool) -> None:
    devices = -(-rows // TAGS_PER_DEVICE)
    endpoints = "".join(f'  plc{n}: {{url: "tcp://10.0.{n // 250}.{n % 250 + 1}:502"}}\n' for n in range(devices))
    drivers = "".join(
        f"  mb{n}: {{plugin: modbus, endpoint: plc{n}, options: {{unit: 1}}, scan: {{default: 1s, fast: 100ms}}}}\n"
        for n in range(devices)
    )
    option = ", word_order: little" if with_option else ""
    (folder / "endpoints.yml").write_text(f"endpoints:\n{endpoints}", encoding="utf-8")
    (folder / "drivers.yml").write_text(f"drivers:\n{drivers}", encoding="utf-8")
    with (folder / "variables.yml").open("w", encoding="utf-8") as file:
        file.write("variables:\n")
        for n in range(rows):
            device, place = divmod(n, TAGS_PER_DEVICE)
            file.write(
                f"  - {{tag: line{device // 10}.dev{device}.value{place}, source: mb{device}, "
                f'address: "4x{place + 1:05d}", '
                f"type: float32, unit: m3/h, scale: 0.1, access: R, scan: fast{option}}}\n"
            )


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def measure(folder: Path, rows: int) -> dict[str, float]:
    schema = {"type": "object", "properties": {"unit": {"type": "integer"}}, "$defs": {"tag": TAG_SCHEMA}}
    roles: dict[Role, RoleEntry] = {"driver": RoleEntry("", schema, ("tcp",))}
    plugins = {"modbus": Manifest("modbus", (1, 1), "1", "", Path(), roles, ())}
    before, started = resident_mib(), time.process_time()
    tables = load_tables(folder, plugins)
    loaded = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    check_plugins(tables, lambda _: cast(Driver, _Driver()))
    checked = time.process_time()
    gc.collect()
    assert len(tables.variables) == rows
    return {
        "rows": rows,
        "load_cpu_s": round(loaded - started, 3),
        "check_cpu_s": round(checked - loaded, 3),
        "rss_before_mib": round(before, 1),
        "rss_peak_mib": round(peak, 1),
        "rss_retained_mib": round(resident_mib() - before, 1),
    }


class _Driver:
    """Takes every tag: the figures are the tables', not a plugin's."""

    def plan(self, tags: object) -> None: ...


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "measure":
        folder = Path(sys.argv[2])
        rows = int((folder / "rows").read_text(encoding="ascii"))
        print(json.dumps(measure(folder, rows)))
        return
    sizes = (int(sys.argv[1]),) if len(sys.argv) > 1 else SIZES
    results = []
    for rows in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_tables(folder, rows, with_option=True)
            (folder / "rows").write_text(str(rows), encoding="ascii")
            command = [sys.executable, __file__, "measure", name]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    print(json.dumps({"bench": "config_load", "results": results}))


if __name__ == "__main__":
    main()
