"""Starts gateways that tell and die as asked: the campaign's end of doomed.py.

A server process forks each gateway; one lives at a time. When the campaign ends, or is killed itself, the kernel ends
server and gateway too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Self

from framegate.cli.verify.told import Told

FORK_S_MAX = 20.0
DIE_S_MAX = 10.0
POLL_S = 0.005


class Launcher:
    """Set up with `async with`.

    told        what the gateways tell
    started_ns  CLOCK_MONOTONIC at which the newest one was asked for
    """

    def __init__(self, home: Path, told: Told) -> None:
        self.told = told
        self.started_ns = 0
        self._home = home
        self._server: asyncio.subprocess.Process | None = None
        self._pid = 0
        self._ending: asyncio.Task[int] | None = None

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "framegate.cli.verify.doomed")
        # numpy's BLAS would start threads that a fork does not take along.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._server = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
        return self

    async def __aexit__(self, *error: object) -> None:
        server = self._server
        if self.is_running:
            await self.kill()  # seen to be gone, so that it writes into no folder that is being deleted
        if self._ending is not None:
            self._ending.cancel()
            await asyncio.gather(self._ending, return_exceptions=True)
        if server is not None and server.returncode is None:
            server.kill()  # the kernel ends its gateway with it
            await server.wait()

    async def start(self, **request: Any) -> None:
        """A gateway; the keys of the request are in doomed.py."""
        self.told.begin()
        assert self._server is not None
        assert self._server.stdin is not None
        whole = {"home": str(self._home), "told": str(self.told.path), "log": str(self._home / "log"), **request}
        self.started_ns = time.monotonic_ns()
        self._server.stdin.write(json.dumps(whole).encode() + b"\n")
        async with asyncio.timeout(FORK_S_MAX):
            self._pid = int((await self._read())["pid"])
        self._ending = asyncio.create_task(self._end(), name="a gateway's end")

    @property
    def is_running(self) -> bool:
        return self._ending is not None and not self._ending.done()

    @property
    def ready_s(self) -> float:
        """Seconds from start to readiness; 0.0 if it has not come to that."""
        return max(0.0, (self.told.ready_ns - self.started_ns) / 1e9)

    async def ready(self, seconds: float) -> bool:
        """Wait until it has started, or is gone; whether it has."""
        deadline = time.monotonic() + seconds
        while not self.told.ready_ns and self.is_running and time.monotonic() < deadline:  # noqa: ASYNC110 - another process
            await asyncio.sleep(POLL_S)
        return bool(self.told.ready_ns)

    def signal(self, number: int) -> None:
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    async def ended(self, seconds: float) -> int | None:
        """Wait for its end; the exit code (negative: the signal), or None if it still lives."""
        assert self._ending is not None
        done, _ = await asyncio.wait([self._ending], timeout=seconds)
        return self._ending.result() if done else None

    async def kill(self) -> int:
        self.signal(signal.SIGKILL)
        code = await self.ended(DIE_S_MAX)
        assert code is not None, "a killed gateway does not end"
        return code

    async def _end(self) -> int:
        return int((await self._read())["status"])

    async def _read(self) -> dict[str, Any]:
        assert self._server is not None
        assert self._server.stdout is not None
        line = await self._server.stdout.readline()
        if not line:
            raise OSError("the process that starts gateways has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer
