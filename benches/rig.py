"""What the benches share: one gateway in a process of its own, and all it talks to in others.

The farm of devices, mosquitto and the counting subscriber are outside every figure. CPU time is the kernel's count
for the gateway's process, in nanoseconds, user and system, every thread, plus its living children. Rows are the
gateway's own counter of rows that the broker acknowledged; the subscriber holds that counter to account.
"""

from __future__ import annotations

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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from framegate.testing.ports import free_port

HERE = Path(__file__).parent
ACKED = "edge_outbox_acked_rows_total"
LAG = "edge_bus_lag"
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0
SAMPLE = re.compile(r"^(edge_[^ #]+) (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """The work: who is read how often, and how it is sent."""

    tags: int = 50_000
    scan: str = "1s"
    devices: int = 40
    encoding: str = "json-batch"
    batch: int = 32
    qos: int = 1
    floats_only: bool = False
    store: str = ""
    inflight: int = 1000

    @property
    def ints(self) -> int:
        """int16 tags of one device; the rest are float32."""
        return 0 if self.floats_only else self.tags // self.devices // 2

    @property
    def floats(self) -> int:
        return self.tags // self.devices - self.ints


@contextlib.contextmanager
def child(*command: str, core: int | None = None, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that ends with the block; `core` pins it. Compiled modules are kept, as an installation keeps them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    options.setdefault("env", environment)
    with subprocess.Popen(command, text=True, **options) as process:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        try:
            yield process
        finally:
            if process.stdin:
                process.stdin.close()
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children: those that run, and those that ended and were waited for."""
    # clock_getcpuclockid(3): the process's clock is ~pid << 3 | CPUCLOCK_SCHED, in nanoseconds; /proc/PID/stat has
    # hundredths of a second only.
    total = time.clock_gettime((~pid << 3) | 2)
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        total += process.cpu_times().children_user + process.cpu_times().children_system
        for running in process.children():
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                total += cpu_s(running.pid)
    return total


@dataclass
class Broker:
    """mosquitto, with one listener; it may be stopped and started again."""

    folder: Path
    inflight: int
    core: int | None = None
    keeps_sessions: bool = False
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
        assert program, "this bench needs mosquitto (Debian package mosquitto)"
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages {self.inflight}\n"
            "max_queued_messages 0\nlog_type error\nset_tcp_nodelay true\n"
            + (f"persistence true\npersistence_location {self.folder}/\nuser root\n" if self.keeps_sessions else "")
        )
        with (self.folder / "mosquitto.log").open("a") as log:
            self.process = subprocess.Popen([program, "-c", str(config)], text=True, stdout=log, stderr=log)
        if self.core is not None:
            os.sched_setaffinity(self.process.pid, {self.core})
        self._wait_until_open()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(STOP_DEADLINE_S)
            self.process = None

    def _wait_until_open(self) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return
            time.sleep(0.02)
        sys.exit("mosquitto did not open its port")


def line_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line a child prints, as JSON."""
    assert process.stdout is not None
    answer = json.loads(process.stdout.readline())
    assert isinstance(answer, dict)
    return answer


@dataclass(frozen=True)
class Farm:
    """Devices: one port each."""

    process: subprocess.Popen[str]
    ports: Sequence[int]


@contextlib.contextmanager
def farm(case: Case, core: int | None = None) -> Iterator[Farm]:
    """A farm that has the case's registers."""
    numbers = ("--ints", str(case.ints), "--floats", str(case.floats), "--devices", str(case.devices))
    command = (sys.executable, str(HERE / "farm.py"), *numbers)
    with child(*command, core=core, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Farm(process, line_of(process)["ports"])


class Subscriber:
    """The counting subscriber; `verdict` ends it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert line_of(process) == {"ready": True}

    def verdict(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return line_of(self.process)


@contextlib.contextmanager
def subscriber(port: int, encoding: str, *flags: str, core: int | None = None) -> Iterator[Subscriber]:
    command = (sys.executable, str(HERE / "consumer.py"), "--port", str(port), "--encoding", encoding, *flags)
    with child(*command, core=core, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Subscriber(process)


def write_tables(home: Path, case: Case, farm_ports: Sequence[int], broker_port: int, metrics_port: int) -> None:
    config = home / "config"
    config.mkdir(parents=True)
    endpoints = [f"  plc{i}: {{url: 'tcp://127.0.0.1:{farm_ports[i]}'}}" for i in range(case.devices)]
    endpoints.append(f"  broker: {{url: 'tcp://127.0.0.1:{broker_port}'}}")
    (config / "endpoints.yml").write_text("endpoints:\n" + "\n".join(endpoints) + "\n")
    drivers = [
        f"  d{i}: {{plugin: modbus, endpoint: plc{i}, options: {{unit: 1}}, scan: {{default: {case.scan}}}}}"
        for i in range(case.devices)
    ]
    (config / "drivers.yml").write_text(
        f"gateway: {{name: bench, tenant: bench, metrics: '127.0.0.1:{metrics_port}', store: {{{case.store}}}}}\n"
        "drivers:\n" + "\n".join(drivers) + f"\nconnectors:\n  cloud: {{plugin: mqtt, endpoint: broker, "
        f"encoding: {case.encoding}, batch: {case.batch}, options: {{qos: {case.qos}}}}}\n"
    )
    with (config / "variables.yml").open("w") as out:
        out.write("variables:\n")
        for device in range(case.devices):
            for i in range(case.ints + case.floats):
                is_int = i < case.ints
                register, type_ = (i, "int16") if is_int else (case.ints + 2 * (i - case.ints), "float32")
                out.write(f"  - {{tag: d{device}.t{i}, source: d{device}, address: 'hr:{register}', type: {type_}}}\n")


class Gateway:
    """`edge run` of one home."""

    def __init__(self, process: subprocess.Popen[str], metrics_port: int, log: Path) -> None:
        self.process, self._metrics_port, self._log = process, metrics_port, log

    @property
    def pid(self) -> int:
        return self.process.pid

    def scrape(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        return {found[1]: float(found[2]) for found in SAMPLE.finditer(text)}

    def wait_for(self, name: str, least: float) -> None:
        """Until the sum of a metric's series has reached `least`."""
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if total(self.scrape(), name) >= least:
                    return
            time.sleep(0.1)
        sys.exit(f"the gateway did not come to {name} {least:g}:\n{self._log.read_text()[-3000:]}")

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def rss_mib(self) -> float:
        return float(psutil.Process(self.pid).memory_info().rss) / 2**20

    def peak_mib(self) -> float:
        """Most resident memory since start or forget_peak()."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM

    def stop(self) -> float:
        """Ask for a stop; the seconds it took. A stop that is not clean ends the bench."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_DEADLINE_S)
        took = time.monotonic() - began
        if code != 0:
            sys.exit(f"the gateway stopped with exit code {code}:\n{self._log.read_text()[-3000:]}")
        return took

    def acknowledged_position(self) -> int:
        """What the gateway says at its stop: every row up to this position was acknowledged."""
        for line in reversed(self._log.read_text().splitlines()):
            if "outbox_stopped" in line:
                return int(json.loads(line)["position"])
        return 0


@contextlib.contextmanager
def gateway(home: Path, metrics_port: int, core: int | None = None) -> Iterator[Gateway]:
    log = home / "log"
    with log.open("w") as out, child(
        sys.executable, "-m", "framegate", "run", "--home", str(home), core=core, stderr=out
    ) as process:  # fmt: skip
        yield Gateway(process, metrics_port, log)


def total(samples: dict[str, float], name: str) -> float:
    return sum(value for key, value in samples.items() if key.split("{")[0] == name)


@dataclass
class Plant:
    """Farm, broker and subscriber up, tables written; the gateway is still to be started."""

    home: Path
    metrics_port: int
    broker: Broker
    farm: Farm
    counter: Subscriber | None
    core: int | None

    def surroundings_cpu_s(self) -> dict[str, float]:
        """CPU seconds of what is outside the figure: it must not be what limits it."""
        found = {"farm": cpu_s(self.farm.process.pid)}
        if self.broker.process is not None:
            found["broker"] = cpu_s(self.broker.process.pid)
        if self.counter is not None:
            found["subscriber"] = cpu_s(self.counter.process.pid)
        return found

    def gateway(self) -> contextlib.AbstractContextManager[Gateway]:
        return gateway(self.home, self.metrics_port, self.core)


@contextlib.contextmanager
def plant(
    case: Case, *, is_pinned: bool = False, is_counted: bool = True, keeps_sessions: bool = False
) -> Iterator[Plant]:
    """Everything but the gateway; `is_pinned` leaves the gateway one core and everything else another."""
    ours, theirs = (0, 1) if is_pinned else (None, None)
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        broker = Broker(folder, case.inflight, theirs, keeps_sessions)
        stack.callback(broker.stop)
        broker.start()
        devices = stack.enter_context(farm(case, theirs))
        counter = None
        if is_counted:
            flags = ("--durable",) if keeps_sessions else ()
            counter = stack.enter_context(subscriber(broker.port, case.encoding, *flags, core=theirs))
        metrics_port = free_port()
        write_tables(folder / "home", case, devices.ports, broker.port, metrics_port)
        yield Plant(folder / "home", metrics_port, broker, devices, counter, ours)


def judged(gateway_position: int, seen: dict[str, Any]) -> dict[str, Any]:
    """The subscriber's count against the gateway's last word; is_complete is the promise."""
    missing_at_end = max(0, gateway_position - int(seen["last"]))
    is_complete = seen["first"] == 1 and seen["lost"] == 0 and seen["out_of_order"] == 0 and missing_at_end == 0
    kept = {key: value for key, value in seen.items() if key != "gateway_times"}
    return {**kept, "missing_at_end": missing_at_end, "is_complete": is_complete}


def say(bench: str, case: Case, **figures: object) -> None:
    """The one line a bench prints."""
    print(json.dumps({"bench": bench, "case": asdict(case), **figures}), flush=True)
