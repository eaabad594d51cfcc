"""CPU of a whole gateway per million tags, with the durable log on: the product's main figure.

Method. The gateway is `edge run` in a process of its own. The device farm, mosquitto and the counting subscriber
are other processes and stay outside the figure. After a warm-up the harness reads the gateway's CPU time (user and
system, all threads, children included) and its counter of acknowledged rows, waits, and reads both again:

    us_per_tag = CPU microseconds / rows acknowledged by the broker        (= CPU seconds per million tags)

Half of each device's tags are int16, half float32. QoS 1 unless told otherwise; every commit is fsynced. The
subscriber checks that no position is missing and none arrives out of order.

    python benches/gateway.py --tags 50000 --scan 1s --encoding json-batch
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

HERE = Path(__file__).parent
START_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Case:
    """One measured situation."""

    tags: int
    scan: str
    devices: int
    encoding: str
    qos: int
    seconds: float
    warm_up: float
    inflight: int
    outage: float
    floats_only: bool


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def child(*command: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended when the block is left."""
    process = subprocess.Popen(command, text=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def start_broker(folder: Path, port: int, inflight: int) -> subprocess.Popen[str]:
    program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
    assert program, "this bench needs mosquitto (Debian package mosquitto)"
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages {inflight}\n"
        "max_queued_messages 0\nlog_type error\nset_tcp_nodelay true\n"
    )
    return subprocess.Popen([program, "-c", str(config)], text=True)


def write_tables(home: Path, case: Case, farm_ports: Sequence[int], broker_port: int, metrics_port: int) -> None:
    config = home / "config"
    config.mkdir(parents=True)
    per_device = case.tags // case.devices
    ints = 0 if case.floats_only else per_device // 2
    endpoints = [f"  plc{i}: {{url: 'tcp://127.0.0.1:{farm_ports[i]}'}}" for i in range(case.devices)]
    endpoints.append(f"  broker: {{url: 'tcp://127.0.0.1:{broker_port}'}}")
    (config / "endpoints.yml").write_text("endpoints:\n" + "\n".join(endpoints) + "\n")
    drivers = [
        f"  d{i}: {{plugin: modbus, endpoint: plc{i}, options: {{unit: 1}}, scan: {{default: {case.scan}}}}}"
        for i in range(case.devices)
    ]
    (config / "drivers.yml").write_text(
        f"gateway: {{name: bench, tenant: bench, metrics: '127.0.0.1:{metrics_port}'}}\ndrivers:\n"
        + "\n".join(drivers)
        + f"\nconnectors:\n  cloud: {{plugin: mqtt, endpoint: broker, encoding: {case.encoding}, "
        f"options: {{qos: {case.qos}}}}}\n"
    )
    with (config / "variables.yml").open("w") as out:
        out.write("variables:\n")
        for device in range(case.devices):
            for i in range(per_device):
                register, type_ = (i, "int16") if i < ints else (ints + 2 * (i - ints), "float32")
                out.write(f"  - {{tag: d{device}.t{i}, source: d{device}, address: 'hr:{register}', type: {type_}}}\n")


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    return {match[1]: float(match[2]) for match in re.finditer(r"^(edge_[^ #]+) ([0-9.e+-]+|NaN)$", text, re.MULTILINE)}


def total(samples: dict[str, float], name: str) -> float:
    return sum(value for key, value in samples.items() if key.split("{")[0] == name)


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def wait_for_rows(port: int, rows: float) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if total(scrape(port), ACKED) >= rows:
                return
        time.sleep(0.1)
    sys.exit("the gateway delivered nothing within the start deadline")


ACKED = "edge_outbox_acked_rows_total"


def run(case: Case) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        broker_port, metrics_port = free_port(), free_port()
        broker = start_broker(folder, broker_port, case.inflight)
        stack.callback(lambda: broker.poll() is None and broker.terminate())
        per_device = case.tags // case.devices
        ints = 0 if case.floats_only else per_device // 2
        farm = stack.enter_context(
            child(
                sys.executable, str(HERE / "farm.py"), "--ints", str(ints), "--floats", str(per_device - ints),
                "--devices", str(case.devices),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
        )  # fmt: skip
        assert farm.stdout is not None
        farm_ports = json.loads(farm.stdout.readline())["ports"]
        time.sleep(0.3)
        counter = stack.enter_context(
            child(
                sys.executable, str(HERE / "consumer.py"), "--port", str(broker_port), "--encoding", case.encoding,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
        )  # fmt: skip
        assert counter.stdout is not None
        assert counter.stdin is not None
        counter.stdout.readline()
        home = folder / "home"
        write_tables(home, case, farm_ports, broker_port, metrics_port)
        began = time.monotonic()
        gateway = stack.enter_context(
            child(sys.executable, "-m", "framegate", "run", "--home", str(home), stderr=(folder / "log").open("w"))
        )
        process = psutil.Process(gateway.pid)
        wait_for_rows(metrics_port, 1)
        first_s = time.monotonic() - began
        time.sleep(case.warm_up)
        before, cpu_before, at_before = scrape(metrics_port), cpu_seconds(process), time.monotonic()
        time.sleep(case.seconds)
        after, cpu_after, at_after = scrape(metrics_port), cpu_seconds(process), time.monotonic()
        memory = process.memory_info().rss / 2**20
        rows = total(after, ACKED) - total(before, ACKED)
        began = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        gateway.wait(20)
        stop_s = time.monotonic() - began
        time.sleep(0.5)
        counter.stdin.close()
        seen = json.loads(counter.stdout.readline())
        return {
            **asdict(case),
            "us_per_tag": round(1e6 * (cpu_after - cpu_before) / max(rows, 1), 3),
            "tags_per_s": round(rows / (at_after - at_before)),
            "core_share": round((cpu_after - cpu_before) / (at_after - at_before), 3),
            "rss_mib": round(memory, 1),
            "first_delivery_s": round(first_s, 2),
            "stop_s": round(stop_s, 2),
            "subscriber": seen,
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, default=50_000)
    parser.add_argument("--scan", default="1s")
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--encoding", default="json-batch")
    parser.add_argument("--qos", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=5.0)
    parser.add_argument("--inflight", type=int, default=1000, help="mosquitto's max_inflight_messages")
    parser.add_argument("--floats-only", action="store_true")
    arguments = vars(parser.parse_args())
    print(json.dumps(run(Case(outage=0.0, **arguments))))
