"""What the connector's tests have in common: a pool of lines, an outbox in miniature, and mosquitto in a folder.

The miniature outbox offers windows as the real one does: several at once, in order, again after a loss.
"""

from __future__ import annotations

import asyncio
import getpass
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from framegate.contract.connector import CommandDoor, ConnectorContext, Window
from framegate.contract.errors import Busy, GatewayError, NotConnected, PayloadRefused
from framegate.contract.frame import Position
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.endpoint import endpoint_from_row
from framegate.endpoint.pool import EndpointPool
from framegate.observe.log import make_log
from framegate.observe.metrics import Metrics
from framegate.testing.ports import free_port
from framegate_plugins.mqtt.connector import MqttConnector

DEADLINE_S = 20.0
RETRY_S = 0.01
LOSSES_MAX = 200
WINDOWS_IN_FLIGHT = 4
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


async def until(is_true: Callable[[], object], what: str = "the condition") -> None:
    """Wait for a condition; fails after DEADLINE_S."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not is_true():  # noqa: ASYNC110 - tests look from outside
                await asyncio.sleep(0.002)
    except TimeoutError:
        pytest.fail(f"{what} did not come true within {DEADLINE_S:g} s")


def windows(messages: int, per_window: int, *, topics: int = 5, payload_bytes: int = 0) -> list[Window]:
    """Messages whose payload begins with their position, spread over topics t/0, t/1, ..."""
    made = []
    for start in range(1, messages + 1, per_window):
        places = range(start, min(messages + 1, start + per_window))
        payloads = [b"%d" % place + b" " * payload_bytes for place in places]
        keys = [b"t/%d" % (place % topics) for place in places]
        last = Position(places[-1])
        made.append(Window(Position(start), last, keys, payloads, list(places), [1] * len(places), "text/plain"))
    return made


def message_alone(window: Window, index: int) -> Window:
    """One message of a window as a window of its own, made anew each time, as the outbox does it."""
    place = Position(window.position[index])
    return Window(place, place, [window.key[index]], [window.payload[index]], [place], [1], window.encoding)


class Witness:
    """Payloads as they were taken, by topic."""

    def __init__(self) -> None:
        self.by_topic: dict[str, list[int]] = {}
        self.taken: list[int] = []

    def take(self, topic: str, payload: bytes) -> None:
        place = int(payload.split()[0])
        self.by_topic.setdefault(topic, []).append(place)
        self.taken.append(place)

    @property
    def duplicates(self) -> int:
        return len(self.taken) - len(set(self.taken))

    def assert_complete(self, messages: int) -> None:
        """Nothing lost, and in order per topic once repeats are removed, first kept."""
        assert sorted(set(self.taken)) == list(range(1, messages + 1))
        for topic, places in self.by_topic.items():
            firsts = list(dict.fromkeys(places))
            assert firsts == sorted(firsts), f"out of order on {topic}"


class Sender:
    """A connector with its lines, driven as the outbox drives it."""

    def __init__(
        self,
        options: Mapping[str, Any],
        rows: Mapping[str, Mapping[str, Any]],
        folder: Path,
        commands: CommandDoor | None = None,
    ) -> None:
        endpoints = {name: endpoint_from_row(name, row, folder) for name, row in rows.items()}
        self.log_lines = _Lines()
        log = make_log(self.log_lines, level="debug")  # type: ignore[arg-type]  # only write() and flush() are used
        self.pool = EndpointPool(endpoints, SystemClock(), log, Metrics())
        self.connector = MqttConnector(options)
        self.lost: list[GatewayError] = []
        self.losses: list[GatewayError] = []
        self.refused: list[PayloadRefused] = []
        self.busy = 0
        self.context = ConnectorContext(
            "cloud", "gw1", next(iter(rows)), self.pool, SystemClock(), log, self.lost.append, "acme", commands
        )

    async def open(self) -> None:
        await self.connector.open(self.context)

    async def open_patiently(self) -> None:
        """Open, as often as it takes; why it failed is kept in `losses`."""
        for _ in range(LOSSES_MAX):
            try:
                await self.open()
            except NotConnected as error:
                self.losses.append(error)
                await asyncio.sleep(RETRY_S)
            else:
                return
        pytest.fail(f"never connected; last: {self.losses[-1]}")

    async def send(self, batches: Sequence[Window], *, refusals_max: int = 2) -> None:
        """Deliver every window, over any number of losses; refused messages end up in `refused`."""
        waiting = list(batches)
        refusals: dict[int, int] = {}
        while waiting:
            flying = waiting[:WINDOWS_IN_FLIGHT]
            results = await asyncio.gather(*(self.connector.send(window) for window in flying), return_exceptions=True)
            is_lost = False
            for window, result in zip(flying, results, strict=True):
                if result is None:
                    waiting.remove(window)
                elif isinstance(result, PayloadRefused):
                    refusals[id(window)] = refusals.get(id(window), 0) + 1
                    if refusals[id(window)] >= refusals_max:
                        waiting.remove(window)
                        await self._isolate(window)
                elif isinstance(result, Busy):
                    self.busy += 1
                    await asyncio.sleep(min(result.wait_s, 0.05))
                elif isinstance(result, NotConnected):
                    self.losses.append(result)
                    is_lost = True
                else:
                    raise result
            assert len(self.losses) < LOSSES_MAX
            if is_lost:
                await self.open_patiently()

    async def _isolate(self, window: Window) -> None:
        index = 0
        while index < len(window.payload):
            try:
                await self.connector.send(message_alone(window, index))
            except PayloadRefused as error:
                self.refused.append(error)
            except NotConnected as error:
                self.losses.append(error)
                await self.open_patiently()
                continue
            index += 1

    async def close(self) -> None:
        await self.connector.close()
        await self.pool.close()


class _Lines:
    """Collects log lines."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""


class Mosquitto:
    """A mosquitto of its own, in a folder, on a loopback port."""

    def __init__(self, folder: Path, config: str = "", *, listener: str = "", anonymous: bool = True) -> None:
        self.folder = folder
        self.port = free_port()
        lines = [
            f"listener {self.port} 127.0.0.1",
            listener,
            f"allow_anonymous {str(anonymous).lower()}",
            f"user {getpass.getuser()}",
            "persistence true",
            f"persistence_location {folder}/",
            "max_queued_messages 0",
            "log_type error",
            config,
        ]
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Run, or run again, and wait for the port."""
        self._run()
        await until(self._is_listening, "mosquitto")

    def _run(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        """End by SIGTERM: it saves its state."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(DEADLINE_S)
            self._process = None

    async def save(self) -> None:
        """Have it write what it keeps, as it does now and then."""
        assert self._process is not None
        saved = self.folder / "mosquitto.db"
        saved.unlink(missing_ok=True)
        self._process.send_signal(signal.SIGUSR1)
        await until(saved.exists, "the broker's save")

    def kill(self) -> None:
        """SIGKILL: it saves nothing."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(DEADLINE_S)
        self._process = None

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Certificates:
    """A throw-away CA with one server's and one client's certificate, as files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca, self.server, self.server_key = folder / "ca.pem", folder / "server.pem", folder / "server.key"
        self.client, self.client_key = folder / "client.pem", folder / "client.key"
        authority.cert_pem.write_to_path(self.ca)
        for cert, key, name in (
            (self.server, self.server_key, "localhost"),
            (self.client, self.client_key, "gw1"),
        ):
            issued = authority.issue_cert(name, "127.0.0.1", common_name=name)
            issued.cert_chain_pems[0].write_to_path(cert)
            issued.private_key_pem.write_to_path(key)
            key.chmod(0o600)
