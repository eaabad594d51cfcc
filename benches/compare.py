"""Peers side by side in one run, as ratios: CPU microseconds per tag delivered, same farm, same broker, same tags.

Method. Each program in turn polls the farm and publishes at QoS 1; an independent client counts the values that reach
the broker. CPU time is that of the program and its children. The rate is one that every peer can carry; a peer that
delivers less than 95 % of it is marked, because waiting is cheap. The gateway keeps its durable log with fsync on; no
peer has one. Ratios are against the gateway in the same run.

    python -m benches.compare --tags 2000 --nodered /path/with/node_modules --thingsboard /path/to/venv

Node-RED: `npm install node-red@4 node-red-contrib-modbus@5.23.3` in the folder (later node-red-contrib-modbus need a
package that the npm registry does not have). ThingsBoard Gateway: `pip install thingsboard-gateway` in the venv. A
peer whose folder is not given is left out; the script of an afternoon (pymodbus and paho) and the bare loop always run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion

from benches.rig import HERE, Broker, Case, child, cpu_s, farm, say, write_tables
from framegate.testing.ports import free_port

START_DEADLINE_S = 120.0
SHORT_OF = 0.95  # a peer below this share of the asked rate is marked
MARKS = {"thingsboard": re.compile(rb'"t\d+":')}  # {"d0":[{"ts":...,"values":{"t0":1,"t1":2}}]}
FRAME_MARK = re.compile(rb'"tag"')
NO_LIMITS = {"messages": "0:0,", "telemetryMessages": "0:0,", "telemetryDataPoints": "0:0,"}
SESSION_LIMITS = {
    "maxPayloadSize": 65536,
    "maxInflightMessages": 1000,
    "rateLimits": NO_LIMITS,
    "gatewayRateLimits": NO_LIMITS,
}


class Values:
    """Counts values that reach the broker; answers the one question a ThingsBoard gateway asks at start."""

    def __init__(self, port: int) -> None:
        self.mark = FRAME_MARK
        self.count = 0
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = self._message
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("#", 0)
        self.client.loop_start()

    def begin(self, program: str) -> None:
        self.mark = MARKS.get(program, FRAME_MARK)
        self.count = 0

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        if "/rpc/request/" in message.topic:
            client.publish(message.topic.replace("request", "response"), json.dumps(SESSION_LIMITS))
        self.count += len(self.mark.findall(message.payload))


def tree(pid: int) -> Sequence[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def measure(
    program: str, command: Sequence[str], values: Values, case: Case, seconds: float, warm_up: float, folder: Path
) -> dict[str, object]:
    values.begin(program)
    with (folder / f"{program}.log").open("w") as log, child(*command, stdout=log, stderr=log) as process:
        deadline = time.monotonic() + START_DEADLINE_S
        while values.count < case.tags and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(warm_up)
        cpu, count, began = cpu_s(process.pid), values.count, time.monotonic()
        time.sleep(seconds)
        cpu, rows, took = cpu_s(process.pid) - cpu, values.count - count, time.monotonic() - began
        memory = sum(part.memory_info().rss for part in tree(process.pid)) / 2**20
    if not rows:
        sys.exit(f"{program} delivered nothing:\n{(folder / f'{program}.log').read_text()[-2000:]}")
    return {
        "us_per_tag": round(1e6 * cpu / rows, 2),
        "tags_per_s": round(rows / took),
        "rss_mib": round(memory),
    }


def commands(a: argparse.Namespace, case: Case, folder: Path, modbus: int, broker: int) -> Mapping[str, Sequence[str]]:
    python, peers = sys.executable, str(HERE / "peers")
    work = [
        "--modbus-port", str(modbus), "--mqtt-port", str(broker), "--devices", str(case.devices),
        "--ints", str(case.ints), "--floats", str(case.floats), "--scan", str(a.scan),
    ]  # fmt: skip
    found = {
        "framegate": [python, "-m", "framegate", "run", "--home", str(folder / "home")],
        "bare": [python, f"{peers}/bare.py", *work],
        "script": [python, f"{peers}/naive.py", *work],
    }
    if a.nodered:
        red = str(a.nodered / "node_modules" / "node-red" / "red.js")
        place = ["--program", red, "--modules", str(a.nodered)]
        found["nodered"] = [python, f"{peers}/nodered.py", str(folder / "nodered"), *place, *work]
    if a.thingsboard:
        place = ["--program", str(a.thingsboard / "bin" / "thingsboard-gateway")]
        found["thingsboard"] = [python, f"{peers}/thingsboard.py", str(folder / "thingsboard"), *place, *work]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, default=2000)
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--scan", type=float, default=1.0, help="seconds")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=5.0)
    parser.add_argument("--only", nargs="*", default=(), help="of these programs, for a short run")
    parser.add_argument("--nodered", type=Path)
    parser.add_argument("--thingsboard", type=Path)
    a = parser.parse_args()
    case = Case(a.tags, f"{round(a.scan * 1000)}ms", a.devices)
    asked = a.tags / a.scan
    with tempfile.TemporaryDirectory(prefix="edge-compare-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        broker = Broker(folder, case.inflight)
        stack.callback(broker.stop)
        broker.start()
        ports = stack.enter_context(farm(case)).ports
        values = Values(broker.port)
        stack.callback(values.close)
        write_tables(folder / "home", case, ports, broker.port, free_port())
        programs = {
            program: measure(program, command, values, case, a.seconds, a.warm_up, folder)
            for program, command in commands(a, case, folder, ports[0], broker.port).items()
            if not a.only or program in {"framegate", *a.only}
        }
    ours = float(str(programs["framegate"]["us_per_tag"]))
    for result in programs.values():
        result["ratio"] = round(float(str(result["us_per_tag"])) / ours, 1)
        result["is_short"] = float(str(result["tags_per_s"])) < SHORT_OF * asked
    say("compare", case, programs=programs)


if __name__ == "__main__":
    main()
