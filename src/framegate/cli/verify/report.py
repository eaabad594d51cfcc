"""What a campaign found: a table for people, one JSON record for everybody else, and the verdict in words."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from framegate import __version__
from framegate.cli.verify.campaign import Entry

COUNTS = ("rounds", "acknowledged", "lost", "duplicated", "out_of_order", "largest_gap")
VERDICT_STYLES = {"held": "green", "broken": "bold red", "skipped": "yellow"}


def verdict_of(entry: Entry) -> str:
    """held, broken or skipped."""
    if entry.result.broken:
        return "broken"
    return "skipped" if entry.result.skipped else "held"


def record_of(entries: Sequence[Entry], *, is_full: bool) -> dict[str, Any]:
    """The whole campaign as one JSON object; counts are of rows, times in seconds."""
    verdicts = {verdict_of(entry) for entry in entries}
    return {
        "verdict": next((verdict for verdict in ("broken", "held") if verdict in verdicts), "skipped"),
        "version": __version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "full": is_full,
        "experiments": [_row(entry) for entry in entries],
    }


def _row(entry: Entry) -> dict[str, Any]:
    found = asdict(entry.result)
    found["slowest_recovery_s"] = round(entry.result.slowest_recovery_s, 3)
    return {
        "name": entry.experiment.name,
        "promise": entry.experiment.promise,
        "verdict": verdict_of(entry),
        "seed": entry.seed,
        "took_s": round(entry.took_s, 1),
        **found,
    }


def words_of(entries: Sequence[Entry]) -> str:
    """The verdict as a sentence."""
    names = {kind: [e.experiment.name for e in entries if verdict_of(e) == kind] for kind in VERDICT_STYLES}
    if names["broken"]:
        text = f"Broken: {', '.join(names['broken'])}; run one again with --only NAME --seed {entries[0].seed}"
    elif names["held"]:
        rows = sum(entry.result.acknowledged for entry in entries)
        text = f"Every promise held over {rows:,} acknowledged rows"
    else:
        text = "Nothing was shown"
    if names["skipped"]:
        text += f"; not shown on this machine: {', '.join(names['skipped'])}"
    return f"{text}."


def table_of(entries: Sequence[Entry]) -> RenderableType:
    """The table, what each experiment counted besides, and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("EXPERIMENT")
    table.add_column("VERDICT")
    for name in (*COUNTS, "recovery_s"):
        table.add_column(name.replace("_", " ").upper(), justify="right")
    for entry in entries:
        verdict = verdict_of(entry)
        result = entry.result
        cells = [f"{getattr(result, name):,}" for name in COUNTS] + [f"{result.slowest_recovery_s:.2f}"]
        if verdict == "skipped":
            cells = ["-"] * len(cells)
        table.add_row(entry.experiment.name, Text(verdict, VERDICT_STYLES[verdict]), *cells)
    return Group(table, *_notes(entries), Text(words_of(entries), "bold"))


def _notes(entries: Sequence[Entry]) -> list[Text]:
    notes = []
    for entry in entries:
        name, result = entry.experiment.name, entry.result
        notes += [Text(f"{name}: BROKEN: {sentence}", "red") for sentence in result.broken]
        if result.skipped:
            notes.append(Text(f"{name}: skipped: {result.skipped}", "yellow"))
        if result.figures:
            notes.append(
                Text(f"{name}: " + ", ".join(f"{key} {_cell(value)}" for key, value in result.figures.items()))
            )
    return notes


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"


def show(console: Console, entries: Sequence[Entry]) -> None:
    console.print(table_of(entries), highlight=False)
