"""Every published figure: which command takes it, and which of its fields is shown. Runs them into figures.json.

Each command runs three times and the median is shown (report.py). Nothing else should run on the machine; the load
before each run is kept beside its figures.

    python -m benches.suite                           everything that is not a peer, about 12 minutes
    python -m benches.suite --only start --rounds 1   the rows whose name begins so
    python -m benches.suite --only peers --nodered FOLDER --thingsboard VENV
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent / "figures.json"
ROUNDS = 3
RUN_DEADLINE_S = 600.0


@dataclass(frozen=True)
class Figure:
    """One row of the report.

    field  dotted path in the line that the command prints
    goal   most (or, with is_floor, least) that is wanted; None: none was set
    """

    name: str
    label: str
    command: str
    field: str
    unit: str
    goal: float | None = None
    is_floor: bool = False


def _cost(name: str, label: str, arguments: str, goal: float | None = None) -> Figure:
    return Figure(f"cost {name}", label, f"benches.gateway {arguments}", "us_per_tag", "CPU µs per tag", goal)


def _ceiling(name: str, label: str, arguments: str) -> Figure:
    command = f"benches.gateway --ceiling {arguments}"
    return Figure(f"ceiling {name}", label, command, "tags_per_core_s", "tags/s on one core", 1_000_000, is_floor=True)


_SLOW = "50,000 tags at 1 s, 40 devices"
_FAST = "5,000 tags at 100 ms, 40 devices"
_TAGS_FAST = "--tags 5000 --scan 100ms"
_FULL = "more than one core can carry: 100,000 tags at 25 ms, 80 devices"
_TAGS_FULL = "--tags 100000 --devices 80 --scan 25ms"
_JSON = "benches.gateway --encoding json"
_MEMORY = "benches.gateway --tags 100000 --floats-only"
_OUTAGE = "benches.outage"
_START = "benches.start"
_PEERS = "benches.compare"
_BARE = "benches.compare --tags 5000 --devices 40 --scan 0.1 --only bare"
FIGURE_ROWS: Sequence[Figure] = (
    _cost("slow json-batch", f"{_SLOW}, json-batch, QoS 1", "", 1.2),
    _cost("slow json-batch qos 0", f"{_SLOW}, json-batch, QoS 0", "--qos 0"),
    _cost("slow protobuf", f"{_SLOW}, protobuf, QoS 1", "--encoding protobuf", 1.2),
    _cost("slow json", f"{_SLOW}, json (one message per tag), QoS 1", "--encoding json", 8.0),
    Figure("cost slow json rate", "the same: what got through", _JSON, "tags_per_s", "tags/s", 49_000, is_floor=True),
    _cost("slow json qos 0", f"{_SLOW}, json (one message per tag), QoS 0", "--encoding json --qos 0", 2.5),
    _cost("fast json-batch", f"{_FAST}, json-batch, QoS 1", _TAGS_FAST, 1.2),
    _cost("fast protobuf", f"{_FAST}, protobuf, QoS 1", f"{_TAGS_FAST} --encoding protobuf", 1.2),
    Figure("bare cost", f"{_FAST}: a bare loop, no log or checks", _BARE, "programs.bare.us_per_tag", "CPU µs per tag"),
    Figure("bare ratio", "the same beside Framegate in one run", _BARE, "programs.bare.ratio", "times Framegate"),
    _ceiling("protobuf", f"{_FULL}, protobuf", f"{_TAGS_FULL} --encoding protobuf"),
    _ceiling("json-batch", f"{_FULL}, json-batch of 1,000", f"{_TAGS_FULL} --batch 1000"),
    Figure("memory rss", "100,000 float32 tags at 1 s: resident", _MEMORY, "rss_mib", "MiB", 150),
    Figure("memory peak", "100,000 float32 tags at 1 s: peak, start included", _MEMORY, "rss_peak_mib", "MiB"),
    Figure("outage lost", "broker away 60 s at 50,000 frames/s: rows lost", _OUTAGE, "subscriber.lost", "rows", 0),
    Figure("outage late", "the same: rows out of order", _OUTAGE, "subscriber.out_of_order", "rows", 0),
    Figure("outage twice", "the same: rows delivered twice", _OUTAGE, "subscriber.duplicates", "rows"),
    Figure("outage skipped", "the same: scans skipped", _OUTAGE, "scans_skipped", "scans", 0),
    Figure("outage peak", "the same: peak memory", _OUTAGE, "rss_peak_mib", "MiB"),
    Figure("outage growth", "the same: growth of memory until the broker returned", _OUTAGE, "rss_growth_mib", "MiB"),
    Figure("outage drain", "the same: time to drain, scans going on", _OUTAGE, "drain_s", "s", 60),
    Figure("start first", "`edge run` to first value on the bus, 10 tags", _START, "first_value_s", "s", 1),
    Figure("start stop", "SIGTERM to a clean end, 10 tags", _START, "stop_s", "s", 2),
    Figure(
        "peers framegate",
        "2,000 tags at 1 s, 10 devices: Framegate, durable log on",
        _PEERS,
        "programs.framegate.us_per_tag",
        "CPU µs per tag",
    ),
    Figure("peers script", "the same: pymodbus and paho script", _PEERS, "programs.script.ratio", "times Framegate"),
    Figure("peers nodered", "the same: Node-RED", _PEERS, "programs.nodered.ratio", "times Framegate"),
    Figure(
        "peers thingsboard",
        "the same: ThingsBoard IoT Gateway",
        _PEERS,
        "programs.thingsboard.ratio",
        "times Framegate",
    ),
)


def machine() -> dict[str, object]:
    """What runs the benches, in general words."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "memory_gib": round(memory_gib),
        "python": platform.python_version(),
        "kernel": ".".join(platform.release().split(".")[:2]),
    }


def taken() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"machine": {}, "runs": {}}
    return found


def written(figures: dict[str, Any]) -> str:
    """JSON with one line per run, so that a change of figures is a change of lines."""
    commands = []
    for command, runs in figures["runs"].items():
        lines = ",\n".join(json.dumps(line) for line in runs)
        commands.append(f"{json.dumps(command)}: [\n{lines}\n]")
    return f'{{"machine": {json.dumps(figures["machine"])},\n"runs": {{\n' + ",\n".join(commands) + "\n}}\n"


def run(command: str, extra: Sequence[str]) -> dict[str, Any]:
    load = os.getloadavg()[0]
    module, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, *extra],
        capture_output=True, text=True, check=False, timeout=RUN_DEADLINE_S,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"{command}\n{done.stdout}{done.stderr}")
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"load_before": round(load, 2), **line}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--nodered", default="")
    parser.add_argument("--thingsboard", default="")
    a = parser.parse_args()
    peers = [word for key in ("nodered", "thingsboard") if getattr(a, key) for word in (f"--{key}", getattr(a, key))]
    wanted = [figure.command for figure in FIGURE_ROWS if figure.name.startswith(a.only)]
    if not peers and not a.only:
        wanted = [command for command in wanted if command != _PEERS]
    for command in dict.fromkeys(wanted):
        runs = []
        for _ in range(a.rounds):
            runs.append(run(command, peers if command == _PEERS else ()))
            print(json.dumps(runs[-1]), flush=True)
        figures = taken()
        figures["machine"] = machine()
        figures["runs"][command] = runs
        FIGURES.write_text(written(figures))


if __name__ == "__main__":
    main()
