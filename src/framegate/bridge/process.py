"""The process of one bridge: `python -m framegate.bridge.process FD`, started by host.py, and by nobody else.

It limits itself before it loads the plugin: memory, no new privileges, first to go when the machine runs out of
memory, dead when the gateway is. It ends when the gateway hangs up, is told to, or cannot serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import importlib
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import uvloop

from framegate.bridge.calls import Caller
from framegate.bridge.wire import (
    START_BYTES_MAX,
    Answer,
    FromBridge,
    Line,
    Ready,
    Refused,
    Report,
    Rows,
    Start,
    Unpacker,
    message,
    read_message,
    to_bridge,
)
from framegate.contract.bridge import Bridge, BridgeContext
from framegate.contract.errors import GatewayError
from framegate.endpoint.clock import SystemClock

REPORT_S = 1.0
CLOSE_S = 1.0
LINES_PER_REPORT_MAX = 20
"""Log lines between two reports; a noisy client must not fill the log."""
PARENT = "EDGE_PARENT_PID"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_NO_NEW_PRIVS = 38
OOM_SCORE = "900"
_PAGE_BYTES = resource.getpagesize()


def main(number: int, code: int | None = None) -> None:
    """Serve over the inherited socket with that file descriptor. code: descriptor of a sealed ZIP of its modules."""
    faulthandler.enable()
    _confine()
    uvloop.run(_serve(socket.socket(fileno=number), code))


def _confine() -> None:
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.environ.get(PARENT) != str(os.getppid()):
        sys.exit("the gateway has gone")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which tells us


async def _serve(line: socket.socket, code: int | None) -> None:
    reader, writer = await asyncio.open_connection(sock=line)

    def send(content: FromBridge) -> None:
        if not writer.is_closing():
            writer.write(message(content))

    start = await read_message(reader, to_bridge, START_BYTES_MAX)
    assert isinstance(start, Start)
    resource.setrlimit(resource.RLIMIT_DATA, (start.memory_max, start.memory_max))
    log = _Log(send)
    logging.basicConfig(handlers=[_Handler(log)], level=logging.WARNING)
    caller = Caller(send)
    try:
        bridge = _load(start, code)
        await bridge.open(_context(start, log, caller))
    except GatewayError as error:
        send(Refused(error.stable_code, error.text))
        await writer.drain()
        return
    send(Ready())
    reporting = asyncio.create_task(_report(bridge, log, send))
    try:
        await _listen(reader, bridge, caller)
    finally:
        reporting.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(bridge.close(), CLOSE_S)


async def _listen(reader: asyncio.StreamReader, bridge: Bridge, caller: Caller) -> None:
    """Until the gateway says stop, or hangs up."""
    unpacker = Unpacker()
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            said = await read_message(reader, to_bridge, START_BYTES_MAX)
            if isinstance(said, Rows):
                bridge.update(unpacker.batches(said))
            elif isinstance(said, Answer):
                caller.answered(said)
            else:
                return


async def _report(bridge: Bridge, log: _Log, send: Any) -> None:
    while True:
        send(Report(bridge.health(), _rss_bytes()))
        log.next_period()
        await asyncio.sleep(REPORT_S)


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def _load(start: Start, code: int | None) -> Bridge:
    module, _, name = start.entry.partition(":")
    place = f"/proc/self/fd/{code}" if start.sealed else start.folder
    if place not in sys.path:
        sys.path.append(place)  # last, as in package.discover
    bridge: Bridge = getattr(importlib.import_module(module), name)(start.options)
    return bridge


def _context(start: Start, log: _Log, caller: Caller) -> BridgeContext:
    return BridgeContext(
        name=start.name,
        gateway=start.gateway,
        url=start.url,
        tls=start.tls,
        base=Path(start.base),
        home=Path(start.home),
        tags=start.tags,
        clock=SystemClock(),
        log=log,
        commands=caller if start.may_write else None,
    )


class _Log:
    """Satisfies contract.ports.Log: lines go to the gateway, a bounded number of them."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._lines = 0

    def next_period(self) -> None:
        lines, self._lines = self._lines, 0
        if lines > LINES_PER_REPORT_MAX:
            self._send(
                Line(
                    "warning", "bridge_says", {"text": "log lines were left out", "lines": lines - LINES_PER_REPORT_MAX}
                )
            )

    def debug(self, event: str, **values: Any) -> None:
        """Not told."""

    def info(self, event: str, **values: Any) -> None:
        self._say("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        self._say("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        self._say("error", event, values)

    def _say(self, level: str, event: str, values: dict[str, Any]) -> None:
        self._lines += 1
        if self._lines <= LINES_PER_REPORT_MAX:
            plain = {key: value if isinstance(value, int | float) else str(value) for key, value in values.items()}
            self._send(Line(level, event, plain))


class _Handler(logging.Handler):
    """Warnings of libraries, as lines of ours."""

    def __init__(self, log: _Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.warning("bridge_says", text=record.getMessage()[:400], logger=record.name)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
