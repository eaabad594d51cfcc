"""The gateway's folder on disk, and the lock that gives it one owner.

HOME/config/    endpoints.yml drivers.yml variables.yml
HOME/plugins/   packaged plugins
HOME/rules/     rule sets
HOME/access/    tokens.json, audit.jsonl and its elder files; for the gateway's user only
HOME/private/   a folder per plugin: what it keeps for its devices, and one in it for each of its bridges: certificates,
                trust lists, exported maps
HOME/data/      the durable log, and models that came from a registry
HOME/run/       edge.sock, edge.pid
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from framegate.contract.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Home:
    """Paths inside one gateway's folder."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def centre_file(self) -> Path:
        """Says where the config centre is; not one of the tables, as those come from there."""
        return self.root / "config-centre.yml"

    @property
    def plugins(self) -> Path:
        return self.root / "plugins"

    @property
    def plugin_cache(self) -> Path:
        """Compiled WASM; nothing of it is missed when it is gone."""
        return self.plugins / ".cache"

    @property
    def rules(self) -> Path:
        return self.root / "rules"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def models(self) -> Path:
        return self.data / "models"

    @property
    def history(self) -> Path:
        """Generations of the configuration."""
        return self.data / "config"

    def private(self, plugin: str) -> Path:
        """What a plugin keeps for its devices: certificates, trust lists."""
        return self.root / "private" / plugin

    @property
    def access(self) -> Path:
        """Tokens and the audit log."""
        return self.root / "access"

    def bridge(self, plugin: str, name: str) -> Path:
        """What one bridge keeps: certificates, trust lists, maps; in the folder of its plugin, where its verbs look."""
        return self.private(plugin) / name

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def socket(self) -> Path:
        return self.run / "edge.sock"

    @property
    def pid_file(self) -> Path:
        return self.run / "edge.pid"

    def prepare(self) -> None:
        """Make the folders the gateway writes to.

        raises Misconfigured E4002 - the home is missing or not writable
        """
        for folder in (self.data, self.run):
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            except OSError as error:
                raise _unwritable(folder, error) from error
            if not os.access(folder, os.W_OK | os.X_OK):
                raise _unwritable(folder, PermissionError("permission denied"))

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the home for this process; the lock dies with the process, however it ends.

        raises Misconfigured E4003 - another gateway runs in this home
        """
        try:
            pid_file = self.pid_file.open("a+", encoding="ascii")
        except OSError as error:
            raise _unwritable(self.run, error) from error
        with pid_file:
            try:
                fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                pid_file.seek(0)
                owner = pid_file.read().strip() or "unknown"
                raise Misconfigured(
                    f"home {self.root}: another gateway (pid {owner}) runs here; stop it, or use another --home",
                    code="E4003",
                ) from error
            pid_file.seek(0)
            pid_file.truncate()
            pid_file.write(f"{os.getpid()}\n")
            pid_file.flush()
            yield


def existing_home(folder: Path) -> Home:
    """The home in a folder that is there; raises Misconfigured E4002 - it is not."""
    root = folder.resolve()
    if not root.is_dir():
        text = f"home folder {root}: does not exist; make one with `edge init {root}`, or choose another with --home"
        raise Misconfigured(text, code="E4002")
    return Home(root)


def _unwritable(folder: Path, error: OSError) -> Misconfigured:
    reason = error.strerror or str(error)
    return Misconfigured(
        f"home folder {folder}: cannot be written ({reason}); make it writable, or choose another with --home",
        code="E4002",
    )
