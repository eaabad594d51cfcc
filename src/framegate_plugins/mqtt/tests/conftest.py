from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from framegate.contract.connector import CommandDoor
from framegate_plugins.mqtt.simulator import Simulator, start
from framegate_plugins.mqtt.tests.stage import MOSQUITTO, Certificates, Mosquitto, Sender, Witness

MakeBroker = Callable[..., Awaitable[tuple[Simulator, Witness]]]
MakeSender = Callable[..., Sender]


@pytest.fixture
async def cleanup() -> AsyncIterator[AsyncExitStack]:
    """Closes what a test made, the latest first."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def make_broker(cleanup: AsyncExitStack) -> MakeBroker:
    """An embedded broker, and a witness of what it takes."""

    async def make(**options: Any) -> tuple[Simulator, Witness]:
        simulator, witness = await start(options), Witness()
        simulator.broker.taken = lambda message: witness.take(message.topic, message.payload)
        cleanup.push_async_callback(simulator.close)
        return simulator, witness

    return make


@pytest.fixture
def make_sender(cleanup: AsyncExitStack, tmp_path: Path) -> MakeSender:
    """A connector with its pool; `url` is its endpoint, `rows` are more of them."""

    def make(
        url: str, rows: dict[str, dict[str, Any]] | None = None, /, door: CommandDoor | None = None, **options: Any
    ) -> Sender:
        endpoints: dict[str, dict[str, Any]] = {"broker": {"url": url}}
        sender = Sender(options, {**endpoints, **(rows or {})}, tmp_path, door)
        cleanup.push_async_callback(sender.close)
        return sender

    return make


@pytest.fixture
def make_mosquitto(cleanup: AsyncExitStack, tmp_path: Path) -> Callable[..., Awaitable[Mosquitto]]:
    """A real mosquitto that runs."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed (Debian: mosquitto)")

    async def make(config: str = "", **options: Any) -> Mosquitto:
        folder = tmp_path / "mosquitto"
        folder.mkdir()
        mosquitto = Mosquitto(folder, config, **options)
        cleanup.callback(mosquitto.stop)
        await mosquitto.start()
        return mosquitto

    return make


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))
