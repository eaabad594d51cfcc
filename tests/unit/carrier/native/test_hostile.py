from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from framegate.carrier.child.wire import BEAT_S, HEADER, PACKET_BYTES_MAX, Message
from framegate.carrier.crashes import CRASHES_MAX
from framegate.carrier.remote import calls, child_process, spawn
from framegate.carrier.remote.child_process import ChildProcess
from framegate.carrier.remote.utterances import LINES_PER_MINUTE_MAX
from framegate.contract.command import Outcome
from framegate.contract.errors import Misconfigured, NotConnected
from framegate.contract.frame import ValueType
from framegate.contract.plugin import Permissions
from framegate.testing import plant
from framegate.testing.fakes import CollectingLog, rows_in
from tests.unit.carrier.native.conftest import childless, tag

if TYPE_CHECKING:
    from tests.unit.carrier.native.conftest import Stage, Told

MANNER = tag(30, ValueType.INT64)
HANGS = (4, 5)
SHORT_SILENCE_S = 0.7
TAGS = [MANNER, tag(10), tag(12, ValueType.STRING)]


async def fails(stage: Stage, tell: Told, manner: int, **options: Any) -> NotConnected:
    """What a read raises once the driver behaves so."""
    driver = await stage.opened(**options)
    plan = driver.plan(TAGS)
    await tell(driver, TAGS, t30=manner)
    with pytest.MonkeyPatch.context() as patch:
        if manner in HANGS:  # shorter for this call alone: a busy machine needs its time for the others
            patch.setattr(child_process, "SILENT_S", SHORT_SILENCE_S)
        with pytest.raises(NotConnected) as caught:
            await driver.read(plan)
    with pytest.raises(NotConnected) as again:
        await driver.read(plan)
    assert again.value.text == caught.value.text
    await driver.open(stage.context)  # a fresh process
    assert len(await driver.read(plan)) == 3
    return caught.value


@pytest.mark.parametrize(("manner", "words"), [(1, "SIGSEGV"), (2, "SIGABRT"), (3, "ended with status 0")])
async def test_crash_is_told_at_once_with_its_signal(stage: Stage, tell: Told, manner: int, words: str) -> None:
    started = time.monotonic()
    error = await fails(stage, tell, manner)
    assert (error.stable_code, words in error.text) == ("E4510", True), error
    assert time.monotonic() - started < 5.0


@pytest.mark.parametrize("manner", HANGS, ids=["deadlock", "busy loop"])
async def test_hang_is_ended_within_three_seconds(stage: Stage, tell: Told, manner: int) -> None:
    assert calls.SILENT_S + BEAT_S <= 3.0
    error = await fails(stage, tell, manner)
    assert (error.stable_code, "did not answer within 0.7 s" in error.text) == ("E4511", True)


async def test_memory_bomb_meets_its_limit_and_the_gateway_keeps_its_own(stage: Stage, tell: Told) -> None:
    error = await fails(stage, tell, 6, permissions=Permissions(memory=32 << 20))
    assert "SIGABRT" in error.text


@pytest.mark.parametrize("manner", [8, 9, 10], ids=["foreign tag", "too many rows", "a tag twice"])
async def test_rows_that_cannot_be_end_the_process(stage: Stage, tell: Told, manner: int) -> None:
    assert (await fails(stage, tell, manner)).stable_code == "E4512"


async def test_flood_of_stderr_is_bounded_and_counted(stage: Stage, tell: Told) -> None:
    driver = await stage.opened()
    plan = driver.plan(TAGS)
    await tell(driver, TAGS, t30=7)
    used = time.process_time()
    with contextlib.suppress(NotConnected):  # too slow to write all of it in time
        await driver.read(plan)
    assert time.process_time() - used < 1.0
    await driver.close()
    said = len(stage.log.events("driver_says"))
    assert said <= 2 * LINES_PER_MINUTE_MAX  # a minute may end meanwhile
    assert sum(line["lines"] for line in stage.log.events("driver_lines_left_out")) > 10_000


async def test_flood_of_log_lines_is_bounded(stage: Stage, tell: Told) -> None:
    driver = await stage.opened()
    plan = driver.plan(TAGS)
    await tell(driver, TAGS, t30=19)
    for _ in range(10):
        await driver.read(plan)
    assert len(stage.log.events("driver_says")) <= 2 * LINES_PER_MINUTE_MAX


async def test_confined_driver_reaches_nothing(stage: Stage, tell: Told) -> None:
    os.environ["EDGE_SECRET"] = "not for everybody"
    driver = await stage.opened()
    plan = driver.plan(TAGS)
    if stage.log.events("driver_confined_in_part"):
        pytest.skip("this machine cannot confine all of it")
    assert [result.outcome for result in await tell(driver, TAGS, t10=-1.0)] == [Outcome.CONFIRMED]
    rows = {row[0]: row[1] for batch in await driver.read(plan) for row in rows_in(batch)}
    assert rows[12] == "0"


async def test_driver_reaches_what_it_is_granted_and_no_more(stage: Stage, tell: Told) -> None:
    stage.home = Path("/tmp")
    driver = await stage.opened(permissions=Permissions(network="own", home=True))
    plan = driver.plan(TAGS)
    if stage.log.events("driver_confined_in_part"):
        pytest.skip("this machine cannot confine all of it")
    await tell(driver, TAGS, t10=-1.0)
    rows = {row[0]: row[1] for batch in await driver.read(plan) for row in rows_in(batch)}
    assert rows[12] == str(2 | 32 | 2048 | 4096)  # a socket, any address on it, and a file in its folder


async def test_crash_while_writing_leaves_the_outcome_unknown(stage: Stage, tell: Told) -> None:
    driver = await stage.opened()
    driver.plan(TAGS)
    results = await tell(driver, TAGS, t30=100)
    assert [(result.outcome, "SIGSEGV" in result.reason) for result in results] == [(Outcome.UNKNOWN, True)]
    again = await tell(driver, TAGS, t10=1.0)
    assert [result.outcome for result in again] == [Outcome.NOT_SENT]


async def test_crash_in_create_is_not_connected(stage: Stage) -> None:
    with pytest.raises(NotConnected) as caught:
        await stage.driver({"crash_create": True}).open(stage.context)
    assert "SIGABRT" in caught.value.text


async def test_crash_loop_parks_the_driver_and_is_logged_once(stage: Stage, tell: Told) -> None:
    driver = stage.driver({"crash_create": True})
    for _ in range(CRASHES_MAX):
        with pytest.raises(NotConnected):
            await driver.open(stage.context)
    for _ in range(2):
        with pytest.raises(Misconfigured) as caught:
            await driver.open(stage.context)
        assert caught.value.stable_code == "E4500"
    assert len(stage.log.events("driver_crash_loop")) == 1


async def test_process_has_nothing_of_the_gateway_open(stage: Stage) -> None:
    secret = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(secret, True)
    driver = await stage.opened()
    os.close(secret)
    (child,) = psutil.Process().children()
    assert open_in(child.pid) == {"/dev/null", "pipe", "socket"}
    assert "HOME" not in child.environ()
    await driver.close()


async def test_process_has_what_its_threads_need_to_end(stage: Stage) -> None:
    driver = await stage.opened()
    (child,) = psutil.Process().children()
    assert any("/libgcc_s.so" in region.path for region in child.memory_maps()), "it may open nothing any more"
    await driver.close()


def open_in(pid: int) -> set[str]:
    return {str(link.readlink()).partition(":")[0] for link in Path(f"/proc/{pid}/fd").iterdir()}


@pytest.mark.parametrize("turns", [0, 1, 5, 50])
async def test_start_that_is_cancelled_leaves_nothing(stage: Stage, turns: int) -> None:
    me = psutil.Process()
    descriptors = me.num_fds()
    opening = asyncio.ensure_future(stage.driver().open(stage.context))
    for _ in range(turns):
        await asyncio.sleep(0.0005)
    opening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await opening
    await childless()
    async with asyncio.timeout(5):
        while me.num_fds() > descriptors:  # noqa: ASYNC110 - the thread that starts processes may be about to close some
            await asyncio.sleep(0.01)


async def test_nothing_is_left_behind(stage: Stage, tell: Told) -> None:
    me = psutil.Process()
    descriptors, children = me.num_fds(), len(me.children())
    driver = stage.driver()
    plan = driver.plan(TAGS)
    for _ in range(3):
        await driver.open(stage.context)
        await driver.read(plan)
    await tell(driver, TAGS, t30=1)
    with pytest.raises(NotConnected):
        await driver.read(plan)
    await driver.close()
    await plant.until(lambda: me.num_fds() <= descriptors and len(me.children()) <= children, "nothing to be left")


def packet(kind: int, *, is_more: int = 0, call: int = 0, status: int = 0, rows: int = 0, body: bytes = b"") -> bytes:
    return HEADER.pack(kind, is_more, 0, call, status, rows) + body


HELLO = packet(Message.HELLO)
LIES = {
    "short": [(b"\x01", 1)],
    "unknown": [(packet(99), 1)],
    "answer to nothing": [(packet(Message.DONE, call=7), 1)],
    "small pieces": [(packet(Message.DONE, call=1, is_more=1, body=b"x"), 1)],
    "endless": [(packet(Message.DONE, call=1, is_more=1), 300)],
    "beats": [(packet(Message.BEAT), 2000)],
    "hello twice": [(HELLO, 1)],
}
"""What a process says in answer to its first call: packets, and how often; in "endless" each is made full size."""


@pytest.mark.parametrize("lie", LIES, ids=list(LIES))
async def test_process_that_lies_is_ended(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size = PACKET_BYTES_MAX if lie == "endless" else 0
    script = f"""
import socket, sys, time
gateway = socket.socket(fileno=int(sys.argv[2]))
gateway.send({HELLO!r})
gateway.recv(100)
for packet, times in {LIES[lie]!r}:
    for _ in range(times):
        gateway.send(packet.ljust({size}, bytes(1)))
time.sleep(20)
"""
    monkeypatch.setattr(spawn, "BEGIN", script.replace("{", "{{").replace("}", "}}"))
    crashes: list[str] = []
    process = ChildProcess("", "meter1", CollectingLog(), crashes.append)
    await process.start()
    with pytest.raises(NotConnected) as caught:
        await process.call(Message.CONNECT, budget_s=10.0)
    assert (caught.value.stable_code, len(crashes)) == ("E4512", 1)
    await process.end()


async def test_process_without_a_hello_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "BEGIN", "import time; time.sleep(20)")
    monkeypatch.setattr(child_process, "HELLO_S", 0.2)
    process = ChildProcess("", "meter1", CollectingLog(), lambda _: None)
    with pytest.raises(NotConnected) as caught:
        await process.start()
    assert caught.value.stable_code == "E4511"
    await process.end()
