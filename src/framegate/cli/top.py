"""`edge top`: one live screen of a running gateway, over its control socket."""

from __future__ import annotations

import contextlib
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live

from framegate.cli import exits
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import is_table, write_record
from framegate.cli.top_screen import draw
from framegate.gateway.home import Home
from framegate.observe.face import GatewayHealth
from framegate.ops.client import ControlClient

REFRESH_S = 1.0
ONCE_S = 0.5
"""Rates of a single frame are taken over this long."""
WIDTH_MIN = 80


def top(
    *,
    once: Annotated[bool, Parameter(negative="", help="Print one frame and end.")] = False,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """Watch a running gateway: rates, devices, connectors, the durable log. q or Ctrl-C ends."""
    console = Console(highlight=False)
    with ControlClient(Home(home.resolve()).socket) as gateway:
        before = gateway.health()
        if output is not None and not is_table(output):
            write_record(asdict(before), output)
        elif once or not console.is_terminal:
            time.sleep(ONCE_S)
            width = console.width if console.is_terminal else max(console.width, WIDTH_MIN)
            console.print(draw(gateway.health(), before, width, 1 << 16), soft_wrap=True)
        else:
            _live(console, gateway, before)
    return exits.OK


def _live(console: Console, gateway: ControlClient, before: GatewayHealth) -> None:
    now = before
    with _single_keys() as can_read, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(draw(now, before, console.width, console.height), refresh=True)
            if _asked_to_leave(REFRESH_S if now is not before else ONCE_S, can_read=can_read):
                return
            before, now = now, gateway.health()


@contextlib.contextmanager
def _single_keys() -> Iterator[bool]:
    """Keys arrive without Enter and unseen; False where stdin is no terminal."""
    if not sys.stdin.isatty():
        yield False
        return
    settings = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)


def _asked_to_leave(seconds: float, *, can_read: bool) -> bool:
    """Wait for a while; True when q was pressed meanwhile."""
    if not can_read:
        time.sleep(seconds)
        return False
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable) and sys.stdin.read(1) in ("q", "Q", "\x04", "")
