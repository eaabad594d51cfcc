"""A bridge in its process: fed, asked, killed, hung, starved of memory; the gateway's side goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from framegate.bridge import host as host_module
from framegate.bridge.host import BridgeHost
from framegate.bridge.wire import Start
from framegate.bus.latest import Latest
from framegate.contract.bridge import BridgeTag
from framegate.contract.command import Command, CommandRecord, Outcome, Stage
from framegate.contract.errors import Busy
from framegate.contract.frame import Batch, TagId, ValueType, uniform_quality, uniform_time
from framegate.endpoint.clock import SystemClock
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import CollectingLog
from framegate.testing.plant import eventually, until
from framegate.testing.ports import free_port

PLUGINS = Path(__file__).parent / "plugins"
SPEED = BridgeTag(
    TagId(1), "speed", ValueType.FLOAT64, "RW", "plc", "rpm", "of the pump", (0.0, 10.0), (), {"alias": "v"}
)
MODE = BridgeTag(TagId(2), "mode", ValueType.STRING, "R", texts=("off", "on"))
IDS = np.array([1], np.int32)
BUSY_MACHINE_S = 3.0
"""Beside the time that stopping may take: the test's machine does other things as well."""


class Door:
    """A desk that confirms what is below 10."""

    def __init__(self) -> None:
        self.taken: list[Command] = []
        self.is_busy = False

    async def submit(self, commands: Sequence[Command], by: str = "") -> Sequence[CommandRecord]:
        if self.is_busy:
            raise Busy("not now", wait_s=2.0, code="E4204")
        self.taken += commands
        return [CommandRecord(each, f"bridge:b/{by}", Stage.ACCEPTED, None, "", "", 1, 0) for each in commands]

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - the contract's word
        command = next((each for each in self.taken if each.id == id), None)
        if command is None:
            return None
        is_good = isinstance(command.value, float | int) and command.value < 10
        outcome = Outcome.CONFIRMED if is_good else Outcome.REJECTED
        return CommandRecord(command, "bridge:b/anna", Stage.DISPATCHED, outcome, "" if is_good else "E4206", "", 1, 2)


class Site:
    def __init__(self, tmp_path: Path, **changes: Any) -> None:
        self.port = free_port()
        self.latest, self.door, self.log, self.metrics = Latest(), Door(), CollectingLog(), Metrics()
        told: dict[str, Any] = {
            "entry": "talk.bridge:TalkBridge", "folder": str(PLUGINS), "options": {}, "name": "b", "gateway": "g",
            "url": f"tcp://127.0.0.1:{self.port}", "tls": None, "base": str(tmp_path), "home": str(tmp_path),
            "tags": [SPEED, MODE], "may_write": True, "memory_max": 512 << 20, **changes,
        }  # fmt: skip
        self.host = BridgeHost(
            Start(**told), self.latest.value, lambda: self.door, SystemClock(), random.Random(1), self.log, self.metrics
        )

    def publish(self, value: float) -> None:
        batch = Batch(IDS, np.array([value]), uniform_quality(0), uniform_time(77), time.time_ns())
        self.latest.update(batch)
        self.host.publish([batch])

    async def serving(self) -> None:
        await until(lambda: self.host.state == "serving", "the bridge serves", 20)

    async def ask(self, line: str) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(line.encode() + b"\n")
            return json.loads(await asyncio.wait_for(reader.readline(), 10) or "null")
        finally:
            writer.close()


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr("framegate.endpoint.backoff.BACKOFF_FIRST_S", 0.05)
    made = Site(tmp_path)
    made.host._backoff._first_s = 0.05
    made.publish(1.5)
    made.host.start()
    await made.serving()
    yield made
    await made.host.stop()
    assert made.host.state == "stopped"
    assert made.host.pid == 0


async def test_it_shows_what_was_read_before_and_what_is_read_now(stage: Site) -> None:
    await eventually(lambda: stage.ask("get speed"), lambda row: row == [1.5, 0, 77], "the snapshot arrives")
    stage.publish(2.5)
    await eventually(lambda: stage.ask("get speed"), lambda row: row == [2.5, 0, 77], "the new row arrives")
    assert await stage.ask("get mode") is None
    assert await stage.ask("show speed") == [
        "float64", "RW", "plc", "rpm", "of the pump", [0.0, 10.0], [], {"alias": "v"},
    ]  # fmt: skip


async def test_a_write_is_a_command_and_its_outcome_the_answer(stage: Site) -> None:
    assert await stage.ask("set speed 7") == {"outcome": "CONFIRMED", "code": "", "origin": "bridge:b/anna"}
    assert await stage.ask("set speed 70") == {"outcome": "REJECTED", "code": "E4206", "origin": "bridge:b/anna"}
    assert [(each.tag, each.value) for each in stage.door.taken] == [("speed", 7), ("speed", 70)]
    stage.door.is_busy = True
    assert await stage.ask("set speed 7") == {"code": "E4204", "text": "not now"}
    await until(lambda: stage.host.health.writes_total == 3, "the report")
    assert stage.metrics.counter("edge_bridge_writes_total", bridge="b").value == 3
    assert stage.metrics.gauge("edge_bridge_memory_bytes", bridge="b").value > 10 << 20


async def test_it_is_started_again_when_it_dies_and_shows_everything_again(stage: Site) -> None:
    await stage.ask("die")
    await until(lambda: stage.host.restarts == 1, "it is started again")
    assert any("ended with status 3" in each["reason"] for each in stage.log.events("bridge_backoff"))
    await stage.serving()
    await eventually(lambda: stage.ask("get speed"), lambda row: row == [1.5, 0, 77], "the snapshot arrives")


async def test_one_that_hangs_is_ended_and_started_again(stage: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "SILENT_S", 2.0)
    pid = stage.host.pid
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stage.ask("hang"), 0.5)
    await until(lambda: stage.host.restarts == 1, "it is started again")
    assert any("no sign of life" in each["reason"] for each in stage.log.events("bridge_backoff"))
    await stage.serving()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_one_that_wants_too_much_memory_hurts_itself_alone(stage: Site) -> None:
    await stage.ask("eat")  # 2 GiB of a limit of 512 MiB: MemoryError ends the client's task
    assert await stage.ask("get speed") == [1.5, 0, 77]


async def test_rows_are_merged_while_it_stands_still(stage: Site) -> None:
    await eventually(lambda: stage.ask("get speed"), lambda row: row is not None, "the snapshot arrives")
    os.kill(stage.host.pid, signal.SIGSTOP)
    many = [np.arange(1, 3, dtype=np.int32)[:1] for _ in range(50)]
    wide = [Batch(ids, np.array([0.0]), uniform_quality(0), uniform_time(1), 1) for ids in many]
    for number in range(2_000):
        stage.publish(float(number))
        stage.host.publish(wide)
        if number % 100 == 0:
            await asyncio.sleep(0)
    waiting = len(stage.host._feed._waiting)
    os.kill(stage.host.pid, signal.SIGCONT)
    assert waiting <= 51
    stage.publish(42.0)
    await eventually(lambda: stage.ask("get speed"), lambda row: row[0] == 42.0, "the newest row arrives")


async def test_lines_of_a_noisy_library_are_bounded(stage: Site) -> None:
    await stage.ask("shout")
    await until(
        lambda: any(each.get("lines", 0) > 900 for each in stage.log.events("bridge_says")), "most of them are counted"
    )
    assert len(stage.log.events("bridge_says")) < 60


async def test_its_process_has_nothing_open_that_the_gateway_has(tmp_path: Path) -> None:
    """A descriptor that a library made inheritable is a file or a port that a hostile client could reach."""

    async def descriptors() -> int:
        stage = Site(tmp_path)
        stage.host.start()
        await stage.serving()
        try:
            return psutil.Process(stage.host.pid).num_fds()
        finally:
            await stage.host.stop()

    few = await descriptors()
    with contextlib.ExitStack() as stack:
        for number in range(20):
            file = stack.enter_context((tmp_path / f"secret{number}").open("w"))
            os.set_inheritable(file.fileno(), True)
        assert await descriptors() == few


async def test_its_process_is_started_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork of a large process takes milliseconds, in which nothing else is done on its thread."""
    threads: list[str] = []
    popen = subprocess.Popen

    def noted(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        threads.append(threading.current_thread().name)
        return popen(*words, **options)

    monkeypatch.setattr(subprocess, "Popen", noted)
    stage = Site(tmp_path)
    stage.host.start()
    await stage.serving()
    await stage.host.stop()
    assert [name.partition("_")[0] for name in threads] == ["edge-spawn"]


async def test_options_that_cannot_work_are_told_and_tried_again(tmp_path: Path) -> None:
    stage = Site(tmp_path, options={"greeting": "wrong"})
    stage.host.start()
    await until(lambda: stage.host.state == "backoff", "it is refused", 20)
    assert stage.host.error == "E1000 greeting is wrong"
    await stage.host.stop()


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    stage = Site(tmp_path)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", stage.port)
    stage.host.start()
    await until(lambda: stage.host.state == "backoff", "it is refused", 20)
    assert stage.host.error.startswith("E2035 cannot listen")
    await stage.host.stop()
    server.close()


async def test_a_row_without_commands_gives_no_door(tmp_path: Path) -> None:
    stage = Site(tmp_path, may_write=False)
    stage.host.start()
    await stage.serving()
    assert await stage.ask("set speed 7") == "closed"
    await stage.host.stop()


async def test_it_stops_within_its_time_and_can_start_again(stage: Site) -> None:
    began = time.monotonic()
    await stage.host.stop()
    assert time.monotonic() - began < host_module.STOP_S + BUSY_MACHINE_S
    stage.host.start()
    await stage.serving()
    assert await stage.ask("get speed") == [1.5, 0, 77]
