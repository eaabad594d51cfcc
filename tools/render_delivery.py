"""Fills the tables of docs/explanation/delivery.md from what `edge verify-delivery --full --json FILE` found.

    python tools/render_delivery.py FILE...   take the experiments of these files over into delivery.json, and write
    python tools/render_delivery.py --check   say what is stale, exit 1

An experiment that is taken over replaces the one of its name; the others stay. The tables stand between markers:

    <!-- table: experiments -->   what each promised, and what became of the rows
    <!-- table: figures -->       what each counted besides
    <!-- /table -->
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "explanation"
PAGE, FOUND = FOLDER / "delivery.md", FOLDER / "delivery.json"
OF_THE_RUN = ("version", "python", "machine", "date", "full")
_TABLE = re.compile(r"(<!-- table: (?P<what>\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def merged(known: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> list[Mapping[str, Any]]:
    """The experiments known and those of some files, by name in the order in which they came."""
    found = {row["name"]: row for row in known}
    for file in files:
        record = json.loads(file.read_text(encoding="utf-8"))
        run = {key: record[key] for key in OF_THE_RUN}
        found |= {row["name"]: {**row, **run} for row in record["experiments"]}
    return list(found.values())


def rendered(text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The page as it ought to be."""
    tables = {"experiments": _experiments, "figures": _figures}
    return _TABLE.sub(lambda match: match[1] + "\n".join(tables[match["what"]](rows)) + "\n" + match[3], text)


def _experiments(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| experiment | promise | rounds | acknowledged | lost | repeated | out of order | largest gap | recovery | |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|---|"
    for row in rows:
        counts = [
            f"{row[key]:,}" for key in ("rounds", "acknowledged", "lost", "duplicated", "out_of_order", "largest_gap")
        ]
        recovery = f"{row['slowest_recovery_s']:.2f} s"
        if row["verdict"] == "skipped":
            counts, recovery = ["-"] * len(counts), "-"
        cells = [f"`{row['name']}`", row["promise"], *counts, recovery, row["verdict"]]
        yield f"| {' | '.join(map(_cell, cells))} |"


def _figures(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| experiment | counted besides | run |"
    yield "|---|---|---|"
    for row in rows:
        figures = "; ".join(f"{key}: {_value(value)}" for key, value in row["figures"].items())
        told = "; ".join(part for part in (*row["broken"], row["skipped"], figures) if part)
        run = f"{row['date']}, {row['machine']}, Python {row['python']}, seed {row['seed']}, {row['took_s']:,.0f} s"
        yield f"| `{row['name']}` | {_cell(told)} | {_cell(run)} |"


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def main(files: Sequence[Path], *, is_check: bool) -> int:
    """Write or compare; returns an exit code."""
    rows = merged(json.loads(FOUND.read_text(encoding="utf-8")), files)
    page = rendered(PAGE.read_text(encoding="utf-8"), rows)
    if is_check:
        if page != PAGE.read_text(encoding="utf-8"):
            sys.stderr.write(f"{PAGE.name} is stale; run python tools/render_delivery.py\n")
            return 1
        return 0
    FOUND.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("files", nargs="*", type=Path)
    words = parser.parse_args()
    sys.exit(main(words.files, is_check=words.check))
