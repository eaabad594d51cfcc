"""What tables cost at the command line: `edge check` with its lints, and sheets out and back, each from start to end.

Every figure is a run of `edge` in a process of its own, its start included: CPU seconds (user and system), wall seconds
and peak memory. The tables are those of a plant of Modbus devices with 250 registers each; every tenth tag reads what
the one before it reads, so that the lints have something to tell. The sheet that comes back changes the scale of
every row.

    python -m benches.tables [rows ...]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SIZES = (10_000, 100_000)
DEVICE_TAGS = 250


def write_tables(config: Path, rows: int) -> None:
    config.mkdir(parents=True)
    devices = -(-rows // DEVICE_TAGS)
    endpoints = "".join(
        f"  plc{n}: {{url: 'tcp://10.{n // 62500}.{n // 250 % 250}.{n % 250 + 1}:502'}}\n" for n in range(devices)
    )
    drivers = "".join(f"  d{n}: {{plugin: modbus, endpoint: plc{n}, scan: {{default: 1s}}}}\n" for n in range(devices))
    (config / "endpoints.yml").write_text(f"endpoints:\n{endpoints}", encoding="utf-8")
    (config / "drivers.yml").write_text(f"drivers:\n{drivers}", encoding="utf-8")
    with (config / "variables.yml").open("w", encoding="utf-8") as file:
        file.write("variables:\n")
        for row in range(rows):
            device, place = divmod(row, DEVICE_TAGS)
            register = 2 * (place - (place % 10 == 9))
            file.write(
                f"  - {{tag: line{device // 10}.d{device}.value{place}, source: d{device}, address: 'hr:{register}', "
                f"type: float32, unit: m3/h, scale: 0.1}}\n"
            )


def run(words: Sequence[str], home: Path, allowed: Sequence[int] = (0,)) -> dict[str, float]:
    """CPU and wall time of one command; raises CalledProcessError when it ends in another status than allowed."""
    command = [sys.executable, "-m", "framegate", *words, "--home", str(home)]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in allowed:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "wall_s": round(time.monotonic() - began, 2),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
    }


def figures_of(rows: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write_tables(home / "config", rows)
        found: dict[str, object] = {"rows": rows, "check": run(["check"], home)}
        variables = home / "config" / "variables.yml"
        for form in ("xlsx", "csv"):
            sheet = home / f"tags.{form}"
            found[f"export {form}"] = run(["export", str(sheet)], home)
            variables.write_text(variables.read_text("utf-8").replace("scale: 0.", "scale: 0.0"), encoding="utf-8")
            found[f"import {form}"] = run(["import", str(sheet), "--yes"], home)
    return found


def main() -> None:
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    print(json.dumps({"bench": "tables", "results": [figures_of(rows) for rows in sizes]}))


if __name__ == "__main__":
    main()
