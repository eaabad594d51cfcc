"""Starting other programs beside the loop: drivers and bridges that run in processes of their own.

A thread of its own starts them all, since starting one waits until the other program runs: the copy of a large process
takes milliseconds, and a busy machine takes its time. It lives as long as the gateway does: a process that dies with
its parent dies with that thread. A process gets the descriptors that it is given, and no other one that is open here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

_starter = ThreadPoolExecutor(1, "edge-spawn")


class Process:
    """A process that was started; its end is noticed by the loop."""

    def __init__(self, started: subprocess.Popen[bytes]) -> None:
        self._started = started
        self._ended = asyncio.Event()
        self._handle = os.pidfd_open(started.pid)
        asyncio.get_running_loop().add_reader(self._handle, self._reap)

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def status(self) -> int | None:
        """Its status, once it has ended; that of a signal is negative."""
        return self._started.returncode if self._ended.is_set() else None

    def kill(self) -> None:
        """At once; nothing where it has ended."""
        self._started.kill()

    async def wait(self) -> int:
        """Its status, once it has ended."""
        await self._ended.wait()
        assert self._started.returncode is not None
        return self._started.returncode

    def _reap(self) -> None:
        self._started.wait()
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self._ended.set()


class Spawned(NamedTuple):
    """words: read end of its stdout and stderr"""

    process: Process
    words: int


async def spawn(command: Sequence[str], fds: Sequence[int], environment: Mapping[str, str]) -> Spawned:
    """Start a program.

    fds     descriptors that it gets, by the same numbers; closed here, whatever becomes of it
    raises  OSError
    """
    try:
        words, stderr = os.pipe()
    except OSError:
        _close(fds)
        raise
    started = _starter.submit(_start, command, fds, stderr, environment)
    try:
        return Spawned(Process(await asyncio.wrap_future(started)), words)
    except BaseException:
        os.close(words)
        started.add_done_callback(partial(_end, (*fds, stderr)))
        raise


def _start(
    command: Sequence[str], fds: Sequence[int], stderr: int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, pass_fds=fds, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
        )  # fmt: skip
    finally:
        _close((*fds, stderr))


def _end(fds: Sequence[int], started: Future[subprocess.Popen[bytes]]) -> None:
    """Nobody waits any more for what was started, or was to be."""
    if started.cancelled():
        _close(fds)
    elif started.exception() is None:
        started.result().kill()
        started.result().wait()


def _close(fds: Sequence[int]) -> None:
    for number in fds:
        os.close(number)


def ending_of(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
