"""A reload of the tag table under load: how long, at what cost, and what the rows on their way notice of it.

Method. 10,000 float32 tags of 20 devices at 200 ms are 50,000 tags/s. The tag table is replaced by rename, as editors
do it; the gateway is `edge run`, which notices by itself. First every row changes (another scale), then one row does,
then one row comes, moves and goes.

    apply_ms   from reading the files until the new tables are in force and durable, by the gateway's own clock
    noticed_ms from the rename until then: apply_ms, and the watch's quiet time before it
    cpu_ms     CPU of the process between the rename and that moment, less what it takes for the load alone
    pauses     ticks of the scan timer that were late by more than so many ms, in all reloads of a kind; `idle`: the
               same over an equal time without any reload

Sessions are the devices' and the connector's own counters, before and after. The subscriber follows every position.

    python -m benches.reload
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benches.rig import ACKED, Case, Gateway, judged, plant, say, total

RELOADS = 5
DEADLINE_S = 30.0
REST_S = 1.0
LATE_MS = (10, 25, 50, 100)
SESSIONS = ("edge_slot_reconnects_total", "edge_slot_restarts_total", "edge_outbox_reconnects_total")


class Table:
    """variables.yml of the bench's home, and the gateway's log beside it."""

    def __init__(self, home: Path) -> None:
        self.path = home / "config" / "variables.yml"
        self._log = home / "log"
        self.lines = self.path.read_text().splitlines(keepends=True)

    def replace(self, lines: Sequence[str]) -> float:
        """Put a new table in place; the wall time of the rename."""
        aside = self.path.with_name("variables.yml.tmp")
        aside.write_text("".join(lines))
        now = time.time()
        aside.rename(self.path)
        self.lines = list(lines)
        return now

    def applied(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if '"config_applied"' in line]


def rescaled(lines: Sequence[str], turn: int) -> list[str]:
    rows = [line.partition(", scale")[0].rstrip("}\n") for line in lines[1:]]
    return [lines[0], *(f"{row}, scale: {turn + 2}}}\n" for row in rows)]


def one_rescaled(lines: Sequence[str], turn: int) -> list[str]:
    return [*lines[:-1], *rescaled(["", lines[-1]], turn + 100)[1:]]


def one_more(lines: Sequence[str], turn: int) -> list[str]:
    return [*lines, f"  - {{tag: extra{turn}, source: d0, address: 'hr:0', type: int16}}\n"]


def one_less(lines: Sequence[str], _: int) -> list[str]:
    return list(lines[:-1])


KINDS: dict[str, Callable[[Sequence[str], int], list[str]]] = {
    "every row changes": rescaled,
    "one row changes": one_rescaled,
    "one row comes": one_more,
    "one row goes": one_less,
}


def reloads(gateway: Gateway, table: Table, kind: str, idle_share: float) -> dict[str, object]:
    """Several reloads of one kind."""
    apply_ms, noticed_ms, cpu_ms = [], [], []
    before = gateway.scrape()
    for turn in range(RELOADS):
        known, cpu = len(table.applied()), gateway.cpu_s()
        renamed = table.replace(KINDS[kind](table.lines, turn))
        deadline = time.monotonic() + DEADLINE_S
        while len(events := table.applied()) == known:
            assert time.monotonic() < deadline, "the reload did not come"
            time.sleep(0.005)
        took = time.time() - renamed
        cpu_ms.append(1000.0 * (gateway.cpu_s() - cpu - idle_share * took))
        apply_ms.append(float(events[-1]["duration_ms"]))
        noticed_ms.append(1000.0 * (datetime.fromisoformat(events[-1]["timestamp"]).timestamp() - renamed))
        time.sleep(REST_S)
    after = gateway.scrape()
    return {
        "apply_ms": spread(apply_ms),
        "noticed_ms": spread(noticed_ms),
        "cpu_ms": spread(cpu_ms),
        "late_ticks": late(before, after),
        "sessions": {name: total(after, name) - total(before, name) for name in SESSIONS},
        "scans_skipped": total(after, "edge_scans_skipped_total") - total(before, "edge_scans_skipped_total"),
    }


def spread(figures: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(figures), 1),
        "min": round(min(figures), 1),
        "max": round(max(figures), 1),
    }


def late(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Ticks later than each bound."""

    def grown(key: str) -> float:
        return after.get(key, 0.0) - before.get(key, 0.0)

    ticks = grown("edge_tick_lag_ms_count")
    return {f">{bound} ms": ticks - grown(f'edge_tick_lag_ms_bucket{{le="{float(bound)}"}}') for bound in LATE_MS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--scan", default="200ms")
    words = parser.parse_args()
    case = Case(tags=words.tags, devices=words.devices, scan=words.scan, floats_only=True)
    with plant(case) as surroundings:
        table = Table(surroundings.home)
        with surroundings.gateway() as gateway:
            gateway.wait_for(ACKED, 5 * case.tags)
            before, cpu, idle_s = gateway.scrape(), gateway.cpu_s(), RELOADS * REST_S
            time.sleep(idle_s)
            idle_share = (gateway.cpu_s() - cpu) / idle_s
            idle = gateway.scrape()
            tags_per_s = round((total(idle, ACKED) - total(before, ACKED)) / idle_s)
            found = {kind: reloads(gateway, table, kind, idle_share) for kind in KINDS}
            peak_mib = round(gateway.peak_mib(), 1)
            gateway.stop()
        assert surroundings.counter is not None
        seen = judged(gateway.acknowledged_position(), surroundings.counter.verdict())
    idle_figures = {"core_share": round(idle_share, 3), "late_ticks": late(before, idle)}
    say("reload", case, tags_per_s=tags_per_s, idle=idle_figures, **found, rss_peak_mib=peak_mib, subscriber=seen)


if __name__ == "__main__":
    main()
