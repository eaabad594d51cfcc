"""A real broker for flow tests: Debian's mosquitto as a process of its own, on loopback."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from framegate.testing.ports import free_port

START_S_MAX = 15.0
STOP_S_MAX = 5.0
PROGRAM = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """One broker; it keeps nothing over a restart, unless it is persistent and stopped in order.

    port      plain listener, for everybody
    tls_port  second listener, when `tls` was given; 0 otherwise
    """

    def __init__(self, folder: Path, *, tls: str = "", is_persistent: bool = False) -> None:
        """Nothing runs before start().

        tls            lines for the configuration of the second listener: certfile, keyfile, cafile,
                       require_certificate
        is_persistent  keeps sessions and queued messages, as `persistence true` means it: written now and then and
                       at an orderly stop, so that a kill loses what came since
        """
        assert PROGRAM is not None, "mosquitto is not installed"
        self.port = free_port()
        self.tls_port = free_port() if tls else 0
        listeners = f"listener {self.port} 127.0.0.1\n"
        if tls:
            listeners += f"listener {self.tls_port} 127.0.0.1\n{tls}\n"
        self._config = folder / f"mosquitto-{self.port}.conf"
        # Started by root, it would otherwise become another user, who may not read the test's keys.
        user = f"user {getpass.getuser()}\n"
        kept = f"persistence true\npersistence_location {folder}/\npersistence_file mosquitto-{self.port}.db\n"
        self._config.write_text(
            f"{user}allow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\nlog_type error\n"
            f"{kept * is_persistent}{listeners}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run, and return once it listens."""
        assert PROGRAM is not None
        self._process = subprocess.Popen([PROGRAM, "-c", str(self._config)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S_MAX
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self._process.poll() is None, "mosquitto ended by itself"
                assert time.monotonic() < deadline, "mosquitto does not listen"
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """SIGKILL, as a power cut would: it has no time to keep anything."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End it in order; without persistence sessions and queued messages are gone."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
