"""For flow tests: tables of a small plant, the gateway as a process of its own, and a bounded wait."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from framegate.testing.ports import free_port

WAIT_S_MAX = 30.0
POLL_S = 0.02
T = TypeVar("T")


def write_tables(
    home: Path,
    *,
    plc: str,
    broker: str,
    tags: int = 10,
    scan: str = "100ms",
    connector: str = "encoding: json-batch",
    options: str = "qos: 1",
    gateway: str = "",
    metrics: int = 0,
) -> None:
    """Three tables: one Modbus device with `tags` int16 registers, one MQTT connector."""
    write_config(
        home,
        endpoints={"plc": f"url: '{plc}'", "broker": f"url: '{broker}'"},
        drivers={"plc": f"plugin: modbus, endpoint: plc, options: {{unit: 1}}, scan: {{default: {scan}}}"},
        connectors={"cloud": f"plugin: mqtt, endpoint: broker, {connector}, options: {{{options}}}"},
        variables=[f"tag: t{i}, source: plc, address: 'hr:{i}', type: int16" for i in range(tags)],
        gateway=gateway,
        metrics=metrics,
    )


def write_config(
    home: Path,
    *,
    endpoints: Mapping[str, str],
    drivers: Mapping[str, str],
    connectors: Mapping[str, str],
    variables: Sequence[str],
    gateway: str = "",
    metrics: int = 0,
) -> None:
    """Three tables from the insides of their rows; `gateway` begins with a comma where it adds keys."""
    config = home / "config"
    config.mkdir(parents=True, exist_ok=True)
    (config / "endpoints.yml").write_text(_table("endpoints", endpoints))
    (config / "drivers.yml").write_text(
        f"gateway: {{name: gw, tenant: flow, metrics: '127.0.0.1:{metrics or free_port()}'{gateway}}}\n"
        + _table("drivers", drivers)
        + (_table("connectors", connectors) if connectors else "")
    )
    (config / "variables.yml").write_text("variables:\n" + "".join(f"  - {{{row}}}\n" for row in variables))


def _table(name: str, rows: Mapping[str, str]) -> str:
    return f"{name}:\n" + "".join(f"  {key}: {{{row}}}\n" for key, row in rows.items())


def edge(*words: str, timeout: float = WAIT_S_MAX) -> subprocess.CompletedProcess[str]:
    """Run one verb to its end."""
    return subprocess.run(
        [sys.executable, "-m", "framegate", *words],
        capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip


def start_gateway(home: Path) -> subprocess.Popen[bytes]:
    """`edge run` in the background; its log lines go to HOME/log."""
    with (home / "log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "framegate", "run", "--home", str(home)], stderr=log)


def stop_gateway(gateway: subprocess.Popen[bytes]) -> tuple[int, float]:
    """SIGTERM; exit code and seconds it took."""
    began = time.monotonic()
    gateway.terminate()
    try:
        return gateway.wait(WAIT_S_MAX), time.monotonic() - began
    finally:
        gateway.kill()


async def until(condition: Callable[[], bool], what: str, seconds: float = WAIT_S_MAX) -> None:
    """Wait for something to become true; fail with its name when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for: {what}"
        await asyncio.sleep(POLL_S)


async def eventually(ask: Callable[[], Awaitable[T]], is_so: Callable[[T], bool], what: str) -> T:
    """Ask again and again until the answer is as wanted; fail with its name and the last answer when it never is."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not is_so(answer := await ask()):
        assert time.monotonic() < deadline, f"waited {WAIT_S_MAX:.0f} s in vain for: {what}; last answer: {answer}"
        await asyncio.sleep(POLL_S)
    return answer
