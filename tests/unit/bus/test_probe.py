"""The child that opens a store first: it ends at its deadline, and with whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from framegate.bus.probe import HUNG, probe

END_S_MAX = 60.0
POLL_S = 0.01
PARENT = "import sys; from pathlib import Path; from framegate.bus.probe import probe; probe(Path(sys.argv[1]), 600)"


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A store whose opening does not end: its file CURRENT is a pipe that nobody writes to."""
    (tmp_path / "store").mkdir()
    os.mkfifo(tmp_path / "store" / "CURRENT")
    return tmp_path / "store"


def probes_of(store: Path) -> list[int]:
    """Pids of the processes that try this store."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"framegate.bus.probe" in words and os.fsencode(store) in words:
                found.append(int(entry.name))
    return found


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + END_S_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


def test_probe_that_does_not_end_is_ended_at_its_deadline(endless: Path) -> None:
    assert probe(endless, 1.0) == HUNG
    assert probes_of(endless) == []


def test_probe_dies_with_a_killed_gateway(endless: Path) -> None:
    """Left behind it would hold the store's lock, and the gateway's next start would be refused."""
    with subprocess.Popen([sys.executable, "-c", PARENT, str(endless)]) as parent:
        until(lambda: probes_of(endless))
        parent.kill()
        parent.wait()
    until(lambda: not probes_of(endless))
