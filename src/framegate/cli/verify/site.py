"""The site of one experiment: simulated devices, brokers behind fault proxies, and a gateway as a process of its own.

Everything listens on loopback, on ports the system chose, and everything started here is ended on leaving. Simulators
and the witness at a foreign broker come from the plugins' own roles, so that this package names no plugin's code.
What a fault does and what must hold is each experiment's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from framegate.cli.verify.experiment import PromiseBroken, Result
from framegate.cli.verify.gateway_process import GatewayProcess
from framegate.package.discover import discover, load_role
from framegate.testing.fault_proxy import FaultProxy
from framegate.testing.mosquitto import PROGRAM, Mosquitto
from framegate.testing.ports import free_port, free_url
from framegate.testing.tally import Tally, Verdict

POLL_S = 0.02
TENANT = "verify"


class Site:
    """Set up with `async with`. Parts are added as an experiment needs them; the tables are written by it.

    gateway  not started before its start()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gateway = GatewayProcess(folder / "home", free_port())
        self._plugins = discover()
        self._exit = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._exit.push_async_callback(self.gateway.end)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._exit.aclose()

    @property
    def home(self) -> Path:
        return self.gateway.home

    async def device(self, **options: Any) -> Any:
        """A simulated device that listens; see the plugin's simulator for options and faults."""
        device = await load_role(self._plugins["modbus"], "simulator")({"url": free_url()} | options)
        self._exit.push_async_callback(device.close)
        return device

    async def broker(self, **options: Any) -> Any:
        """An embedded broker that keeps sessions; `book` has what it takes counted."""
        broker = await load_role(self._plugins["mqtt"], "simulator")({"url": free_url()} | options)
        self._exit.push_async_callback(broker.close)
        return broker

    async def mosquitto(self, *, is_persistent: bool = False) -> Mosquitto | None:
        """A broker that is not ours, or None where it is not installed."""
        if PROGRAM is None:
            return None
        broker = Mosquitto(self.folder, is_persistent=is_persistent)
        self._exit.callback(broker.stop)
        await asyncio.to_thread(broker.start)
        return broker

    async def restart(self, mosquitto: Mosquitto) -> None:
        """Stop it in order, or find it killed; start it on the same port."""
        await asyncio.to_thread(mosquitto.stop)
        await asyncio.to_thread(mosquitto.start)

    async def witness(self, port: int, take: Callable[[str, bytes], object], *, keeps_session: bool = False) -> Any:
        """Have `take` called for everything that a broker hands on; the subscription.

        keeps_session  the broker keeps what comes while this witness is away
        """
        subscribe = load_role(self._plugins["mqtt"], "witness")
        subscription = await subscribe(
            "127.0.0.1", port, f"{TENANT}/#", take, client_id="witness", keeps_session=keeps_session
        )
        self._exit.push_async_callback(subscription.close)
        return subscription

    async def until(self, condition: Callable[[], bool], what: str, seconds: float) -> float:
        """Wait for something to become true; the seconds it took. Raises PromiseBroken when it never does."""
        began = time.monotonic()
        while not condition():
            if self.gateway.has_died():
                raise PromiseBroken(f"the gateway ended by itself: {self.gateway.last_words()}")
            if time.monotonic() - began > seconds:
                raise PromiseBroken(f"waited {seconds:.0f} s in vain for {what}")
            await asyncio.sleep(POLL_S)
        return time.monotonic() - began

    async def caught_up(self, connector: str, rows: int, seconds: float) -> float:
        """Wait until a connector is less than so many rows behind; the seconds it took. Raises PromiseBroken."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            health = await self.gateway.health()
            if any(way.name == connector and way.lag_rows < rows for way in health.connectors):
                return time.monotonic() - began
            await asyncio.sleep(POLL_S)
        raise PromiseBroken(f"{connector} was still {rows:,} rows behind or more after {seconds:.0f} s")

    async def proxy(self, far_port: int) -> FaultProxy:
        proxy = FaultProxy(far_port)
        await proxy.listen()
        self._exit.push_async_callback(proxy.close)
        return proxy


def book(broker: Any, tallies: dict[str, Tally]) -> None:
    """Book what an embedded broker accepts into the tally of its topic; other topics are nobody's."""

    def take(message: Any) -> None:
        tally = tallies.get(message.topic)
        if tally is not None:
            tally.take(bytes(message.payload))

    broker.broker.taken = take


def variables(devices: Sequence[str], tags: int) -> list[str]:
    """Rows of variables.yml: so many int16 registers of each device."""
    return [
        f"tag: {device}.t{i}, source: {device}, address: 'hr:{i}', type: int16"
        for device in devices
        for i in range(tags)
    ]


def judge(result: Result, name: str, tally: Tally, through: int, duplicates_max: int) -> Verdict:
    """Book what a witness saw up to a position into a result, and what of it must not be."""
    verdict = tally.verdict(through)
    missing = verdict.lost + verdict.announced
    result.acknowledged += through - missing
    result.lost += missing
    result.duplicated += verdict.duplicated
    result.out_of_order += verdict.out_of_order
    result.largest_gap = max(result.largest_gap, verdict.largest_gap)
    if missing:
        result.broken.append(f"{name}: {missing:,} rows of {through:,} were lost")
    if verdict.out_of_order:
        result.broken.append(f"{name}: {verdict.out_of_order:,} rows came out of order")
    if verdict.duplicated > duplicates_max:
        result.broken.append(
            f"{name}: {verdict.duplicated:,} rows came again; at most {duplicates_max:,} were promised"
        )
    return verdict


async def reached(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for something to become true; whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of all does not exceed; 0.0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
