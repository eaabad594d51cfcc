"""Packages dropped into the watched folders: taken once they have come to rest, refused with the reason beside them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from framegate.contract.errors import Busy, GatewayError, Misconfigured, StoreFailed
from framegate.endpoint import folder_watch
from framegate.gateway.home import Home
from framegate.gateway.plugins import drops
from framegate.gateway.plugins.drops import taking_drops
from framegate.observe.plugin_face import PluginChangeRecord, StagedRecord
from framegate.testing import plant
from framegate.testing.doors import MemoryAudit
from framegate.testing.fakes import CollectingLog


@dataclass
class Desk:
    """Takes what begins with `good`; what asks and what fails is in the file."""

    staged_files: list[bytes] = field(default_factory=list)
    activated: list[str] = field(default_factory=list)
    troubles: list[GatewayError] = field(default_factory=list)

    async def stage(self, file: Path, by: str) -> StagedRecord:
        data = await asyncio.to_thread(file.read_bytes)
        self.staged_files.append(data)
        if self.troubles:
            raise self.troubles.pop(0)
        if not data.startswith(b"good"):
            raise Misconfigured("acme: not signed by a trusted key", code="E4610")
        asks = ("opens network connections itself",) if b"asks" in data else ()
        return StagedRecord("acme", "2.0", 2, "", "1.0", asks, "5f", by, 0)

    async def activate(self, name: str, accept: str, by: str) -> PluginChangeRecord:
        assert (accept, by) == ("5f", "drop")
        if b"fails" in self.staged_files[-1]:
            raise Misconfigured("the new version does not work: device plc1: silent", code="E4653")
        self.activated.append(name)
        return PluginChangeRecord(name, "1.0", "2.0", (), (), (), (), 0.0, 0.0)


Take = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(drops, "QUIET_S", 0.05)
    monkeypatch.setattr(folder_watch, "LOOK_S", 0.2)
    monkeypatch.setattr(folder_watch, "POLL_S", 0.1)
    folder = tmp_path / "plugins" / "drivers"
    folder.mkdir(parents=True)
    return folder


def names(folder: Path) -> Sequence[str]:
    return sorted(file.name for file in folder.iterdir())


async def test_drop_that_asks_nothing_more_is_in_force_and_gone(folder: Path) -> None:
    desk, audit = Desk(), MemoryAudit()
    async with taking_drops(desk, Home(folder.parents[1]), CollectingLog(), audit):  # type: ignore[arg-type]
        (folder / "acme-2.0.edge").write_bytes(b"good")
        await plant.until(lambda: desk.activated == ["acme"], "the drop to be taken")
        await plant.until(lambda: names(folder) == [], "the file to go")
    assert [(entry.actor, entry.action, entry.target) for entry in audit.entries] == [
        ("drop", "plugins.install", "acme-2.0.edge")
    ]


async def test_drop_of_what_is_active_already_goes_and_is_told(folder: Path) -> None:
    desk, log = Desk(troubles=[Misconfigured("this very package is active already", code="E4662")]), CollectingLog()
    async with taking_drops(desk, Home(folder.parents[1]), log, None):  # type: ignore[arg-type]
        (folder / "acme-2.0.edge").write_bytes(b"good")
        await plant.until(lambda: names(folder) == [], "the file to go")
    assert desk.activated == []
    assert [line[1:] for line in log.lines] == [("plugin_drop_active_already", {"file": "acme-2.0.edge"})]


async def test_drop_that_lay_there_before_the_start_is_taken(folder: Path) -> None:
    desk = Desk()
    (folder / "acme-2.0.edge").write_bytes(b"good")
    async with taking_drops(desk, Home(folder.parents[1]), CollectingLog(), None):  # type: ignore[arg-type]
        await plant.until(lambda: desk.activated == ["acme"], "the drop to be taken")


async def test_drop_that_asks_more_is_staged_and_not_activated(folder: Path) -> None:
    desk = Desk()
    async with taking_drops(desk, Home(folder.parents[1]), CollectingLog(), None):  # type: ignore[arg-type]
        (folder / "acme-2.0.edge").write_bytes(b"good, asks")
        await plant.until(lambda: bool(desk.staged_files), "it to be staged")
        await asyncio.sleep(0.3)
    assert desk.activated == []
    assert len(desk.staged_files) == 1
    assert names(folder) == ["acme-2.0.edge"]  # at the next start it waits again


@pytest.mark.parametrize("first", [b"good", b"good, fails"])
async def test_drop_that_comes_while_one_of_its_name_is_taken_is_taken_next(folder: Path, first: bytes) -> None:
    file = folder / "acme.edge"

    class Slow(Desk):
        async def activate(self, name: str, accept: str, by: str) -> PluginChangeRecord:
            if len(self.staged_files) == 1:
                file.with_suffix(".new").write_bytes(b"good, newer")
                file.with_suffix(".new").replace(file)
            return await Desk.activate(self, name, accept, by)

    desk = Slow()
    async with taking_drops(desk, Home(folder.parents[1]), CollectingLog(), None):  # type: ignore[arg-type]
        file.write_bytes(first)
        await plant.until(lambda: b"good, newer" in desk.staged_files, "the newer drop to be taken")
        await plant.until(lambda: names(folder) == [], "the file to go")
    assert desk.staged_files == [first, b"good, newer"]


@pytest.mark.parametrize(("data", "reason"), [(b"bad", "not signed"), (b"good, fails", "device plc1: silent")])
async def test_drop_that_is_refused_lies_aside_with_its_reason_and_is_not_tried_again(
    folder: Path, data: bytes, reason: str
) -> None:
    desk = Desk()
    async with taking_drops(desk, Home(folder.parents[1]), CollectingLog(), None):  # type: ignore[arg-type]
        (folder / "acme-2.0.edge").write_bytes(data)
        await plant.until(lambda: any("txt" in name for name in names(folder)), "it to be refused")
        await asyncio.sleep(0.5)
    assert len(desk.staged_files) == 1
    told = folder / "acme-2.0.edge.refused.txt"
    assert reason in told.read_text()


async def test_drop_that_is_still_being_copied_is_not_looked_at(folder: Path) -> None:
    desk = Desk()
    file = folder / "acme-2.0.edge"
    async with taking_drops(desk, Home(folder.parents[1]), CollectingLog(), None):  # type: ignore[arg-type]
        with file.open("wb") as half:
            for _ in range(20):
                half.write(b"good")
                half.flush()
                await asyncio.sleep(0.02)
        await plant.until(lambda: desk.activated == ["acme"], "the drop to be taken")
    assert desk.staged_files == [b"good" * 20]


@pytest.mark.parametrize("error", [Busy("another", wait_s=1.0, code="E4661"), StoreFailed("full", code="E4624")])
async def test_drop_that_cannot_be_taken_now_is_taken_later(folder: Path, error: GatewayError) -> None:
    desk, log = Desk(troubles=[error, error]), CollectingLog()
    async with taking_drops(desk, Home(folder.parents[1]), log, None):  # type: ignore[arg-type]
        (folder / "acme-2.0.edge").write_bytes(b"good")
        await plant.until(lambda: desk.activated == ["acme"], "the drop to be taken")
    assert [line[1] for line in log.lines] == ["plugin_drop_put_off"]


async def test_links_pipes_and_other_files_are_left_alone(folder: Path) -> None:
    desk = Desk()
    (folder.parent / "elsewhere").write_bytes(b"good")
    (folder / "link.edge").symlink_to(folder.parent / "elsewhere")
    os.mkfifo(folder / "pipe.edge")
    (folder / "notes.txt").write_bytes(b"good")
    (folder / "acme").mkdir()
    async with taking_drops(desk, Home(folder.parents[1]), CollectingLog(), None):  # type: ignore[arg-type]
        await asyncio.sleep(0.5)
    assert desk.staged_files == []


async def test_folder_that_comes_later_is_watched(folder: Path) -> None:
    desk = Desk()
    async with taking_drops(desk, Home(folder.parents[1]), CollectingLog(), None):  # type: ignore[arg-type]
        await asyncio.to_thread(folder.rmdir)
        await asyncio.sleep(0.1)
        await asyncio.to_thread(folder.mkdir)
        (folder / "acme-2.0.edge").write_bytes(b"good")
        await plant.until(lambda: desk.activated == ["acme"], "the drop to be taken")


async def test_folders_are_made_where_there_are_none(tmp_path: Path) -> None:
    async with taking_drops(Desk(), Home(tmp_path), CollectingLog(), None):  # type: ignore[arg-type]
        assert sorted(path.name for path in (tmp_path / "plugins").iterdir()) == sorted(drops.FOLDERS)


async def test_kernel_that_cannot_tell_folders_are_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("no watches left")

    monkeypatch.setattr("framegate.endpoint.folder_watch.watchfiles.watch", broken)
    desk, log = Desk(), CollectingLog()
    async with taking_drops(desk, Home(folder.parents[1]), log, None):  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        (folder / "acme-2.0.edge").write_bytes(b"good")
        await plant.until(lambda: desk.activated == ["acme"], "the drop to be taken")
    assert log.lines[0][1] == "plugin_drops_polling"
