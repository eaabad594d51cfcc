"""Servers in processes of their own: started, killed, paused; each is a stack that we did not write."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from framegate.testing.ports import free_port

JUDGES = Path(__file__).with_name("judges")
START_S = 120.0


class Peer:
    """One server on a port that stays the same over restarts; it says "ready"."""

    def __init__(self, command: Sequence[str], folder: Path = JUDGES) -> None:
        self.port = free_port()
        self._command = [word.replace("{port}", str(self.port)) for word in command]
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    @classmethod
    def open62541(cls, tags: int = 10, *pair: str) -> Self:
        return cls((sys.executable, str(JUDGES / "open62541.py"), "{port}", str(tags), *pair))

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Run a server, until it takes connections."""
        quiet = subprocess.DEVNULL
        process = self._process = subprocess.Popen(
            self._command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, cwd=self._folder, text=True
        )
        assert process.stdout is not None
        while (line := process.stdout.readline()).strip() != "ready":
            assert line, "the judge ended before it was ready"
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return
            time.sleep(0.01)
        raise AssertionError("the judge takes no connections")

    def kill(self) -> None:
        """SIGKILL: no goodbye, the sockets reset by the system."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def pause(self) -> None:
        """SIGSTOP: the sockets stand, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
