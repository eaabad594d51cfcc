"""Writes the table of latest figures into README.md, between its markers, from figures.json.

python -m benches.report            rewrite the table
python -m benches.report --check    exit 1 when it is not what figures.json says
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benches.suite import FIGURE_ROWS, Figure, taken

README = Path(__file__).parent / "README.md"
TABLE = re.compile(r"(<!-- figures: benches/report.py -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def value(line: Mapping[str, Any], path: str) -> float | None:
    """A number inside a line; None when that run did not take it."""
    found: Any = line
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return float(found)


def text(number: float) -> str:
    if number == int(number) or number >= 1000:
        return f"{number:,.0f}"
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"


def row(figure: Figure, runs: Sequence[Mapping[str, Any]]) -> str | None:
    # An outage's own figures say what was lost; of the others, a run with a loss is no figure.
    whole = [line for line in runs if line["bench"] == "outage" or value(line, "subscriber.is_complete") != 0.0]
    numbers = sorted(number for line in whole if (number := value(line, figure.field)) is not None)
    if not numbers:
        return None
    median = statistics.median(numbers)
    goal = ""
    if figure.goal is not None:
        is_met = median >= figure.goal if figure.is_floor else median <= figure.goal
        goal = f"{'≥' if figure.is_floor else '≤'} {text(figure.goal)}{'' if is_met else ' **missed**'}"
    spread = f"{text(numbers[0])} to {text(numbers[-1])}"
    label = figure.label + (f" ({len(runs) - len(whole)} incomplete run left out)" if len(whole) < len(runs) else "")
    return f"| {label} | {text(median)} | {spread} | {figure.unit} | {goal} |"


def busyness(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """How many runs each figure has, and how busy the machine was before them with other things."""
    counts = sorted({len(lines) for lines in runs.values()})
    loads = sorted(float(line["load_before"]) for lines in runs.values() for line in lines)
    return (
        f"{' or '.join(map(str, counts))} runs; load average before a run {loads[0]:.1f} to {loads[-1]:.1f}, "
        f"median {statistics.median(loads):.1f}"
    )


def table(figures: Mapping[str, Any]) -> str:
    facts, runs = figures["machine"], figures["runs"]
    head = (
        f"{facts['cores']} cores ({facts['processor']}, virtual), {facts['memory_gib']} GiB, "
        f"Linux {facts['kernel']}, Python {facts['python']}. Median and range of {busyness(runs)}.\n\n"
        "| what | median | range | unit | goal |\n|---|---:|---:|---|---|\n"
    )
    rows = [row(figure, runs.get(figure.command, ())) for figure in FIGURE_ROWS]
    return head + "\n".join(line for line in rows if line) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    is_check = parser.parse_args().check
    before = README.read_text(encoding="utf-8")
    after = TABLE.sub(lambda found: found[1] + table(taken()) + found[2], before)
    if not is_check:
        README.write_text(after, encoding="utf-8")
    elif after != before:
        sys.exit("benches/README.md does not show figures.json; run `python -m benches.report`")


if __name__ == "__main__":
    main()
