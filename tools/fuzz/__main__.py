"""Runs campaigns from the command line; exit code 1 when something was found."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from typing import TextIO

from tools.fuzz.campaign import Campaign, keep
from tools.fuzz.targets import TARGETS, WORDS


def main() -> int:
    """Run the campaigns that the command line asks for."""
    options = _options()
    if options.list:
        _say("\n".join(TARGETS))
        return 0
    names = options.target or list(TARGETS)
    unknown = set(names) - set(TARGETS)
    if unknown:
        _say(f"no target {', '.join(sorted(unknown))}; one of {', '.join(TARGETS)}", sys.stderr)
        return 2
    found = 0
    for name in names:
        campaign = Campaign(TARGETS[name], options.seed, WORDS.get(name, ()))
        report = asyncio.run(campaign.run(options.cases, options.seconds))
        _say(
            f"{name:<22} seed {options.seed}  {report.cases:>9,} cases in {report.seconds:6.1f} s "
            f"({report.cases / report.seconds:>7,.0f}/s)  behaviours {report.shapes:>4}  slowest "
            f"{report.slowest_s * 1e3:6.1f} ms  allocation {report.largest:4.0%} of its bound  "
            f"faults {len(report.faults)}"
        )
        for kind, case in report.faults.items():
            _say(f"    {kind}: {case.hex()}")
        if options.keep:
            keep(name, "found", [(case, kind) for kind, case in report.faults.items()])
            keep(name, "corpus", [(case, "") for case in campaign.corpus()])
        found += len(report.faults)
    return 1 if found else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description="Fuzz what reads bytes from outside.")
    parser.add_argument("target", nargs="*", help="names as --list shows them; none: all of them")
    parser.add_argument("--list", action="store_true", help="show the targets")
    parser.add_argument("--cases", type=int, default=100_000, help="cases per target")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="time per target at most")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))  # noqa: S311 - told, to be repeated
    parser.add_argument("--keep", action="store_true", help="add what was found, and new behaviours, to tests/fuzz/")
    return parser.parse_args()


def _say(text: str, stream: TextIO = sys.stdout) -> None:
    print(text, file=stream, flush=True)


if __name__ == "__main__":
    sys.exit(main())
