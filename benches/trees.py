"""Gateways of several source trees, and the bare loop, at once: before and after, on a busy machine.

Method. Each tree has a farm, a broker and tables of its own; all run at once and are read over the same intervals, so
that what the machine does meanwhile (its clock, other work) meets all of them. Printed per interval: CPU microseconds
per row acknowledged; at the end medians, the ratio to the first tree, and with --bare that to peers/bare.py, the floor.
Nothing checks what arrives: benches.gateway does.

    git worktree add /tmp/before HEAD~5
    python -m benches.trees /tmp/before . --tags 5000 --scan 100 --bare
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benches.rig import ACKED, HERE, Case, Gateway, Plant, child, cpu_s, plant, total

WARM_UP_S = 3.0


def started(stack: contextlib.ExitStack, tree: Path, case: Case) -> tuple[Gateway, Plant]:
    """A gateway of a tree, with its surroundings."""
    around = stack.enter_context(plant(case, is_counted=False))
    log = around.home / "log"
    out = stack.enter_context(log.open("w"))
    process = stack.enter_context(
        child(
            sys.executable, "-m", "framegate", "run", "--home", str(around.home),
            stderr=out, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree / "src")},
        )
    )  # fmt: skip
    gateway = Gateway(process, around.metrics_port, log)
    gateway.wait_for(ACKED, 1)
    return gateway, around


def bare(stack: contextlib.ExitStack, around: Plant, case: Case, scan_s: float) -> Callable[[], tuple[float, float]]:
    """The bare loop against the same farm and broker; returns what reads its CPU seconds, and rows by its rate."""
    work = (
        "--modbus-port", str(around.farm.ports[0]), "--mqtt-port", str(around.broker.port), "--devices",
        str(case.devices), "--ints", str(case.ints), "--floats", str(case.floats), "--scan", str(scan_s),
    )  # fmt: skip
    command = (sys.executable, str(HERE / "peers" / "bare.py"), *work)
    process = stack.enter_context(child(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def look() -> tuple[float, float]:
        if process.poll() is not None:
            sys.exit("the bare loop, which believes every answer, met one that came late; try again without --bare")
        return cpu_s(process.pid), time.monotonic() * case.tags / scan_s

    return look


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="+", type=Path)
    parser.add_argument("--tags", type=int, default=5_000)
    parser.add_argument("--scan", type=int, default=100, help="milliseconds")
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--encoding", choices=("json", "json-batch", "protobuf"), default="json-batch")
    parser.add_argument("--qos", type=int, choices=(0, 1, 2), default=1)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--intervals", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0)
    a = parser.parse_args()
    case = Case(a.tags, f"{a.scan}ms", a.devices, a.encoding, qos=a.qos)
    with contextlib.ExitStack() as stack:
        read: dict[str, Callable[[], tuple[float, float]]] = {}
        for tree in a.trees:
            gateway, around = started(stack, tree.resolve(), case)
            read[str(tree)] = lambda gateway=gateway: (gateway.cpu_s(), total(gateway.scrape(), ACKED))  # type: ignore[misc]
        if a.bare:
            read["bare"] = bare(stack, around, case, a.scan / 1000)
        time.sleep(WARM_UP_S)
        found: dict[str, list[float]] = {name: [] for name in read}
        for _ in range(a.intervals):
            before = {name: look() for name, look in read.items()}
            time.sleep(a.seconds)
            for name, look in read.items():
                cpu, rows = look()
                found[name].append(1e6 * (cpu - before[name][0]) / max(1.0, rows - before[name][1]))
            print(json.dumps({name: round(costs[-1], 3) for name, costs in found.items()}), flush=True)
    first = found[str(a.trees[0])]
    for name, costs in found.items():
        ratios = sorted(cost / base for cost, base in zip(costs, first, strict=True))
        figures: dict[str, object] = {
            "us_per_tag": round(statistics.median(costs), 3), "ratio": round(statistics.median(ratios), 3),
            "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)],
        }  # fmt: skip
        if a.bare:
            floors = [cost / floor for cost, floor in zip(costs, found["bare"], strict=True)]
            figures["times_bare"] = round(statistics.median(floors), 2)
        print(json.dumps({"bench": "trees", "tree": name, **figures}), flush=True)


if __name__ == "__main__":
    main()
