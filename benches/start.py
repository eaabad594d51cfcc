"""From `edge run` to the first value on the bus, and from SIGTERM to a clean end.

Method. Ten tags of one device, one home that is started again and again; the first round warms the caches and is not
counted. The clock starts before the process does and stops at the gateway's own time stamp of the first row it
accepted, which the protobuf encoding carries.

    python -m benches.start --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import time

from benches.rig import Case, plant, say, subscriber

RUN_S = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tags", type=int, default=10)
    a = parser.parse_args()
    case = Case(a.tags, devices=1, encoding="protobuf")
    first: list[float] = []
    stop: list[float] = []
    with plant(case, is_counted=False) as surroundings:
        for _ in range(a.rounds + 1):
            with subscriber(surroundings.broker.port, case.encoding) as counter:
                began_ns = time.time_ns()
                with surroundings.gateway() as gateway:
                    time.sleep(RUN_S)
                    stop.append(gateway.stop())
                # What the round before left in the log comes first; it was accepted before this start.
                times = [taken for taken in counter.verdict()["gateway_times"] if taken >= began_ns]
                first.append((min(times) - began_ns) / 1e9)
    say(
        "start", case, rounds=a.rounds, first_value_s=round(statistics.median(first[1:]), 3),
        first_value_s_max=round(max(first[1:]), 3), cold_first_value_s=round(first[0], 3),
        stop_s=round(statistics.median(stop[1:]), 3), stop_s_max=round(max(stop[1:]), 3),
    )  # fmt: skip


if __name__ == "__main__":
    main()
