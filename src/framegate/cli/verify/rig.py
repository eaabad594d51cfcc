"""The rig of an experiment: a device that counts, a broker, a gateway as a process of its own, and a witness.

    device (counts up) -> gateway (`edge run`) -> [uplink that can be cut] -> broker -> witness (an Account)

The device shows one number in all its registers and counts it up faster than it is read: what arrives tells by itself
whether order was kept. The broker is the one that the mqtt plugin carries, which acknowledges a message when the
witness has booked it; mosquitto takes its place on request. What an experiment breaks is its own business.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from framegate.cli.demo.uplink import Uplink
from framegate.cli.verify.experiment import PromiseBroken, Result
from framegate.contract.errors import GatewayError
from framegate.contract.plugin import Manifest
from framegate.gateway.home import Home
from framegate.observe.face import GatewayHealth
from framegate.ops.client import ControlClient
from framegate.package.discover import discover, load_role
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import PROGRAM as MOSQUITTO
from framegate.testing.mosquitto import Mosquitto
from framegate.testing.ports import free_url

COUNT_INTERVAL_S = 0.005
POLL_S = 0.01
WAIT_S_MAX = 30.0
STOP_S_MAX = 10.0
LOG_LINES_SHOWN = 3
TENANT = "verify"


@dataclass(frozen=True, slots=True)
class Wiring:
    """How the gateway of a rig is set up.

    tags, scan, texts   registers read, how often, and further tags of 100 bytes each that make records large
    store               keys of the gateway's `store`, as in drivers.yml: "ring_rows: 2048"
    has_uplink          the gateway reaches the broker through an Uplink that can be cut
    broker              "embedded", or "mosquitto" where it is installed
    """

    tags: int = 20
    scan: str = "20ms"
    texts: int = 0
    store: str = ""
    encoding: str = "json-batch"
    qos: int = 1
    window_rows: int = 256
    windows_in_flight: int = 2
    has_uplink: bool = False
    broker: Literal["embedded", "mosquitto"] = "embedded"

    @property
    def repeats_max(self) -> int:
        """Most repeats that one crash or lost connection may cost: what was in flight, and a second's cursors."""
        return self.window_rows * self.windows_in_flight + 1_000


class Rig:
    """Set up with `async with`; everything started here is ended on leaving.

    home     the gateway's folder; its log lines are in `log_file`
    account  what the broker has acknowledged
    device   the simulated PLC; broker: the embedded broker's handle, None with mosquitto
    uplink   None unless the wiring asks for one
    """

    def __init__(
        self, folder: Path, wiring: Wiring | None = None, plugins: Mapping[str, Manifest] | None = None
    ) -> None:
        self.home = folder / "home"
        self.wiring = wiring or Wiring()
        self.account = Account(self.wiring.encoding)
        self.device: Any = None
        self.broker: Any = None
        self.mosquitto: Mosquitto | None = None
        self.uplink: Uplink | None = None
        self.gateway: subprocess.Popen[bytes] | None = None
        self.is_counting = True
        self._plugins = discover() if plugins is None else plugins
        self._exit = contextlib.AsyncExitStack()

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
    def log_file(self) -> Path:
        return self.home / "log"

    @property
    def broker_name(self) -> str:
        return "mosquitto" if self.mosquitto is not None else "embedded broker"

    # -- the gateway ------------------------------------------------------------------------------------------------

    def start(self) -> subprocess.Popen[bytes]:
        """`edge run` of this home, as any operator starts it."""
        self.gateway = plant.start_gateway(self.home)
        return self.gateway

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        if self.gateway is not None:
            self.gateway.kill()
            self.gateway.wait(STOP_S_MAX)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        gateway = self.gateway
        if gateway is None:
            return 0
        gateway.terminate()
        try:
            return await asyncio.to_thread(gateway.wait, STOP_S_MAX)
        except subprocess.TimeoutExpired:
            gateway.kill()
            return gateway.wait()

    async def health(self) -> GatewayHealth:
        """What the gateway says of itself; waits until it has started."""
        return await self.answer(lambda _: True, "the gateway's health")

    async def answer(
        self, is_so: Callable[[GatewayHealth], bool], what: str, seconds: float = WAIT_S_MAX
    ) -> GatewayHealth:
        """The first health that is as wanted; raises PromiseBroken with the last one's problem after the deadline."""
        deadline = time.monotonic() + seconds
        last: GatewayHealth | None = None
        while time.monotonic() < deadline:
            with contextlib.suppress(GatewayError):
                last = await asyncio.to_thread(self._ask)
                if is_so(last):
                    return last
            self._look()
            await asyncio.sleep(POLL_S)
        state = "it did not answer" if last is None else f"its log was {last.wal.state}: {last.problem or 'no problem'}"
        raise PromiseBroken(f"waited {seconds:.0f} s in vain for {what}; {state}")

    def _ask(self) -> GatewayHealth:
        with ControlClient(Home(self.home).socket) as gateway:
            return gateway.health()

    # -- waiting and judging ------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = WAIT_S_MAX) -> float:
        """Wait for something to become true; seconds it took. Raises PromiseBroken after the deadline."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                raise PromiseBroken(f"waited {seconds:.0f} s in vain for {what}")
            self._look()
            await asyncio.sleep(POLL_S)
        return time.monotonic() - began

    async def delivered(self, position: int, seconds: float = WAIT_S_MAX) -> float:
        """Wait until the broker has rows beyond a position, and so all up to it unless they are lost."""
        return await self.until(lambda: self.account.newest > position, f"rows beyond position {position:,}", seconds)

    def judge(self, result: Result, through: int, *, losses: int, may_announce: bool = False) -> None:
        """Book what the witness saw up to a position into a result, and what of it must not be.

        losses        crashes and lost connections so far; each may cost `wiring.repeats_max` repeats
        may_announce  rows that a gap stands for count as told, not as lost
        """
        account = self.account
        result.acknowledged = len(account.frames)
        result.lost = account.lost(through)
        if not may_announce and (announced := announced_rows(account)):
            result.lost += announced
            result.broken.append(f"{announced:,} rows were given up, and a gap says so")
        result.duplicated = account.repeats
        result.out_of_order = account.out_of_order + steps_back(account)
        result.largest_gap = largest_gap(account, through)
        if account.lost(through):
            result.broken.append(f"{account.lost(through):,} rows were lost without a word")
        if result.out_of_order:
            result.broken.append(f"{result.out_of_order:,} rows came out of order")
        if account.conflicts:
            result.broken.append(f"{account.conflicts:,} positions were used again with other content")
        if account.repeats > losses * self.wiring.repeats_max:
            most = f"{losses} times {self.wiring.repeats_max:,}"
            result.broken.append(f"{account.repeats:,} rows came again; at most {most} were promised")

    def _look(self) -> None:
        """A gateway that ended by itself is no longer waited for."""
        code = None if self.gateway is None else self.gateway.poll()
        if code is not None and code >= 0:
            lines = self.log_file.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            raise PromiseBroken(f"the gateway ended by itself with code {code}: {' | '.join(lines)}")

    # -- setting up ---------------------------------------------------------------------------------------------------

    async def _set_up(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.device = await load_role(self._plugins["modbus"], "simulator")({"url": free_url()})
        self._exit.push_async_callback(self.device.close)
        counting = asyncio.create_task(self._count(), name="a device counts")
        self._exit.push_async_callback(_ended, counting)
        port = await self._start_broker()
        if self.wiring.has_uplink:
            self.uplink = Uplink(port)
            await self.uplink.mend()
            self._exit.push_async_callback(self.uplink.cut)
            port = self.uplink.port
        self.write_tables(port)
        self._exit.callback(self.kill)

    async def _start_broker(self) -> int:
        if self.wiring.broker == "mosquitto" and MOSQUITTO is not None:
            self.mosquitto = Mosquitto(self.home)
            await asyncio.to_thread(self.mosquitto.start)
            self._exit.callback(self.mosquitto.stop)
            subscribe = load_role(self._plugins["mqtt"], "witness")
            subscription = await subscribe("127.0.0.1", self.mosquitto.port, f"{TENANT}/#", self.account.take)
            self._exit.push_async_callback(subscription.close)
            return self.mosquitto.port
        self.broker = await load_role(self._plugins["mqtt"], "simulator")({"url": free_url()})
        self._exit.push_async_callback(self.broker.close)
        self.broker.broker.taken = lambda message: self.account.take(message.topic, bytes(message.payload))
        return int(self.broker.port)

    def write_tables(self, broker_port: int) -> None:
        """The three tables; again, after a change of `wiring`."""
        wiring = self.wiring
        variables = [f"tag: n{i}, source: plc, address: 'hr:{2 * i}', type: uint32" for i in range(wiring.tags)]
        first = 2 * wiring.tags
        variables += [
            f"tag: text{i}, source: plc, address: 'hr:{first + 50 * i}', type: bytes, length: 100"
            for i in range(wiring.texts)
        ]
        plant.write_config(
            self.home,
            endpoints={"plc": f"url: '{self.device.url}'", "broker": f"url: 'tcp://127.0.0.1:{broker_port}'"},
            drivers={"plc": f"plugin: modbus, endpoint: plc, options: {{unit: 1}}, scan: {{default: {wiring.scan}}}"},
            connectors={
                "cloud": f"plugin: mqtt, endpoint: broker, topic: {TENANT}, encoding: {wiring.encoding}, "
                f"window_rows: {wiring.window_rows}, windows_in_flight: {wiring.windows_in_flight}, "
                f"options: {{qos: {wiring.qos}}}"
            },
            variables=variables,
            gateway=f", store: {{{wiring.store}}}" if wiring.store else "",
        )

    async def _count(self) -> None:
        registers = self.device.units[1].hold[: 2 * self.wiring.tags].view(">u4")
        count = 0
        while True:
            if self.is_counting:
                count += 1
                registers[:] = count
            await asyncio.sleep(COUNT_INTERVAL_S)


def steps_back(account: Account) -> int:
    """Values of a counting device that are lower than one at an earlier position of the same tag."""
    highest: dict[str, int] = {}
    back = 0
    for position in sorted(account.frames):
        frame = account.frames[position]
        if isinstance(frame.value, int):
            before = highest.get(frame.tag, 0)
            back += frame.value < before
            highest[frame.tag] = max(before, frame.value)
    return back


def announced_rows(account: Account) -> int:
    """Positions that gaps stand for and that never arrived."""
    named = {position for gap in account.notices for position in range(gap.first, gap.last + 1)}
    return len(named - account.frames.keys())


def largest_gap(account: Account, through: int) -> int:
    """Most positions in a row that did not arrive, whether announced or not."""
    largest = run = 0
    for position in range(1, through + 1):
        run = 0 if position in account.frames else run + 1
        largest = max(largest, run)
    return largest


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
