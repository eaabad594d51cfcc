"""Peers side by side in one run, as ratios: CPU microseconds per tag delivered, same farm, same broker, same tags.

Each program in turn polls the farm and publishes at QoS 1; a subscriber counts the values that reach the broker.

    python benches/compare.py --tags 5000 --scan 1 --nodered /path/with/node_modules --thingsboard /path/to/venv

Node-RED needs `npm install node-red node-red-contrib-modbus` in the given folder, ThingsBoard Gateway needs
`pip install thingsboard-gateway` in the given venv. A peer whose folder is not given is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as mqtt
import psutil
from gateway import Case, child, cpu_seconds, free_port, start_broker, write_tables

HERE = Path(__file__).parent
NO_LIMITS = {"messages": "0:0,", "telemetryMessages": "0:0,", "telemetryDataPoints": "0:0,"}
SESSION_LIMITS = {
    "maxPayloadSize": 65536,
    "maxInflightMessages": 1000,
    "rateLimits": NO_LIMITS,
    "gatewayRateLimits": NO_LIMITS,
}


@dataclass
class Values:
    """Counts values that reach the broker; answers the one question a ThingsBoard gateway asks at start."""

    port: int
    mark: bytes = b'"tag"'
    count: int = 0
    client: mqtt.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_message = self._message
        self.client.connect("127.0.0.1", self.port)
        self.client.subscribe("#", 0)
        self.client.loop_start()

    def _message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        if "/rpc/request/" in message.topic:
            client.publish(message.topic.replace("request", "response"), json.dumps(SESSION_LIMITS))
        self.count += message.payload.count(self.mark)


def tree(pid: int) -> Sequence[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def measure(name: str, command: Sequence[str], values: Values, case: Case, folder: Path) -> dict[str, object]:
    values.mark = b'":' if name == "thingsboard" else b'"tag"'
    values.count = 0
    with (folder / f"{name}.log").open("w") as log, child(*command, stdout=log, stderr=subprocess.STDOUT) as process:
        deadline = time.monotonic() + 120
        while values.count < case.tags and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(case.warm_up)
        cpu, count, began = sum(cpu_seconds(p) for p in tree(process.pid)), values.count, time.monotonic()
        time.sleep(case.seconds)
        cpu = sum(cpu_seconds(p) for p in tree(process.pid)) - cpu
        rows = max(1, values.count - count)
        memory = sum(p.memory_info().rss for p in tree(process.pid)) / 2**20
    took = time.monotonic() - began
    return {
        "name": name,
        "us_per_tag": round(1e6 * cpu / rows, 2),
        "tags_per_s": round(rows / took),
        "rss_mib": round(memory),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, default=5000)
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--scan", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--nodered", type=Path)
    parser.add_argument("--thingsboard", type=Path)
    a = parser.parse_args()
    case = Case(
        a.tags, f"{int(a.scan * 1000)}ms", a.devices, "json-batch", 1, a.seconds, 5.0, 1000, 0.0, floats_only=False
    )
    half = a.tags // a.devices // 2
    with tempfile.TemporaryDirectory(prefix="edge-compare-") as name, contextlib.ExitStack() as stack:
        folder, port = Path(name), free_port()
        broker = start_broker(folder, port, 1000)
        stack.callback(broker.terminate)
        farm = stack.enter_context(
            child(sys.executable, str(HERE / "farm.py"), "--ints", str(half), "--floats", str(half), "--devices", str(a.devices),
                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )  # fmt: skip
        assert farm.stdout is not None
        farm_ports = json.loads(farm.stdout.readline())["ports"]
        time.sleep(0.5)
        values = Values(port)
        write_tables(folder / "home", case, farm_ports, port, free_port())
        work = ["--modbus-port", str(farm_ports[0]), "--mqtt-port", str(port), "--devices", str(a.devices),
                "--ints", str(half), "--floats", str(half), "--scan", str(a.scan)]  # fmt: skip
        python, peers = sys.executable, str(HERE / "peers")
        commands = {
            "framegate": [python, "-m", "framegate", "run", "--home", str(folder / "home")],
            "naive script": [python, f"{peers}/naive.py", *work],
        }
        if a.nodered:
            red = str(a.nodered / "node_modules" / "node-red" / "red.js")
            commands["nodered"] = [python, f"{peers}/nodered.py", str(folder / "nodered"), "--program", red,
                                   "--modules", str(a.nodered), *work]  # fmt: skip
        if a.thingsboard:
            commands["thingsboard"] = [python, f"{peers}/thingsboard.py", str(folder / "tb"), "--program",
                                       str(a.thingsboard / "bin" / "thingsboard-gateway"), *work]  # fmt: skip
        results = [measure(name, command, values, case, folder) for name, command in commands.items()]
        ours = float(str(results[0]["us_per_tag"]))
        for result in results:
            result["ratio"] = round(float(str(result["us_per_tag"])) / ours, 1)
            print(json.dumps(result))


if __name__ == "__main__":
    main()
