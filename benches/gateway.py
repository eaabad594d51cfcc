"""CPU of a whole gateway per million tags, with the durable log on: the product's main figure.

Method. The gateway is `edge run` in a process of its own; see rig.py for what is counted and what stays outside.
After a warm-up the harness reads the gateway's CPU time and its counter of acknowledged rows, waits, and reads both
again; the readings themselves are outside the interval.

    us_per_tag = CPU microseconds / rows acknowledged by the broker        (= CPU seconds per million tags)

Half of each device's tags are int16, half float32. QoS 1 unless told otherwise; every commit is fsynced. The
subscriber checks that no position is missing, up to the last that the gateway calls acknowledged, and that none
arrives out of order.

    python -m benches.gateway --tags 50000 --scan 1s --encoding json-batch
    python -m benches.gateway --tags 100000 --floats-only            memory: rss_mib
    python -m benches.gateway --tags 100000 --devices 80 --scan 25ms --encoding protobuf --ceiling
"""

from __future__ import annotations

import argparse
import time

from benches.rig import ACKED, LAG, Case, Gateway, Plant, judged, plant, say, total

FULL_CORE = 0.95  # above this the gateway, not its surroundings, limits the rate


def measured(gateway: Gateway, surroundings: Plant, seconds: float) -> dict[str, object]:
    """Rates and costs over an interval."""
    before, others = gateway.scrape(), surroundings.surroundings_cpu_s()
    cpu, began = gateway.cpu_s(), time.monotonic()
    time.sleep(seconds)
    cpu, took = gateway.cpu_s() - cpu, time.monotonic() - began
    after, others_after = gateway.scrape(), surroundings.surroundings_cpu_s()
    rows = total(after, ACKED) - total(before, ACKED)
    skipped = total(after, "edge_scans_skipped_total") - total(before, "edge_scans_skipped_total")
    return {
        "us_per_tag": round(1e6 * cpu / max(rows, 1), 3),
        "tags_per_s": round(rows / took),
        "tags_per_core_s": round(rows / cpu),
        "core_share": round(cpu / took, 3),
        "other_core_shares": {name: round((others_after[name] - others[name]) / took, 3) for name in others},
        "scans_skipped": round(skipped),
        "lag_rows": round(total(after, LAG)),
        "latency_ms": latency_ms(before, after),
        "rss_mib": round(gateway.rss_mib(), 1),
        "rss_peak_mib": round(gateway.peak_mib(), 1),
    }


def latency_ms(before: dict[str, float], after: dict[str, float]) -> float:
    """Upper bound of the bucket that holds the median row, from the gateway's acceptance to the acknowledgement."""
    grown = sorted(
        (float(key.split('le="')[1].split('"')[0]), after[key] - before.get(key, 0.0))
        for key in after
        if key.startswith("edge_frame_latency_ms_bucket") and "+Inf" not in key
    )
    rows = max((count for _, count in grown), default=0.0)
    return next((bound for bound, count in grown if count >= 0.5 * rows), 0.0)


def run(case: Case, seconds: float, warm_up: float, *, is_ceiling: bool, is_counted: bool) -> None:
    with plant(case, is_pinned=is_ceiling, is_counted=is_counted) as surroundings:
        began = time.monotonic()
        with surroundings.gateway() as gateway:
            gateway.wait_for(ACKED, 1)
            first_s = time.monotonic() - began
            time.sleep(warm_up)
            figures = measured(gateway, surroundings, seconds)
            stop_s = gateway.stop()
        seen: dict[str, object] = {}
        if surroundings.counter is not None:
            seen = judged(gateway.acknowledged_position(), surroundings.counter.verdict())
    if is_ceiling:
        figures["is_core_full"] = float(str(figures["core_share"])) >= FULL_CORE
    say("gateway", case, **figures, first_delivery_s=round(first_s, 2), stop_s=round(stop_s, 2), subscriber=seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, default=50_000)
    parser.add_argument("--scan", default="1s")
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--encoding", choices=("json", "json-batch", "protobuf"), default="json-batch")
    parser.add_argument("--batch", type=int, default=32, help="frames per json-batch message")
    parser.add_argument("--qos", type=int, choices=(0, 1, 2), default=1)
    parser.add_argument("--floats-only", action="store_true")
    parser.add_argument("--store", default="", help="keys of the store table, such as 'durability: os'")
    parser.add_argument("--inflight", type=int, default=1000, help="mosquitto's max_inflight_messages")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=3.0)
    parser.add_argument("--ceiling", action="store_true", help="gateway on core 0, everything else on core 1")
    parser.add_argument("--no-subscriber", action="store_true", help="spare the other core; loss is not checked")
    a = parser.parse_args()
    case = Case(a.tags, a.scan, a.devices, a.encoding, a.batch, a.qos, a.floats_only, a.store, a.inflight)
    run(case, a.seconds, a.warm_up, is_ceiling=a.ceiling, is_counted=not a.no_subscriber)


if __name__ == "__main__":
    main()
