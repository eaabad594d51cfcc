"""The demo's stage: two PLCs, a broker behind an uplink, tables that name them, and the gateway as its own process.

Everything listens on loopback, on ports the system chose. Simulators come from the plugins' own `simulator` role;
mosquitto is the broker where it is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from framegate.cli.demo.plant import Plant
from framegate.cli.demo.registers import POINTS, PlcName, coils, holding_registers
from framegate.cli.demo.uplink import Uplink
from framegate.cli.demo.witness import Witness
from framegate.contract.errors import NotConnected
from framegate.contract.plugin import Manifest
from framegate.package.discover import load_role
from framegate.testing.ports import free_port

PLANT_STEP_S = 0.05
PLANT_SPEED = 4.0
"""Plant seconds per second: a tank fills slowly, a visitor has a minute."""
PLCS: tuple[PlcName, ...] = ("tank", "meter")
START_S_MAX = 15.0
STOP_S_MAX = 5.0


class Stage:
    """Set up with `async with`; everything started here is ended on leaving."""

    def __init__(self, folder: Path, plugins: Mapping[str, Manifest]) -> None:
        self.home = folder
        self.plant = Plant()
        self.witness = Witness()
        self.broker_name = ""
        self._plugins = plugins
        self._exit = contextlib.AsyncExitStack()
        self._plcs: dict[PlcName, Any] = {}
        self._gateway: subprocess.Popen[bytes] | None = None
        self._uplink: Uplink | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._set_up()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._exit.aclose()

    @property
    def socket(self) -> Path:
        return self.home / "run" / "edge.sock"

    @property
    def log_file(self) -> Path:
        return self.home / "gateway.log"

    async def cut(self, fault: str) -> None:
        """Begin an outage: "plc" switches the tank's PLC off, "uplink" cuts the network to the broker."""
        if fault == "plc":
            await self._plcs["tank"].stop()
        elif self._uplink is not None:
            await self._uplink.cut()

    async def mend(self, fault: str) -> None:
        """End the outage."""
        if fault == "plc":
            await self._plcs["tank"].listen()
        elif self._uplink is not None:
            await self._uplink.mend()

    def stop_gateway(self) -> float:
        """SIGTERM and wait; seconds it took."""
        gateway = self._gateway
        if gateway is None or gateway.poll() is not None:
            return 0.0
        began = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        try:
            gateway.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            gateway.kill()
            gateway.wait()
        return time.monotonic() - began

    def gateway_died(self) -> int | None:
        """Exit code of the gateway if it has ended by itself."""
        return None if self._gateway is None else self._gateway.poll()

    async def _set_up(self) -> None:
        start_plc = load_role(self._plugins["modbus"], "simulator")
        for name in PLCS:
            self._plcs[name] = await start_plc({})
            self._exit.push_async_callback(self._plcs[name].close)
        self._show()
        plant = asyncio.create_task(self._run_plant(), name="demo plant")
        self._exit.callback(plant.cancel)
        broker_port = await self._start_broker()
        self._uplink = Uplink(broker_port)
        await self._uplink.mend()
        self._exit.push_async_callback(self._uplink.cut)
        self._write_tables()
        self._start_gateway()

    async def _start_broker(self) -> int:
        start = load_role(self._plugins["mqtt"], "simulator")
        program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            self.broker_name = "embedded broker"
            broker = await start({})
            self._exit.push_async_callback(broker.close)
            port = int(broker.port)
        else:
            self.broker_name = "mosquitto"
            port = self._start_mosquitto(program)
            await _wait_for_port(port)
        subscribe = load_role(self._plugins["mqtt"], "witness")
        subscription = await subscribe("127.0.0.1", port, "demo/#", lambda _, payload: self.witness.take(payload))
        self._exit.push_async_callback(subscription.close)
        return port

    def _start_mosquitto(self, program: str) -> int:
        port = free_port()
        config = self.home / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nlog_type error\n")
        broker = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._exit.callback(_end, broker)
        return port

    def _write_tables(self) -> None:
        assert self._uplink is not None
        config = self.home / "config"
        config.mkdir(parents=True, exist_ok=True)
        endpoints = [f"  {name}: {{url: 'tcp://127.0.0.1:{self._plcs[name].port}'}}" for name in PLCS]
        endpoints.append(f"  broker: {{url: 'tcp://127.0.0.1:{self._uplink.port}'}}")
        (config / "endpoints.yml").write_text("endpoints:\n" + "\n".join(endpoints) + "\n")
        drivers = [
            f"  {name}: {{plugin: modbus, endpoint: {name}, options: {{unit: 1}}, scan: {{default: 1s, fast: 100ms}}}}"
            for name in PLCS
        ]
        (config / "drivers.yml").write_text(
            f"gateway: {{name: demo, tenant: demo, metrics: '127.0.0.1:{free_port()}'}}\n"
            "drivers:\n" + "\n".join(drivers) + "\n"
            "connectors:\n  cloud: {plugin: mqtt, endpoint: broker, encoding: json-batch}\n"
        )
        rows = "\n".join(point.table_row() for point in POINTS)
        (config / "variables.yml").write_text(f"variables:\n{rows}\n")

    def _start_gateway(self) -> None:
        command = [sys.executable, "-m", "framegate", "run", "--home", str(self.home)]
        with self.log_file.open("wb") as log:
            self._gateway = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        self._exit.callback(self.stop_gateway)

    async def _run_plant(self) -> None:
        while True:
            await asyncio.sleep(PLANT_STEP_S)
            self.plant.step(PLANT_STEP_S * PLANT_SPEED)
            self._show()

    def _show(self) -> None:
        """Put the plant's state into the PLCs."""
        for name, plc in self._plcs.items():
            unit = plc.units[1]
            for register, word in holding_registers(name, self.plant).items():
                unit.hold[register] = word
            for coil, state in coils(name, self.plant).items():
                unit.coils[coil] = state


async def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise NotConnected(f"the demo's broker did not open 127.0.0.1:{port} within {START_S_MAX:.0f} s", code="E4020")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
