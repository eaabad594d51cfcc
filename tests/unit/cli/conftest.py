"""A control socket with a gateway's face behind it, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from framegate.ops.control import serve


@pytest.fixture
def serving() -> Callable[[Any, Path], AbstractContextManager[None]]:
    """`with serving(face, home):`"""
    return _serving


@contextmanager
def _serving(face: Any, home: Path) -> Iterator[None]:
    """A control socket in a thread of its own, as a gateway would offer it."""
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def offer() -> None:
        server = await serve(face, home / "run" / "edge.sock")
        ending = asyncio.Event()
        ready.set_result((asyncio.get_running_loop(), ending))
        await ending.wait()
        await server.close()

    (home / "run").mkdir()
    thread = threading.Thread(target=lambda: asyncio.run(offer()))
    thread.start()
    try:
        loop, ending = ready.result(5)
        yield
        loop.call_soon_threadsafe(ending.set)
    finally:
        thread.join(5)
