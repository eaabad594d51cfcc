"""How long a write takes while the plant is polled: from the request over REST to the device's answer, durable.

Method. 100,000 int16 tags of 10 devices at 1 s, read by `edge run` with the durable log and fsync on; some of the tags
may be written. One client over HTTP, one request after the other, waits for each outcome (`?wait=`): three states are
on the disk by then. First single writes, each to another tag and device, then batches of 100 tags of one device, then
batches of 100 tags over all devices. Latency is the client's, wall time.

    scans_skipped, late_ticks   what polling noticed: periods that passed unread, ticks later than 50 ms

    python -m benches.commands
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx2

from benches.reload import late
from benches.rig import ACKED, Case, Gateway, gateway, judged, plant, say, total
from framegate.testing.plant import edge
from framegate.testing.ports import free_port

WRITABLE = 1_000
"""Tags of each device."""
BATCH = 100
BATCHES = 200
SINGLES = 1_000
PAUSE_S = 0.07
WAIT_S = 20.0


class Client:
    """Writes over the API of one gateway."""

    def __init__(self, port: int, token: str) -> None:
        self._http = httpx2.Client(
            base_url=f"http://127.0.0.1:{port}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=WAIT_S + 5.0,
            trust_env=False,
        )
        self.outcomes: dict[str, int] = {}
        self._values = itertools.count(1)

    def write(self, tag: str) -> float:
        """One write; milliseconds."""
        began = time.perf_counter()
        answer = self._http.put(f"/tags/{tag}?wait={WAIT_S:g}", json={"value": next(self._values) % 30_000})
        took = time.perf_counter() - began
        self._note(answer.json().get("outcome") or answer.text)
        return 1e3 * took

    def write_all(self, tags: Sequence[str]) -> float:
        """One batch; milliseconds."""
        body = [{"tag": tag, "value": next(self._values) % 30_000} for tag in tags]
        began = time.perf_counter()
        answer = self._http.put(f"/tags?wait={WAIT_S:g}", json=body)
        took = time.perf_counter() - began
        for item in answer.json()["items"]:
            self._note(item["command"]["outcome"])
        return 1e3 * took

    def _note(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


def allow_writes(home: Path, api: int) -> None:
    """The first tags of each device may be written, over an API."""
    drivers, variables = home / "config" / "drivers.yml", home / "config" / "variables.yml"
    listen = f"api: {{listen: '127.0.0.1:{api}'}}, name: bench"
    drivers.write_text(drivers.read_text().replace("name: bench", listen, 1))
    lines = variables.read_text().splitlines(keepends=True)
    variables.write_text("".join(map(_writable, lines)))


def _writable(line: str) -> str:
    number = line.partition("hr:")[2].partition("'")[0]
    return line.replace("}\n", ", access: RW}\n") if number and int(number) < WRITABLE else line


def paced(take: Callable[[int], float], number: int, pause_s: float) -> float:
    time.sleep(pause_s)
    return take(number)


def measured(running: Gateway, take: Callable[[int], float], count: int, pause_s: float) -> dict[str, object]:
    """So many writes, and what polling noticed meanwhile; the pause before each keeps within the asker's rate."""
    before, began = running.scrape(), time.monotonic()
    took = sorted(paced(take, number, pause_s) for number in range(count))
    seconds, after = time.monotonic() - began, running.scrape()
    skipped = "edge_scans_skipped_total"
    return {
        "mean_ms": round(statistics.fmean(took), 2),
        "p50_ms": round(took[len(took) // 2], 2),
        "p99_ms": round(took[int(0.99 * len(took))], 2),
        "max_ms": round(took[-1], 2),
        "tags_per_s": round((total(after, ACKED) - total(before, ACKED)) / seconds),
        "scans_skipped": total(after, skipped) - total(before, skipped),
        "late_ticks": late(before, after)[">50 ms"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, default=100_000)
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--scan", default="1s")
    words = parser.parse_args()
    case = Case(tags=words.tags, devices=words.devices, scan=words.scan)
    with plant(case) as surroundings:
        home, api = surroundings.home, free_port()
        allow_writes(home, api)
        token = edge("token", "add", "bench", "--role", "operator", "--home", str(home)).stdout.strip()
        with gateway(home, surroundings.metrics_port, surroundings.core) as running:
            running.wait_for(ACKED, 3 * case.tags)
            client = Client(api, token)
            tags = [[f"d{device}.t{i}" for i in range(WRITABLE // 2)] for device in range(case.devices)]
            spread = [tags[i % case.devices][i // case.devices] for i in range(len(tags) * len(tags[0]))]
            single = measured(running, lambda i: client.write(spread[i % len(spread)]), SINGLES, 0.0)
            one = measured(running, lambda i: client.write_all(tags[i % case.devices][:BATCH]), BATCHES, PAUSE_S)
            over = measured(running, lambda i: client.write_all(spread[i * BATCH % 1000 :][:BATCH]), BATCHES, PAUSE_S)
            running.stop()
        assert surroundings.counter is not None
        seen = judged(running.acknowledged_position(), surroundings.counter.verdict())
    figures = {"single": single, "batch of one device": one, "batch over all devices": over}
    say("commands", case, **figures, outcomes=client.outcomes, subscriber=json.loads(json.dumps(seen)))


if __name__ == "__main__":
    main()
