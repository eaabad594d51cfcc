"""A changed table is told, by the kernel's word or by looking."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from framegate.config.watch import Watch
from framegate.endpoint import folder_watch

TOLD_S_MAX = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("endpoints", "drivers", "variables"):
        (tmp_path / f"{name}.yml").write_text("one")
    return tmp_path


@pytest.fixture
def begin(folder: Path) -> Iterator[Callable[[], tuple[threading.Event, list[str]]]]:
    started: list[Watch] = []

    def make() -> tuple[threading.Event, list[str]]:
        told, polling = threading.Event(), list[str]()
        watch = Watch(folder, folder / "rules", told.set, polling.append)
        watch.start()
        started.append(watch)
        return told, polling

    yield make
    for watch in started:
        watch.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "edge-watch"]


def change_until_told(path: Path, told: threading.Event) -> None:
    """The watch may not have begun yet at the first change."""
    for turn in range(int(TOLD_S_MAX / 0.5)):
        aside = path.with_suffix(".tmp")
        aside.write_text(f"more {turn}")
        aside.rename(path)
        if told.wait(0.5):
            return
    pytest.fail(f"a change of {path} was not told within {TOLD_S_MAX:.0f} s")


def test_watch_change_is_told_and_another_file_is_not(folder: Path, begin: Any) -> None:
    told, polling = begin()
    (folder / "notes.txt").write_text("x")
    assert not told.wait(0.5)
    change_until_told(folder / "variables.yml", told)
    assert polling == []


def test_watch_without_inotify_looks_and_says_so_once(
    folder: Path, begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_watches_left(*_: Any, **__: Any) -> Any:
        raise OSError(28, "OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", no_watches_left)
    monkeypatch.setattr(folder_watch, "POLL_S", 0.02)
    told, polling = begin()
    change_until_told(folder / "drivers.yml", told)
    assert len(polling) == 1
    assert "watch limit" in polling[0]


def test_watch_folder_that_was_replaced_is_watched_again(
    folder: Path, begin: Any, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As a deployment that renames a whole folder into place does it: the kernel tells of the old one."""
    listening, listen = threading.Semaphore(0), watchfiles.watch

    def noted(*folders: Path, **options: Any) -> Any:
        listening.release()
        return listen(*folders, **options)

    monkeypatch.setattr(watchfiles, "watch", noted)
    monkeypatch.setattr(folder_watch, "LOOK_S", 0.1)
    told, polling = begin()
    assert listening.acquire(timeout=TOLD_S_MAX)
    fresh = tmp_path_factory.mktemp("fresh")
    (fresh / "drivers.yml").write_text("other")
    folder.rename(folder.with_name("old"))
    fresh.rename(folder)
    assert told.wait(TOLD_S_MAX), "the other tables"
    assert listening.acquire(timeout=TOLD_S_MAX), "the other folder"
    assert polling == []
