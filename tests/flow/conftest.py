"""The stage of flow tests: PLC simulators in this process, a broker, the gateway as a process, a foreign subscriber.

Everything listens on loopback, and everything started here is ended here. The subscriber is paho-mqtt, which shares no
code with the gateway; what it saw is in an Account.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
import threading
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from prometheus_client.parser import text_string_to_metric_families

from framegate.contract.errors import GatewayError
from framegate.gateway.home import Home
from framegate.observe.face import GatewayHealth
from framegate.ops.client import ControlClient
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.etcd import Etcd
from framegate.testing.mosquitto import PROGRAM, Mosquitto
from framegate.testing.ports import free_url
from framegate_plugins.modbus.simulator import Simulator as Plc
from framegate_plugins.modbus.simulator import start as start_plc

SUBSCRIBE_S_MAX = 20.0
STEP_S = 0.02
HIGHEST = 30_000
LOG_LINES_SHOWN = 40
BARRIER = "witness/barrier"


class Subscriber:
    """One paho client that books what it receives; it subscribes again after every reconnect."""

    def __init__(self, port: int, account: Account, topics: str, qos: int) -> None:
        self.account = account
        self.barriers: set[bytes] = set()
        self._topics, self._qos = topics, qos
        self._is_ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._is_ready.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._is_ready.wait(SUBSCRIBE_S_MAX), "the witness could not subscribe"

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe([(self._topics, self._qos), (BARRIER, 2)])

    def _on_message(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        if message.topic == BARRIER:
            self.barriers.add(bytes(message.payload))
        else:
            self.account.take(message.topic, bytes(message.payload))

    async def drained(self) -> None:
        """Return when everything that the broker had before this call has been booked."""
        mark = str(len(self.barriers)).encode()
        self._client.publish(BARRIER, mark, qos=2)
        await plant.until(lambda: mark in self.barriers, "the witness to be through with what the broker had")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()  # its wake-up pair, which it leaves to the collector


Subscribe = Callable[..., Awaitable[Account]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def subscribers() -> Iterator[dict[int, Subscriber]]:
    """By id of their accounts."""
    running: dict[int, Subscriber] = {}
    yield running
    for subscriber in running.values():
        subscriber.close()


@pytest.fixture
def subscribe(subscribers: dict[int, Subscriber]) -> Subscribe:
    """Begin to watch a broker: `account = await subscribe(port, encoding=..., compress=..., topics=..., qos=...)`."""

    async def begin(
        port: int, *, encoding: str = "json-batch", compress: str = "none", topics: str = "flow/#", qos: int = 1
    ) -> Account:
        account = Account(encoding, compress)
        subscribers[id(account)] = await asyncio.to_thread(Subscriber, port, account, topics, qos)
        return account

    return begin


@pytest.fixture
def drained(subscribers: dict[int, Subscriber]) -> Callable[[Account], Awaitable[None]]:
    return lambda account: subscribers[id(account)].drained()


@pytest.fixture
async def modbus() -> AsyncIterator[Callable[..., Awaitable[Plc]]]:
    """`plc = await modbus(units=[1, 2])`."""
    started: list[Plc] = []

    async def start(**options: Any) -> Plc:
        started.append(await start_plc({"url": free_url()} | options))
        return started[-1]

    yield start
    for plc in started:
        await plc.close()


@pytest.fixture
async def flood() -> AsyncIterator[Callable[..., None]]:
    """`flood(plc, 200)`: 200 holding registers of unit 1 count up together, fifty times a second."""
    tasks: list[asyncio.Task[None]] = []

    async def count_up(plc: Plc, registers: int) -> None:
        count = 0
        while True:
            count = (count + 1) % HIGHEST
            plc.units[1].hold[:registers] = count
            await asyncio.sleep(STEP_S)

    yield lambda plc, registers: tasks.append(asyncio.create_task(count_up(plc, registers)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    if PROGRAM is None:
        pytest.skip("mosquitto is not installed")
    broker = Mosquitto(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    server = Etcd(tmp_path)
    server.start()
    try:
        yield server
    finally:
        with contextlib.suppress(AssertionError, ProcessLookupError):
            server.resume()  # a test that failed may have left it paused
        server.stop()


@pytest.fixture
def run() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """`gateway = run(home)`; the log of each is shown when a test fails."""
    started: list[tuple[Path, subprocess.Popen[bytes]]] = []

    def start(home: Path) -> subprocess.Popen[bytes]:
        started.append((home, plant.start_gateway(home)))
        return started[-1][1]

    yield start
    for _, gateway in started:
        gateway.kill()
        gateway.wait()
    for home in {home for home, _ in started}:
        lines = (home / "log").read_text(errors="replace").splitlines()
        print(f"-- log of the gateway in {home}", *lines[-LOG_LINES_SHOWN:], sep="\n")  # noqa: T201 - pytest shows it


@pytest.fixture
def counted() -> Callable[[int, str], Awaitable[dict[str, float]]]:
    """A metric's samples by their one label: `(await counted(port, "edge_wal_gap_rows_total"))["damage"]`."""

    def fetch(port: int, name: str) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            text = str(reply.read().decode())
        return {
            next(iter(sample.labels.values()), ""): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    async def ask(port: int, name: str) -> dict[str, float]:
        return await asyncio.to_thread(fetch, port, name)

    return ask


@pytest.fixture
def health() -> Callable[[Path], Awaitable[GatewayHealth]]:
    """What a running gateway says of itself; waits until it has started."""

    def ask(home: Path) -> GatewayHealth:
        with ControlClient(Home(home).socket) as gateway:
            return gateway.health()

    async def answer(home: Path) -> GatewayHealth:
        async with asyncio.timeout(plant.WAIT_S_MAX):
            while True:
                with contextlib.suppress(GatewayError):
                    return await asyncio.to_thread(functools.partial(ask, home))
                await asyncio.sleep(STEP_S)

    return answer
