"""A control socket with a gateway's face behind it, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from framegate.ops.client import ControlClient
from framegate.ops.control import ControlServer, serve

T = TypeVar("T")


@pytest.fixture
async def server(face: Any, tmp_path: Path) -> AsyncIterator[ControlServer]:
    (tmp_path / "run").mkdir()
    server = await serve(face, tmp_path / "run" / "edge.sock")
    yield server
    await server.close()


async def ask(server: ControlServer, question: Callable[[ControlClient], T]) -> T:
    """Run the blocking client in a thread, beside the server."""

    def talk() -> T:
        with ControlClient(server.path) as client:
            return question(client)

    return await asyncio.to_thread(talk)
