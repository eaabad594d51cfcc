"""A real config centre for tests: Debian's etcd as a process of its own, on loopback, and etcdctl beside it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from framegate.testing.ports import free_port

STARTS_MAX = 3
START_S_MAX = 20.0
STOP_S_MAX = 5.0
CONTROL_S_MAX = 15.0
PROGRAM = shutil.which("etcd")
CONTROL_PROGRAM = shutil.which("etcdctl")
IS_INSTALLED = PROGRAM is not None and CONTROL_PROGRAM is not None


class Etcd:
    """One member, by default a cluster by itself. Its data outlive stop(), kill() and start(), on the same ports.

    port  clients' port, plain or TLS
    """

    def __init__(self, folder: Path, *, tls: tuple[str, ...] = (), control_options: tuple[str, ...] = ()) -> None:
        """Nothing runs before start().

        tls              options of etcd: --cert-file=..., --key-file=..., --trusted-ca-file=..., --client-cert-auth
        control_options  options of etcdctl: --cacert=..., --cert=..., --key=..., --user=...
        """
        assert PROGRAM is not None, "etcd is not installed"
        self.control_options = control_options
        self.cluster: Sequence[Etcd] = (self,)
        self._root, self._tls = folder, tls
        self._process: subprocess.Popen[bytes] | None = None
        self._choose_ports()

    def _choose_ports(self) -> None:
        self.port = free_port()
        self.peer_url = f"http://127.0.0.1:{free_port()}"
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        self._folder = self._root / f"etcd-{self.port}"

    def start(self) -> None:
        """Run, and return once it answers. Where another program was quicker to take a port, with others."""
        for _ in range(STARTS_MAX - 1):
            self.launch()
            try:
                self.wait()
            except AssertionError:
                if self._folder.exists() and any(self._folder.iterdir()):  # it has run before, on these ports
                    raise
                self._choose_ports()
            else:
                return
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Run; a member of a larger cluster answers once most of the others run."""
        members = ",".join(f"etcd-{member.port}={member.peer_url}" for member in self.cluster)
        command = [
            str(PROGRAM), f"--name=etcd-{self.port}", f"--data-dir={self._folder}", "--log-level=error",
            f"--listen-client-urls={self.url}", f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={self.peer_url}", f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={members}", *self._tls,
        ]  # fmt: skip
        with self._folder.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self) -> None:
        """Return once it answers."""
        assert self._process is not None
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


def make_cluster(folder: Path, members: int) -> list[Etcd]:
    """Members that are one cluster; all are launched before the first can answer."""
    made = [Etcd(folder) for _ in range(members)]
    for member in made:
        member.cluster = made
    return made
