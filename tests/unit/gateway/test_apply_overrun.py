"""A change that never gets ready is given up: what comes next is carried out, and nothing of the process is kept."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from framegate.config import history, validate
from framegate.config.explain import Finding
from framegate.config.source import read_table
from framegate.contract.errors import Busy, Misconfigured
from framegate.gateway import apply
from framegate.testing import plant
from tests.unit.gateway.conftest import House

HANGS = "import sys; sys.acme_held.wait(10)"
READY_S = 0.3


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What a module that hangs waits for, and time for changes that is soon over."""
    event = threading.Event()
    monkeypatch.setattr(sys, "acme_held", event, raising=False)
    monkeypatch.setattr(apply, "READY_S_MAX", READY_S)
    yield event
    event.set()


def process() -> tuple[bool, float]:
    """What a change sets for the whole process."""
    return gc.isenabled(), sys.getswitchinterval()


async def test_plugin_whose_import_never_ends_is_thrown_away_and_another_one_comes_in(
    house: House, held: threading.Event
) -> None:
    before = process()
    with pytest.raises(Misconfigured, match=r"plugin acme 2\.0: not ready within 0\.3 s") as caught:
        await house.install(2, module=HANGS)
    assert caught.value.stable_code == "E4643"
    assert process() == before
    await house.reads(1)
    assert "E4643" in house.trashed()["2.0"]
    assert house.desk.staged() == []
    (told,) = house.log.events("config_thread_left")
    assert (told["what"], told["left"]) == ("plugin acme 2.0", 1)
    assert (await house.install(3)).version == "3.0"
    await house.reads(3)
    held.set()
    await plant.until(lambda: not left(), "the thread that was left behind to end")
    await house.reads(3)


async def test_roll_back_to_a_plugin_whose_import_never_ends_leaves_what_runs(
    house: House, held: threading.Event
) -> None:
    held.set()
    await house.install(2, module=HANGS)
    await house.install(3)
    held.clear()
    with pytest.raises(Misconfigured) as caught:
        await house.desk.roll_back("acme", "anna")
    assert caught.value.stable_code == "E4643"
    await house.reads(3)
    assert [row.version for row in house.store.active()] == ["3.0"]


async def test_table_that_never_ends_is_given_up_and_the_next_change_is_taken(
    house: House, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, before = house.gateway.home.config / "variables.yml", process()

    def from_a_dead_disk(folder: Path, table: str) -> bytes | Finding:
        held.wait(10)
        return read_table(folder, table)

    for module in history, validate:
        monkeypatch.setattr(module, "read_table", from_a_dead_disk)
    await house.applier.take_files()
    assert "E4643" in house.applier.health.problem
    with pytest.raises(Misconfigured, match="not ready") as caught:
        await house.applier.apply("anna", "why not")
    assert caught.value.stable_code == "E4643"
    assert len(house.log.events("config_unread")) == 1
    held.set()
    await plant.until(lambda: not left(), "both threads to end")
    table.write_bytes(table.read_bytes().replace(b"tag: d0.t", b"unit: bar, tag: d0.t"))
    await house.applier.take_files()
    assert (house.applier.generation, house.applier.health.problem) == (2, "")
    assert process() == before


async def test_changes_that_never_end_are_borne_in_a_number_and_then_refused(
    house: House, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "READY_S_MAX", 0.05)

    async def hang() -> None:
        await house.applier.otherwise("it", lambda *_: held.wait(10), nothing)

    for _ in range(apply.LEFT_BEHIND_MAX):
        with pytest.raises(Misconfigured):
            await hang()
    with pytest.raises(Busy, match="restart the gateway") as caught:
        await hang()
    assert caught.value.stable_code == "E4644"
    assert len(left()) == apply.LEFT_BEHIND_MAX
    held.set()
    await plant.until(lambda: not left(), "all of them to end")
    await house.applier.otherwise("it", lambda *_: None, nothing)


async def nothing(_: object) -> None:
    await asyncio.sleep(0)


def left() -> list[threading.Thread]:
    """Threads of changes beside the one of the applier."""
    return [thread for thread in threading.enumerate() if thread.name == "edge-config"][1:]
