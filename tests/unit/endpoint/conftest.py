"""A bench for lines: recording sessions, a recording log, a pool over given rows. Async tests run on both loops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from framegate.contract.errors import NotConnected
from framegate.contract.ports import Line, Session
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.endpoint import endpoint_from_row
from framegate.endpoint.listen import listen
from framegate.endpoint.listener import Listener
from framegate.endpoint.pool import EndpointPool
from framegate.observe.metrics import Counter, Gauge, Histogram, Metrics

CONDITION_S_MAX = 10.0


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Recorder:
    """A session that remembers everything, and answers if told how."""

    def __init__(self, answer: Callable[[bytes], bytes] | None = None) -> None:
        self.made: list[Line] = []
        self.data = bytearray()
        self.lost: list[NotConnected] = []
        self._answer = answer

    @property
    def line(self) -> Line:
        return self.made[-1]

    def line_made(self, line: Line) -> None:
        self.made.append(line)

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self._answer is not None:
            self.line.write(self._answer(data))

    def line_lost(self, error: NotConnected) -> None:
        self.lost.append(error)


class RecordingLog:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **values: Any) -> None:
        self.events.append(("debug", event, values))

    def info(self, event: str, **values: Any) -> None:
        self.events.append(("info", event, values))

    def warning(self, event: str, **values: Any) -> None:
        self.events.append(("warning", event, values))

    def error(self, event: str, **values: Any) -> None:
        self.events.append(("error", event, values))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [values for _, name, values in self.events if name == event]


class Bench:
    """Pools, listeners and their sessions, closed when the test ends."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.log = RecordingLog()
        self.metrics = Metrics()
        self.served: list[Recorder] = []
        self._stack = contextlib.AsyncExitStack()

    def pool(self, **rows: Mapping[str, object]) -> EndpointPool:
        endpoints = {name: endpoint_from_row(name, row, self.base) for name, row in rows.items()}
        pool = EndpointPool(endpoints, SystemClock(), self.log, self.metrics)

        async def close() -> None:
            await pool.close()

        self._stack.push_async_callback(close)
        return pool

    async def listen(
        self, url: str, tls: Any = None, *, make_session: Callable[[], Session] | None = None, clients_max: int = 64
    ) -> Listener:
        listener = await listen(url, make_session or self.echo, tls, clients_max=clients_max)

        async def close() -> None:
            await listener.close()

        self._stack.push_async_callback(close)
        return listener

    def echo(self) -> Recorder:
        session = Recorder(lambda data: data)
        self.served.append(session)
        return session

    def at_end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Clean up after everything that is made later."""
        self._stack.push_async_callback(close)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds; fail after CONDITION_S_MAX."""
        async with asyncio.timeout(CONDITION_S_MAX):
            while not condition():  # noqa: ASYNC110 - conditions are plain state, nothing signals them
                await asyncio.sleep(0.002)

    def value(self, name: str, **labels: str) -> float:
        """Value of one metric child, 0 if it does not exist."""
        wanted = tuple(sorted(labels.items()))
        for spec, children in self.metrics.collect():
            for key, child in children:
                if spec.name == name and key == wanted:
                    return _number(child)
        return 0.0

    async def close(self) -> None:
        async with asyncio.timeout(CONDITION_S_MAX):
            await self._stack.aclose()


def _number(child: Counter | Gauge | Histogram) -> float:
    if isinstance(child, Gauge):
        return child.sample()
    assert isinstance(child, Counter)
    return child.value


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.close()


@pytest.fixture
def make_recorder() -> type[Recorder]:
    return Recorder
