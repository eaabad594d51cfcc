"""The desk for dead letters over a scripted outbox: one at a time, kept until the remote has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from framegate.bus.letters import LetterBook
from framegate.bus.rocks import RocksDisk
from framegate.contract.errors import Busy, DeviceRefused, NotConnected, PayloadRefused
from framegate.contract.letter import DeadLetter
from framegate.gateway.letters import LetterDesk
from framegate.northbound.outbox import Outbox
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import CollectingLog, FakeClock


class ScriptedOutbox:
    """Takes letters, or raises what the test says; `gate` holds it up."""

    def __init__(self) -> None:
        self.taken: list[DeadLetter] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def resend(self, letter: DeadLetter) -> None:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.taken.append(letter)


class Desk(LetterDesk):
    """A desk with everything around it; `keep` also writes."""

    def __init__(self, folder: Path) -> None:
        self.disk = RocksDisk(folder / "store", 1 << 20, create=True)
        self.book = LetterBook(self.disk)
        self.book.on_change = lambda: self.disk.write(self.book.take_changes())
        self.outbox, self.log, self.metrics = ScriptedOutbox(), CollectingLog(), Metrics()
        outboxes = cast(Mapping[str, Outbox], {"cloud": self.outbox, "other": self.outbox})
        super().__init__(self.book, outboxes, FakeClock(), self.log, self.metrics)

    def count(self, outcome: str) -> int:
        return self.metrics.counter("edge_dead_letters_resent_total", connector="cloud", outcome=outcome).value


@pytest.fixture
async def desk(tmp_path: Path, make_letter: Callable[..., DeadLetter]) -> Desk:
    desk = Desk(tmp_path)
    for letter in (make_letter(1), make_letter(2), make_letter(1, "other"), make_letter(1, "gone")):
        desk.book.keep(letter)
    return desk


async def test_letter_that_the_remote_takes_goes(desk: Desk, make_letter: Callable[..., DeadLetter]) -> None:
    assert await desk.retry("cloud/1") is None
    assert desk.outbox.taken == [make_letter(1)]
    assert [row.id for row in desk.rows("", "", 10)] == ["cloud/2", "gone/1", "other/1"]
    assert desk.count("taken") == 1
    assert desk.log.events("dead_letter_resent") == [{"connector": "cloud", "pos": 1, "rows": 1, "tries": 7}]


async def test_letter_that_the_remote_refuses_again_stays_with_one_more_try(
    desk: Desk, make_letter: Callable[..., DeadLetter]
) -> None:
    desk.outbox.error = PayloadRefused("still no", code="E5107")
    left = await desk.retry("cloud/1")
    assert left is not None
    assert (left.tries, left.reason) == (7, "E5107 still no")
    tried_ns = desk.letter("cloud/1").tried_ns
    assert desk.letter("cloud/1") == replace(make_letter(1), tries=7, reason="E5107 still no", tried_ns=tried_ns)
    assert desk.count("refused") == 1


async def test_letter_that_cannot_be_sent_stays_as_it_was(desk: Desk, make_letter: Callable[..., DeadLetter]) -> None:
    desk.outbox.error = NotConnected("away", code="E2405")
    with pytest.raises(NotConnected, match="E2405"):
        await desk.retry("cloud/1")
    assert desk.letter("cloud/1") == make_letter(1)
    desk.outbox.error = None
    assert await desk.retry("cloud/1") is None, "and may be sent later"


async def test_letter_of_a_connector_that_does_not_run_stays(desk: Desk) -> None:
    with pytest.raises(NotConnected, match="E2405 letter gone/1: connector gone does not run"):
        await desk.retry("gone/1")


async def test_letters_of_one_connector_go_one_at_a_time(desk: Desk) -> None:
    desk.outbox.gate.clear()
    first = asyncio.create_task(desk.retry("cloud/1"))
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="E4023"):
        await desk.retry("cloud/2")
    other = asyncio.create_task(desk.retry("other/1"))
    await asyncio.sleep(0)
    desk.outbox.gate.set()
    assert [await first, await other, await desk.retry("cloud/2")] == [None, None, None]


async def test_letter_dropped_while_it_is_refused_does_not_come_back(desk: Desk) -> None:
    desk.outbox.error = PayloadRefused("no")
    desk.outbox.gate.clear()
    retry = asyncio.create_task(desk.retry("cloud/1"))
    await asyncio.sleep(0)
    desk.drop("cloud/1")
    desk.outbox.gate.set()
    assert await retry is None
    with pytest.raises(DeviceRefused, match="E4019"):
        desk.letter("cloud/1")


@pytest.mark.parametrize("id_", ["", "cloud", "cloud/", "cloud/x", "cloud/-1", "/1", "cloud/9", f"cloud/{'9' * 4000}"])
async def test_unknown_letter_is_named(id_: str, desk: Desk) -> None:
    for ask in (desk.letter, desk.drop):
        with pytest.raises(DeviceRefused, match="E4019"):
            ask(id_)
