"""A real config centre for tests: Debian's etcd as a process of its own, on loopback, and etcdctl beside it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from framegate.testing.plant import free_port

START_S_MAX = 20.0
STOP_S_MAX = 5.0
CONTROL_S_MAX = 15.0
PROGRAM = shutil.which("etcd")
CONTROL_PROGRAM = shutil.which("etcdctl")
IS_INSTALLED = PROGRAM is not None and CONTROL_PROGRAM is not None


class Etcd:
    """One member that is a cluster by itself. Its data outlive stop(), kill() and start(), on the same ports.

    port  clients' port, plain or TLS
    """

    def __init__(self, folder: Path, *, tls: tuple[str, ...] = (), control_options: tuple[str, ...] = ()) -> None:
        """Nothing runs before start().

        tls              options of etcd: --cert-file=..., --key-file=..., --trusted-ca-file=..., --client-cert-auth
        control_options  options of etcdctl: --cacert=..., --cert=..., --key=..., --user=...
        """
        assert PROGRAM is not None, "etcd is not installed"
        self.port = free_port()
        self._peer_port = free_port()
        self._folder = folder / f"etcd-{self.port}"
        self._tls, self.control_options = tls, control_options
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run, and return once it answers."""
        peer = f"http://127.0.0.1:{self._peer_port}"
        command = [
            str(PROGRAM), "--name=test", f"--data-dir={self._folder}", f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}", f"--listen-peer-urls={peer}", "--log-level=error",
            f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=test={peer}", *self._tls,
        ]  # fmt: skip
        with (self._folder.parent / f"etcd-{self.port}.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S_MAX
        while self.control("endpoint", "health", is_checked=False).returncode != 0:
            assert self._process.poll() is None, "etcd ended by itself"
            assert time.monotonic() < deadline, "etcd does not answer"

    def control(
        self, *words: str, is_checked: bool = True, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run etcdctl against it."""
        return subprocess.run(
            [str(CONTROL_PROGRAM), f"--endpoints={self.url}", *self.control_options, *words],
            env={**os.environ, "ETCDCTL_API": "3"},
            input=text,
            capture_output=True,
            text=True,
            timeout=CONTROL_S_MAX,
            check=is_checked,
        )

    def pause(self) -> None:
        """SIGSTOP: connections stand, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, as a power cut of its machine."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End it in order. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
