"""A driver's process that never rests is told of, once; one that does its work is not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from framegate.carrier.child.wire import HEADER, Message
from framegate.carrier.remote import processor, spawn
from framegate.carrier.remote.child_process import ChildProcess
from framegate.carrier.remote.processor import ProcessorWatch, processor_seconds
from framegate.testing import plant
from framegate.testing.fakes import CollectingLog


class Program:
    """Uses a share of one core, since it began."""

    def __init__(self, share: float) -> None:
        self.share, self.looks = share, 0
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def seconds(self) -> float:
        self.looks += 1
        return self.share * (self._loop.time() - self._began)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "LOOK_S", 0.02)


async def test_process_that_never_rests_is_told_of_once() -> None:
    log, program = CollectingLog(), Program(0.1)
    watch = ProcessorWatch("d0", log, program.seconds)
    await plant.until(lambda: program.looks > 2, "looks at a process that rests")
    assert log.events("driver_busy") == []
    program.share = 50.0
    await plant.until(lambda: bool(log.events("driver_busy")), "the warning")
    looks = program.looks
    await asyncio.sleep(0.1)
    assert (program.looks, len(log.events("driver_busy"))) == (looks, 1)
    assert log.events("driver_busy")[0]["driver_id"] == "d0"
    watch.end()


def pid_that_was() -> int:
    """Of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        return ended.pid


async def test_process_that_has_ended_is_looked_at_no_more() -> None:
    log, program = CollectingLog(), Program(5.0)
    ProcessorWatch("d0", log, program.seconds).end()
    pid = pid_that_was()
    with pytest.raises(OSError, match="No such"):
        processor_seconds(pid)
    watch = ProcessorWatch("d0", log, lambda: processor_seconds(pid))
    await asyncio.sleep(0.1)
    watch.end()
    assert (program.looks, log.events("driver_busy")) == (0, [])


BUSY = """
import socket, sys, threading
gateway = socket.socket(fileno=int(sys.argv[2]))
def spin():
    while True:
        pass
threading.Thread(target=spin, daemon=True).start()
gateway.send({hello!r})
while gateway.recv(100):
    pass
"""


async def test_driver_whose_thread_spins_between_its_calls_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    hello = HEADER.pack(Message.HELLO, 0, 0, 0, 0, 0)
    monkeypatch.setattr(spawn, "BEGIN", BUSY.format(hello=hello).replace("{", "{{").replace("}", "}}"))
    monkeypatch.setattr(processor, "LOOK_S", 0.3)
    monkeypatch.setattr(processor, "SHARE_MAX", 0.05)  # the machine may be busy with other things
    log = CollectingLog()
    process = ChildProcess("", "meter1", log, lambda _: None)
    await process.start()
    await plant.until(lambda: bool(log.events("driver_busy")), "the warning")
    process.kill()
    await process.end()


def test_processor_seconds_are_those_that_a_process_counts_itself() -> None:
    code = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        assert busy.stdin is not None
        busy.stdout.readline()
        time.sleep(0.02)
        assert 0.25 < processor_seconds(busy.pid) < 0.5
        busy.stdin.close()
