"""Modbus TCP devices that are no code of ours, and keep a log of what was written to them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from framegate.testing import plant
from framegate.testing.ports import free_port

PEERS = Path(__file__).parent / "peers"
HEADER = Path("/usr/include/modbus/modbus.h")
Server = Literal["libmodbus", "pymodbus"]


def why_not(server: Server) -> str:
    """Why a server cannot be had here; "" if it can."""
    if server == "libmodbus" and (shutil.which("cc") is None or not HEADER.exists()):
        return "cc or libmodbus-dev is not installed"
    return ""


class Device:
    """A Modbus TCP server that is no code of ours, in a process of its own.

    writes  how often each (register, value) came
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.port = free_port()
        self.writes: Counter[tuple[int, int]] = Counter()
        if server == "libmodbus":
            program = folder / "libmodbus_server"
            command = ["cc", "-O1", "-o", str(program), str(PEERS / "libmodbus_server.c"), "-lmodbus"]
            subprocess.run(command, check=True, timeout=plant.WAIT_S_MAX)
            words = [str(program), str(self.port)]
        else:
            words = [sys.executable, str(PEERS / "pymodbus_server.py"), str(self.port)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            word, register, value = line.split()
            assert word == "write", line
            self.writes[int(register), int(value)] += 1

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(plant.WAIT_S_MAX)
        finally:
            self._process.kill()
        self._reader.join(plant.WAIT_S_MAX)
        assert self._process.stdout is not None
        self._process.stdout.close()
