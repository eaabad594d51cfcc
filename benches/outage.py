"""What an outage of the broker costs: nothing may be lost, memory must not grow with it, and the backlog must drain.

Method. 50,000 frames/s flow; mosquitto is stopped for a while and started again on the same port. Its own state
(sessions, in-flight messages) is kept over the stop, and the subscriber has a durable QoS 1 session, so that a row
missing at the subscriber is a row that the gateway lost. Peak memory is the kernel's high-water mark from just before
the outage to the end. The drain ends when less than one scan of all tags is left between log and acknowledgement.

    python -m benches.outage                    60 s
    python -m benches.outage --outage 10        the short variant
"""

from __future__ import annotations

import argparse
import sys
import time

from benches.rig import ACKED, LAG, Case, Gateway, judged, plant, say, total

SETTLE_S = 5.0
DRAIN_DEADLINE_S = 120.0
AFTER_S = 3.0  # of normal flow after the drain


def drained(gateway: Gateway, rows: int) -> float:
    """Seconds until less than `rows` wait."""
    began = time.monotonic()
    while time.monotonic() - began < DRAIN_DEADLINE_S:
        if total(gateway.scrape(), LAG) < rows:
            return time.monotonic() - began
        time.sleep(0.1)
    sys.exit("the backlog did not drain within its deadline")


def run(case: Case, outage: float) -> None:
    with plant(case, keeps_sessions=True) as surroundings:
        assert surroundings.counter is not None
        with surroundings.gateway() as gateway:
            gateway.wait_for(ACKED, 1)
            time.sleep(SETTLE_S)
            gateway.forget_peak()
            steady, before = gateway.rss_mib(), gateway.scrape()
            surroundings.broker.stop()
            time.sleep(outage)
            during, held = gateway.rss_mib(), gateway.scrape()
            peak_during = gateway.peak_mib()
            surroundings.broker.start()
            drain_s = drained(gateway, case.tags)
            drain_rows = total(gateway.scrape(), ACKED) - total(held, ACKED)
            time.sleep(AFTER_S)
            after, peak = gateway.scrape(), gateway.peak_mib()
            gateway.stop()
        seen = judged(gateway.acknowledged_position(), surroundings.counter.verdict())
    skipped = total(after, "edge_scans_skipped_total") - total(before, "edge_scans_skipped_total")
    say(
        "outage",
        case,
        outage_s=outage,
        backlog_rows=round(total(held, LAG)),
        drain_s=round(drain_s, 2),
        drain_rows_per_s=round(drain_rows / drain_s),
        scans_skipped=round(skipped),
        rss_steady_mib=round(steady, 1),
        rss_outage_mib=round(during, 1),
        rss_growth_mib=round(peak_during - steady, 1),
        rss_peak_mib=round(peak, 1),
        subscriber=seen,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outage", type=float, default=60.0)
    parser.add_argument("--tags", type=int, default=50_000)
    parser.add_argument("--scan", default="1s")
    parser.add_argument("--encoding", choices=("json", "json-batch", "protobuf"), default="json-batch")
    parser.add_argument("--ring-rows", type=int, default=262_144)
    a = parser.parse_args()
    run(Case(a.tags, a.scan, encoding=a.encoding, store=f"ring_rows: {a.ring_rows}"), a.outage)


if __name__ == "__main__":
    main()
