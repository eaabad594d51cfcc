"""`edge demo --bridging`: old SCADA reads and writes new PLCs, and the other way round.

    boiler (Modbus PLC) ─┐                 ┌─ bridge opcua  ─▶ SCADA over OPC UA, writes boiler.setpoint
                         ├─▶ the gateway ──┤
    press (OPC UA PLC) ──┘                 └─ bridge modbus ─▶ master over Modbus, reads press.force

The SCADA system is played by a second gateway that knows nothing of the PLCs: what it reads and writes goes through
the bridges of the first. Any other client may join: the addresses are told at the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from framegate.cli.command_id import new_command_id
from framegate.contract.command import Command, Outcome
from framegate.contract.errors import GatewayError, NotConnected
from framegate.contract.plugin import Manifest
from framegate.gateway.home import Home
from framegate.observe.face import TagRow
from framegate.ops.client import ControlClient
from framegate.package.discover import load_role
from framegate.testing.ports import free_port

START_S_MAX = 60.0
STEP_S = 0.1
ANSWER_S_MAX = 5.0
PAUSE_S = 1.0
"""Between two setpoints."""
SETPOINTS = (60.0, 72.5, 81.0, 65.5)
BOILER_SHARE = 0.15
"""How much of the way to its setpoint the boiler comes in one step."""
FORCE = 3
"""Number of the simulator's node that is the press's force."""

PLANT: Mapping[str, str] = {
    "endpoints": """\
endpoints:
  boiler: {{url: "tcp://127.0.0.1:{boiler}"}}
  press: {{url: "tcp://127.0.0.1:{press}"}}
  opcua: {{url: "tcp://127.0.0.1:{opcua}"}}
  modbus: {{url: "tcp://127.0.0.1:{modbus}"}}
""",
    "drivers": """\
gateway: {{name: plant, tenant: demo, metrics: "127.0.0.1:{plant_metrics}"}}
drivers:
  boiler: {{plugin: modbus, endpoint: boiler, options: {{unit: 1}}, scan: {{default: 100ms}}}}
  press: {{plugin: opcua, endpoint: press, options: {{security: none}}, scan: {{default: 100ms}}}}
bridges:
  opcua: {{plugin: opcua, endpoint: opcua, commands: {{tags: [boiler.setpoint]}},
    options: {{security: [none], anonymous: operator}}}}
  modbus: {{plugin: modbus, endpoint: modbus}}
""",
    "variables": """\
variables:
  - {{tag: boiler.setpoint, source: boiler, address: "hr:0", type: int16, scale: 0.1, unit: degC, access: RW,
     range: [0, 95], limits: [0, 95]}}
  - {{tag: boiler.temperature, source: boiler, address: "hr:1", type: int16, scale: 0.1, unit: degC}}
  - {{tag: press.force, source: press, address: "ns=2;s=t3", type: float64, unit: kN,
     bridges: {{modbus: {{address: "ir:100"}}}}}}
""",
}
SCADA: Mapping[str, str] = {
    "endpoints": """\
endpoints:
  opcua: {{url: "tcp://127.0.0.1:{opcua}"}}
  modbus: {{url: "tcp://127.0.0.1:{modbus}"}}
""",
    "drivers": """\
gateway: {{name: scada, tenant: demo, metrics: "127.0.0.1:{scada_metrics}"}}
drivers:
  opcua: {{plugin: opcua, endpoint: opcua, options: {{security: none}}, scan: {{default: 100ms}}}}
  modbus: {{plugin: modbus, endpoint: modbus, options: {{unit: 1}}, scan: {{default: 100ms}}}}
""",
    "variables": """\
variables:
  - {{tag: setpoint, source: opcua, address: "ns=2;s=boiler.setpoint", type: float64, access: RW}}
  - {{tag: temperature, source: opcua, address: "ns=2;s=boiler.temperature", type: float64}}
  - {{tag: force, source: modbus, address: "ir:100", type: float64}}
""",
}


@dataclass(slots=True)
class BridgingVerdict:
    """One JSON line. Times in seconds.

    writes, confirmed  setpoints that the SCADA system wrote, and those that it was told are in the PLC
    arrived            those that the PLC's own register held
    read_back          those that it then read over OPC UA
    forces, same       values of the press that the Modbus master was asked for, and those that were the press's own
    """

    asked_s: float
    ready_s: float = 0.0
    writes: int = 0
    confirmed: int = 0
    arrived: int = 0
    read_back: int = 0
    forces: int = 0
    same: int = 0

    @property
    def is_good(self) -> bool:
        return 0 < self.writes == self.confirmed == self.arrived == self.read_back and 0 < self.forces == self.same

    def as_record(self) -> dict[str, Any]:
        record = {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}
        return {"verdict": "ok" if self.is_good else "failed", **record}


async def play_bridging(folder: Path, plugins: Mapping[str, Manifest], seconds: float, say: Any) -> BridgingVerdict:
    """Set up, play for so long, take down; `say` prints a line. Raises NotConnected E4021, E4022."""
    async with contextlib.AsyncExitStack() as stack:
        play = _Play(folder, seconds, say)
        await play.set_up(plugins, stack)
        return await play.run()


class _Play:
    def __init__(self, folder: Path, seconds: float, say: Any) -> None:
        self._folder, self._seconds, self._say = folder, seconds, say
        self._verdict = BridgingVerdict(seconds)
        self._gateways: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = contextlib.AsyncExitStack()
        self._boiler: Any = None
        self._press: Any = None

    async def set_up(self, plugins: Mapping[str, Manifest], stack: contextlib.AsyncExitStack) -> None:
        self._boiler = await load_role(plugins["modbus"], "simulator")({})
        stack.push_async_callback(self._boiler.close)
        self._press = await load_role(plugins["opcua"], "simulator")({"tags": FORCE + 1})
        stack.push_async_callback(self._press.close)
        names = ("opcua", "modbus", "plant_metrics", "scada_metrics")
        ports = {"boiler": self._boiler.port, "press": self._press.port, **{name: free_port() for name in names}}
        for name, tables in (("plant", PLANT), ("scada", SCADA)):
            config = self._folder / name / "config"
            config.mkdir(parents=True)
            for table, text in tables.items():
                (config / f"{table}.yml").write_text(text.format(**ports), encoding="utf-8")
        self._stack = stack
        self._start("plant")
        self._say(f"OPC UA: opc.tcp://127.0.0.1:{ports['opcua']}, no security; ns=2;s=boiler.setpoint may be written")
        self._say(
            f"Modbus: 127.0.0.1:{ports['modbus']}, unit 1; press.force is a float64 in input registers 100 to 103"
        )
        plant = asyncio.create_task(self._heat(), name="demo boiler")
        stack.callback(plant.cancel)

    async def run(self) -> BridgingVerdict:
        began = time.monotonic()
        await self._until(self._serves, START_S_MAX, "the bridges do not serve")
        self._start("scada")
        await self._until(self._is_ready, START_S_MAX, "the SCADA system read nothing through the bridges")
        self._verdict.ready_s = time.monotonic() - began
        end = time.monotonic() + self._seconds
        for setpoint in itertools.cycle(SETPOINTS):
            await self._round(setpoint)
            if time.monotonic() >= end:
                return self._verdict
            await asyncio.sleep(min(PAUSE_S, max(0.0, end - time.monotonic())))
        raise AssertionError  # a cycle has no end

    async def _round(self, setpoint: float) -> None:
        """One setpoint down to the PLC and back, one force from the press to the Modbus master."""
        verdict = self._verdict
        verdict.writes += 1
        outcome = await asyncio.to_thread(self._write, setpoint)
        held = self._hold(0) / 10
        verdict.confirmed += outcome is Outcome.CONFIRMED
        verdict.arrived += held == setpoint
        verdict.read_back += await self._reads("setpoint", setpoint)
        force = round(10.0 * setpoint + verdict.writes, 3)
        await self._press.write(FORCE, force)
        verdict.forces += 1
        verdict.same += await self._reads("force", force)
        temperature = await asyncio.to_thread(self._tag, "temperature")
        shown = f"{temperature.value:.1f}" if isinstance(temperature.value, float) else "-"
        said = outcome.name if outcome else "no answer"
        self._say(
            f"setpoint {setpoint:.1f} over OPC UA: {said}, the PLC holds {held:.1f}, the boiler is at {shown} degC; "
            f"press at {force:.1f} kN over Modbus"
        )

    def _write(self, value: float) -> Outcome | None:
        with ControlClient(Home(self._folder / "scada").socket) as gateway:
            command = Command(new_command_id(), "setpoint", value)
            record = gateway.write([command])[0]
            return record.outcome or gateway.command(command.id, ANSWER_S_MAX).outcome

    async def _reads(self, tag: str, value: float) -> bool:
        """Whether the SCADA system comes to read that value in time."""
        with contextlib.suppress(NotConnected):
            await self._until(lambda: self._tag(tag).value == value, ANSWER_S_MAX, f"{tag} is not {value}")
            return True
        return False

    def _tag(self, tag: str) -> TagRow:
        with ControlClient(Home(self._folder / "scada").socket) as gateway:
            return gateway.get(tag)

    def _serves(self) -> bool:
        with ControlClient(Home(self._folder / "plant").socket) as gateway:
            return all(bridge.state == "serving" for bridge in gateway.health().bridges)

    def _is_ready(self) -> bool:
        return all(self._tag(tag).value is not None for tag in ("setpoint", "temperature", "force"))

    async def _until(self, condition: Any, seconds: float, complaint: str) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(GatewayError):
                if await asyncio.to_thread(condition):
                    return
            for name, gateway in self._gateways.items():
                if gateway.poll() is not None:
                    text = (self._folder / name / "gateway.log").read_text(errors="replace")[-2000:]
                    raise NotConnected(f"demo: the gateway {name} ended by itself:\n{text}", code="E4022")
            if time.monotonic() > deadline:
                raise NotConnected(f"demo: {complaint} within {seconds:.0f} s", code="E4021")
            await asyncio.sleep(STEP_S)

    def _start(self, name: str) -> None:
        home = self._folder / name
        command = [sys.executable, "-m", "framegate", "run", "--home", str(home)]
        with (home / "gateway.log").open("wb") as log:
            gateway = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        self._gateways[name] = gateway
        self._stack.callback(_end, gateway)

    async def _heat(self) -> None:
        """The boiler comes nearer to its setpoint; both are tenths of a degree in its registers."""
        hold = self._boiler.units[1].hold
        hold[0], hold[1] = 400, 200
        while True:
            await asyncio.sleep(STEP_S)
            setpoint, temperature = self._hold(0), self._hold(1)
            hold[1] = round(temperature + BOILER_SHARE * (setpoint - temperature))

    def _hold(self, register: int) -> int:
        """A holding register of the boiler's PLC, as a signed number."""
        word = int(self._boiler.units[1].hold[register])
        return word - 0x1_0000 if word & 0x8000 else word


def _end(gateway: subprocess.Popen[bytes]) -> None:
    if gateway.poll() is None:
        gateway.terminate()
        try:
            gateway.wait(ANSWER_S_MAX)
        except subprocess.TimeoutExpired:
            gateway.kill()
            gateway.wait()
