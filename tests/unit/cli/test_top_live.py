"""`edge top` on a real terminal: draws, redraws, and gives the terminal back."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from framegate.ops.control import serve

ENTERS, LEAVES = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.mark.parametrize("leave", [b"q", signal.SIGINT], ids=["q", "ctrl-c"])
async def test_top_on_a_terminal_draws_and_leaves_cleanly(face: Any, tmp_path: Path, leave: bytes | int) -> None:
    (tmp_path / "run").mkdir()
    server = await serve(face, tmp_path / "run" / "edge.sock")
    code, screen, is_restored = await asyncio.to_thread(watch, tmp_path, leave)
    await server.close()
    assert code == (130 if leave == signal.SIGINT else 0), screen.decode(errors="replace")
    assert b"DEVICE" in screen
    assert b"quarantine" in screen
    assert screen.index(ENTERS) < screen.index(b"DEVICE") < screen.rindex(LEAVES)
    assert b"Traceback" not in screen
    assert is_restored
    assert face.asked >= 3, "it asks again and again"


def watch(home: Path, leave: bytes | int) -> tuple[int, bytes, bool]:
    """Run it on a pseudo terminal until it has drawn a few times; exit code, all bytes, settings as before."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [sys.executable, "-m", "framegate", "top", "--home", str(home)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
    )  # fmt: skip
    screen = bytearray()
    deadline = time.monotonic() + 30
    is_told = False
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                screen += os.read(ours, 65_536)
            if not is_told and screen.count(b"DEVICE") >= 3:
                is_told = True
                if isinstance(leave, bytes):
                    os.write(ours, leave)
                else:
                    process.send_signal(leave)
        while select.select([ours], [], [], 0.1)[0]:
            screen += os.read(ours, 65_536)
        return process.wait(1), bytes(screen), termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
