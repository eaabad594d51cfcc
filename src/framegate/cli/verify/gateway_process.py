"""`edge run` of one home as a process: started, killed, stopped, and asked what it says of itself.

What it says is used to know when it is ready and how far it is, and for figures that nobody outside can know (how late
its timer fires). Whether anything was lost is counted elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framegate.contract.errors import GatewayError, NoReply
from framegate.gateway.home import Home
from framegate.observe.face import GatewayHealth, RewindRecord
from framegate.ops.client import ControlClient

READY_S_MAX = 60.0
STOP_S_MAX = 10.0
PAGE_S_MAX = 10.0
ASK_AGAIN_S = 0.05
LOG_BYTES_SHOWN = 2_000
_SAMPLE = re.compile(r"^(edge_[^ #]+) (\S+)$", re.MULTILINE)
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
_PAGE_BYTES = resource.getpagesize()
_FORGET_PEAK = "5"  # proc(5): written to clear_refs it resets VmHWM


class GatewayProcess:
    """home: of the gateway; metrics_port: where its tables let it show metrics."""

    def __init__(self, home: Path, metrics_port: int) -> None:
        self.home = home
        self.metrics_port = metrics_port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log_file(self) -> Path:
        return self.home / "log"

    @property
    def socket(self) -> Path:
        return Home(self.home).socket

    def start(
        self, *, module: str = "framegate", environment: Mapping[str, str] | None = None, words: Sequence[str] = ()
    ) -> None:
        """Begin; returns at once.

        module, words  another module that serves a gateway, and what it is told beside the home
        """
        command = [sys.executable, "-m", module, *(words or ("run",)), "--home", str(self.home)]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=log, env={**os.environ, **(environment or {})}
            )

    def kill(self) -> None:
        """SIGKILL; the way a power cut ends a process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    async def stop(self) -> float:
        """SIGTERM; the seconds it took. A process that does not end is killed."""
        process, self._process = self._process, None
        if process is None:
            return 0.0
        began = time.monotonic()
        process.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, STOP_S_MAX)
        finally:
            process.kill()
            process.wait()
        return time.monotonic() - began

    async def end(self) -> None:
        """Nothing of it is left afterwards."""
        await self.stop()

    def has_died(self) -> bool:
        """Whether it ended by itself."""
        return self._process is not None and self._process.poll() is not None

    # -- what it says -----------------------------------------------------------------------------------------------

    async def health(self) -> GatewayHealth:
        """Its own word; waits until it has started. Raises NoReply E4016 with the end of its log."""
        deadline = time.monotonic() + READY_S_MAX
        while time.monotonic() < deadline and not self.has_died():
            with contextlib.suppress(GatewayError):
                return await asyncio.to_thread(self._health)
            await asyncio.sleep(ASK_AGAIN_S)
        raise NoReply(f"gateway in {self.home}: it did not come up:\n{self.last_words()}", code="E4016")

    async def rewind(self, connector: str, first: int) -> RewindRecord:
        """Have a connector deliver again from a position on."""
        return await asyncio.to_thread(self._rewind, connector, first)

    async def samples(self) -> Mapping[str, float]:
        """Its metrics, by name and labels."""
        text = await asyncio.to_thread(self._page)
        return {found[1]: float(found[2]) for found in _SAMPLE.finditer(text)}

    def events(self, name: str) -> list[Mapping[str, Any]]:
        """Log events of one name, oldest first."""
        with self.log_file.open("rb") as lines:
            return [event for line in lines if (event := _event(line)) and event.get("event") == name]

    def last_words(self) -> str:
        """The end of its log."""
        return self.log_file.read_text(errors="replace")[-LOG_BYTES_SHOWN:]

    def _health(self) -> GatewayHealth:
        with ControlClient(self.socket) as gateway:
            return gateway.health()

    def _rewind(self, connector: str, first: int) -> RewindRecord:
        with ControlClient(self.socket) as gateway:
            return gateway.rewind(connector, first=first)

    def _page(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=PAGE_S_MAX)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    # -- what the kernel says ---------------------------------------------------------------------------------------

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES

    def cpu_s(self) -> float:
        """Seconds of CPU time that it has had, every thread, without its children."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime, stime

    def peak_bytes(self) -> int:
        """Most resident memory since its start or forget_peak()."""
        found = _PEAK.search(Path(f"/proc/{self.pid}/status").read_text(encoding="ascii"))
        return 1024 * int(found[1]) if found else 0

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text(_FORGET_PEAK, encoding="ascii")


def total(samples: Mapping[str, float], name: str) -> float:
    """Sum of a metric's series."""
    return sum(value for key, value in samples.items() if key.partition("{")[0] == name)


def _event(line: bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
